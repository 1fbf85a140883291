"""No error message, nor the traceback around it, quotes a value of the caller's records."""

from __future__ import annotations

import traceback

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core import Numeric, Schema
from privfair.core.exceptions import InvalidTypeError, LabelError, PrivfairError, SchemaError
from privfair.dp import DPClassifier, PrivateTableEncoder

SECRET = "John Smith, HIV+"
NUMBER = 8123.25


def numbers(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})


def with_text():
    frame = numbers()
    frame["b"] = [SECRET if i == 37 else str(v) for i, v in enumerate(frame["b"])]
    return frame


def in_objects(value):
    array = numbers().to_numpy(dtype=object).copy()
    array[37, 1] = value
    return array


TABLES = {
    "frame": (with_text, SchemaError),
    "categories": (lambda: with_text().astype({"b": "category"}), SchemaError),
    "objects": (lambda: with_text().to_numpy(dtype=object), SchemaError),
    "text": (lambda: with_text().to_numpy(dtype=str), SchemaError),
    "lists": (lambda: [[1.0, SECRET]] * 60, SchemaError),
    "dates": (lambda: pd.DataFrame({"b": pd.date_range("1999-01-01", periods=60)}), SchemaError),
    "a tuple": (lambda: in_objects((SECRET, NUMBER)), InvalidTypeError),
    "too large": (lambda: in_objects(10**400), SchemaError),
    "complex": (lambda: numbers().to_numpy() + NUMBER * 1j, SchemaError),
    "complex objects": (lambda: in_objects(NUMBER * 1j), SchemaError),
    "one row": (lambda: np.full(60, NUMBER), SchemaError),
    "ragged": (lambda: [[NUMBER, 1.0]] * 59 + [[NUMBER, 1.0, 2.0]], SchemaError),
}


def printed(caught):
    """Return the messages that a traceback would show, chained ones too, without source lines."""
    shown = traceback.TracebackException.from_exception(caught.value)
    lines = []
    while shown is not None:
        lines.extend(shown.format_exception_only())
        hidden = None if shown.__suppress_context__ else shown.__context__
        shown = shown.__cause__ or hidden
    return "".join(lines)


def assert_silent(caught):
    text = printed(caught)
    assert SECRET not in text and "8123" not in text and "John" not in text and "1999" not in text
    assert "0.1257" not in text  # the first entry of the table


@pytest.mark.parametrize("name", TABLES)
def test_columns_that_are_no_numbers_are_named_and_not_quoted(name):
    make, error = TABLES[name]
    ledger, y = Ledger(), np.tile([0, 1], 30)
    clf = DPClassifier(schema="as_is", ledger=ledger, epochs=1)
    with pytest.raises(error) as caught:
        clf.fit(make(), y)
    assert_silent(caught)
    assert len(ledger) == 0
    encoder = PrivateTableEncoder(schema="as_is")
    with pytest.raises(error) as caught:
        encoder.fit(make())
    assert_silent(caught)


@pytest.mark.parametrize("name", ["frame", "objects", "a tuple", "too large", "complex"])
def test_prediction_and_transformation_quote_nothing_either(name):
    make, error = TABLES[name]
    data = numbers() if name == "frame" else numbers().to_numpy()
    clf = DPClassifier(schema="as_is", ledger=Ledger(), epochs=1).fit(data, np.tile([0, 1], 30))
    with pytest.raises(error) as caught:
        clf.predict(make())
    assert_silent(caught)
    with pytest.raises(error) as caught:
        PrivateTableEncoder(schema="as_is").fit(data).transform(make())
    assert_silent(caught)


def test_the_column_is_named():
    with pytest.raises(SchemaError, match="column 'b' is not numeric"):
        PrivateTableEncoder(schema="as_is").fit(with_text())


@pytest.mark.parametrize("kwargs", [{}, {"classes": [0, 1]}, {"classes": ["no", "yes"]}])
@pytest.mark.parametrize("mixed", [True, False])
def test_labels_are_not_quoted(kwargs, mixed):
    y = np.tile([0, 1], 30).astype(object) if mixed else np.full(60, "yes", dtype=object)
    y[37] = SECRET
    clf = DPClassifier(schema="as_is", ledger=Ledger(), epochs=1, **kwargs)
    if not mixed and not kwargs:
        assert clf.fit(numbers(), y).classes_.tolist() == [SECRET, "yes"]  # two plain labels
        return
    with pytest.raises((LabelError, ValueError)) as caught:
        clf.fit(numbers(), y)
    assert_silent(caught)


def test_weights_are_not_quoted():
    weights = np.ones(60, dtype=object)
    weights[37] = SECRET
    with pytest.raises(ValueError, match="finite numbers") as caught:
        DPClassifier(schema="as_is", ledger=Ledger()).fit(
            numbers(), np.tile([0, 1], 30), sample_weight=weights
        )
    assert_silent(caught)


def test_numbers_in_any_dress_are_taken():
    frame = numbers()
    frame["c"] = np.array([1, 2.5, True] * 20, dtype=object)
    frame["d"] = pd.array([1, 2, 3] * 20, dtype="Int64")
    frame["e"] = [True, False] * 30
    out = PrivateTableEncoder(schema="as_is").fit(frame).transform(frame)
    np.testing.assert_array_equal(out[:3, 2:], [[1, 1, 1], [2.5, 2, 0], [1, 3, 1]])


def test_the_encoder_of_a_twin_without_noise_claims_nothing():
    frame = numbers()
    clf = DPClassifier(epsilon=float("inf"), ledger=Ledger(), epochs=1)
    clf.fit(frame, np.tile([0, 1], 30))
    learnt = clf.encoding_.encoder
    assert learnt.schema_["a"].low == frame["a"].min()  # read off exactly, so:
    assert learnt.privacy_.unsafe == ("non_private",) and not learnt.privacy_.certified
    assert learnt.privacy_.epsilon == float("inf")
    said = " ".join(learnt.privacy_.assumptions + clf.privacy_.assumptions)
    assert "nothing was learnt" not in said and "read off the data exactly" in said
    again = type(learnt).from_dict(learnt.to_dict())
    assert again.privacy_.unsafe == ("non_private",)
    public = DPClassifier(epsilon=float("inf"), schema="as_is", ledger=Ledger(), epochs=1)
    public.fit(frame, np.tile([0, 1], 30))
    assert public.encoding_.encoder.privacy_.epsilon == 0.0  # here nothing was learnt


@pytest.mark.parametrize(
    "schema", [None, Schema({"a": Numeric(-4, 4), "b": Numeric(-4, 4)})], ids=["learnt", "public"]
)
def test_odd_objects_in_a_numeric_column_spend_nothing(schema):
    from datetime import date
    from decimal import Decimal

    for odd in (Decimal("98.75"), date(1987, 6, 5), 3 + 4j, (1, 2)):
        X = numbers()
        y = np.arange(len(X)) % 2
        X["a"] = X["a"].astype(object)
        X.at[17, "a"] = odd
        ledger = Ledger()
        with pytest.raises((TypeError, ValueError)) as caught:
            DPClassifier(schema=schema, ledger=ledger).fit(X, y)
        assert isinstance(caught.value, PrivfairError)
        assert "'a'" in str(caught.value) and "98.75" not in str(caught.value)
        assert ledger.spent().epsilon == 0.0
