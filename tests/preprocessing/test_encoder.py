"""PrivateTableEncoder: what it reads, what it charges, what it gives."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from privfair.accounting import Ledger, guarantee
from privfair.core import Budget, Categorical, Numeric, Schema
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    OutputTargetError,
    SchemaError,
    SchemaVersionError,
    UnsafeFileError,
    WeakGuaranteeError,
)
from privfair.mechanisms import DPQuantile, DPSetDiscovery
from privfair.preprocessing import PrivateTableEncoder

SCHEMA = Schema(
    {
        "age": Numeric(17, 90, bins=[25, 45]),
        "gain": Numeric(0, 99_999, log=True),
        "sex": Categorical(["Female", "Male"]),
        "job": Categorical(["clerk", "nurse"], other="else"),
        "member": Categorical([False, True]),
    }
)
FRAME = pd.DataFrame(
    {
        "age": [17, 53.5, 90, 200],
        "gain": [0, 99_999, 315.23, -5],
        "sex": ["Male", "Female", "Male", "Male"],
        "job": ["clerk", "diver", "nurse", None],
        "member": [True, False, False, True],
    }
)


# All of scikit-learn's checks pass, with no exception, for the configuration that takes the
# arrays that they bring. A schema names columns that their arrays do not have, and schema=None
# needs a ledger; those two are covered by the tests below.
@parametrize_with_checks([PrivateTableEncoder(schema="as_is")])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# -- values -------------------------------------------------------------------------------
def test_values():
    encoder = PrivateTableEncoder(schema=SCHEMA).fit(FRAME)
    out = pd.DataFrame(encoder.transform(FRAME), columns=encoder.get_feature_names_out())
    assert out["age"].tolist() == [-1, 0, 1, 1]
    expected = [-1, 1, 2 * math.log1p(315.23) / math.log1p(99_999) - 1, -1]
    assert out["gain"].tolist() == pytest.approx(expected, rel=1e-12)
    assert out["sex=Female"].tolist() == [0, 1, 0, 0]
    assert out[["job=clerk", "job=nurse", "job=else"]].to_numpy().argmax(1).tolist() == [
        0,
        2,
        1,
        2,
    ]
    assert out["member=True"].tolist() == [1, 0, 0, 1]
    assert out.shape[1] == encoder.n_features_out_ == 9


def test_unit_range_and_public_bins():
    encoder = PrivateTableEncoder(schema=SCHEMA, numeric_range="unit", binning="public")
    out = encoder.fit(FRAME).set_output(transform="pandas").transform(FRAME)
    assert out["age"].tolist() == [0, 0.5, 1, 1]
    assert [c for c in out.columns if c.startswith("age=")] == [
        "age=[17, 25)", "age=[25, 45)", "age=[45, 90]",
    ]  # fmt: skip
    assert out.filter(like="age=").to_numpy().argmax(axis=1).tolist() == [0, 2, 2, 2]
    plain = PrivateTableEncoder(schema=SCHEMA, numeric_range="unit").fit_transform(FRAME)
    assert out.shape[1] == plain.shape[1] + 3


@pytest.mark.parametrize("convert", [pl.from_pandas, lambda f: f.to_dict("list"), lambda f: f])
def test_every_kind_of_table(convert):
    expected = PrivateTableEncoder(schema=SCHEMA).fit_transform(FRAME)
    table = convert(FRAME)
    encoder = PrivateTableEncoder(schema=SCHEMA).fit(table)
    assert np.array_equal(encoder.transform(table), expected)
    assert encoder.feature_names_in_.tolist() == list(SCHEMA)


def test_pandas_dtypes_do_not_matter():
    expected = PrivateTableEncoder(schema=SCHEMA).fit_transform(FRAME)
    for dtype in ("category", "string", "object"):
        frame = FRAME.astype({"sex": dtype, "job": dtype, "age": "Float64", "member": "boolean"})
        assert np.array_equal(PrivateTableEncoder(schema=SCHEMA).fit_transform(frame), expected)


def test_column_order_follows_the_schema_and_arrays_go_by_position():
    encoder = PrivateTableEncoder(schema=SCHEMA)
    expected = encoder.fit_transform(FRAME)
    assert np.array_equal(encoder.fit_transform(FRAME[FRAME.columns[::-1]]), expected)
    numeric = SCHEMA.select(["age", "gain"])
    array = FRAME[["age", "gain"]].to_numpy()
    assert np.array_equal(
        PrivateTableEncoder(schema=numeric).fit_transform(array), expected[:, :2]
    )


def test_missing_numbers():
    frame = FRAME.assign(age=[17, np.nan, 90, 200])
    with pytest.raises(SchemaError, match="column 'age' has missing"):
        PrivateTableEncoder(schema=SCHEMA).fit(frame)
    encoder = PrivateTableEncoder(schema=SCHEMA, missing="middle", binning="public").fit(FRAME)
    row = encoder.transform(frame)[1]
    assert row[0] == 0
    assert row[1:4].tolist() == [0, 0, 0]
    with pytest.raises(SchemaError, match="missing"):
        PrivateTableEncoder(schema=SCHEMA).fit(FRAME).transform(frame)


number = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(number, number), min_size=1, max_size=5),
    low=st.floats(-1e9, 1e9),
    span=st.floats(1e-6, 1e9),
    log=st.booleans(),
    unit=st.sampled_from(["unit", "symmetric"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_row_norm_bound_holds_for_any_record(rows, low, span, log, unit, dtype):
    high = low + span
    schema = Schema(
        {
            "a": Numeric(low, max(high, math.nextafter(low, math.inf)), log=log),
            "b": Numeric(-1, 1, bins=[0]),
        }
    )
    encoder = PrivateTableEncoder(
        schema=schema, numeric_range=unit, binning="public", dtype=dtype
    ).fit(np.zeros((1, 2)))
    out = encoder.transform(np.array(rows, dtype=float))
    assert out.dtype == dtype
    assert np.linalg.norm(out.astype(float), axis=1).max() <= encoder.max_row_norm_
    assert out.min() >= (0 if unit == "unit" else -1)
    assert out.max() <= 1


# -- privacy ------------------------------------------------------------------------------
def test_a_public_schema_reads_nothing_into_the_encoding():
    one = PrivateTableEncoder(schema=SCHEMA).fit(FRAME)
    two = PrivateTableEncoder(schema=SCHEMA).fit(FRAME.iloc[:1])
    assert one.to_dict() == two.to_dict()
    assert np.array_equal(one.transform(FRAME), two.transform(FRAME))
    assert one.privacy_.epsilon == 0
    assert one.privacy_.certified
    assert one.cost() == one.events_ == ()
    # A record's row depends on that record alone.
    assert np.array_equal(one.transform(FRAME)[2:3], one.transform(FRAME.iloc[2:3]))


def mixed(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "pay": rng.lognormal(10, 1, n),
            "town": rng.choice(["A", "B", "C"], n, p=[0.6, 0.3999, 0.0001]),
            "member": rng.random(n) < 0.5,
        }
    )


def private(**kwargs):
    return PrivateTableEncoder(**{"epsilon": 3.0, "delta": 1e-6, "ledger": Ledger(), **kwargs})


def test_learning_is_charged_before_anything_is_read(monkeypatch):
    ledger = Ledger(cap=Budget(1.0, 1e-5))
    for mechanism in (DPQuantile, DPSetDiscovery):
        monkeypatch.setattr(mechanism, "_prepare", lambda *_: pytest.fail("data were read"))
    with pytest.raises(BudgetExceededError):
        private(ledger=ledger).fit(mixed())
    assert not list(ledger.entries())
    with_gap = mixed().assign(age=np.nan)
    with pytest.raises(SchemaError, match="'age' has missing"):
        private(ledger=Ledger()).fit(with_gap)


def test_learning_costs_its_budget_and_no_more():
    ledger = Ledger(cap=Budget(10.0, 1e-4))
    encoder = private(ledger=ledger)
    planned = encoder.cost(mixed())
    encoder.fit(mixed())
    assert encoder.events_ == planned
    assert len(planned) == 5  # two for a number, one for a list of values; booleans are known
    assert 0 < encoder.privacy_.epsilon <= 3.0 + 1e-9
    assert encoder.privacy_.delta == 1e-6
    assert encoder.privacy_.certified
    basic = guarantee(planned, delta=1e-6, accountant="basic").epsilon
    assert basic == pytest.approx(3.0, rel=1e-9)
    assert basic <= 3.0 + 1e-12
    assert len(list(ledger.entries())) > 0


def test_two_lists_share_delta():
    frame = mixed().assign(other_town=mixed(seed=5)["town"])
    events = private().cost(frame)
    deltas = [event.delta for event in events if hasattr(event, "delta")]
    assert len(deltas) == 2
    assert 0.999e-6 < sum(deltas) <= 1e-6


def test_what_is_learnt_is_useful():
    encoder = private(epsilon=5.0, noise_random_state=1).fit(mixed())
    schema = encoder.schema_
    assert 5 <= schema["age"].low <= 30
    assert 65 <= schema["age"].high <= 120
    assert schema["town"].values == ("A", "B", "other")
    assert schema["member"].values == (False, True)
    out = encoder.transform(mixed(seed=1))
    assert out.std(axis=0).min() > 0.05 or out.shape[1] == 7
    assert encoder.max_row_norm_ == pytest.approx(2.0)
    assert encoder.privacy_.seeded
    assert not encoder.privacy_.certified


def test_learning_again_gives_other_noise():
    made = {json.dumps(private().fit(mixed()).schema_.to_dict()) for _ in range(8)}
    assert len(made) > 1


def test_names_and_dtypes_alone_decide_the_cost():
    one, two = mixed(), mixed(10, seed=3)
    assert private().cost(one) == private().cost(two)
    assert private().cost(one.iloc[:0]) == private().cost(one)


def test_constant_columns_get_bounds():
    frame = pd.DataFrame({"zero": np.zeros(500), "five": np.full(500, 5)})
    schema = private(noise_random_state=0).fit(frame).schema_
    assert schema["zero"].low <= 0 <= schema["zero"].high
    assert schema["five"].low < schema["five"].high


def test_a_caller_may_charge_itself():
    encoder = PrivateTableEncoder(epsilon=1.0, delta=1e-6)
    assert encoder.fit_charged(mixed()).events_ == encoder.cost(mixed())


def test_replacement_costs_what_was_asked_for():
    encoder = private(neighboring="replace_one", ledger=Ledger(neighboring="replace_one"))
    encoder.fit(mixed())
    assert encoder.privacy_.neighboring == "replace_one"
    assert encoder.privacy_.epsilon <= 3.0 + 1e-9


# -- a scikit-learn citizen ------------------------------------------------------------------
def test_pipeline_clone_and_inputs_unchanged():
    before = FRAME.copy(deep=True)
    pipeline = make_pipeline(PrivateTableEncoder(schema=SCHEMA), LogisticRegression())
    y = [0, 1, 1, 0]
    twice = [clone(pipeline).fit(FRAME, y).predict_proba(FRAME) for _ in range(2)]
    assert np.array_equal(*twice)
    pd.testing.assert_frame_equal(FRAME, before)
    ledger = Ledger()
    assert clone(private(ledger=ledger)).ledger is ledger


def test_as_is_takes_numbers_as_they_are():
    X = np.array([[1e6, -3.0], [0.0, 2.0]])
    encoder = PrivateTableEncoder(schema="as_is").fit(X)
    assert np.array_equal(encoder.transform(X), X)
    assert encoder.transform(X) is not X
    assert encoder.max_row_norm_ == math.inf
    assert encoder.privacy_.epsilon == 0
    with pytest.raises(SchemaError, match="'sex' is not numeric"):
        PrivateTableEncoder(schema="as_is").fit(FRAME)


def test_not_fitted():
    for use in ("transform", "to_dict", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(PrivateTableEncoder(schema=SCHEMA), use)(
                *([FRAME] if use[0] == "t" and use != "to_dict" else [])
            )


@pytest.mark.parametrize(
    "encoder",
    [
        PrivateTableEncoder(schema=SCHEMA, binning="public", numeric_range="unit"),
        PrivateTableEncoder(schema=dict(SCHEMA), missing="middle", dtype="float32"),
    ],
)
def test_round_trip_through_json(encoder):
    encoder.fit(FRAME)
    text = json.dumps(encoder.to_dict(), allow_nan=False, sort_keys=True)
    again = PrivateTableEncoder.from_dict(json.loads(text))
    assert np.array_equal(again.transform(FRAME), encoder.transform(FRAME))
    assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    assert again.to_dict() == json.loads(text)
    assert again.max_row_norm_ == encoder.max_row_norm_


def test_round_trip_of_learnt_and_as_is_encoders():
    learnt = private().fit(mixed())
    again = PrivateTableEncoder.from_dict(json.loads(json.dumps(learnt.to_dict())))
    assert np.array_equal(again.transform(mixed()), learnt.transform(mixed()))
    assert again.privacy_.epsilon == learnt.privacy_.epsilon
    assert again.events_ == learnt.events_
    X = np.arange(6.0).reshape(3, 2)
    as_is = PrivateTableEncoder(schema="as_is").fit(X)
    copy = PrivateTableEncoder.from_dict(json.loads(json.dumps(as_is.to_dict())))
    assert np.array_equal(copy.transform(X), X)
    with pytest.raises(SchemaVersionError):
        PrivateTableEncoder.from_dict({**as_is.to_dict(), "version": 99})


def test_files(tmp_path):
    encoder = private().fit(mixed())
    encoder.save(tmp_path / "a.json")
    encoder.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    again = PrivateTableEncoder.load(tmp_path / "a.json")
    assert np.array_equal(again.transform(mixed()), encoder.transform(mixed()))
    with pytest.raises(OutputTargetError):
        encoder.save(tmp_path / "absent" / "a.json")
    for content in (b"\x80\x04\x95", b"[]", b"{}", b"[" * 100_000):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(UnsafeFileError):
            PrivateTableEncoder.load(tmp_path / "bad.json")


@pytest.mark.parametrize("learn", [False, True])
def test_skops_and_pickle(learn):

    import skops.io

    frame = mixed() if learn else FRAME
    encoder = private() if learn else PrivateTableEncoder(schema=SCHEMA)
    encoder.fit(frame)
    expected = encoder.transform(frame)
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).transform(frame), expected)
    encoder.set_params(ledger=None)  # a ledger is a file or lives in its process
    data = skops.io.dumps(encoder)
    types = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith("privfair.") for name in types)
    again = skops.io.loads(data, trusted=types)
    assert np.array_equal(again.transform(frame), expected)
    assert again.privacy_.epsilon == encoder.privacy_.epsilon


def test_no_data_value_is_stored():
    frame = mixed().assign(secret=["canary-7f3a"] * 2 + ["common"] * 3998)
    encoder = private().fit(frame)
    assert "canary" not in json.dumps(encoder.to_dict())
    assert "canary" not in repr(vars(encoder))


# -- bad input ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, InvalidParameterError, "has a price"),
        ({"epsilon": 1.0}, InvalidParameterError, "has a price"),
        ({"epsilon": 1.0, "delta": 1e-6}, InvalidParameterError, "explicit ledger"),
        ({"epsilon": -1.0, "delta": 1e-6}, InvalidBudgetError, "epsilon"),
        ({"epsilon": 1.0, "delta": 2.0}, InvalidBudgetError, "delta"),
        ({"epsilon": 50.0, "delta": 1e-6}, WeakGuaranteeError, "epsilon"),
        ({"schema": "as-is"}, InvalidParameterError, "as_is"),
        ({"schema": 3}, InvalidTypeError, "schema"),
        ({"schema": SCHEMA, "epsilon": 1.0}, InvalidParameterError, "nothing is learnt"),
        ({"schema": SCHEMA, "binning": "dp_quantiles"}, InvalidParameterError, "has a price"),
        (
            {"schema": SCHEMA, "binning": "dp_quantiles", "epsilon": 1.0},
            InvalidParameterError,
            "explicit ledger",
        ),
        ({"schema": "as_is", "binning": "dp_quantiles"}, InvalidParameterError, "needs bounds"),
        ({"schema": SCHEMA, "binning": "yes"}, InvalidParameterError, "binning"),
        ({"schema": SCHEMA, "numeric_range": "0-1"}, InvalidParameterError, "numeric_range"),
        ({"schema": SCHEMA, "missing": "drop"}, InvalidParameterError, "missing"),
        ({"schema": SCHEMA, "dtype": "int8"}, InvalidParameterError, "dtype"),
        ({"schema": SCHEMA, "neighboring": "x"}, InvalidParameterError, "neighboring"),
    ],
)
def test_bad_parameters_raise_before_the_data(kwargs, error, text):
    with pytest.raises(error, match=text):
        PrivateTableEncoder(**kwargs).fit(object())


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (FRAME.drop(columns="age"), "different columns"),
        (FRAME.assign(extra=1), "different columns"),
        (FRAME.to_numpy()[:, :2], "matched by position"),
        (FRAME.assign(age=["a"] * 4), "'age' is declared Numeric"),
        (FRAME.assign(sex=["canary"] * 4), "'sex'"),
    ],
)
def test_data_that_do_not_fit_the_schema(frame, text):
    encoder = PrivateTableEncoder(schema=SCHEMA)
    with pytest.raises(SchemaError, match=text) as caught:
        encoder.fit(frame).transform(frame)
    assert "canary" not in str(caught.value)


def test_dates_are_refused_when_kinds_are_learnt():
    frame = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=3)})
    ledger = Ledger()
    with pytest.raises(SchemaError, match="neither a number nor a category"):
        private(ledger=ledger).fit(frame)
    assert not list(ledger.entries())


NULLABLE = {
    "pandas boolean": lambda v: pd.DataFrame({"a": pd.Series(v, dtype="boolean")}),
    "pandas Int64": lambda v: pd.DataFrame({"a": pd.Series(v, dtype="Int64")}),
    "pandas Float64": lambda v: pd.DataFrame({"a": pd.Series(v, dtype="Float64")}),
    "pandas object": lambda v: pd.DataFrame({"a": pd.Series(v, dtype=object)}),
    "pandas category": lambda v: pd.DataFrame({"a": pd.Series(v, dtype="category")}),
    "pandas string": lambda v: pd.DataFrame(
        {"a": pd.Series([None if x is None else f"v{x}" for x in v], dtype="string")}
    ),
    "polars Boolean": lambda v: pl.DataFrame({"a": pl.Series(v, dtype=pl.Boolean, strict=False)}),
    "polars Int64": lambda v: pl.DataFrame({"a": pl.Series(v, dtype=pl.Int64, strict=False)}),
    "polars String": lambda v: pl.DataFrame(
        {"a": pl.Series([None if x is None else f"v{x}" for x in v], dtype=pl.String)}
    ),
    "polars Categorical": lambda v: pl.DataFrame(
        {"a": pl.Series([None if x is None else f"v{x}" for x in v], dtype=pl.Categorical)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", NULLABLE.values(), ids=NULLABLE)
def test_one_missing_value_changes_neither_the_price_nor_the_mechanism(make):
    values = [0, 1] * 1000
    full, gap = make(values), make([*values[:-1], None])
    assert private().cost(full) == private().cost(gap)
    fitted = [
        private(noise_random_state=0, missing="middle", ledger=Ledger()).fit(frame)
        for frame in (full, gap)
    ]
    assert fitted[0].events_ == fitted[1].events_
    entries = [e.schema_["a"] for e in fitted]
    assert type(entries[0]) is type(entries[1])
    if isinstance(entries[0], Categorical):
        assert [(type(v), v) for v in entries[0].values] == [
            (type(v), v) for v in entries[1].values
        ]
    coded = [e.transform(frame) for e, frame in zip(fitted, (full, gap), strict=True)]
    if isinstance(entries[0], Categorical):
        assert np.array_equal(coded[0][:-1], coded[1][:-1])
    else:
        assert coded[0].shape == coded[1].shape


@pytest.mark.parametrize("seed", [None, 3])
def test_a_learnt_schema_stays_learnt_when_it_is_loaded_cloned_or_passed_on(seed):
    learnt = private(noise_random_state=seed).fit(mixed())
    loaded = PrivateTableEncoder.from_dict(json.loads(json.dumps(learnt.to_dict())))
    refitted = clone(loaded).fit(mixed())
    twice = PrivateTableEncoder.from_dict(json.loads(json.dumps(refitted.to_dict())))
    others = [
        loaded,
        clone(loaded),
        clone(clone(loaded).fit(mixed())),
        twice,
        PrivateTableEncoder(schema=learnt.schema_),
        make_pipeline(clone(loaded)).fit(mixed())[0],
        pickle.loads(pickle.dumps(loaded)),
    ]
    for other in others:
        other.fit(mixed())
        assert other.privacy_.epsilon == learnt.privacy_.epsilon > 0
        assert other.privacy_.seeded == (seed is not None)
        assert other.privacy_.certified == learnt.privacy_.certified
        assert other.events_ == learnt.events_
        assert not any("schema" in text for text in other.privacy_.assumptions)
        assert other.cost(mixed()) == ()  # charged once, when it was learnt
    part = learnt.schema_.drop(["town"])
    assert PrivateTableEncoder(schema=part).fit(mixed()[part.names]).privacy_ == learnt.privacy_


def test_a_declared_schema_has_no_origin():
    encoder = PrivateTableEncoder(schema=SCHEMA).fit(FRAME)
    again = clone(PrivateTableEncoder.from_dict(encoder.to_dict())).fit(FRAME)
    assert again.schema_.origin is None
    assert again.privacy_.epsilon == 0
    assert again.events_ == ()
