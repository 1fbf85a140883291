"""Names from data: cleaned once, told apart, cut."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from privfair.report import _numbers as show
from privfair.report._clean import MAX_LABEL, clean_label, clean_text, csv_cell, unique_labels
from privfair.report._inputs import slugs

ANY_TEXT = st.text(st.characters(), max_size=120)


@given(ANY_TEXT)
def test_cleaning_leaves_no_control_character(text: str) -> None:
    cleaned = clean_text(text)
    assert not {c for c in cleaned if unicodedata.category(c) in {"Cc", "Cs"}}
    assert not {c for c in cleaned if c in "\u202e\u2066\u2028\ufeff\u200b"}
    assert clean_text(cleaned) == cleaned
    label = clean_label(text)
    assert 0 < len(label) <= MAX_LABEL and "\n" not in label


@given(st.lists(ANY_TEXT, max_size=20))
def test_distinct_names_stay_distinct(names: list[str]) -> None:
    labels = unique_labels(names)
    assert len(set(labels.values())) == len(set(names))


@given(ANY_TEXT)
def test_a_csv_cell_never_starts_a_formula(text: str) -> None:
    cell = csv_cell(text).lstrip('"')
    assert cell[:1] not in {"=", "+", "-", "@", "\t", "\r"}


@given(st.lists(ANY_TEXT, min_size=1, max_size=12, unique=True))
def test_identifiers_are_distinct_and_plain(names: list[str]) -> None:
    found = slugs(names, "attribute_")
    assert len(set(found.values())) == len(names)
    assert all(
        v.isascii() and v[0].isalpha() and v.replace("_", "").isalnum() for v in found.values()
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_shown_number_is_within_its_digits(value: float) -> None:
    text = show.number(value).replace(",", "").replace(show.MINUS, "-")
    back = float(text)
    assert abs(back - value) <= 0.0051 * abs(value)
    assert show.number(-value).lstrip(show.MINUS) == show.number(value).lstrip(show.MINUS)


def test_special_numbers() -> None:
    assert show.number(float("nan")) == "not estimable"
    assert show.number(float("inf")) == "∞"
    assert show.number(0.99996) == "1.00"
    assert show.number(999.7) == "1,000"
    assert show.number(1234567) == "1,234,567"
    assert show.interval(float("nan"), 1.0) == ""
