"""A schema is public, strict, and its messages never hold a value of the data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfair.core.exceptions import InvalidTypeError, SchemaError
from privfair.core.frames import as_table
from privfair.core.schema import Categorical, Numeric, Schema

SCHEMA = Schema({"age": Numeric(17, 90), "sex": Categorical(["F", "M"])})
GOOD = pd.DataFrame({"age": [20, 99], "sex": ["F", "M"]})


def test_a_fitting_table_passes_and_clipping_is_left_to_the_encoder():
    SCHEMA.validate(as_table(GOOD))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (GOOD.drop(columns="sex"), "in the schema and not in the table"),
        (GOOD.assign(age=[20.0, np.nan]), "missing or NaN"),
        (GOOD.assign(age=["SECRET", "x"]), "not numeric"),
        (GOOD.assign(sex=["F", "SECRET"]), "outside its declared list"),
        (GOOD.assign(sex=["F", None]), "outside its declared list"),
    ],
)
def test_each_misfit_is_named_without_a_value(frame, words):
    with pytest.raises(SchemaError, match=words) as info:
        SCHEMA.validate(as_table(frame))
    assert "SECRET" not in str(info.value)


def test_other_takes_unknown_values():
    schema = Schema({"sex": Categorical(["F", "M"], other="other")})
    schema.validate(as_table(GOOD[["sex"]].assign(sex=["F", "unheard of"])))


@pytest.mark.parametrize(
    ("low", "high", "bins"),
    [(1, 1, None), (2, 1, None), (0, 1, [0.5, 0.5]), (0, 1, [2.0]), (0, 1, []), (0, 1, [1.0])],
)
def test_bad_numeric_columns(low, high, bins):
    with pytest.raises(SchemaError):
        Numeric(low, high, bins=bins)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bounds_are_finite(bad):
    with pytest.raises(SchemaError):
        Numeric(0, bad)


def test_bad_categorical_columns():
    for bad in ([], ["a", "a"], [None], [float("nan")]):
        with pytest.raises(SchemaError):
            Categorical(bad)
    with pytest.raises(InvalidTypeError):
        Categorical("abc")


def test_numbers_stay_numbers_and_match_by_value():
    schema = Schema({"grade": Categorical([1, 2, 3])})
    schema.validate(as_table(pd.DataFrame({"grade": np.array([1, 3], dtype=np.int8)})))


@pytest.mark.parametrize(
    "text",
    ["[columns.a]\nkind = 'numeric'\nlow = 0\nhigh = 1\nlogg = true", "x = 1", "not toml ["],
)
def test_toml_is_strict(text):
    with pytest.raises(SchemaError):
        Schema.from_toml(text)


names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
columns = st.one_of(
    st.builds(
        lambda low, width, log: Numeric(low, low + width, log=log),
        st.integers(-1000, 1000),
        st.integers(1, 1000),
        st.booleans(),
    ),
    st.builds(Categorical, st.lists(names, min_size=1, max_size=4, unique=True)),
    st.builds(Categorical, st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True)),
)


@given(st.dictionaries(names, columns, min_size=1, max_size=4))
def test_toml_and_dict_round_trip(entries):
    schema = Schema(entries)
    assert Schema.from_toml(schema.to_toml()) == schema
    assert Schema.from_dict(schema.to_dict()) == schema


def test_select_and_drop():
    assert SCHEMA.select(["sex"]).names == ["sex"]
    assert SCHEMA.drop(["sex"]).names == ["age"]
    with pytest.raises(SchemaError, match="no column"):
        SCHEMA.select(["nothing"])
