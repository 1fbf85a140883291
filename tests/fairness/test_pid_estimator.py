"""The decomposition of decisions over clients: rows in, parts and their tables out."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    MissingSensitiveFeatureError,
    ProbabilityRangeError,
    SensitiveFeatureError,
    SingleGroupError,
    SmallGroupError,
    SmallSampleWarning,
    UtilityWarning,
)
from privfair.fairness import PIDDisparity, pid_from_joint
from privfair.fairness.pid._data import OTHER_CLIENTS, tabulate
from privfair.fairness.pid._gaps import gap_bound, information_of, parity_gap
from privfair.fairness.pid._uncertainty import PARTS
from tests.fairness.pid_tables import logic_table, opposed_clients

FAST = {"n_resamples": 50, "random_state": 0}


def simulated(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 3, n)
    z = (rng.random(n) < np.array([0.3, 0.5, 0.6])[s]).astype(int)
    y = (rng.random(n) < 0.2 + 0.2 * z + 0.1 * s).astype(int)
    return y, z, s


def rows_of(table, n=400):
    """Rows whose shares are a table (z, yhat, s) exactly."""
    counts = np.rint(np.asarray(table) * n).astype(int)
    z, y, s = np.repeat(np.indices(counts.shape).reshape(3, -1), counts.reshape(-1), axis=1)
    return y, z, s


def fit(y, z, s, **options):
    data = {k: options.pop(k) for k in ("sample_weight", "y_true") if k in options}
    return PIDDisparity(**{**FAST, **options}).fit(y, sensitive_features=z, client=s, **data)


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        ("decision", (1, 0, 0)),
        ("all", (0, 1, 0)),
        ("xor", (0, 0, 1)),
        ("and", (0, 0.311278, 0.5)),
    ],
)
def test_closed_forms_from_rows(rule, parts):
    found = fit(*rows_of(logic_table(rule)))
    got = (found.unique_, found.redundant_, found.masked_)
    assert got == pytest.approx(parts, abs=1e-6)


def test_two_clients_that_cancel():
    found = fit(*rows_of(opposed_clients()))
    assert found.masked_ == pytest.approx(0.0659319, abs=1e-7)
    assert found.global_disparity_ == pytest.approx(0, abs=1e-12)
    assert found.client_table_["gap"].tolist() == pytest.approx([0.3, 0.3])
    assert found.to_dict()["parity_gap"] == pytest.approx(0, abs=1e-12)


def test_rows_give_what_their_joint_gives():
    y, z, s = simulated()
    joint = np.zeros((2, 2, 3))
    np.add.at(joint, (z, y, s), 1 / len(y))
    want = pid_from_joint(joint)
    found = fit(y, z, s)
    for name in PARTS:
        assert getattr(found, f"{name}_") == pytest.approx(float(getattr(want, name)), abs=1e-12)
    assert found.counts_.sum() == found.n_ == len(y)
    assert (found.counts_ == np.rint(joint * len(y))).all()
    assert found.classes_ == {"z": ("0", "1"), "yhat": (0, 1), "s": (0, 1, 2)}
    mean = found.local_by_client_ @ found.client_table_["share"]
    assert mean == pytest.approx(found.local_disparity_, abs=1e-12)
    assert found.method_ == "exact"
    assert 0 <= found.certificate_gap_ < 1e-9


@pytest.mark.parametrize("kind", ["list", "series", "string", "polars", "category", "frame"])
def test_inputs_of_any_library(kind):
    y, z, s = simulated(600)
    names = np.array(["female", "male"])[z]
    sites = np.array(["north", "south", "west"])[s]
    want = fit(y, z, s)
    import polars as pl

    convert = {
        "list": (y.tolist(), names.tolist(), sites.tolist()),
        "series": (pd.Series(y), pd.Series(names), pd.Series(sites)),
        "string": (pd.Series(y), pd.Series(names, dtype="string"), pd.Series(sites, dtype="str")),
        "polars": (pl.Series(y), pl.Series(names), pl.Series(sites)),
        "category": (y.astype(bool), pd.Categorical(names), pd.Series(sites, dtype="category")),
        "frame": (y.astype(float), pd.DataFrame({"sex": names}), sites),
    }[kind]
    found = fit(*convert)
    assert found.unique_ == want.unique_
    assert found.ci_ == want.ci_
    assert found.classes_["s"] == ("north", "south", "west")


def test_order_of_rows_and_names_do_not_matter():
    y, z, s = simulated(900)
    order = np.random.default_rng(1).permutation(len(y))
    a, b = fit(y, z, s), fit(y[order], 1 - z[order], np.array([7, 3, 5])[s][order])
    for name in PARTS:
        assert getattr(a, f"{name}_") == pytest.approx(getattr(b, f"{name}_"), abs=1e-12)
        assert a.se_[name] == pytest.approx(b.se_[name], abs=1e-12)


def test_one_client_has_only_a_unique_part():
    y, z, _ = simulated(800)
    found = fit(y, z, np.zeros(800))
    assert found.redundant_ == pytest.approx(0, abs=1e-12)
    assert found.masked_ == pytest.approx(0, abs=1e-12)
    assert found.unique_ == pytest.approx(found.global_disparity_, abs=1e-12)
    assert found.unique_ > 0.01
    assert found.corrected_["unique"] == pytest.approx(found.corrected_["global_disparity"])


def test_one_decision_gives_zeros_and_a_warning():
    _, z, s = simulated(500)
    with pytest.warns(UtilityWarning, match="one decision only"):
        found = fit(np.ones(500, dtype=int), z, s)
    assert [getattr(found, f"{name}_") for name in ("unique", "redundant", "masked")] == [0, 0, 0]
    assert math.isnan(found.to_dict()["g_test"]["global_p_value"] or math.nan)


def test_clients_that_add_nothing_are_listed():
    y, z, s = simulated(900)
    z = np.where(s == 1, 0, z)
    y = np.where(s == 2, 1, y)
    found = fit(y, z, s)
    assert found.client_table_["silent"].tolist() == ["", "one group only", "one decision only"]
    assert (found.local_by_client_[1:] == 0).all()
    assert any("one group or one decision only: 2" in t for t in found.to_dict()["statements"])


# --- data -----------------------------------------------------------------------------------


def test_scores_at_a_threshold_and_in_bins():
    rng = np.random.default_rng(3)
    _, z, s = simulated(2000)
    score = np.clip(rng.normal(0.4 + 0.15 * z, 0.2), 0, 1)
    plain = fit(score, z, s)
    assert plain.edges_ == (0.5,)
    assert plain.global_disparity_ == fit((score >= 0.5).astype(int), z, s).global_disparity_
    fine = fit(score, z, s, bins=10)
    assert len(fine.edges_) == 9
    sizes = fine.counts_.sum(axis=(0, 2))
    assert sizes.min() > 0.8 * 200
    # A coarser view of the same scores can only show less.
    half = fit(score, z, s, bins=fine.edges_[1::2])
    for name in ("global_disparity_", "local_disparity_", "unique_"):
        assert getattr(half, name) <= getattr(fine, name) + 1e-12
    assert any("Binning can only lower G, L and U" in t for t in fine.to_dict()["statements"])


def test_ties_are_in_one_bin_and_a_constant_client_is_in_its_cell():
    score = np.array([0.1] * 60 + [0.5] * 200 + [0.9] * 40)
    table = tabulate(
        score, sensitive_features=[0, 1] * 150, client=["a"] * 60 + ["b"] * 240, bins=4
    )
    cells = table.counts.sum(axis=(0, 1))
    assert sorted(cells.sum(axis=1).tolist()) == [60, 240]
    assert (cells[:, 0] > 0).sum() == 1


def test_declared_categories_keep_their_cells_and_leave_others_out():
    y, z, s = simulated(500)
    table = tabulate(
        y, sensitive_features=z, client=s, groups=[1, 0], clients=[2, 9, 0], decisions=[1, 0, 5]
    )
    assert table.counts.shape == (1, 2, 3, 3)
    assert table.excluded == int((s == 1).sum())
    assert table.counts[0, 0, 0, 0] == ((z == 1) & (y == 1) & (s == 2)).sum()
    assert table.counts[0, :, 2].sum() == table.counts[0, :, :, 1].sum() == 0


def test_small_clients_are_merged():
    y, z, s = simulated(500)
    s = np.where(np.arange(500) < 8, 10 + np.arange(500), s)
    found = fit(y, z, s, merge_clients_below=10)
    assert found.classes_["s"] == (0, 1, 2, OTHER_CLIENTS)
    assert found.counts_[..., 3].sum() == 8
    assert found.to_dict()["merged_clients"] == 8
    with pytest.raises(InvalidParameterError, match="rename"):
        fit(y, z, np.where(s < 3, "a", OTHER_CLIENTS), merge_clients_below=10)


def test_whole_weights_are_repeated_rows_in_value_but_not_in_precision():
    y, z, s = simulated(1500)
    weight = np.random.default_rng(2).integers(0, 4, 1500)
    again = np.repeat(np.arange(1500), weight)
    weighted = fit(y, z, s, sample_weight=weight.astype(float))
    repeated = fit(y[again], z[again], s[again])
    for name in PARTS:
        w, r = getattr(weighted, f"{name}_"), getattr(repeated, f"{name}_")
        assert w == pytest.approx(r, abs=1e-12)
        assert weighted.se_[name] > repeated.se_[name]
    same = fit(y, z, s, sample_weight=np.full(1500, 2.5))
    plain = fit(y, z, s)
    assert same.se_["unique"] == pytest.approx(plain.se_["unique"])
    assert same.corrected_ == pytest.approx(plain.corrected_)


def test_a_condition_gives_the_mean_over_the_strata():
    y, z, s = simulated(2000)
    label = np.random.default_rng(5).integers(0, 2, 2000)
    found = fit(y, z, s, y_true=label, condition="y")
    assert found.counts_.shape == (2, 2, 2, 3)
    assert found.classes_["y"] == (0, 1)
    for name in ("unique", "redundant", "masked", "global_disparity", "local_disparity"):
        mean = sum(
            (label == v).mean() * getattr(fit(*(a[label == v] for a in (y, z, s))), f"{name}_")
            for v in (0, 1)
        )
        assert getattr(found, f"{name}_") == pytest.approx(mean, abs=1e-12)
    strata = [parity_gap(found.counts_[v].sum(axis=-1).astype(float)) for v in (0, 1)]
    assert found.to_dict()["parity_gap"] == pytest.approx(max(strata))


# --- errors ---------------------------------------------------------------------------------

Y, Z, S = simulated(300)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"client": S[:-1]}, LengthMismatchError, "same number of rows"),
        ({"sensitive_features": Z[:-1]}, LengthMismatchError, "same number of rows"),
        ({"sample_weight": np.ones(299)}, LengthMismatchError, "same number of rows"),
        ({"client": None}, InvalidParameterError, "client is None"),
        ({"sensitive_features": None}, SensitiveFeatureError, "sensitive_features is None"),
        ({"y_pred": np.where(Y, np.nan, 0.0)}, LabelError, "y_pred has .* missing"),
        ({"client": np.where(S, np.nan, 0.0)}, LabelError, "client has .* missing"),
        ({"client": S + 0.5}, LabelError, "fractional"),
        ({"y_pred": np.where(Y, np.inf, 0.0)}, LabelError, "inf"),
        (
            {"sensitive_features": np.where(Z, np.nan, 0.0)},
            MissingSensitiveFeatureError,
            "missing values",
        ),
        ({"sensitive_features": np.linspace(0, 1, 300)}, SensitiveFeatureError, "cuts="),
        ({"sensitive_features": np.zeros(300)}, SingleGroupError, "one value in all rows"),
        ({"sample_weight": -np.ones(300)}, DataError, "non-negative"),
        ({"sample_weight": np.zeros(300)}, DataError, "zero in every row"),
        ({"y_pred": Y * 2.5 + 0.1}, ProbabilityRangeError, "outside"),
        ({"y_pred": np.arange(300)}, LabelError, "300 different values"),
        ({"y_pred": [], "sensitive_features": [], "client": []}, DataError, "no rows"),
    ],
)
def test_bad_rows_each_have_their_error(change, error, says):
    data = {"y_pred": Y, "sensitive_features": Z, "client": S} | change
    with pytest.raises(error, match=says) as found:
        PIDDisparity(**FAST).fit(data.pop("y_pred"), **data)
    assert isinstance(found.value, ValueError)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"bins": 1}, InvalidParameterError, "between 2 and"),
        ({"bins": True}, InvalidTypeError, "whole number or edges"),
        ({"bins": [0.5, 0.2]}, InvalidParameterError, "increasing"),
        ({"bins": 5, "decisions": [0, 1]}, InvalidParameterError, "not both"),
        ({"condition": "yhat"}, InvalidParameterError, "condition must be one of"),
        ({"condition": "y"}, InvalidParameterError, "y_true is None"),
        ({"ci": "delta"}, InvalidParameterError, "ci must be one of"),
        ({"ci": "bootstrap", "n_resamples": 1}, InvalidParameterError, "at least 2"),
        ({"confidence": 1.5}, InvalidParameterError, "confidence"),
        ({"n_resamples": -1}, InvalidParameterError, "n_resamples"),
        ({"n_resamples": True}, InvalidTypeError, "n_resamples"),
        ({"bias_correction": 1}, InvalidTypeError, "bias_correction"),
        ({"stratify_by_client": None}, InvalidTypeError, "stratify_by_client"),
        ({"allow_small": "no"}, InvalidTypeError, "allow_small"),
        ({"min_cell": -1}, InvalidParameterError, "min_cell"),
        ({"merge_clients_below": 0}, InvalidParameterError, "merge_clients_below"),
        ({"tol": 0.0}, InvalidParameterError, "tol"),
        ({"clients": "north"}, InvalidTypeError, "list"),
        ({"decisions": [0, 0]}, InvalidParameterError, "each one once"),
        ({"clients": [77]}, DataError, "no row lies"),
        ({"device": "tpu"}, InvalidParameterError, "device"),
    ],
)
def test_bad_settings_each_have_their_error(options, error, says):
    with pytest.raises(error, match=says):
        fit(Y, Z, S, **options)


def test_crossed_groups_that_are_too_small_are_refused():
    columns = {"sex": Z, "tiny": (np.arange(300) < 5).astype(int)}
    with pytest.raises(SmallGroupError, match="min_cell=10 rows, the smallest"):
        fit(Y, columns, S)
    with pytest.warns(SmallSampleWarning, match="mostly"):
        fit(Y, (np.arange(300) < 5).astype(int), S)


# --- gaps -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(arrays(float, (3, 4), elements=st.floats(0, 1)), st.integers(2, 3), st.integers(2, 4))
def test_no_gap_is_above_its_bound(table, groups, decisions):
    table = table[:groups, :decisions]
    if (table.sum(axis=1) > 1e-6).sum() < 2 or table.sum() == 0:
        return
    gap, bound = float(parity_gap(table)), float(gap_bound(table))
    assert gap <= bound + 1e-7
    if groups == decisions == 2:
        a = table[1].sum() / table.sum()
        nats = float(information_of(table)) * math.log(2)
        assert bound <= math.sqrt(nats / 2) / (2 * a * (1 - a)) + 1e-12


def test_the_bound_is_that_of_the_paper_at_equal_groups():
    table = np.array([[30.0, 20.0], [20.0, 30.0]])
    nats = float(information_of(table)) * math.log(2)
    assert float(gap_bound(table)) == pytest.approx(math.sqrt(nats / 2) / (2 * 0.25))
    assert float(parity_gap(table)) == pytest.approx(0.2)


# --- results --------------------------------------------------------------------------------


def test_everything_is_json_and_the_report_says_what_it_must():
    y, z, s = simulated(1200)
    found = fit(y, pd.Series(z, name="<sex>"), s)
    data = json.loads(found.report("json"))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == data
    assert [part["name"] for part in data["parts"]] == list(PARTS)
    assert all(data["inequalities"].values())
    assert len(data["inequalities"]) == 6
    assert {"definition": "BROJA", "unit": "bits", "n": 1200}.items() <= data.items()
    text = found.report()
    for words in (
        "BROJA",
        "G-test",
        "permutation",
        "Nothing here is causal",
        "do not make the whole fair",
        "does not make every client fair",
        "gap of rates",
        "unique",
        "one-sided",
    ):
        assert words in text, words  # fmt: skip
    page = found.report("html")
    assert "&lt;sex&gt;" in page
    assert "<sex>" not in page
    assert "<script" not in page
    assert found._repr_html_().startswith("<table>")
    with pytest.raises(InvalidParameterError, match="format"):
        found.report("pdf")


def test_estimates_in_the_order_of_the_metrics():
    y, z, s = simulated(1200)
    found = fit(y, z, s, n_resamples=200)
    estimates = found.to_estimates()
    assert [e.name for e in estimates] == [
        "unique_disparity", "redundant_disparity", "masked_disparity", "global_disparity",
        "local_disparity",
    ]  # fmt: skip
    for e, part in zip(estimates, PARTS[:5], strict=True):
        assert e.value == getattr(found, f"{part}_")
        assert (e.low, e.high) == found.ci_[part]
        assert e.low <= e.value <= e.high
        assert e.details["corrected"] == found.corrected_[part]
        assert (e.status == "boundary") == found.boundary_[part]
        json.dumps(e.to_dict(), allow_nan=False)
    assert estimates[3].null.p_value == found.p_value_global_ == pytest.approx(1 / 201)
    assert estimates[4].by_group["local_disparity"].tolist() == found.local_by_client_.tolist()


def test_a_scikit_learn_citizen():
    model = PIDDisparity(ci="bootstrap", confidence=0.9, clients=[0, 1])
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert "PIDDisparity" in repr(again)
    assert "PIDDisparity" in again._repr_html_()
    y, z, s = simulated(300)
    found = fit(y, z, s)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.to_dict() == found.to_dict()


def test_bars_add_up():
    y, z, s = simulated(900)
    found = fit(y, z, s)
    ax = found.plot()
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends[1] == pytest.approx(found.global_disparity_)
    assert ends[3] == pytest.approx(found.local_disparity_)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["global", "local"]


def test_a_table_too_large_to_delete_from_says_so(monkeypatch):
    y, z, s = simulated(900)
    want = fit(y, z, s)
    monkeypatch.setattr("privfair.fairness.pid._uncertainty._JACKKNIFE_ENTRIES", 10)
    found = fit(y, z, s)
    estimate = found.to_estimates()[0]
    assert math.isnan(estimate.details["bias"])
    assert estimate.to_dict()["details"]["bias"] is None
    assert found.corrected_["global_disparity"] == want.corrected_["global_disparity"]
    assert "of this size is not corrected" in found.report()
    json.loads(found.report("json"))


def test_a_torch_device_gives_what_numpy_gives():
    y, z, s = simulated(900)
    a, b = fit(y, z, s), fit(y, z, s, device="cpu")
    for name in PARTS:
        assert getattr(a, f"{name}_") == pytest.approx(getattr(b, f"{name}_"), abs=1e-12)
        assert a.ci_[name] == pytest.approx(b.ci_[name], abs=1e-9)
