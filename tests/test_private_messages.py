"""What goes wrong under a guarantee is told in words that do not depend on the records.

Every entry point is given two tables that differ in one record and are both unusable. Its error
and its warnings must be the same for both, and hold nothing that was planted in them.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from privfair.accounting import Ledger
from privfair.core import Budget, Categorical, Numeric, Schema

N = 60
GROUPS = ["f", "m"]
SITES = ["a", "b"]
PLANTED = ("Zq7", "7731", "8842")
Columns = dict[str, Any]


def columns() -> Columns:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=N),
        "y": np.tile([0, 1], N // 2),
        "d": np.tile([0, 0, 1], N // 3),
        "s": np.array(["f", "m", "f", "m", "m"] * (N // 5), dtype=object),
        "c": np.array(["a", "b", "b"] * (N // 3), dtype=object),
        "age": rng.integers(20, 70, N),
    }


# -- two tables that differ in one record, given how many records are bad ------------------------
def _put(column: Any, value: Any, rows: Any) -> Any:
    out = np.array(column, dtype=object)
    for row in rows:
        out[row] = value
    return out


def _missing(column: Any, k: int) -> Any:
    return _put(column, None, range(3 + k))


def _text(column: Any, k: int) -> Any:
    return _put(column, ("Zq7-first", "Zq7-other")[k], range(5, 8))


def _number(column: Any, k: int) -> Any:
    planted = (7731.25, 8842.5)[k]
    return np.concatenate([[planted], np.asarray(column, dtype=float)[1:]])


def _distinct(column: Any, k: int) -> Any:
    named = [f"Zq7{i:02}" for i in range(len(column) - k)]
    return np.array(named + named[:k], dtype=object)


def _two(column: Any, k: int) -> Any:
    return np.array([("Zq7-first", "Zq7-other")[k], "Zq7-both"] * (len(column) // 2), dtype=object)


def _one(column: Any, k: int) -> Any:
    return np.full(len(column), (7731, 8842)[k])


def _complex(column: Any, k: int) -> Any:
    return np.concatenate([[(7731j, 8842j)[k]], np.asarray(column, dtype=complex)[1:]])


MISSING, TEXT, NUMBER, DISTINCT, TWO, ONE, COMPLEX = (
    _missing, _text, _number, _distinct, _two, _one, _complex
)  # fmt: skip
CLASSES = (MISSING, TEXT, NUMBER, DISTINCT, TWO, ONE)


# -- entry points ----------------------------------------------------------------------------
def _metric(d: Columns, **more: Any) -> None:
    from privfair.fairness.metrics import equalized_odds_difference

    equalized_odds_difference.estimate(
        d["y"], d["d"], sensitive_features={"sex": d["s"]}, groups=GROUPS, privacy=Budget(1.0),
        ledger=Ledger(), n_resamples=100, random_state=0, **more,
    )  # fmt: skip


def _named(d: Columns) -> None:
    _metric(d, pos_label=1)


def _cut(d: Columns) -> None:
    from privfair.fairness.metrics import selection_rate

    selection_rate.estimate(
        None, d["d"], sensitive_features=d["age"], cuts={"sensitive_feature_0": [40]},
        groups=["< 40", ">= 40"], privacy=Budget(1.0), ledger=Ledger(), n_resamples=100,
    )  # fmt: skip


def _table(d: Columns) -> None:
    from privfair.fairness import release_contingency

    release_contingency(
        {"s": d["s"], "age": d["age"]}, {"s": GROUPS, "age": Categorical([20, 30], other=30)},
        privacy=Budget(1.0), ledger=Ledger(),
    )  # fmt: skip


def _pid(d: Columns) -> None:
    from privfair.fairness import PIDDisparity

    PIDDisparity(
        privacy=Budget(1.0), groups=GROUPS, clients=SITES, labels=[0, 1], decisions=[0, 1],
        condition="y", ledger=Ledger(), n_resamples=100, random_state=0,
    ).fit(d["d"], sensitive_features=d["s"], client=d["c"], y_true=d["y"])  # fmt: skip


def _aglfop(d: Columns) -> None:
    from privfair.fairness import AGLFOP

    AGLFOP(privacy=Budget(1.0), groups=GROUPS, clients=SITES, classes=[0, 1], ledger=Ledger()).fit(
        d["y"], sensitive_features=d["s"], client=d["c"]
    )


class _Quoting(ClassifierMixin, BaseEstimator):
    """A model of the user's: it warns about its rows, and where one is large it quotes them."""

    classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> _Quoting:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X: Any) -> Any:
        values = [f"{value:g}" for value in np.asarray(X, dtype=float).ravel()]
        warnings.warn(f"there is a row {values[0]}", stacklevel=2)
        try:
            {"fine": 0}[next((v for v in values if float(v) > 100), "fine")]
        except KeyError as error:
            raise ValueError(f"{values} are too large") from error
        return np.full((len(values), 2), 0.5)

    def predict(self, X: Any) -> Any:
        return self.predict_proba(X).argmax(axis=1)


def _postprocessor(d: Columns) -> None:
    from privfair.fairness import AGLFOPPostProcessor

    AGLFOPPostProcessor(
        _Quoting(), privacy=Budget(1.0), groups=GROUPS, clients=SITES, ledger=Ledger(),
    ).fit(d["x"][:, None], d["y"], sensitive_features=d["s"], client=d["c"])  # fmt: skip


def _report_model(d: Columns) -> None:
    from privfair.report import AuditConfig, audit

    config = AuditConfig(n_resamples=100, dp_report=1.0, public_groups={"sex": GROUPS})
    audit(
        _Quoting(), d["x"][:, None], d["y"], sensitive_features={"sex": d["s"]}, config=config,
        ledger=Ledger(),
    )  # fmt: skip


def _sep(d: Columns) -> None:
    from privfair.fairness import SESRule, sep_violation

    sep_violation.estimate(
        None, d["d"], sensitive_features=d["s"], ses_features={"age": d["age"]},
        ses=SESRule("age", "<", 40), groups=GROUPS, privacy=Budget(1.0, 1e-6), ledger=Ledger(),
        n_resamples=100,
    )  # fmt: skip


def _report(d: Columns, **more: Any) -> None:
    from privfair.report import AuditConfig, Predictions, audit

    config = AuditConfig(n_resamples=100, dp_report=1.0, public_groups={"sex": GROUPS}, **more)
    audit(
        Predictions(d["d"]), None, d["y"], sensitive_features={"sex": d["s"]}, config=config,
        ledger=Ledger(),
    )  # fmt: skip


def _report_named(d: Columns) -> None:
    _report(d, pos_label=1)


def _classifier(d: Columns) -> None:
    from privfair.dp import DPClassifier

    schema = Schema({"x": Numeric(-3, 3), "s": Categorical(GROUPS)})
    DPClassifier(schema=schema, epochs=1, delta=1e-3, ledger=Ledger()).fit(
        pd.DataFrame({"x": d["x"], "s": d["s"]}), d["y"]
    )


def _fair_classifier(d: Columns) -> None:
    from privfair.fairness import DPFairDCovClassifier

    DPFairDCovClassifier(
        groups={"sex": GROUPS}, schema="as_is", epochs=1, delta=1e-3, ledger=Ledger()
    ).fit(columns()["x"][:, None], d["y"], sensitive_features={"sex": d["s"]})


def _encoder(d: Columns) -> None:
    from privfair.dp import PrivateTableEncoder

    PrivateTableEncoder(epsilon=1.0, delta=1e-3, ledger=Ledger()).fit(pd.DataFrame({"x": d["x"]}))


def _mean(d: Columns) -> None:
    from privfair.mechanisms import DPMean

    DPMean(-3, 3, epsilon=1.0).release(d["x"], ledger=Ledger())


def _local(d: Columns) -> None:
    from privfair.ldp import LDPFrequencyEstimator

    schema = Schema({"s": Categorical(GROUPS), "age": Numeric(0, 100, bins=[30])})
    LDPFrequencyEstimator(schema=schema, epsilon=1.0, ledger=Ledger()).fit(
        pd.DataFrame({"s": d["s"], "age": d["age"]})
    )


def _synthesis(d: Columns) -> None:
    from privfair.synthesis._one_way import measure, plan

    made = plan({"s": 2, "y": 2}, ("s",), epsilon=1.0, delta=1e-3)
    measure({"s": (d["s"] == "f").astype(int), "y": d["y"]}, made, ledger=Ledger())


Case = tuple[Callable[[Columns], None], str, Callable[[Any, int], Any]]
GRID: list[tuple[Callable[[Columns], None], str, tuple[Any, ...]]] = [
    (_metric, "y", CLASSES), (_metric, "d", CLASSES), (_metric, "s", (MISSING,)),
    (_named, "y", (MISSING, TEXT, NUMBER, DISTINCT, TWO)),
    (_named, "d", (MISSING, TEXT, DISTINCT)),
    (_cut, "age", (MISSING, TEXT)),
    (_table, "s", (MISSING, TEXT, DISTINCT)),
    (_pid, "d", CLASSES), (_pid, "s", (MISSING, TEXT)), (_pid, "c", (MISSING, TEXT)),
    (_pid, "y", CLASSES),
    (_aglfop, "y", CLASSES), (_aglfop, "s", (MISSING,)), (_aglfop, "c", (MISSING,)),
    (_postprocessor, "x", (NUMBER,)), (_postprocessor, "y", (MISSING, TEXT, NUMBER)),
    (_postprocessor, "s", (MISSING,)), (_postprocessor, "c", (MISSING,)),
    (_report_model, "x", (NUMBER,)),
    (_sep, "d", (MISSING, TEXT, NUMBER, ONE)), (_sep, "s", (MISSING,)),
    (_sep, "age", (MISSING, TEXT)),
    (_report, "y", CLASSES), (_report, "d", CLASSES), (_report, "s", (MISSING,)),
    (_report_named, "y", (MISSING, TEXT, DISTINCT, TWO, ONE)),
    (_report_named, "d", (MISSING, TEXT, ONE)),
    (_classifier, "y", (MISSING, TEXT, NUMBER, COMPLEX)), (_classifier, "x", (MISSING, TEXT)),
    (_classifier, "s", (MISSING, TEXT)),
    (_fair_classifier, "y", (MISSING, COMPLEX)), (_fair_classifier, "s", (MISSING,)),
    (_encoder, "x", (COMPLEX,)), (_mean, "x", (TEXT, COMPLEX)),
    (_local, "s", (MISSING, TEXT, DISTINCT)), (_local, "age", (TEXT, MISSING)),
    (_synthesis, "y", (MISSING, TEXT, NUMBER, ONE)),
]  # fmt: skip
CASES: list[Case] = [(entry, name, make) for entry, name, kinds in GRID for make in kinds]


def _messages(error: BaseException) -> str:
    """Return the messages that a traceback would show, chained ones too, without source lines."""
    shown: Any = traceback.TracebackException.from_exception(error)
    lines: list[str] = []
    while shown is not None:
        lines.extend(shown.format_exception_only())
        hidden = None if shown.__suppress_context__ else shown.__context__
        shown = shown.__cause__ or hidden
    return "".join(lines)


def _said(entry: Callable[[Columns], None], given: Columns) -> tuple[str, list[str]]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            entry(given)
        except Exception as error:
            text = _messages(error)
        else:
            text = ""
    return text, sorted(str(w.message) for w in heard)


@pytest.mark.parametrize(
    ("entry", "name", "make"),
    CASES,
    ids=[f"{e.__name__[1:]}-{n}-{m.__name__[1:]}" for e, n, m in CASES],
)
def test_two_unusable_tables_are_told_about_in_the_same_words(
    entry: Callable[[Columns], None], name: str, make: Callable[[Any, int], Any]
) -> None:
    good = columns()
    one, two = (_said(entry, {**good, name: make(good[name], k)}) for k in (0, 1))
    assert one[0], "the table was taken: this case tests nothing"
    assert one == two
    heard = one[0] + "".join(one[1])
    assert not any(mark in heard for mark in PLANTED), heard


@pytest.mark.parametrize("entry", list(dict.fromkeys(e for e, _, _ in CASES)))
def test_the_table_itself_is_usable(entry: Callable[[Columns], None]) -> None:
    assert _said(entry, columns())[0] == ""


# -- command line ----------------------------------------------------------------------------
COMMANDS = {
    "pid": ("fairness pid --prediction d --label y --condition y --sensitive s --client c "
            "--epsilon 1 --groups s=f,m --clients a,b --n-resamples 100"),
    "audit": ("audit run --prediction d --label y --sensitive s --dp-report 1 --groups s=f,m "
              "--n-resamples 100"),
    "score": ("audit run --score x --threshold 0 --label y --sensitive s --dp-report 1 "
              "--groups s=f,m --score-kind rank --n-resamples 100"),
}  # fmt: skip
FILES: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "labels missing": ("y", _missing),
    "labels named": ("y", _two),
    "labels many": ("y", _distinct),
    "labels one": ("y", _one),
    "groups missing": ("s", _missing),
}


def _heard(command: str, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    from privfair.cli import main as entry

    words = command.split()
    at = 1 + (words[0] in ("fairness", "audit"))
    code = entry.run([*words[:at], "--predictions", str(path), *words[at:]])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_tells_nothing_either(
    command: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, make = FILES[what]
    heard = []
    for k in (0, 1):
        path = tmp_path / "rows.csv"
        good = columns()
        pd.DataFrame({**good, name: make(good[name], k)}).to_csv(path, index=False)
        heard.append(_heard(COMMANDS[command], path, capsys))
    assert heard[0] == heard[1] and heard[0][0] == 3
    assert not any(mark in heard[0][1] for mark in PLANTED), heard[0][1]


@pytest.mark.parametrize("command", ["pid", "audit"])
@pytest.mark.parametrize("broken", ["f,0,0,1,2", 'f,"0,0', "f,0,\xff"])
def test_a_broken_file_is_not_told_about_line_by_line(
    command: str, broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    heard = []
    for at in (4, 9):
        lines = ["s,d,y,c", *["f,0,0,a", "m,1,1,b"] * 10]
        lines[at] = broken
        path.write_bytes("\n".join(lines).encode("latin-1"))
        heard.append(_heard(COMMANDS[command], path, capsys))
    assert heard[0] == heard[1] and heard[0][0] == 3
