"""Privacy x fairness: models at several epsilons against their twin, group by group."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    PrivacyError,
)
from privfair.dp import DPClassifier
from privfair.report import (
    AuditConfig,
    AuditResult,
    PrivacySweep,
    SweepRun,
    audit,
    from_json,
    privacy_sweep,
    to_html,
    to_text,
)

from .conftest import HOSTILE, guarantee

SECTIONS = ("summary", "privacy_fairness", "methods")
FAST = AuditConfig(n_resamples=200, sections=SECTIONS)
TWIN = math.inf


class Rule:
    """A model whose decisions are given: row k is decided as in the table."""

    def __init__(self, decisions: Any, privacy: Any = None) -> None:
        self.decisions = np.asarray(decisions)
        if privacy is not None:
            self.privacy_ = privacy

    def predict(self, X: Any) -> Any:
        return self.decisions


def made_up(
    harm: float, n: int = 4000, runs: int = 4, seed: int = 1, everywhere: bool = False
) -> dict[str, Any]:
    """A twin that is right in 80 % of rows; at epsilon 1 rows of "small" err more by `harm`.

    With ``everywhere`` all rows do.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    group = np.where(rng.random(n) < 0.2, "small", "large")
    right = rng.random(n) < 0.8
    found = []
    for k in range(runs):
        twin = np.where(right, y, 1 - y)
        spoilt = ((group == "small") | everywhere) & (rng.random(n) < harm)
        found.append(SweepRun(TWIN, k, Rule(twin)))
        found.append(SweepRun(1.0, k, Rule(np.where(spoilt, 1 - y, twin))))
    sweep = PrivacySweep(tuple(found), guarantee(4.0), "Rule", n)
    return {
        "y": y,
        "sensitive": pd.DataFrame({"size": group}),
        "sweep": sweep,
        "X": np.zeros((n, 1)),
    }


def run(data: dict[str, Any], **changes: Any) -> AuditResult:
    model = data["sweep"].at(1.0)[0].model
    return audit(
        {"private": model}, data["X"], data["y"], sensitive_features=data["sensitive"],
        sweep=changes.pop("sweep", data["sweep"]), ledger=Ledger(),
        config=changes.pop("config", FAST),
    )  # fmt: skip


def test_without_a_sweep_there_is_no_section(result: AuditResult) -> None:
    assert "privacy_fairness" not in [s.id for s in result.sections]


def test_it_stands_behind_the_attacks_and_before_the_methods() -> None:
    ids = [s.id for s in run(made_up(0.0)).sections]
    assert ids.index("privacy_fairness") == ids.index("methods") - 1


def test_who_bears_the_cost_is_found() -> None:
    found = run(made_up(0.3)).findings["privacy_cost.accuracy.size.epsilon_1"]
    # Of the rows that the twin has right (80 %), 30 % are lost; the others never change.
    assert found.value.estimate == pytest.approx(-0.24, abs=0.05)
    assert found.value.high < -0.1
    assert found.severity == "attention"
    assert "size = small" in found.text


def test_a_cost_that_all_bear_alike_is_no_finding_of_a_group() -> None:
    """All rows lose 30 %. Simultaneous 95 % intervals: 5 or more alarms of 20 have p = 0.0026."""
    alarms = 0
    for seed in range(20):
        found = run(made_up(0.3, n=600, seed=seed, everywhere=True)).findings
        alarms += found["privacy_cost.accuracy.size.epsilon_1"].value.high < 0
    assert alarms <= 4


def test_numbers_are_those_of_the_decisions() -> None:
    data = made_up(0.5, n=500)
    section = run(data).section("privacy_fairness")
    small = (data["sensitive"]["size"] == "small").to_numpy()
    mean = {
        e: np.mean([(r.model.decisions == data["y"])[small].mean() for r in data["sweep"].at(e)])
        for e in (1.0, TWIN)
    }
    row = next(r for r in section.table("privacy-cost-size").rows if r[0] == "small")
    assert row[2] == small.sum()
    assert row[3].estimate == pytest.approx(mean[1.0] - mean[TWIN])
    overall = {r[0]: r for r in section.table("privacy-cost").rows}
    gaps = []
    for item in data["sweep"].at(1.0):
        d = item.model.decisions == 1
        gaps.append(abs(d[small].mean() - d[~small].mean()))
    assert overall["1"][3].estimate == pytest.approx(np.mean(gaps))
    accuracy = np.mean([(r.model.decisions == data["y"]).mean() for r in data["sweep"].at(TWIN)])
    assert overall["none (twin)"][1].estimate == pytest.approx(accuracy)


def test_rendered_everywhere_and_read_back() -> None:
    result = run(made_up(0.3))
    page = to_html(result)
    assert page.count("<svg") >= 2
    assert "Who bears the cost" in page
    assert "Privacy × fairness" in to_text(result, full=True)
    assert to_html(from_json(result.to_json())) == page


def test_what_the_section_itself_costs_is_said() -> None:
    text = " ".join(run(made_up(0.1)).section("privacy_fairness").caveats)
    assert "4 private ones together are certified at epsilon 4" in text
    assert "4 twins are protected by nothing" in text


def test_without_labels_selection_rates_are_compared() -> None:
    data = made_up(0.4)
    result = audit(
        data["sweep"].at(1.0)[0].model, data["X"], None,
        sensitive_features=data["sensitive"], sweep=data["sweep"], ledger=Ledger(), config=FAST,
    )  # fmt: skip
    section = result.section("privacy_fairness")
    assert section.status == "ok"
    assert [c.key for c in section.table("privacy-cost").columns][1] == "selection_rate"


def test_small_groups_are_marked_and_small_cells_hidden() -> None:
    data = made_up(0.3, n=300)
    data["sensitive"].loc[:4, "size"] = "tiny"
    section = run(data).section("privacy_fairness")
    tiny = next(r for r in section.table("privacy-cost-size").rows if r[0] == "tiny")
    assert tiny[3].status == "small_sample"

    data = made_up(0.3)
    data["sensitive"].loc[:4, "size"] = "tiny"
    data["sensitive"].loc[5:299, "size"] = "next"  # or else the rest would give it away
    hidden = run(data, config=AuditConfig(n_resamples=200, min_cell=10))
    section = hidden.section("privacy_fairness")
    assert "tiny" not in [r[0] for r in section.table("privacy-cost-size").rows]


def test_hostile_group_names() -> None:
    data = made_up(0.2, n=1000)
    names = np.array(HOSTILE, dtype=object)
    data["sensitive"]["size"] = names[np.arange(1000) % len(names)]
    page = to_html(run(data))
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_refused_where_it_would_publish_private_rows() -> None:
    data = made_up(0.1)
    private = AuditConfig(
        n_resamples=200, dp_report=1.0, public_groups={"size": ["large", "small"]}
    )
    with pytest.raises(PrivacyError, match="dp_report"):
        run(data, config=private)
    with pytest.raises(PrivacyError, match="trained"):
        run(data, config=AuditConfig(n_resamples=200, rows="training"))


def test_bad_sweeps() -> None:
    data = made_up(0.1)
    with pytest.raises(InvalidTypeError, match="privacy_sweep"):
        run(data, sweep=[1, 2])
    with pytest.raises(InvalidParameterError, match="twin"):
        PrivacySweep((SweepRun(1.0, 0, Rule([1])),))
    with pytest.raises(InvalidParameterError, match="same runs"):
        PrivacySweep((SweepRun(1.0, 0, None), SweepRun(TWIN, 1, None)))
    with pytest.raises(InvalidTypeError, match="SweepRun"):
        PrivacySweep((1,))  # type: ignore[arg-type]
    short = PrivacySweep(tuple(SweepRun(e, 0, Rule([1, 0])) for e in (1.0, TWIN)))
    with pytest.raises(LengthMismatchError, match="2 rows"):
        run(data, sweep=short)


# -- training ---------------------------------------------------------------------------------
def rows(n: int = 300) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, (X[:, 0] > 0).astype(int)


def test_every_fit_is_on_the_ledger() -> None:
    X, y = rows()
    ledger = Ledger()
    model = DPClassifier(schema="as_is", epochs=2)
    sweep = privacy_sweep(model, X, y, epsilons=(0.5, 2.0), n_runs=2, ledger=ledger)
    purposes = [e.purpose for e in ledger.entries()]
    assert len(sweep.runs) == 6
    assert purposes.count("training") == 4
    assert purposes.count("training without privacy") == 2
    assert not hasattr(model, "privacy_")
    assert sweep.epsilons == (0.5, 2.0)
    assert [r.run for r in sweep.at(TWIN)] == [0, 1]


def test_the_joint_guarantee_covers_all_private_runs() -> None:
    X, y = rows()
    model = DPClassifier(schema="as_is", epochs=2, delta=1e-5)
    sweep = privacy_sweep(model, X, y, epsilons=(1.0,), n_runs=3, ledger=Ledger())
    each = [r.model.privacy_ for r in sweep.at(1.0)]
    one_by_one = each[0].compose(each[1]).compose(each[2])
    assert sweep.guarantee.delta == pytest.approx(3e-5)
    assert max(g.epsilon for g in each) < sweep.guarantee.epsilon <= 3.0
    assert sweep.guarantee.epsilon == pytest.approx(one_by_one.epsilon, rel=2e-3)
    assert len(sweep.guarantee.events) == sum(len(g.events) for g in each)


def test_without_a_ledger_the_twins_are_noted_in_that_of_the_process(monkeypatch):
    from privfair.accounting import default_ledger

    monkeypatch.setattr("privfair.accounting._default._DEFAULT", {})
    privacy_sweep(DPClassifier(schema="as_is", epochs=1), *rows(), epsilons=(1.0,), n_runs=2)
    kinds = [entry.event.kind for entry in default_ledger().entries()]
    assert sorted(kinds) == ["Composed", "Composed", "NonPrivate", "NonPrivate"]
    assert default_ledger().spent().unsafe == ("non_private",)


def test_a_capped_ledger_is_refused_before_anything_is_trained() -> None:
    X, y = rows()
    ledger = Ledger(cap=Budget(10.0, 1e-3))
    with pytest.raises(PrivacyError, match="cap"):
        privacy_sweep(DPClassifier(schema="as_is"), X, y, ledger=ledger)
    with pytest.raises(PrivacyError, match="cap"):
        privacy_sweep(DPClassifier(schema="as_is", ledger=ledger), X, y)
    assert len(ledger) == 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"epsilons": ()}, InvalidParameterError),
        ({"epsilons": (1.0, 1.0)}, InvalidParameterError),
        ({"epsilons": "1"}, InvalidTypeError),
        ({"epsilons": (math.inf,)}, InvalidParameterError),
        ({"epsilons": (True,)}, InvalidTypeError),
        ({"n_runs": 1}, InvalidParameterError),
        ({"random_state": -1}, InvalidParameterError),
    ],
)
def test_bad_settings_train_nothing(changes: dict[str, Any], error: type[Exception]) -> None:
    X, y = rows()
    ledger = Ledger()
    with pytest.raises(error):
        privacy_sweep(DPClassifier(schema="as_is"), X, y, ledger=ledger, **changes)
    assert len(ledger) == 0


def test_an_estimator_without_epsilon_is_refused() -> None:
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(InvalidTypeError, match="epsilon"):
        privacy_sweep(LogisticRegression(), *rows())
