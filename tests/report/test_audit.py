"""From inputs to a result: what is refused, what is counted, what is entered in the ledger."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    MissingSensitiveFeatureError,
    PrivacyError,
    ProbabilityRangeError,
    SensitiveFeatureError,
    SingleGroupError,
)
from privfair.report import AuditConfig, AuditResult, DatasetInfo, Predictions, Section, audit

from .conftest import guarantee, make_rows

FAST = AuditConfig(n_resamples=200)


def run(rows: dict[str, Any], **changes: Any) -> AuditResult:
    given = {
        "model": Predictions(rows["decision"], rows["score"]),
        "X": rows["X"],
        "y": rows["y"],
        "sensitive_features": rows["sensitive"],
        "config": FAST,
        **changes,
    }
    return audit(given.pop("model"), given.pop("X"), given.pop("y"), **given)


# -- what it finds ----------------------------------------------------------------------------
def test_gaps_are_those_of_the_rows(rows: dict[str, Any], result: AuditResult) -> None:
    d, sex = rows["decision"], rows["sensitive"]["sex"].to_numpy()
    rates = [d[sex == g].mean() for g in ("Female", "Male")]
    finding = result.findings["fairness.dpd.sex"]
    assert finding.value is not None
    assert finding.value.estimate == pytest.approx(abs(rates[0] - rates[1]), abs=1e-12)
    assert finding.value.low is not None and finding.value.high is not None
    assert finding.value.low <= finding.value.estimate <= finding.value.high
    assert finding.null is not None and finding.null["q95"] > 0
    assert set(finding.attained_by) == {"Female", "Male"}
    assert finding.evidence_path == "groups/gaps-sex-brief"


def test_identifiers_are_stable(result: AuditResult) -> None:
    wanted = {
        "performance.accuracy", "performance.accuracy@private_twin", "performance.auc",
        "fairness.dpd.sex", "fairness.eod.race", "fairness.dpd.sex_x_race",
        "fairness.dpd.sex@private_twin", "change.accuracy@private_twin",
        "change.dpd.sex@private_twin", "privacy.epsilon@private_twin", "data.missing",
        "intersections.beyond.sex_x_race",
    }  # fmt: skip
    assert wanted <= set(result.findings)


def test_counts_are_those_of_the_rows(rows: dict[str, Any], result: AuditResult) -> None:
    assert result.counts["n_rows"] == len(rows["y"])
    assert result.counts["n_positive"] == int(rows["y"].sum())
    expected = rows["sensitive"]["race"].value_counts().to_dict()
    assert result.counts["groups"]["race"] == expected
    table = result.section("groups").table("rates-race-brief")
    sizes = {row[0]: row[2] for row in table.rows}
    assert sizes == expected | {"All rows": len(rows["y"])}


def test_the_change_between_equal_models_is_zero(rows: dict[str, Any]) -> None:
    p = Predictions(rows["decision"])
    found = run(rows, model={"a": p, "b": p}).findings
    for name in ("change.accuracy@b", "change.dpd.sex@b", "change.eod.race@b"):
        value = found[name].value
        assert value is not None
        assert (value.estimate, value.low, value.high) == (0.0, 0.0, 0.0)


def test_the_change_is_signed_from_the_reference(rows: dict[str, Any]) -> None:
    good, bad = Predictions(rows["y"]), Predictions(1 - rows["y"])
    found = run(rows, model={"bad": bad}, reference=good).findings
    assert found["change.accuracy@bad"].value.estimate == -1.0  # type: ignore[union-attr]
    found = run(rows, model={"bad": bad, "good": good}, reference="bad").findings
    assert found["change.accuracy@good"].value.estimate == 1.0  # type: ignore[union-attr]


def test_small_groups_are_not_estimable_and_never_zero() -> None:
    rows = make_rows(400)
    tiny = np.array(rows["sensitive"]["race"])
    tiny[:3] = "tiny"
    rows["sensitive"] = rows["sensitive"].assign(race=tiny)
    rows["y"][:3] = 0  # no positives: a true positive rate does not exist
    found = run(rows)
    table = found.section("intersections").table("crossing-sex_x_race")
    keys = [c.key for c in table.columns]
    small = [row for row in table.rows if "tiny" in row[0]]
    assert small and sum(row[1] for row in small) == 3
    for row in small:
        for name in ("selection_rate", "true_positive_rate"):
            cell = row[keys.index(name)]
            assert cell.estimate is None and cell.status == "not_estimable" and cell.reason
    rates = found.section("groups").table("rates-race-brief")
    tpr = next(r for r in rates.rows if r[0] == "tiny")[
        [c.key for c in rates.columns].index("true_positive_rate")
    ]
    assert tpr.status == "not_estimable" and tpr.estimate is None
    assert any("tiny (3 rows)" in c for c in found.section("groups").caveats)


def test_crossings_are_sorted_by_what_is_beyond_doubt(result: AuditResult) -> None:
    rows = result.section("intersections").table("crossing-sex_x_race").rows
    harm = [row[-1] for row in rows]
    assert harm == sorted(harm, reverse=True)
    assert sum(row[1] for row in rows) == result.counts["n_rows"]


def test_without_labels_only_decisions_are_compared(rows: dict[str, Any]) -> None:
    found = run(rows, y=None)
    assert found.section("performance").status == "not_applicable"
    assert "fairness.dpd.sex" in found.findings
    assert "fairness.eod.sex" not in found.findings
    assert "no labels" in found.section("performance").reason.lower()


def test_text_labels_and_declared_cuts(rows: dict[str, Any]) -> None:
    words = np.where(rows["y"] == 1, "good", "bad")
    decided = np.where(rows["decision"] == 1, "good", "bad")
    frame = rows["sensitive"].assign(age=rows["X"]["age"].to_numpy())
    config = AuditConfig(n_resamples=200, pos_label="good", cuts={"age": [25, 45, 65]})
    found = run(rows, model=decided, y=words, sensitive_features=frame, config=config)
    plain = run(rows)
    for name in ("fairness.dpd.sex", "fairness.eod.race"):
        assert found.findings[name].value.estimate == plain.findings[name].value.estimate  # type: ignore[union-attr]
    assert list(found.counts["groups"]["age"]) == ["< 25", "25 to < 45", "45 to < 65", ">= 65"]


def test_estimators_are_asked_for_their_own_class(rows: dict[str, Any]) -> None:
    class Model:
        classes_ = np.array(["bad", "good"])

        def predict(self, X: Any) -> Any:
            return np.where(rows["decision"] == 1, "good", "bad")

        def predict_proba(self, X: Any) -> Any:
            return np.column_stack([1 - rows["score"], rows["score"]])

    words = np.where(rows["y"] == 1, "good", "bad")
    found = run(
        rows, model=Model(), y=words, config=AuditConfig(n_resamples=200, pos_label="good")
    )
    assert found.findings["performance.auc"].value.estimate > 0.7  # type: ignore[union-attr]
    assert found.models[0].class_name == "Model"


# -- what it refuses --------------------------------------------------------------------------
def bad_inputs(rows: dict[str, Any]) -> dict[str, tuple[type[Exception], str, dict[str, Any]]]:
    n = len(rows["y"])
    three = np.arange(n) % 3
    gone = rows["sensitive"].assign(sex=rows["sensitive"]["sex"].where(np.arange(n) > 5))
    return {
        "lengths": (LengthMismatchError, "same number of rows", {"y": rows["y"][:-1]}),
        "decisions too short": (
            LengthMismatchError, "audited rows", {"model": Predictions(rows["decision"][:-1])},
        ),
        "index": (
            LengthMismatchError, "different row indices",
            {"sensitive_features": rows["sensitive"].iloc[::-1]},
        ),
        "three classes": (LabelError, "pos_label", {"y": three, "model": three}),
        "two words": (LabelError, "pos_label", {"y": np.where(three == 0, "a", "b")}),
        "one class": (LabelError, "one class", {"y": np.full(n, "a"), "model": np.full(n, "a")}),
        "absent pos_label": (
            LabelError, "does not occur", {"config": AuditConfig(pos_label="yes")},
        ),
        "missing label": (LabelError, "missing", {"y": np.where(three == 0, np.nan, 1.0)}),
        "probabilities as decisions": (LabelError, "probabilities", {"model": rows["score"]}),
        "foreign decisions": (LabelError, "one set of classes", {"model": three + 3}),
        "mixed types": (LabelError, "mix text", {"model": np.where(three == 0, "0", "1")}),
        "one group": (
            SingleGroupError, "one group only",
            {"sensitive_features": rows["sensitive"].assign(sex="Female")},
        ),
        "missing group": (
            MissingSensitiveFeatureError, "--missing-group", {"sensitive_features": gone},
        ),
        "quantity": (
            SensitiveFeatureError, "--bin",
            {"sensitive_features": pd.DataFrame({"income": np.arange(n) * 1.5})},
        ),
        "identifier": (
            SensitiveFeatureError, "identifier",
            {"sensitive_features": pd.DataFrame({"name": [f"p{i}" for i in range(n)]})},
        ),
        "no attribute": (SensitiveFeatureError, "compares groups", {"sensitive_features": None}),
        "score above one": (
            ProbabilityRangeError, "[0, 1]",
            {"model": Predictions(rows["decision"], 10 * rows["score"])},
        ),
        "score nan": (
            DataError, "finite",
            {"model": Predictions(rows["decision"], np.where(three == 0, np.nan, 0.5))},
        ),
        "cut of nothing": (
            InvalidParameterError, "cuts", {"config": AuditConfig(cuts={"agee": [3]})},
        ),
        "empty": (
            DataError, "no rows",
            {"X": None, "y": [], "sensitive_features": {"a": []}, "model": []},
        ),
        "unknown section": (
            InvalidParameterError, "unknown", {"config": AuditConfig(sections=["nope"])},
        ),
        "seed": (InvalidTypeError, "random_state", {"random_state": None}),
        "reference": (InvalidParameterError, "none of the models", {"reference": "nope"}),
        "no model": (InvalidParameterError, "empty", {"model": {}}),
        "config": (InvalidTypeError, "AuditConfig", {"config": {"n_resamples": 5}}),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(bad_inputs(make_rows(40))))
def test_bad_input_has_its_own_error_and_spends_nothing(rows: dict[str, Any], name: str) -> None:
    error, words, changes = bad_inputs(rows)[name]
    ledger = Ledger(dataset_id="test")
    with pytest.raises(error) as caught:
        run(rows, ledger=ledger, **changes)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert len(ledger) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"confidence": 1.0}, {"n_resamples": 0}, {"n_resamples": 50}, {"n_resamples": True},
        {"intersections": 4}, {"n_bins": 1}, {"min_cell": 1}, {"min_count": -1},
        {"rows": "mine"}, {"tolerances": {"x": math.nan}}, {"missing_group": True},
        {"allow_raw_training_rows": "yes"},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((InvalidParameterError, InvalidTypeError)):
        AuditConfig(**fields)


# -- the release ------------------------------------------------------------------------------
def test_a_raw_report_is_entered_into_the_ledger(rows: dict[str, Any]) -> None:
    ledger = Ledger(dataset_id="held-out rows")
    result = run(rows, ledger=ledger)
    assert len(ledger) == 1
    assert math.isinf(ledger.spent().epsilon)
    assert result.release["dataset_id"] == "held-out rows"
    covered = result.section("privacy").table("covered")
    assert any("not private" in row[2] for row in covered.rows)


def test_a_capped_ledger_refuses_a_raw_report(rows: dict[str, Any]) -> None:
    with pytest.raises(BudgetExceededError):
        run(rows, ledger=Ledger(cap=Budget(1.0, 1e-6), dataset_id="test"))


def test_raw_training_rows_are_refused_or_void_the_certificate(rows: dict[str, Any]) -> None:
    model = Predictions(rows["decision"], privacy=guarantee(), name="twin")
    config = AuditConfig(n_resamples=200, dataset=DatasetInfo("d", rows="training"))
    ledger = Ledger(dataset_id="test")
    with pytest.raises(PrivacyError, match="--allow-raw-training-rows"):
        run(rows, model=model, config=config, ledger=ledger)
    assert len(ledger) == 0
    config = AuditConfig(n_resamples=200, rows="training", allow_raw_training_rows=True)
    result = run(rows, model=model, config=config)
    assert result.models[0].privacy is not None
    assert result.models[0].privacy["epsilon"] == "inf"
    assert result.models[0].privacy["certified"] is False
    assert result.findings["privacy.epsilon"].severity == "attention"
    assert any("void" in c for c in result.section("privacy").caveats)
    # a model without a certificate promises nothing that could be broken
    assert run(rows, config=AuditConfig(n_resamples=200, rows="training")).exit_code == 0


def test_a_seeded_certificate_says_so_first(rows: dict[str, Any]) -> None:
    result = run(rows, model=Predictions(rows["decision"], privacy=guarantee(seeded=True)))
    assert result.notice.startswith("SEEDED")
    for text in (result.to_text(), result.to_json().split("\n")[1]):
        assert "SEEDED" in text.splitlines()[0]


# -- sections ---------------------------------------------------------------------------------
def _register(monkeypatch: pytest.MonkeyPatch, section: Section) -> None:
    from privfair.core import registry

    table = dict(registry._REGISTERED["report_sections"])
    monkeypatch.setitem(registry._REGISTERED, "report_sections", {**table, section.id: section})


def test_a_failing_section_is_shown_and_sets_the_exit_code(
    rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(ctx: Any) -> Any:
        raise ValueError("row 17 has income 123456")

    run(rows)  # the standard sections are registered on first use
    _register(monkeypatch, Section("extra", "An extra section", broken, order=450))
    result = run(rows)
    section = result.section("extra")
    assert section.status == "failed" and "ValueError" in section.reason
    assert result.exit_code == 8
    for text in (result.to_html(), result.to_json(), result.to_text(full=True)):
        assert "An extra section" in text
        assert "row 17 has" not in text  # a foreign message may quote data
    assert [s.id for s in result.sections].index("extra") == 5
    assert all(s.status == "ok" for s in result.sections if s.id != "extra")
    assert "An extra section: failed" in result.to_text()


def test_a_section_whose_needs_are_not_met_says_which(
    rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(rows)
    section = Section("extra", "Extra", lambda ctx: None, requires=("privacy", "features"))  # type: ignore[arg-type, return-value]
    _register(monkeypatch, section)
    result = run(rows, X=None)
    assert result.section("extra").status == "not_applicable"
    assert "no features were given" in result.section("extra").reason
    assert result.exit_code == 0


def test_sections_can_be_chosen(rows: dict[str, Any]) -> None:
    config = AuditConfig(n_resamples=200, sections=["summary", "privacy"])
    assert [s.id for s in run(rows, config=config).sections] == ["summary", "privacy"]


def test_unverified_data_are_an_integrity_finding(rows: dict[str, Any]) -> None:
    info = DatasetInfo("d", sha256={"f.csv": "00"}, verified=False)
    result = run(rows, config=AuditConfig(n_resamples=200, dataset=info))
    assert result.findings["integrity.data"].severity == "critical"
    assert result.exit_code == 4
    assert result.key_findings[0].id == "integrity.data"


def test_there_are_at_most_seven_key_findings_and_fourteen_figures(result: AuditResult) -> None:
    assert 3 <= len(result.key_findings) <= 7
    assert 6 <= sum(len(s.figures) for s in result.sections) <= 14
    anchors = {s.id for s in result.sections} | {t.id for s in result.sections for t in s.tables}
    for finding in result.findings.values():
        assert finding.evidence_path.split("/")[-1] in anchors, finding.id


def test_a_column_that_is_nearly_always_zero_can_still_reveal_the_outcome(
    rows: dict[str, Any],
) -> None:
    rare = np.zeros(len(rows["y"]))
    chosen = np.flatnonzero(rows["y"] == 1)[:60]
    rare[chosen] = np.arange(1, 61)
    X = pd.DataFrame({"rare": rare, "leak": rows["y"] * 5.0, "noise": rows["X"]["age"]})
    result = run(rows, X=X)
    table = {row[0]: row[1] for row in result.section("data").table("associations").rows}
    assert table["rare"] > 0.1 > table["noise"]
    assert table["leak"] > 0.99
    assert result.findings["data.leakage.leak"].severity == "attention"
    assert "data.leakage.rare" not in result.findings


def test_a_proxy_is_named(rows: dict[str, Any]) -> None:
    X = pd.DataFrame({"title": np.where(rows["sensitive"]["sex"] == "Male", "Mr", "Ms")})
    found = run(rows, X=X).findings
    assert found["data.proxy.title.sex"].value.estimate > 0.99  # type: ignore[union-attr]
    assert "data.proxy.title.race" not in found


def test_the_sentence_of_a_gap_says_over_which_pairs_its_interval_holds(
    rows: dict[str, Any],
) -> None:
    """The pair is picked after looking: named alone, it would seem to be the one compared."""
    found = audit(
        Predictions(rows["decision"]), None, rows["y"], sensitive_features=rows["sensitive"],
        config=AuditConfig(n_resamples=100, sections=["groups"]),
    ).findings  # fmt: skip
    gap, ratio = found["fairness.dpd.race"], found["fairness.dpr.race"]
    a, b = gap.attained_by
    assert gap.text.startswith(f"The largest over all pairs of groups, here {a} and {b}; the "
                               "interval is simultaneous over all pairs.")  # fmt: skip
    assert ratio.text.startswith("The smallest over all pairs of groups, here ")
    one, two = found["fairness.dpd.sex"].attained_by
    assert found["fairness.dpd.sex"].text.startswith(f"Between {one} and {two}.")
