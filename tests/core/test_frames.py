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
