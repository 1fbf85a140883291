"""A metric that another package registers is in the report, without a change of the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.report import AuditConfig, AuditResult, audit, from_json, to_html, to_json
from privfair.report._estimates import extra_metrics

PLUGIN = Path(__file__).resolve().parents[1] / "plugin"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PLUGIN))
    yield __import__("privfair_demo")
    for name in [m for m in sys.modules if m.partition(".")[0] == "privfair_demo"]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Any) -> None:
    info = tmp_path / "privfair_demo-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: privfair-demo\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text((PLUGIN / "entry_points.txt").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))


SEX = np.array(["f", "m"] * 200, dtype=object)
DECISION = np.where(SEX == "f", np.arange(400) % 4 < 2, np.arange(400) % 8 < 2).astype(int)


def _audit(**settings: Any) -> AuditResult:
    config = AuditConfig(n_resamples=100, intersections=0, sections=("groups",), **settings)
    return audit(DECISION, None, DECISION, sensitive_features={"sex": SEX}, config=config)


def _check(result: AuditResult) -> None:
    rates = [DECISION[s == SEX].mean() for s in ("f", "m")]
    finding = result.findings["fairness.decision_spread.sex"]
    assert finding.value is not None
    assert finding.value.estimate == pytest.approx(np.std(rates))
    assert finding.value.low is not None and finding.value.high is not None
    table = result.section("groups").table("gaps-sex-brief")
    assert "Decision spread" in [row[0] for row in table.rows]
    assert "Decision spread" in to_html(result)
    assert from_json(to_json(result)) == result


@pytest.mark.usefixtures("installed")
def test_a_metric_of_an_installed_package_is_in_the_report() -> None:
    _check(_audit())


def test_a_metric_of_the_settings_is_in_the_report(plugin: Any) -> None:
    result = _audit(metrics=(plugin.decision_spread,))
    _check(result)
    assert result.config["metrics"] == ["decision_spread"]
    assert "fairness.decision_spread.sex" not in _audit().findings


def test_a_metric_that_fails_says_so_and_nothing_else_does(
    plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("secret value")

    monkeypatch.setattr(type(plugin.decision_spread), "estimate", broken)
    result = _audit(metrics=(plugin.decision_spread,))
    finding = result.findings["fairness.decision_spread.sex"]
    assert finding.value is not None and not finding.value.shown
    assert "RuntimeError" in finding.text
    assert "secret" not in to_json(result)
    assert result.findings["fairness.dpd.sex"].value.shown


def test_our_own_metrics_are_no_extras_but_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from privfair.core import registry
    from privfair.fairness.metrics import accuracy, equal_opportunity_ratio

    own = {m.name: m for m in (accuracy, equal_opportunity_ratio)}
    monkeypatch.setitem(registry._REGISTERED, "metrics", own)
    assert extra_metrics(AuditConfig()) == {}
    asked = extra_metrics(AuditConfig(metrics=("equal_opportunity_ratio",)))
    assert asked == {"equal_opportunity_ratio": equal_opportunity_ratio}


def test_what_is_no_metric_is_refused() -> None:
    with pytest.raises(InvalidParameterError):
        AuditConfig(metrics=("no_such_metric",))
    with pytest.raises(InvalidTypeError):
        AuditConfig(metrics=(len,))
    with pytest.raises(InvalidTypeError):
        AuditConfig(metrics="decision_spread")
