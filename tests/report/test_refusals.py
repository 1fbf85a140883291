"""What an audit refuses, and when: before the ledger of the audited rows is charged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core.exceptions import (
    InvalidParameterError,
    LengthMismatchError,
    SensitiveFeatureError,
)
from privfair.report import AuditConfig, Predictions, audit
from privfair.report._build import _distinct
from privfair.report._model import Finding, SectionResult

QUICK = AuditConfig(n_resamples=100, intersections=0, sections=("data",))


def _rows(n: int = 400) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, n)
    return {"y": y, "decision": rng.integers(0, 2, n), "sex": rng.choice(["f", "m"], n)}


@pytest.mark.parametrize("names", [("性别", "收入"), ("a b", "a_b"), ("A", "a"), ("x!", "x?")])
def test_features_whose_names_read_alike_have_findings_of_their_own(
    names: tuple[str, str],
) -> None:
    rows = _rows()
    X = pd.DataFrame({name: rows["y"] + 10 * k for k, name in enumerate(names)})
    result = audit(
        rows["decision"], X, rows["y"], sensitive_features={"sex": rows["sex"]}, config=QUICK
    )
    assert result.section("data").status == "ok"
    leaks = [i for i in result.findings if i.startswith("data.leakage.")]
    assert len(leaks) == 2
    for name in names:
        assert sum(f"{name} nearly determines" in result.findings[i].text for i in leaks) == 1


def test_an_identifier_that_is_taken_gets_a_number() -> None:
    before = SectionResult("one", "One", findings=(Finding("a.b", "note", "first"),))
    twice = SectionResult(
        "two", "Two", findings=(Finding("a.b", "note", "x"), Finding("a.b", "note", "y"))
    )
    found = _distinct(twice, [before]).findings
    assert [(f.id, f.text) for f in found] == [("a.b_2", "x"), ("a.b_3", "y")]
    assert _distinct(twice, []).findings[0].id == "a.b"


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_sensitive_value_is_refused(value: float) -> None:
    rows = _rows()
    codes = (rows["sex"] == "f").astype(float)
    codes[5] = value
    ledger = Ledger(dataset_id="rows")
    with pytest.raises(SensitiveFeatureError, match="infinite"):
        audit(rows["decision"], None, rows["y"], sensitive_features={"code": codes},
              ledger=ledger, config=QUICK)  # fmt: skip
    assert not ledger.entries()


@pytest.mark.parametrize("what", ["decisions", "scores"])
@pytest.mark.parametrize("against", ["y", "sensitive_features", "X"])
def test_rows_that_were_sorted_alone_are_refused(what: str, against: str) -> None:
    rows = _rows()
    moved = pd.Series(rows["decision"]).sample(frac=1.0, random_state=1)
    given: dict[str, Any] = {
        "X": None, "y": rows["y"], "sensitive_features": {"sex": rows["sex"]},
    }  # fmt: skip
    given[against] = {
        "X": pd.DataFrame({"age": rows["y"]}),
        "y": pd.Series(rows["y"]),
        "sensitive_features": pd.DataFrame({"sex": rows["sex"]}),
    }[against]
    subject = (
        Predictions(moved)
        if what == "decisions"
        else Predictions(rows["decision"], moved.astype(float))
    )
    ledger = Ledger(dataset_id="rows")
    with pytest.raises(LengthMismatchError, match=f"{what} of decisions have different row"):
        audit(subject, ledger=ledger, config=QUICK, **given)
    assert not ledger.entries()
    aligned = Predictions(moved.sort_index(), moved.sort_index().astype(float))
    assert audit(aligned, config=QUICK, **given).section("data").status == "ok"


@pytest.mark.parametrize("epoch", ["x", "", "-1", "1.5", "²", "9" * 30])
def test_a_date_that_is_none_is_refused_first(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    rows = _rows()
    ledger = Ledger(dataset_id="rows")
    with pytest.raises(InvalidParameterError, match="SOURCE_DATE_EPOCH") as caught:
        audit(rows["decision"], None, rows["y"], sensitive_features={"sex": rows["sex"]},
              ledger=ledger, config=QUICK)  # fmt: skip
    assert caught.value.exit_code == 2
    assert not ledger.entries()
