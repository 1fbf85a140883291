"""Encoding of protected attributes: distances, weights, cells, and nothing learnt if public."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    MissingSensitiveFeatureError,
    SchemaError,
    SensitiveFeatureError,
)
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.fairness.dcov import AttributeEncoder


def frame(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "race": rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]),
            "sex": pd.Categorical(rng.choice(["f", "m"], n)),
            "age": rng.uniform(18, 90, n),
        }
    )


def mean_pair(block: np.ndarray) -> float:
    n = len(block)
    d = np.sqrt(((block[:, None] - block[None]) ** 2).sum(-1))
    return d.sum() / (n * (n - 1))


def test_balanced_gives_every_attribute_its_mean_distance() -> None:
    S = frame()
    encoder = AttributeEncoder(weights={"age": 2.0}).fit(S)
    X = encoder.transform(S)
    means = {name: mean_pair(X[:, block]) for name, block in encoder.blocks_.items()}
    assert means == pytest.approx({"race": 1.0, "sex": 1.0, "age": 2.0})


def test_paper_scaling_is_the_table_of_the_paper() -> None:
    S = frame()
    encoder = AttributeEncoder(scaling="paper").fit(S)
    X = encoder.transform(S)
    race, sex, age = (X[:, encoder.blocks_[n]] for n in ("race", "sex", "age"))
    assert race.shape[1] == 3 and set(race.sum(axis=1)) == {1.0}, "no level is dropped"
    assert sex.shape[1] == 1 and set(sex.ravel()) == {0.0, 1.0}
    assert (age.min(), age.max()) == (0.0, 1.0)
    raw = AttributeEncoder(scaling="none").fit(S)
    got = raw.transform(S)[:, raw.blocks_["age"]].ravel()
    np.testing.assert_allclose(got - got.min(), S["age"] - S["age"].min())


def test_the_scale_is_fitted_once_and_not_per_batch() -> None:
    S = frame()
    encoder = AttributeEncoder().fit(S)
    np.testing.assert_array_equal(encoder.transform(S)[:7], encoder.transform(S[:7]))


def test_numbers_that_are_codes_are_categories() -> None:
    S = {"code": [0, 1, 2, 1], "value": [0.5, 1.5, 2.5, 3.5]}
    encoder = AttributeEncoder(scaling="none").fit(S)
    assert encoder.transform(S).shape == (4, 4)
    as_number = AttributeEncoder(types={"code": "continuous"}, scaling="none").fit(S)
    assert as_number.transform(S).shape == (4, 2)


def test_labels_do_not_matter() -> None:
    S = frame()[["race"]]
    other = S.replace({"a": "z", "b": "a", "c": "m"})
    for scaling in ("balanced", "paper", "none"):
        one, two = (
            AttributeEncoder(scaling=scaling).fit(T).cell_distances()[0] for T in (S, other)
        )
        codes = [AttributeEncoder(scaling=scaling).fit(T).cell_of_ for T in (S, other)]
        np.testing.assert_allclose(one[codes[0]][:, codes[0]], two[codes[1]][:, codes[1]])


@pytest.mark.parametrize("dtype", ["str", "category", object, "string"])
def test_every_kind_of_text_column_works(dtype: object) -> None:
    S = pd.DataFrame({"race": pd.Series(["a", "b", "a", "c"]).astype(dtype)})
    encoder = AttributeEncoder(scaling="paper").fit(S)
    assert encoder.transform(S).argmax(axis=1).tolist() == [0, 1, 0, 2]
    assert encoder.cell_labels_ == [("a",), ("b",), ("c",)]


def test_cells_are_the_distinct_rows() -> None:
    S = frame()[["race", "sex"]]
    encoder = AttributeEncoder().fit(S)
    X = encoder.transform(S)
    np.testing.assert_array_equal(encoder.cells_[encoder.cell_of_], X)
    assert len(encoder.cells_) == len(np.unique(X, axis=0)) == 6
    np.testing.assert_array_equal(encoder.cell_codes(S[::-1]), encoder.cell_of_[::-1])
    total = np.sqrt(sum(d**2 for d in encoder.cell_distances()))
    direct = np.sqrt(((encoder.cells_[:, None] - encoder.cells_[None]) ** 2).sum(-1))
    np.testing.assert_allclose(total, direct)


def test_too_many_cells_are_none() -> None:
    encoder = AttributeEncoder(max_cells=50).fit(frame())
    assert encoder.cells_ is None and encoder.cell_of_ is None
    with pytest.raises(SensitiveFeatureError, match="max_cells"):
        encoder.cell_codes(frame())
    assert AttributeEncoder(max_cells=200).fit(frame()).cells_ is not None


def test_a_new_combination_is_refused() -> None:
    encoder = AttributeEncoder().fit({"a": ["x", "y", "x"], "b": ["u", "u", "v"]})
    with pytest.raises(SensitiveFeatureError, match="combination"):
        encoder.cell_codes({"a": ["y"], "b": ["v"]})


SCHEMA = Schema(
    {
        "race": Categorical(["a", "b", "c"], other="other"),
        "age": Numeric(0, 100, bins=[25, 65]),
    }
)


def test_with_a_schema_nothing_is_learnt() -> None:
    one = {"race": ["a", "a"], "age": [3, 150]}
    two = {"race": ["b", "never declared"], "age": [30, 99]}
    first, second = (AttributeEncoder(schema=SCHEMA).fit(S) for S in (one, two))
    np.testing.assert_array_equal(first.cells_, second.cells_)
    np.testing.assert_array_equal(first.transform(two), second.transform(two))
    assert len(first.cells_) == 4 * 3, "the full product"
    assert second.cell_labels_[second.cell_of_[1]] == ("other", "[65, 100)")
    weights = [d.mean() for d in first.cell_distances()]
    assert weights == pytest.approx([1.0, 1.0]), "uniform over the declared values"


def test_schema_with_a_continuous_column_has_no_cells() -> None:
    schema = Schema({"age": Numeric(0, 100)})
    encoder = AttributeEncoder(schema=schema).fit({"age": [1.0, 500.0]})
    assert encoder.cells_ is None
    np.testing.assert_allclose(encoder.transform({"age": [0.0, 500.0]}).ravel(), [0.0, 3.0])


def test_schema_without_other_refuses_unknown_values() -> None:
    schema = Schema({"race": Categorical(["a", "b"])})
    with pytest.raises(SensitiveFeatureError, match="race"):
        AttributeEncoder(schema=schema).fit({"race": ["a", "secret"]})
    with pytest.raises(SchemaError):
        AttributeEncoder(schema=schema).fit({"sex": ["a"]})
    with pytest.raises(SchemaError):
        AttributeEncoder(schema=schema, types={"race": "continuous"}).fit({"race": ["a"]})


def test_missing_values() -> None:
    S = pd.DataFrame({"race": ["a", None, "b", "a"]})
    with pytest.raises(MissingSensitiveFeatureError, match="race"):
        AttributeEncoder().fit(S)
    encoder = AttributeEncoder(missing="category").fit(S)
    assert encoder.cell_labels_ == [("a",), ("b",), ("missing",)]
    assert encoder.cell_codes(pd.DataFrame({"race": [None]})).tolist() == [2]
    with pytest.raises(MissingSensitiveFeatureError):
        AttributeEncoder(missing="category").fit({"age": [1.5, np.nan]})


def test_errors_name_the_column_and_no_value() -> None:
    encoder = AttributeEncoder().fit({"race": ["a", "b"]})
    with pytest.raises(SensitiveFeatureError, match="race") as caught:
        encoder.transform({"race": ["confidential"]})
    assert "confidential" not in str(caught.value)
    with pytest.raises(DataError):
        AttributeEncoder().fit({"x": [1.5, np.inf]})
    with pytest.raises(SensitiveFeatureError):
        AttributeEncoder(types={"x": "binary"}).fit({"x": ["a", "b", "c"]})
    with pytest.raises(SensitiveFeatureError):
        AttributeEncoder(types={"x": "continuous"}).fit({"x": ["a", "b", "c"]})


@pytest.mark.parametrize(
    "params",
    [
        {"scaling": "minmax"},
        {"types": {"nobody": "binary"}},
        {"types": {"x": "nominal"}},
        {"weights": {"x": 0.0}},
        {"missing": "drop"},
        {"max_cells": 0},
    ],
)
def test_bad_parameters(params: dict) -> None:
    with pytest.raises(InvalidParameterError):
        AttributeEncoder(**params).fit({"x": ["a", "b"]})


def test_a_constant_attribute_has_no_distance() -> None:
    encoder = AttributeEncoder(types={"age": "continuous"}).fit(
        {"age": [3.0, 3.0], "s": ["b", "b"]}
    )
    assert (encoder.cell_distances()[0] == 0).all()


def test_clone() -> None:
    encoder = AttributeEncoder(scaling="paper", weights={"x": 2.0})
    assert clone(encoder).get_params() == encoder.get_params()
