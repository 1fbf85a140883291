"""A report under differential privacy: nothing but the released tables reaches it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    MissingSensitiveFeatureError,
    PrivacyError,
    SensitiveFeatureError,
)
from privfair.report import (
    AuditConfig,
    AuditResult,
    DatasetInfo,
    Predictions,
    Section,
    SectionResult,
    audit,
    from_json,
    to_html,
    to_json,
)
from privfair.report._private import Sealed

from .conftest import guarantee, make_rows

GROUPS = {"sex": ["Female", "Male"], "race": ["A", "B", "C", "never seen"]}


def settings(**changes: Any) -> AuditConfig:
    fields: dict[str, Any] = {"n_resamples": 200, "dp_report": 1.0, "public_groups": GROUPS}
    return AuditConfig(**{**fields, **changes})


def run(rows: dict[str, Any], config: AuditConfig | None = None, **changes: Any) -> AuditResult:
    given = {
        "model": Predictions(rows["decision"], rows["score"]),
        "X": rows["X"],
        "y": rows["y"],
        "sensitive_features": rows["sensitive"],
        "config": settings() if config is None else config,
        **changes,
    }
    return audit(given.pop("model"), given.pop("X"), given.pop("y"), **given)


def test_the_ledger_holds_one_charge_per_table_and_no_more_than_asked(
    rows: dict[str, Any],
) -> None:
    for epsilon in (0.3, 1.0, 1.1):
        ledger = Ledger(dataset_id="audited", cap=Budget(epsilon))
        result = run(rows, settings(dp_report=epsilon), ledger=ledger)
        assert len(ledger) == 3  # sex, race, sex x race
        spent = ledger.spent()
        assert 0.999 * epsilon < spent.epsilon <= epsilon and spent.delta == 0
        promise = result.release["privacy"]
        assert promise["epsilon"] == pytest.approx(epsilon) and promise["epsilon"] <= epsilon
        assert promise["numerics"] == "exact" and promise["certified"] is True
        assert result.findings["privacy.report"].value.estimate == promise["epsilon"]  # type: ignore[union-attr]


def test_two_models_share_the_epsilon(rows: dict[str, Any]) -> None:
    ledger = Ledger(dataset_id="audited")
    models = {"a": Predictions(rows["decision"]), "b": Predictions(1 - rows["decision"])}
    result = run(rows, model=models, ledger=ledger)
    assert len(ledger) == 6
    assert ledger.spent().epsilon <= 1.0
    assert "fairness.dpd.sex@b" in result.findings
    assert not any(name.startswith("change.") for name in result.findings)


def test_a_cap_that_is_too_small_refuses_before_anything_is_spent(rows: dict[str, Any]) -> None:
    ledger = Ledger(dataset_id="audited", cap=Budget(0.9))
    with pytest.raises(BudgetExceededError, match="Nothing was spent"):
        run(rows, ledger=ledger)
    assert len(ledger) == 0


def test_the_counts_are_noisy_and_the_noise_is_not_seeded(rows: dict[str, Any]) -> None:
    true = rows["sensitive"]["race"].value_counts().to_dict()
    found = [run(rows).counts["groups"]["race"] for _ in range(2)]
    assert found[0] != found[1]
    # three tables at epsilon 1/3: the noise of a group of four cells has a deviation of about 8
    for counts in found:
        assert any(counts[name] != true[name] for name in true)
        assert all(abs(counts[name] - true[name]) < 150 for name in true)
        assert counts["never seen"] < 150


def test_at_a_large_epsilon_the_rates_are_those_of_the_rows(rows: dict[str, Any]) -> None:
    private = run(rows, settings(dp_report=18.0)).findings
    raw = run(rows, AuditConfig(n_resamples=200)).findings
    for name in ("fairness.dpd.sex", "performance.accuracy"):
        assert private[name].value.estimate == pytest.approx(  # type: ignore[union-attr]
            raw[name].value.estimate, abs=0.02  # type: ignore[union-attr]
        )  # fmt: skip


def test_intervals_are_wider_than_those_of_the_raw_report() -> None:
    rows = make_rows(600)
    private = run(rows, settings(dp_report=0.3)).findings["fairness.dpd.sex"].value
    raw = run(rows, AuditConfig(n_resamples=200)).findings["fairness.dpd.sex"].value
    assert private is not None and raw is not None
    if private.shown:
        assert private.high - private.low > raw.high - raw.low  # type: ignore[operator]


def test_what_reads_rows_is_left_out_and_said_so(rows: dict[str, Any]) -> None:
    result = run(rows)
    assert result.exit_code == 0, [s.reason for s in result.failed]
    assert result.counts["n_positive"] is None
    names = set(result.findings)
    assert not {
        n for n in names if n.startswith(("data.", "performance.auc", "performance.brier"))
    }
    assert "performance.balanced_accuracy" in names and "fairness.eod.race" in names
    text = to_json(result)
    assert "were not looked at" in text and "they read scores" in text
    assert not any(
        "scores" in f.id or "missing" in f.id for s in result.sections for f in s.figures
    )


def test_the_page_says_that_it_is_private(rows: dict[str, Any]) -> None:
    result = run(rows)
    page = to_html(result)
    assert "released under differential privacy" in page
    assert "This report is not differentially private" not in page
    again = from_json(to_json(result))
    assert again == result and to_html(again) == page
    assert "released under differential privacy" in " ".join(result.to_text().split())


@pytest.mark.parametrize(
    "read",
    [
        lambda ctx: ctx.labels.sum(),
        lambda ctx: ctx.models[0].decisions.mean(),
        lambda ctx: np.asarray(ctx.models[0].decisions),
        lambda ctx: list(ctx.groups["sex"]),
        lambda ctx: ctx.crossing("sex").counts(),
        lambda ctx: ctx.crossing("sex").codes == 0,
        lambda ctx: ctx.crossing("race", "sex"),
        lambda ctx: bool(ctx.labels),
        lambda ctx: ctx.labels[0],
        lambda ctx: len(ctx.groups["race"]),
        lambda ctx: ~ctx.labels,
    ],
)
def test_a_section_that_reaches_for_rows_fails(
    rows: dict[str, Any], read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from privfair.core import registry
    from privfair.report import available_sections

    def build(ctx: Any) -> SectionResult:
        read(ctx)
        return SectionResult("spy", "Spy")

    available_sections()
    table = {**registry._REGISTERED["report_sections"], "spy": Section("spy", "Spy", build)}
    monkeypatch.setitem(registry._REGISTERED, "report_sections", table)
    result = run(rows, settings(sections=["privacy", "spy"]))
    assert result.section("spy").status == "failed"
    assert "under differential privacy" in result.section("spy").reason


def test_no_row_is_left_in_the_context(
    rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from privfair.core import registry
    from privfair.report import available_sections

    found: list[str] = []

    def look(value: Any, path: str, depth: int = 0) -> None:
        if isinstance(value, np.ndarray) and value.size >= len(rows["y"]):
            found.append(path)
        elif isinstance(value, dict) and depth < 6:
            for key, item in value.items():
                look(item, f"{path}[{key!r}]", depth + 1)
        elif isinstance(value, list | tuple) and depth < 6:
            for k, item in enumerate(value):
                look(item, f"{path}[{k}]", depth + 1)
        elif hasattr(value, "__dict__") and not isinstance(value, Sealed) and depth < 6:
            for key, item in vars(value).items():
                look(item, f"{path}.{key}", depth + 1)

    def build(ctx: Any) -> SectionResult:
        look(ctx, "ctx")
        return SectionResult("spy", "Spy")

    available_sections()
    table = {**registry._REGISTERED["report_sections"], "spy": Section("spy", "Spy", build)}
    monkeypatch.setitem(registry._REGISTERED, "report_sections", table)
    run(rows, settings(sections=["spy"]))
    assert not found
    run(rows, AuditConfig(n_resamples=200, sections=["spy"]))
    assert found, "the search finds rows where they are"


def test_rows_outside_the_declared_groups_are_in_none(rows: dict[str, Any]) -> None:
    config = settings(dp_report=18.0, public_groups={**GROUPS, "race": ["A", "B"]})
    result = run(rows, config)
    assert set(result.counts["groups"]["race"]) == {"A", "B"}
    assert result.counts["n_rows"] == len(rows["y"])
    true = rows["sensitive"]["race"].value_counts()
    assert result.counts["groups"]["race"]["A"] == pytest.approx(true["A"], abs=20)


def test_declared_cuts_are_public_groups(rows: dict[str, Any]) -> None:
    frame = rows["sensitive"].assign(age=rows["X"]["age"].to_numpy())
    result = run(rows, settings(cuts={"age": [40, 60]}), sensitive_features=frame)
    assert set(result.counts["groups"]["age"]) == {"< 40", "40 to < 60", ">= 60"}


def test_without_labels_only_selection_rates_are_released(rows: dict[str, Any]) -> None:
    result = run(rows, y=None)
    assert result.exit_code == 0, [s.reason for s in result.failed]
    assert "fairness.dpd.sex" in result.findings and "fairness.eod.sex" not in result.findings


# -- training rows ----------------------------------------------------------------------------
def test_decisions_of_a_model_trained_on_these_rows_without_privacy_are_refused(
    rows: dict[str, Any],
) -> None:
    """One record changes such a model, and with it every decision: the noise is too small."""
    ledger = Ledger(dataset_id="audited")
    config = settings(dataset=DatasetInfo("d", rows="training"))
    with pytest.raises(PrivacyError, match="depends on all of them"):
        run(rows, config, ledger=ledger)
    assert len(ledger) == 0
    private = Predictions(rows["decision"], privacy=guarantee())
    result = run(rows, config, model=private, ledger=ledger)
    assert result.models[0].privacy is not None and result.models[0].privacy["certified"]
    assert len(ledger) == 3
    caveats = " ".join(result.section("privacy").caveats)
    assert "the two add up" in caveats


# -- settings ---------------------------------------------------------------------------------
BAD: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "no groups": (InvalidParameterError, "--groups sex=", {"public_groups": {}}),
    "one attribute": (InvalidParameterError, "race", {"public_groups": {"sex": ["a", "b"]}}),
    "foreign": (
        InvalidParameterError, "among the sensitive",
        {"public_groups": {**GROUPS, "x": ["1", "2"]}},
    ),
    "one group": (
        SensitiveFeatureError, "at least two", {"public_groups": {**GROUPS, "sex": ["Female"]}},
    ),
    "twice": (
        SensitiveFeatureError, "each one once", {"public_groups": {**GROUPS, "sex": ["a", "a"]}},
    ),
    "min_cell": (InvalidParameterError, "Choose one", {"min_cell": 10}),
    "epsilon zero": (InvalidBudgetError, "dp_report", {"dp_report": 0.0}),
    "epsilon infinite": (InvalidBudgetError, "dp_report", {"dp_report": float("inf")}),
    "epsilon nan": (InvalidBudgetError, "dp_report", {"dp_report": float("nan")}),
    "groups without epsilon": (InvalidParameterError, "--dp-report", {"dp_report": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_settings_spend_nothing(rows: dict[str, Any], name: str) -> None:
    error, words, changes = BAD[name]
    ledger = Ledger(dataset_id="audited")
    with pytest.raises(error) as caught:
        run(rows, settings(**changes), ledger=ledger)
    assert words in str(caught.value)
    assert len(ledger) == 0


def test_missing_groups_need_a_policy(rows: dict[str, Any]) -> None:
    frame = rows["sensitive"].copy()
    frame.loc[3, "sex"] = None
    with pytest.raises(MissingSensitiveFeatureError):
        run(rows, sensitive_features=frame)
    result = run(rows, settings(missing_group="missing"), sensitive_features=frame)
    assert "missing" in result.counts["groups"]["sex"]


def test_sealed_rows_show_nothing() -> None:
    assert "sealed" in repr(Sealed())
    with pytest.raises(PrivacyError):
        json.dumps(list(Sealed()))
    with pytest.raises(TypeError):
        hash(Sealed())
