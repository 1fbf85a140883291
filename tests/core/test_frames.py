"""pandas, polars and numpy give the same table; misaligned rows are an error."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from privfair.core.exceptions import (
    ColumnNotFoundError,
    DataError,
    InvalidTypeError,
    LengthMismatchError,
)
from privfair.core.frames import as_table, as_vector, check_aligned, missing_mask

FRAME = pd.DataFrame(
    {
        "age": [17, 40, 90],
        "pay": [0.5, np.nan, 2.0],
        "sex": ["F", "M", None],
        "kind": pd.Categorical(["u", "v", "u"], categories=["u", "v", "ghost"]),
        "maybe": pd.array([1, None, 3], dtype="Int64"),
        "flag": [True, False, True],
    }
)


@pytest.mark.parametrize("frame", [FRAME, pl.from_pandas(FRAME)], ids=["pandas", "polars"])
def test_both_libraries_read_alike(frame):
    table = as_table(frame)
    assert table.columns == tuple(FRAME.columns)
    assert table.column("age").dtype == np.int64
    assert table.column("flag").dtype == bool
    assert table.column("sex").tolist() == ["F", "M", None]
    assert table.column("kind").tolist() == ["u", "v", "u"]
    assert np.isnan(table.column("maybe")[1])
    assert missing_mask(table.column("sex")).tolist() == [False, False, True]
    assert missing_mask(table.column("pay")).tolist() == [False, True, False]


def test_unnamed_input_gets_names():
    table = as_table(np.zeros((4, 2)), prefix="x")
    assert table.columns == ("x0", "x1")
    assert not table.has_names
    assert as_table([1, 2, 3]).n_rows == 3
    assert as_table(pd.Series([1], name="a")).columns == ("a",)
    assert as_table({"a": [1, 2], "b": ["x", "y"]}).n_rows == 2


def test_a_missing_column_is_named_with_a_suggestion():
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'age'"):
        as_table(FRAME).column("agee")


def test_duplicate_names_are_refused():
    with pytest.raises(DataError, match="two columns"):
        as_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2))])
def test_dimensions(bad):
    with pytest.raises(DataError):
        as_table(bad)


def test_none_is_a_type_error():
    with pytest.raises(InvalidTypeError):
        as_table(None)
    with pytest.raises(InvalidTypeError):
        as_vector(None)


@pytest.mark.parametrize(
    "y", [[0, 1, 1], np.array([[0], [1], [1]]), pd.Series([0, 1, 1]), pl.Series([0, 1, 1])]
)
def test_vectors(y):
    assert as_vector(y).tolist() == [0, 1, 1]


def test_vectors_of_text_are_objects_whatever_the_library():
    for y in (["a", "b"], np.array(["a", "b"]), pd.Series(["a", "b"]), pl.Series(["a", "b"])):
        assert as_vector(y).dtype == object


def test_lengths_are_checked_by_name():
    with pytest.raises(LengthMismatchError, match="y_true: 3, y_pred: 2"):
        check_aligned(y_true=[0, 1, 1], y_pred=[0, 1])


def test_a_shifted_pandas_index_is_an_error_not_a_silent_misalignment():
    y = pd.Series([0, 1, 1])
    with pytest.raises(LengthMismatchError, match="different row indices"):
        check_aligned(y=y, sensitive_features=y.iloc[::-1])
    assert check_aligned(y=y, sensitive_features=np.zeros(3), other=None) == 3


def test_inputs_are_not_mutated():
    before = FRAME.copy(deep=True)
    copy = as_table(FRAME).to_pandas()
    copy.loc[0, "age"] = -1
    pd.testing.assert_frame_equal(FRAME, before)


def test_columns_named_by_numbers_are_columns():
    frame = pd.DataFrame([[1, 2], [3, 4], [5, 6]], columns=[1, 0])
    table = as_table(frame)
    assert table.columns == ("1", "0")
    assert table.column("1").tolist() == [1, 3, 5] and table.column("0").tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda v: pd.Series(v, dtype="boolean"), "nullable_boolean"),
        (lambda v: pd.Series(v, dtype="Int64"), "numeric"),
        (lambda v: pd.Series(v, dtype="Float64"), "numeric"),
        (lambda v: pd.Series(v, dtype=float), "numeric"),
        (lambda v: pd.Series(v, dtype=object), "categorical"),
        (lambda v: pd.Series([None if x is None else str(x) for x in v], dtype="string"),
         "categorical"),
        (lambda v: pd.Series(v, dtype=pd.CategoricalDtype([0, 1])), "categorical"),
        (lambda v: pd.Series(
                [None if x is None else bool(x) for x in v],
                dtype=pd.CategoricalDtype([False, True]),
            ), "categorical"),
        (lambda v: pl.Series(v, dtype=pl.Boolean, strict=False), "nullable_boolean"),
        (lambda v: pl.Series(v, dtype=pl.Int64, strict=False), "numeric"),
        (lambda v: pl.Series(v, dtype=pl.Float64, strict=False), "numeric"),
        (lambda v: pl.Series([None if x is None else str(x) for x in v], dtype=pl.String),
         "categorical"),
        (lambda v: pl.Series([None if x is None else str(x) for x in v], dtype=pl.Categorical),
         "categorical"),
    ],
)  # fmt: skip
def test_the_kind_of_a_column_is_its_dtype_and_not_its_values(make, kind):
    for values in ([0, 1, 1], [0, 1, None], [None, None, None], []):
        series = make(values)
        for given in (series, as_frame(series)):
            table = as_table(given)
            assert table.kind(table.columns[0]) == kind
            gone = missing_mask(table.column(table.columns[0])).tolist()
            assert gone == [v is None for v in values]


def as_frame(series):
    return pd.DataFrame({"a": series}) if isinstance(series, pd.Series) else pl.DataFrame([series])


def test_kinds_of_arrays_and_of_what_is_neither_number_nor_category():
    assert as_table(np.zeros((2, 1), dtype=bool)).kind("x0") == "boolean"
    assert as_table(np.array([["a"]])).kind("x0") == "categorical"
    zoned = pd.Series(pd.date_range("2020-01-01", periods=2, tz="UTC"), name="d")
    assert as_table(zoned).kind("d") == "unknown"
    assert as_table(zoned.dt.tz_localize(None)).kind("d") == "unknown"
    assert as_table(pl.from_pandas(zoned)).kind("d") == "unknown"


@pytest.mark.parametrize(
    "y", [pd.Series([1, 0, 1], dtype="Int64"), pl.Series([1, 0, 1], dtype=pl.Int64)]
)
def test_whole_labels_stay_whole(y):
    assert as_vector(y).tolist() == [1, 0, 1]
    assert as_vector(y).dtype.kind == "i"
