"""The group table: what is read, what is refused, what is kept."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    MissingSensitiveFeatureError,
    SensitiveFeatureError,
)
from privfair.fairness.metrics import (
    GroupTable,
    bin_sensitive,
    demographic_parity_difference,
)

rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abc"),
              st.floats(0.1, 9.0)),
    min_size=1, max_size=60,
)  # fmt: skip


def table(data, **options):
    y, d, s, _ = zip(*data, strict=True)
    return GroupTable.from_arrays(list(y), list(d), sensitive_features=list(s), **options)


@given(rows)
def test_counts_are_those_of_a_loop(data):
    t = table(data)
    for g, name in enumerate(t.names):
        for y in (0, 1):
            for d in (0, 1):
                expected = sum(1 for r in data if r[:3] == (y, d, name))
                assert t.counts[g, y, d] == expected
    assert t.n == len(data)
    assert (t.sums == t.counts).all()


@given(rows, st.integers(0, 60))
def test_merging_parts_gives_the_table_of_all(data, cut):
    options = {"groups": list("abc")}
    y, d, s, w = (np.array(c) for c in zip(*data, strict=True))
    whole = GroupTable.from_arrays(y, d, sensitive_features=s, sample_weight=w, **options)
    parts = [
        GroupTable.from_arrays(y[p], d[p], sensitive_features=s[p], sample_weight=w[p], **options)
        for p in (slice(0, cut), slice(cut, None))
        if len(y[p])
    ]
    joined = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    assert (joined.counts == whole.counts).all()
    np.testing.assert_allclose(joined.sums, whole.sums, atol=1e-12)
    np.testing.assert_allclose(joined.squares, whole.squares, atol=1e-12)
    np.testing.assert_array_equal(joined.rows.cell, whole.rows.cell)
    np.testing.assert_array_equal(joined.rows.count, whole.rows.count)


def test_merging_adds_new_groups_and_refuses_other_tables():
    one = table([(1, 1, "a", 1.0)])
    two = table([(0, 1, "b", 1.0)])
    both = one + two
    assert both.names == ("a", "b")
    assert both.counts.sum(axis=(1, 2)).tolist() == [1, 1]
    other = GroupTable.from_arrays([1], [1], sensitive_features=pd.Series(["a"], name="sex"))
    with pytest.raises(InvalidParameterError, match="features"):
        one.merge(other)
    with pytest.raises(InvalidParameterError, match="weighted"):
        one.merge(table([(1, 1, "a", 1.0)], sample_weight=[2.0]))
    with pytest.raises(InvalidParameterError):
        one.merge("table")


def test_input_kinds_give_one_table():
    y, d, s = [1, 0, 1, 0, 1], [1, 1, 0, 0, 1], ["x", "y", "x", "y", "y"]
    frame = pd.DataFrame({"s": s})
    tables = [
        GroupTable.from_arrays(np.array(y), np.array(d), sensitive_features=frame),
        GroupTable.from_arrays(pd.Series(y), pd.Series(d), sensitive_features=frame["s"]),
        GroupTable.from_arrays(
            pl.Series("y", y), pl.Series("d", d), sensitive_features=pl.DataFrame({"s": s})
        ),
        GroupTable.from_arrays([bool(v) for v in y], [float(v) for v in d],
                               sensitive_features={"s": s}),
        GroupTable.from_arrays(
            y, d, sensitive_features=frame.astype("category").assign(
                s=lambda f: f["s"].cat.add_categories("never"))
        ),
    ]  # fmt: skip
    for t in tables:
        assert t.features == ("s",)
        assert t.names == ("x", "y")  # an unused category makes no ghost group
        assert (t.counts == tables[0].counts).all()


def test_inputs_are_not_changed_and_may_be_read_only():
    y, d = np.array([1, 0, 1]), np.array([0, 0, 1])
    s = np.array(["a", "b", "a"], dtype=object)
    for array in (y, d, s):
        array.setflags(write=False)
    before = [array.tobytes() for array in (y, d)]
    GroupTable.from_arrays(y, d, sensitive_features=s)
    assert [array.tobytes() for array in (y, d)] == before


def test_narrow_integers_do_not_wrap():
    counts = np.full((2, 2, 2), 200, dtype=np.uint8)
    t = GroupTable.from_counts(counts, groups=["a", "b"])
    assert t.n == 1600
    y = np.ones(70_000, dtype=np.uint8)
    t = GroupTable.from_arrays(y, y, sensitive_features=np.repeat(["a", "b"], 35_000))
    assert t.counts[:, 1, 1].tolist() == [35_000, 35_000]


def test_crossings_keep_groups_without_rows():
    frame = pd.DataFrame({"sex": ["f", "m", "m"], "race": ["u", "u", "v"]})
    t = GroupTable.from_arrays([1, 0, 1], [1, 1, 0], sensitive_features=frame)
    assert t.labels == (("f", "u"), ("f", "v"), ("m", "u"), ("m", "v"))
    assert t.counts.sum(axis=(1, 2)).tolist() == [1, 0, 1, 1]
    assert list(t.index.names) == ["sex", "race"]
    assert t.to_frame().loc[("f", "v"), "n"] == 0
    assert t.names[1] == "f & v"


def test_declared_groups_are_kept_in_order_and_others_are_counted_as_excluded():
    t = table([(1, 1, "a", 1.0), (0, 1, "z", 1.0)], groups=["q", "a"])
    assert t.names == ("q", "a")
    assert t.counts.sum(axis=(1, 2)).tolist() == [0, 1]
    assert t.excluded == (("not among the declared groups", 1),)
    assert t.to_dict()["excluded"] == [{"reason": "not among the declared groups", "n": 1}]
    frame = pd.DataFrame({"sex": ["f"], "race": ["u"]})
    by_map = GroupTable.from_arrays(
        [1], [1], sensitive_features=frame, groups={"sex": ["f", "m"], "race": ["u", "v"]}
    )
    assert len(by_map.labels) == 4
    with pytest.raises(InvalidParameterError):
        GroupTable.from_arrays([1], [1], sensitive_features=frame, groups=["f"])
    with pytest.raises(InvalidParameterError):
        GroupTable.from_arrays([1], [1], sensitive_features=frame, groups={"sex": ["f"]})
    with pytest.raises(InvalidParameterError):
        table([(1, 1, "a", 1.0)], groups=["a", "a"])
    with pytest.raises(InvalidTypeError):
        table([(1, 1, "a", 1.0)], groups="a")


# --- missing groups -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        np.array(["a", None, "b"], dtype=object),
        np.array([0.0, np.nan, 1.0]),
        pd.Series(["a", pd.NA, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
        pl.Series("s", ["a", None, "b"]),
    ],
    ids=["object", "float", "string", "category", "polars"],
)
def test_missing_groups_are_an_error_or_a_group_never_lost(column):
    with pytest.raises(MissingSensitiveFeatureError, match="missing_group"):
        GroupTable.from_arrays([1, 0, 1], [1, 1, 0], sensitive_features=column)
    t = GroupTable.from_arrays(
        [1, 0, 1], [1, 1, 0], sensitive_features=column, missing_group="missing"
    )
    assert t.n == 3
    assert "missing" in t.names
    assert t.counts[t.names.index("missing"), 0, 1] == 1


def test_a_missing_group_may_not_take_an_existing_name():
    column = np.array(["missing", None], dtype=object)
    with pytest.raises(SensitiveFeatureError, match="already has"):
        GroupTable.from_arrays([1, 0], [1, 1], sensitive_features=column, missing_group="missing")
    with pytest.raises(InvalidTypeError):
        GroupTable.from_arrays([1, 0], [1, 1], sensitive_features=column, missing_group=True)


# --- numeric groups -------------------------------------------------------------------------


def test_quantities_need_declared_cuts():
    age = pd.DataFrame({"age": np.arange(18, 68)})
    y = np.tile([0, 1], 25)
    with pytest.raises(SensitiveFeatureError, match="--bin age=25,45,65"):
        GroupTable.from_arrays(y, y, sensitive_features=age)
    t = GroupTable.from_arrays(y, y, sensitive_features=age, cuts={"age": [25, 45, 65]})
    assert t.names == ("< 25", "25 to < 45", "45 to < 65", ">= 65")
    assert t.counts.sum(axis=(1, 2)).tolist() == [7, 20, 20, 3]
    with pytest.raises(SensitiveFeatureError):
        GroupTable.from_arrays([1, 0], [1, 0], sensitive_features=[0.5, 1.0])
    with pytest.raises(InvalidParameterError, match="not among"):
        GroupTable.from_arrays(y, y, sensitive_features=age, cuts={"Age": [25]})
    codes = GroupTable.from_arrays([1, 0, 1], [1, 0, 0], sensitive_features=[10, 9, 10])
    assert codes.names == ("9", "10")  # codes are ordered as numbers


def test_bins_hold_their_lower_cut():
    assert bin_sensitive([24.9, 25, 25.1], [25]).tolist() == ["< 25", ">= 25", ">= 25"]
    out = bin_sensitive([1.0, np.nan], [5], missing_group="missing")
    assert out.tolist() == ["< 5", "missing"]
    with pytest.raises(MissingSensitiveFeatureError):
        bin_sensitive([1.0, np.nan], [5])
    for cuts in ([], [3, 3], [5, 1], [np.nan], [np.inf]):
        with pytest.raises(InvalidParameterError):
            bin_sensitive([1.0], cuts)
    with pytest.raises(SensitiveFeatureError):
        bin_sensitive(["a"], [1])


@given(st.lists(st.floats(-100, 100), min_size=1), st.sets(st.integers(-50, 50), min_size=1))
def test_bins_agree_with_pandas_cut(values, cuts):
    edges = sorted(cuts)
    ours = bin_sensitive(values, edges)
    theirs = pd.cut(values, [-np.inf, *edges, np.inf], right=False, labels=False)
    names = ["< " + f"{edges[0]:g}"]
    names += [f"{a:g} to < {b:g}" for a, b in zip(edges, edges[1:], strict=False)]
    names += [f">= {edges[-1]:g}"]
    assert ours.tolist() == [names[i] for i in theirs]


def test_values_that_read_the_same_are_not_merged():
    column = np.array([1, "1"], dtype=object)
    with pytest.raises(SensitiveFeatureError, match="read the same"):
        GroupTable.from_arrays([1, 0], [1, 0], sensitive_features=column)


def test_too_many_crossings_are_refused():
    frame = pd.DataFrame({c: [f"{c}{i}" for i in range(30)] for c in "abc"})
    with pytest.raises(SensitiveFeatureError, match="10000 groups"):
        GroupTable.from_arrays([1] * 30, [1] * 30, sensitive_features=frame)


# --- labels ---------------------------------------------------------------------------------


def test_text_labels_need_a_positive_one():
    y, d = ["yes", "no", "yes"], ["no", "no", "yes"]
    with pytest.raises(LabelError, match="pos_label"):
        GroupTable.from_arrays(y, d, sensitive_features=list("aab"))
    t = GroupTable.from_arrays(y, d, sensitive_features=list("aab"), pos_label="yes")
    assert t.counts[0].tolist() == [[1, 0], [1, 0]]
    with pytest.raises(LabelError, match="'yse' does not occur"):
        GroupTable.from_arrays(y, d, sensitive_features=list("aab"), pos_label="yse")


def test_swapping_the_positive_label_flips_both_axes():
    y, d, s = [1, 0, 1, 1], [1, 0, 0, 1], list("aabb")
    one = GroupTable.from_arrays(y, d, sensitive_features=s)
    zero = GroupTable.from_arrays(y, d, sensitive_features=s, pos_label=0)
    assert (zero.counts == one.counts[:, ::-1, ::-1]).all()


@pytest.mark.parametrize(
    ("y", "d"),
    [
        ([1, 2, 1], [2, 2, 1]),  # which is positive?
        (["1", "0", "1"], [1, 0, 1]),  # text against numbers
        ([0.2, 0.7, 1.0], [1, 0, 1]),  # probabilities
        ([1, 0, 1], [0.1, 0.9, 0.4]),
        ([1, None, 0], [1, 0, 1]),
        ([1.0, np.nan, 0.0], [1, 0, 1]),
        (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), [1, 0, 1]),
    ],
)
def test_unusable_labels_are_refused(y, d):
    with pytest.raises(LabelError):
        GroupTable.from_arrays(y, d, sensitive_features=list("aab"))


def test_two_classes_of_any_numbers_with_a_declared_positive_one():
    t = GroupTable.from_arrays([1, 2, 2], [2, 2, 1], sensitive_features=list("aaa"), pos_label=2)
    assert t.counts[0].tolist() == [[0, 1], [1, 1]]
    minus = GroupTable.from_arrays([-1, 1], [1, -1], sensitive_features=list("aa"))
    assert minus.counts[0].tolist() == [[0, 1], [1, 0]]


def test_more_than_two_classes_leave_only_the_accuracy():
    y, d = [0, 1, 2, 2], [0, 2, 2, 1]
    t = GroupTable.from_arrays(y, d, sensitive_features=list("aabb"))
    assert t.correctness_only
    one = GroupTable.from_arrays(y, d, sensitive_features=list("aabb"), pos_label=2)
    assert not one.correctness_only
    assert one.counts.sum(axis=0).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(LabelError):
        GroupTable.from_arrays(None, d, sensitive_features=list("aabb"))


def test_decisions_alone_are_enough_for_some_metrics():
    t = GroupTable.from_arrays(None, [1, 0, 1], sensitive_features=list("aab"))
    assert not t.has_labels
    assert t.counts.sum(axis=1).tolist() == [[1, 1], [0, 1]]
    with pytest.raises(LabelError):
        GroupTable.from_arrays(None, None, sensitive_features=list("aab"))


# --- shape and weights ----------------------------------------------------------------------


def test_misaligned_inputs_are_refused():
    with pytest.raises(LengthMismatchError, match="sensitive_features: 2"):
        GroupTable.from_arrays([1, 0, 1], [1, 0, 1], sensitive_features=["a", "b"])
    y = pd.Series([1, 0, 1])
    s = pd.Series(["a", "b", "c"], index=[2, 1, 0])
    with pytest.raises(LengthMismatchError, match="different row indices"):
        GroupTable.from_arrays(y, [1, 0, 1], sensitive_features=s)
    with pytest.raises(DataError, match="no rows"):
        GroupTable.from_arrays([], [], sensitive_features=[])
    with pytest.raises(SensitiveFeatureError, match="None"):
        demographic_parity_difference([1], [1])


@pytest.mark.parametrize("weight", [[1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [0.0, 0.0]])
def test_bad_weights_are_refused(weight):
    with pytest.raises(DataError):
        GroupTable.from_arrays([1, 0], [1, 0], sensitive_features=["a", "b"],
                               sample_weight=weight)  # fmt: skip


def test_text_weights_are_refused():
    with pytest.raises(InvalidTypeError):
        GroupTable.from_arrays([1], [1], sensitive_features=["a"], sample_weight=["1"])


@given(rows)
@settings(max_examples=30)
def test_tables_survive_pickling(data):
    y, d, s, w = zip(*data, strict=True)
    t = GroupTable.from_arrays(list(y), list(d), sensitive_features=list(s), sample_weight=list(w))
    back = pickle.loads(pickle.dumps(t))
    assert back.labels == t.labels
    assert (back.counts == t.counts).all()
    assert (back.rows.weight == t.rows.weight).all()


def test_from_counts_checks_its_shape():
    with pytest.raises(LengthMismatchError):
        GroupTable.from_counts([[[1, 2], [3, 4]]], groups=["a", "b"])
    with pytest.raises(InvalidParameterError):
        GroupTable.from_counts([[[1, 2], [3, -4]]], groups=["a"])
    with pytest.raises(InvalidParameterError):
        GroupTable.from_counts([[[1, 2], [3, 0.5]]], groups=["a"])


def test_html_shows_hostile_group_names_as_text():
    t = table([(1, 1, "a", 1.0)], groups=["<script>alert(1)</script>", "a"])
    assert "<script>" not in t._repr_html_()
