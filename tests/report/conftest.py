"""Audits of made-up rows, shared by the tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.core import PrivacyGuarantee
from privfair.report import AuditConfig, AuditResult, DatasetInfo, Predictions, audit

EPOCH = "1767225600"  # 2026-01-01

HOSTILE = (
    "<script>alert(1)</script>",
    "$100k-$200k",
    '=HYPERLINK("http://evil.example")',
    "\x1b[31mred\x07",
    "evil\u202egnp.exe",
    "</title><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "a\u2028b",
    '"; alert(1); "',
    "O'Neil & Söhne",
)


def make_rows(n: int = 2400, seed: int = 7) -> dict[str, Any]:
    """Rows with two attributes, a label that depends on one of them, and a score."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["Female", "Male"], n)
    race = rng.choice(["A", "B", "C"], n, p=[0.7, 0.25, 0.05])
    chance = 0.25 + 0.15 * (sex == "Male") + 0.1 * (race == "A")
    label = (rng.random(n) < chance).astype(int)
    score = np.clip(0.3 * label + 0.5 * rng.random(n), 0, 1)
    X = pd.DataFrame({"age": rng.integers(18, 90, n), "job": rng.choice(["x", "y", None], n)})
    return {
        "X": X,
        "y": label,
        "sensitive": pd.DataFrame({"sex": sex, "race": race}),
        "score": score,
        "decision": (score > 0.4).astype(int),
    }


def guarantee(epsilon: float = 1.0, **fields: Any) -> PrivacyGuarantee:
    """A certificate as a trainer would give it."""
    fields.setdefault("numerics", "hardened")
    return PrivacyGuarantee(
        epsilon, 1e-6, assumptions=("Every batch is a Poisson sample.",), **fields
    )


@pytest.fixture(autouse=True)
def _fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)


def _only_standard(patch: pytest.MonkeyPatch) -> None:
    """Sections and metrics that other tests registered do not appear here."""
    from privfair.core import registry
    from privfair.report._sections import STANDARD

    table = {section.id: section for section in STANDARD}
    patch.setitem(registry._REGISTERED, "report_sections", table)
    patch.setitem(registry._REGISTERED, "metrics", {})
    # Fewer points and resamples of the frontier, which every audit with labels has.
    patch.setattr("privfair.report._frontier.POINTS", 4)
    patch.setattr("privfair.report._sections.frontier.MAX_RESAMPLES", 20)


@pytest.fixture(autouse=True)
def _standard_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    _only_standard(monkeypatch)


@pytest.fixture(scope="session")
def rows() -> dict[str, Any]:
    return make_rows()


@pytest.fixture(scope="session")
def result(rows: dict[str, Any]) -> AuditResult:
    """Two models, two attributes, one certificate."""
    rng = np.random.default_rng(1)
    flipped = np.where(rng.random(len(rows["y"])) < 0.05, 1 - rows["decision"], rows["decision"])
    models = {
        "baseline": Predictions(rows["decision"], rows["score"]),
        "private twin": Predictions(flipped, rows["score"], privacy=guarantee()),
    }
    with pytest.MonkeyPatch.context() as patch:
        _only_standard(patch)
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        return audit(
            models,
            rows["X"],
            rows["y"],
            sensitive_features=rows["sensitive"],
            client=pd.Series(np.where(rng.random(len(rows["y"])) < 0.6, "n", "s"), name="site"),
            config=AuditConfig(
                n_resamples=300,
                title="Audit of made-up rows",
                dataset=DatasetInfo(
                    "made-up rows", rows="held_out", caveats=("They are made up.",)
                ),
            ),
        )
