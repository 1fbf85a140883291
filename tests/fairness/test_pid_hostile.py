"""What the decomposition refuses, and what must not depend on rows that are private."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import (
    DataError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    MissingDependencyError,
    PrivacyError,
    ProbabilityRangeError,
    SchemaError,
    SingleGroupError,
)
from privfair.fairness import (
    PIDDisparity,
    PIDPenalty,
    estimate_all,
    join_clients,
    pid,
    pid_from_joint,
    release_contingency,
)
from privfair.fairness.metrics import demographic_parity_difference
from privfair.fairness.pid import influence, pid_torch
from privfair.fairness.pid._analysis import Settings
from privfair.fairness.pid._exact import rounding_bound
from privfair.fairness.pid._private import _interval


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    z, s = rng.integers(0, 2, n), rng.integers(0, 3, n)
    return (rng.random(n) < 0.3 + 0.3 * z).astype(int), z, s


def fit(y=None, z=None, s=None, *, y_true=None, sample_weight=None, **options):
    given = rows()
    y, z, s = (own if new is None else new for own, new in zip(given, (y, z, s), strict=True))
    model = PIDDisparity(**{"n_resamples": 20, "random_state": 0, **options})
    return model.fit(y, sensitive_features=z, client=s, y_true=y_true, sample_weight=sample_weight)


def private(*columns, **options):
    public = {"groups": [0, 1], "clients": [0, 1, 2], "privacy": Budget(1.0), "ledger": Ledger()}
    return fit(*columns, **{**public, **options})


# --- privacy --------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["user", "client"])
def test_a_ledger_of_another_unit_is_not_charged_for_rows(unit):
    ledger = Ledger(unit=unit)
    with pytest.raises(IncompatibleNeighboringError, match=f"counts per {unit}"):
        private(ledger=ledger)
    with pytest.raises(IncompatibleNeighboringError, match="one row"):
        release_contingency({"z": [0, 1]}, {"z": [0, 1]}, privacy=Budget(1.0), ledger=ledger)
    with pytest.raises(IncompatibleNeighboringError, match="one row"):
        demographic_parity_difference.estimate(
            None, [0, 1], sensitive_features=[0, 1], groups=[0, 1], privacy=Budget(1.0),
            ledger=ledger,
        )  # fmt: skip
    assert not ledger.entries()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"device": "abacus"}, InvalidParameterError),
        ({"random_state": "seed"}, InvalidTypeError),
        ({"random_state": -1}, InvalidParameterError),
        ({"stratify_by_client": True}, InvalidParameterError),
    ],
)
def test_a_setting_that_fails_later_fails_before_the_charge(bad, error):
    ledger = Ledger()
    with pytest.raises(error):
        private(ledger=ledger, **bad)
    assert not ledger.entries()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_missing_device_fails_before_the_charge():
    ledger = Ledger()
    with pytest.raises(MissingDependencyError):
        private(ledger=ledger, device="cuda")
    assert not ledger.entries()


def test_undeclared_decisions_are_zero_and_one_or_scores():
    y, z, s = rows()
    for strange in (y + 1, 2 * y, y - 0.5, np.where(y == 1, 7.5, 0.0)):
        ledger = Ledger()
        with pytest.raises(SchemaError, match="0 and 1, or scores between"):
            private(strange, z, s, ledger=ledger)
        assert not ledger.entries()
    assert private(y + 1, z, s, decisions=[1, 2]).classes_["yhat"] == (1, 2)
    seeded = {"noise_random_state": 5}
    at_half = private(np.where(y == 1, 0.5, 0.49), z, s, **seeded).counts_
    assert (at_half == private(y, z, s, **seeded).counts_).all()
    assert (at_half == private(y.astype(bool), z, s, **seeded).counts_).all()


def test_whether_the_positive_label_occurs_stays_private():
    y, z, s = rows()
    public = {"groups": [0, 1], "clients": [0, 1, 2], "privacy": Budget(1.0), "n_resamples": 20}
    for words in (np.where(y == 1, "yes", "no"), np.full(y.size, "no")):
        ledger = Ledger()
        found = pid.global_disparity.estimate(
            None, words, sensitive_features=z, client=s, pos_label="yes", ledger=ledger, **public
        )
        assert math.isfinite(found.value)
        assert len(ledger.entries()) == 1
    with pytest.raises(LabelError, match="declared decisions"):
        pid.global_disparity.estimate(
            None, words, sensitive_features=z, client=s, pos_label="maybe", ledger=Ledger(),
            decisions=["yes", "no"], **public,
        )  # fmt: skip


def test_no_rows_are_a_private_fact_where_their_number_is():
    none = np.zeros(0, dtype=int)
    found = private(none, none, none, ledger=Ledger(neighboring="add_remove"))
    assert found.n_ >= 1
    ledger = Ledger()
    with pytest.raises(DataError, match="no rows"):
        private(none, none, none, ledger=ledger)
    assert not ledger.entries()


def test_errors_under_privacy_do_not_count():
    y, z, s = rows()
    gone = np.where(np.arange(y.size) < 17, np.nan, y)
    with pytest.raises(LabelError, match="y_pred has missing values") as said:
        private(gone, z, s)
    assert "17" not in str(said.value)
    assert "300" not in str(said.value)


def test_two_tables_are_not_released_for_one_budget():
    y, z, s = rows()
    ledger = Ledger()
    with pytest.raises(PrivacyError, match="two releases, two charges"):
        estimate_all(
            [demographic_parity_difference, pid.global_disparity], y, y, sensitive_features=z,
            client=s, clients=[0, 1, 2], groups=[0, 1], privacy=Budget(1.0), ledger=ledger,
        )  # fmt: skip
    assert not ledger.entries()


def test_what_is_no_release_is_refused():
    with pytest.raises(InvalidTypeError, match="ContingencyRelease"):
        PIDDisparity().fit_release({"counts": [1]})
    with pytest.raises(InvalidTypeError, match="ContingencyRelease"):
        join_clients({"a": 3})


def test_the_bound_of_one_contrast_is_not_shifted():
    """(|x| + z sd)^2 bounds the square of the mean of x ~ N(mean, sd^2) at its own level."""
    error = np.random.default_rng(0).standard_normal(20_000)
    settings = Settings(confidence=0.95)
    for x in (0.0, 0.5, 1.5):
        drawn = (x + error) ** 2
        bias = float(drawn.mean()) - x**2
        (low, high), boundary = _interval(drawn, x**2, x**2, bias, 1, settings, "unique")
        assert boundary
        assert low == 0.0
        assert high == pytest.approx(np.quantile(drawn, 0.95), rel=1e-3)
        more = _interval(drawn, x**2, x**2, bias, 4, settings, "unique")[0][1]
        assert more == pytest.approx(max(high - 0.75 * bias, x**2), rel=1e-9)


@pytest.mark.slow
@pytest.mark.statistical
def test_the_bound_of_a_part_near_zero_covers_under_noise():
    """Two groups, two decisions: one contrast, whose bound holds without a shift.

    400 releases; a bound of 95 % that holds in fewer than 91.5 % has odds below 1 in 500.
    """
    rng = np.random.default_rng(1)
    share = np.array([[0.275, 0.225], [0.250, 0.250]])  # P(z, yhat)
    truth = float(pid_from_joint(share[:, :, None]).global_disparity)
    held = 0
    for seed in range(400):
        cells = np.repeat(np.arange(4), rng.multinomial(800, share.reshape(-1)))
        z, y = np.divmod(cells, 2)
        found = private(
            y, z, np.zeros(y.size, int), clients=[0], n_resamples=100, random_state=seed,
            noise_random_state=seed,
        )  # fmt: skip
        low, high = found.ci_["global_disparity"]
        held += low <= truth <= high
    assert held >= 366


# --- rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"bins": ["low"]}, InvalidTypeError),
        ({"decisions": 2}, InvalidTypeError),
        ({"decisions": [[0], [1]]}, InvalidTypeError),
        ({"decisions": [0, 1, math.nan]}, InvalidParameterError),
        ({"groups": 2}, InvalidTypeError),
    ],
)
def test_declarations_that_are_none(options, error):
    with pytest.raises(error):
        fit(**options)


def test_complex_numbers_are_no_decisions():
    with pytest.raises(LabelError, match="complex"):
        fit(rows()[0] * 1j)


def test_a_constant_column_beside_another_has_no_disparity_of_its_own():
    _, z, _ = rows()
    frame = pd.DataFrame({"sex": z, "country": "one"})
    found = fit(z=frame)
    assert max(map(abs, found.by_attribute_["country"].values())) < 1e-12
    assert found.by_attribute_["sex"] == pytest.approx(_parts(fit()))


def _parts(found):
    return {name: getattr(found, f"{name}_") for name in found._analysis.values}


def test_one_group_has_a_gradient_and_an_influence_of_zero():
    P = torch.full((1, 2, 2), 0.25, requires_grad=True)
    sum(pid_torch(P)[:4]).backward()
    assert torch.isfinite(P.grad).all()
    table = np.full((2, 2, 2), 0.125)
    result = pid_from_joint(table)
    assert np.isfinite(influence(table, result)["unique"]).all()


def test_groups_that_weights_or_labels_single_out():
    y, z, s = rows()
    with pytest.raises(SingleGroupError, match="positive weight"):
        fit(sample_weight=(z == 1).astype(float))
    with pytest.raises(SingleGroupError, match="every stratum"):
        fit(condition="y", y_true=z)
    assert fit(condition="y", y_true=y).unique_ == 0.0  # decisions equal labels


@pytest.mark.parametrize("scale", [2.0**900, 2.0**-900])
def test_the_scale_of_weights_does_not_matter(scale):
    weight = np.random.default_rng(0).exponential(1.0, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = fit(sample_weight=weight), fit(sample_weight=weight * scale)
    assert one.se_ == pytest.approx(other.se_, rel=1e-12)
    assert _parts(one) == pytest.approx(_parts(other), rel=1e-12)


def test_a_positive_label_among_declared_decisions():
    y, z, s = rows()
    words = np.array(["no", "yes", "later"])[np.where(np.arange(y.size) % 5 == 0, 2, y)]
    one = {"sensitive_features": z, "client": s, "pos_label": "yes"}
    all_three = pid.global_disparity(None, words, decisions=["no", "later", "yes"], **one)
    assert all_three == pid.global_disparity(None, words, **one) > 0
    kept = words != "later"
    expected = fit(y[kept], z[kept], s[kept]).global_disparity_
    assert pid.global_disparity(None, words, decisions=["no", "yes"], **one) == expected
    with pytest.raises(LabelError, match="missing"):
        pid.global_disparity(None, np.where(y == 1, "yes", None), **one)


def test_bins_with_close_edges_keep_their_names_apart():
    names = fit(np.random.default_rng(0).random(300), bins=[0.50001, 0.50002]).classes_["yhat"]
    assert len(set(names)) == 3


def test_a_value_that_is_mostly_bias_is_marked():
    """Ten rows a client: a first-order correction leaves much bias, and the status says so."""
    rng = np.random.default_rng(0)
    s = np.repeat(np.arange(60), 10)
    z = rng.integers(0, 2, 600)
    y = (rng.random(600) < 0.37 + 0.26 * (z == s % 2)).astype(int)
    small = {e.name: e for e in fit(y, z, s).to_estimates()}["local_disparity"]
    assert small.details["corrected"] > 2 * small.details["standard_error"]
    assert small.details["bias"] > 0.5 * small.value
    assert small.status == "small_sample"
    assert "merge small clients" in small.reason
    many = {e.name: e for e in fit(*(np.tile(a, 20) for a in (y, z, s))).to_estimates()}
    assert many["local_disparity"].status == "ok"


def test_the_corrected_redundant_part_is_within_what_the_client_says():
    """Z independent of S: plug-in I(Z;S) is dust, and so must the corrected redundant part be.

    G and L are corrected by different amounts; uncorrected for each other they left R above
    I(Z;S) in a tenth of such samples, with an interval that excluded 0.
    """
    rng = np.random.default_rng(0)
    share = np.array([[0.29, 0.21], [0.25, 0.25]])[:, :, None] * np.array([0.5, 0.5])
    wrong = 0
    for seed in range(120):
        cells = np.repeat(np.arange(8), rng.multinomial(800, share.reshape(-1)))
        z, y, s = np.unravel_index(cells, share.shape)
        found = fit(y, z, s, random_state=seed)
        client = found.redundant_ + found.unique_client_
        left = max(client - found._analysis.bias["client_information"], 0.0)
        assert found.corrected_["redundant"] <= left + 1e-12
        assert found.corrected_["local_disparity"] == pytest.approx(
            found.corrected_["unique"] + found.corrected_["masked"]
        )
        wrong += found.ci_["redundant"][0] > 0
    assert wrong == 0  # the influence of a sum of squares: z^2 > 4 |z| has odds of 1 in 15,000


# --- tables and penalties -------------------------------------------------------------------


def test_the_certificate_of_the_exact_path_grows_with_the_sum_of_the_sides():
    margins = np.random.default_rng(0).dirichlet(np.ones(2 * 50_000)).reshape(1, 2, 50_000)
    bound = rounding_bound(margins[:, :, :200] / margins[:, :, :200].sum(), margins)
    assert bound[0] < 1e-8
    wide = np.random.default_rng(1).dirichlet(np.ones(2 * 200 * 4000)).reshape(2, 200, 4000)
    assert bool(pid_from_joint(wide).converged)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scores": torch.rand(4, 1)}, SchemaError),
        ({"scores": torch.rand(4, 2, 2)}, SchemaError),
        ({"scores": torch.tensor([0.5, 0.5, 2.0, 0.1])}, ProbabilityRangeError),
        ({"scores": torch.full((4,), math.nan)}, ProbabilityRangeError),
        ({"scores": torch.full((4, 2), 0.9)}, ProbabilityRangeError),
        ({"sample_weight": torch.ones(3)}, LengthMismatchError),
        ({"sample_weight": -torch.ones(4)}, DataError),
        ({"sensitive": torch.tensor([0.0, 1.0, math.nan, 1.0])}, DataError),
    ],
)
def test_batches_that_a_penalty_refuses(change, error):
    given = {
        "scores": torch.tensor([0.9, 0.8, 0.2, 0.1]),
        "sensitive": torch.tensor([0, 0, 1, 1]),
        "client": torch.tensor([0, 1, 0, 1]),
    }
    with pytest.raises(error):
        PIDPenalty()(**{**given, **change})


def test_an_empty_batch_and_one_without_weight_have_no_penalty():
    none = torch.zeros(0, requires_grad=True)
    index = torch.zeros(0, dtype=torch.int64)
    assert PIDPenalty()(none, index, client=index).item() == 0.0
    scores = torch.tensor([0.9, 0.2], requires_grad=True)
    group = torch.tensor([0, 1])
    value = PIDPenalty()(scores, group, client=group, sample_weight=torch.zeros(2))
    value.backward()
    assert value.item() == 0.0
    assert scores.grad.tolist() == [0.0, 0.0]
