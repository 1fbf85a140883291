"""The section about a local collection, in a report of its own and in an audit."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.ldp import GRR, OUE, Aggregator, randomize
from privfair.ldp.audit import max_manipulation
from privfair.report import (
    AuditConfig,
    LocalCollection,
    audit,
    from_json,
    json_schema,
    ldp_report,
    to_html,
    to_json,
    to_model_card,
    to_text,
)
from privfair.report._local import read_collection


def sums(protocol, names, counts, seed: int = 0) -> Aggregator:
    values = np.repeat(np.arange(len(counts)), counts)
    reports = randomize(protocol, values, noise_random_state=seed)
    return Aggregator(protocol, names).partial_fit(reports)


@pytest.fixture
def study() -> LocalCollection:
    return LocalCollection(
        {
            "degree": sums(OUE(3, 1.0), ["HS", "BA", "<b>PhD</b>"], [500, 300, 200]),
            "hours": sums(GRR(3, 2.0), ["0 to 20", "20 to 40", "40 to 60"], [100, 600, 300]),
        },
        edges={"hours": (0, 20, 40, 60)}, postprocess="norm_sub", trials=2000,
        shuffle_delta=1e-6,
    )  # fmt: skip


def test_fake_users_of_a_sampled_column_all_take_it(study: LocalCollection) -> None:
    found = {c.name: c.attack["poisoning_bound"] for c in read_collection(study)}
    assert found["degree"] == max_manipulation(OUE(3, 1.0), 0.01, attributes=2)
    every = read_collection(replace(study, strategy="spl"))
    assert every[0].attack["poisoning_bound"] == max_manipulation(OUE(3, 1.0), 0.01)
    assert found["degree"] > 1.9 * every[0].attack["poisoning_bound"]


def test_the_report_holds_estimates_intervals_and_the_attack_view(study: LocalCollection) -> None:
    result = ldp_report(study)
    section = result.section("ldp")
    assert section.status == "ok"
    table = section.table("ldp-degree")
    expected = study.aggregators["degree"].estimate("norm_sub")
    for row, raw, low, high, done in zip(
        table.rows, expected.frequencies_raw, expected.ci_low, expected.ci_high,
        expected.frequencies, strict=True,
    ):  # fmt: skip
        assert (row[1].estimate, row[1].low, row[1].high) == (raw, low, high)
        assert row[3] == done
    attacks = {row[0]: row for row in section.table("ldp-attacks").rows}
    assert attacks["degree"][3] == "1"
    assert attacks["hours"][4].startswith("at least ")
    assert "delta 1e-06" in attacks["hours"][7]
    assert result.findings["ldp.mean.hours"].value.low > 0
    assert "ldp.mean.degree" not in result.findings
    assert result.release["kind"] == "local"
    assert result.release["privacy"]["epsilon"] == 2.0
    assert result.exit_code == 0
    assert any("not offered" in block.text for block in section.blocks)


def test_all_renderings_take_it(study: LocalCollection) -> None:
    result = ldp_report(study, title="Survey", source="devices")
    document = to_json(result)
    jsonschema.validate(json.loads(document), json_schema())
    assert from_json(document) == result
    html = to_html(result)
    assert "randomised on the owners' side" in html.replace("&#39;", "'")
    assert "<b>PhD</b>" not in html
    assert html.count("<svg") >= 2
    assert "degree" in to_text(result)
    assert "randomised" in to_model_card(result)


def test_the_section_belongs_to_an_audit_only_if_given(study: LocalCollection) -> None:
    y, decisions, sex = [0, 1] * 40, [0, 1, 1, 1] * 20, ["f", "f", "m", "m"] * 20
    config = AuditConfig(n_resamples=100)
    without = audit(decisions, None, y, sensitive_features={"sex": sex}, config=config)
    assert "ldp" not in [s.id for s in without.sections]
    found = audit(
        decisions, None, y, sensitive_features={"sex": sex}, config=config, collection=study
    )
    assert found.section("ldp").status == "ok"
    assert found.release["kind"] == "raw"


def test_a_randomiser_that_lies_is_critical(
    study: LocalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from privfair.ldp._exact import ONE

    monkeypatch.setattr(GRR, "_t", property(lambda self: int(0.97 * ONE)))
    result = ldp_report(study)
    assert result.findings["privacy.local_contradiction.hours"].severity == "critical"
    assert result.exit_code == 5


def test_many_values_are_drawn_in_part_and_listed_in_full() -> None:
    names = [f"v{i}" for i in range(60)]
    one = LocalCollection({"x": sums(OUE(60, 2.0), names, [10] * 60)}, trials=0)
    section = ldp_report(one).section("ldp")
    assert len(section.table("ldp-x").rows) == 60
    assert len(section.figure("fig-ldp-x").table.rows) == 40
    assert "20 rarer values" in section.figure("fig-ldp-x").description


def test_a_column_without_reports_says_so(study: LocalCollection) -> None:
    empty = Aggregator(GRR(2, 1.0), ["a", "b"])
    section = ldp_report(
        LocalCollection({"some": study.aggregators["degree"], "none": empty}, trials=0)
    ).section("ldp")
    assert any("nothing can be estimated" in b.text for b in section.blocks)
    with pytest.raises(DataError, match="no report"):
        ldp_report(LocalCollection({"none": empty}))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"aggregators": {}}, InvalidTypeError),
        ({"aggregators": {"a": 3}}, InvalidTypeError),
        ({"strategy": "both"}, InvalidParameterError),
        ({"confidence": 1.5}, InvalidParameterError),
        ({"fraction": 0.0}, InvalidParameterError),
        ({"trials": 10}, InvalidParameterError),
        ({"edges": {"weight": (0, 1)}}, InvalidParameterError),
    ],
)
def test_a_bad_collection_is_refused(study: LocalCollection, change, error) -> None:
    given = {"aggregators": study.aggregators} | change
    with pytest.raises(error):
        LocalCollection(**given)


def test_epsilon_of_the_collection(study: LocalCollection) -> None:
    assert study.epsilon == 2.0
    assert LocalCollection(study.aggregators, strategy="spl").epsilon == 3.0
    with pytest.raises(InvalidTypeError, match="LocalCollection"):
        audit([0, 1] * 4, None, None, sensitive_features=["a", "b"] * 4, collection=[study])
