"""Small cells are hidden, and cannot be worked out from what is shown."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.report import AuditConfig, AuditResult, Predictions, audit
from privfair.report._suppress import disclosed, plan

LIMIT = 10


def make(seed: int, n: int = 900) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "sex": rng.choice(["F", "M"], n, p=[0.3, 0.7]),
            "race": rng.choice(["A", "B", "C", "D"], n, p=[0.62, 0.3, 0.06, 0.02]),
        }
    )
    label = (rng.random(n) < 0.4).astype(int)
    decision = np.where(rng.random(n) < 0.8, label, 1 - label)
    return {"frame": frame, "y": label, "d": decision}


def run(rows: dict[str, Any], min_cell: int | None = LIMIT) -> AuditResult:
    config = AuditConfig(n_resamples=200, min_cell=min_cell)
    X = pd.DataFrame({"job": np.where(np.arange(len(rows["y"])) < 4, None, "x")})
    return audit(
        Predictions(rows["d"], np.where(rows["d"] == 1, 0.8, 0.2)), X, rows["y"],
        sensitive_features=rows["frame"], config=config,
    )  # fmt: skip


def cells_of(rows: dict[str, Any], chosen: dict[str, str]) -> list[int]:
    inside = np.ones(len(rows["y"]), dtype=bool)
    for name, value in chosen.items():
        inside &= (rows["frame"][name] == value).to_numpy()
    return [
        int((inside & (rows["y"] == a) & (rows["d"] == b)).sum())
        for a, b in product((0, 1), (0, 1))
    ]


def shown_groups(result: AuditResult) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    out: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    groups = result.section("groups")
    for name in ("sex", "race"):
        rows = groups.table(f"rates-{name}-brief").rows
        out[(name,)] = {(row[0],) for row in rows if row[0] != "All rows"}
    crossing = result.section("intersections").table("crossing-sex_x_race")
    out[("sex", "race")] = {tuple(row[0].split(" × ")) for row in crossing.rows}
    return out


@pytest.mark.parametrize("seed", range(4))
def test_no_group_with_a_small_cell_is_shown(seed: int) -> None:
    rows = make(seed)
    for attributes, groups in shown_groups(run(rows)).items():
        for group in groups:
            cells = cells_of(rows, dict(zip(attributes, group, strict=True)))
            assert all(c == 0 or c >= LIMIT for c in cells), (attributes, group, cells)


@pytest.mark.parametrize("seed", range(4))
def test_no_hidden_group_follows_from_the_shown_ones(seed: int) -> None:
    """The attack: solve the linear equations that all shown counts give, all at once."""
    rows = make(seed)
    shown = shown_groups(run(rows))
    levels = {name: sorted(set(rows["frame"][name])) for name in ("sex", "race")}
    atoms = list(product(levels["sex"], levels["race"]))

    def vector(attributes: tuple[str, ...], group: tuple[str, ...]) -> list[float]:
        want = dict(zip(attributes, group, strict=True))
        return [
            float(
                all(dict(zip(("sex", "race"), atom, strict=True))[k] == v for k, v in want.items())
            )
            for atom in atoms
        ]

    known = [[1.0] * len(atoms)]
    known += [vector(a, g) for a, groups in shown.items() for g in groups]
    hidden = [("race", v) for v in levels["race"]] + [("sex", v) for v in levels["sex"]]
    targets = [((name,), (v,)) for name, v in hidden if (v,) not in shown[(name,)]]
    targets += [(("sex", "race"), atom) for atom in atoms if atom not in shown[("sex", "race")]]
    assert targets, "this seed hides nothing, so that it tests nothing"
    rank = np.linalg.matrix_rank(np.array(known))
    for attributes, group in targets:
        if sum(cells_of(rows, dict(zip(attributes, group, strict=True)))) == 0:
            continue
        more = np.linalg.matrix_rank(np.array([*known, vector(attributes, group)]))
        assert more == rank + 1, f"{group} can be worked out"


def test_one_hidden_group_takes_another_with_it() -> None:
    codes = {("a",): np.repeat([0, 1, 2, 3], [4, 30, 40, 50])}
    found = plan(codes, [], [], LIMIT)
    assert found == {("a",): {0, 1}}
    assert plan(codes, [], [], 2) == {("a",): set()}


def test_a_margin_does_not_give_a_crossing_away() -> None:
    a = np.repeat([0, 0, 1, 1], [40, 5, 60, 70])
    b = np.repeat([0, 1, 0, 1], [40, 5, 60, 70])
    codes = {("a",): a, ("b",): b, ("a", "b"): 2 * a + b}
    found = plan(codes, [], [], LIMIT)
    assert 1 in found[("a", "b")]
    assert len(found[("a", "b")]) >= 4 or found[("a",)] or found[("b",)]


def test_what_is_hidden_together_is_not_small_either() -> None:
    """Two hidden groups are, together, the total minus the others."""
    codes = {("a",): np.repeat([0, 1, 2, 3], [3, 4, 60, 50])}
    found = plan(codes, [], [], LIMIT)
    assert found == {("a",): {0, 1, 3}}


def test_everything_about_a_hidden_group_is_hidden() -> None:
    rows = make(0)
    result = run(rows)
    gone = [name for name, n in result.counts["groups"]["race"].items() if n is None]
    assert gone
    text = json.dumps(result.to_dict())
    for name in gone:
        assert f"by race: {name}" not in text
        notes = result.section("groups").table("rates-race-brief").notes
        assert any("Not shown" in note and name in note for note in notes)
    heat = result.section("intersections").figure("fig-crossing-sex_x_race").table
    hidden = [row for row in heat.rows if row[2].status == "suppressed"]
    assert hidden and all(row[3] is None and row[2].estimate is None for row in hidden)
    assert all(not f.id.startswith("fig-scores") for f in result.section("performance").figures)
    # four rows lack a value: fewer than the limit
    assert result.findings["data.missing"].value.status == "suppressed"  # type: ignore[union-attr]
    assert not any(f.id == "fig-missing" for f in result.section("data").figures)


def test_gaps_are_those_of_the_shown_groups() -> None:
    rows = make(0)
    result = run(rows)
    shown = [g for (g,) in shown_groups(result)[("race",)]]
    rates = [rows["d"][(rows["frame"]["race"] == g).to_numpy()].mean() for g in shown]
    value = result.findings["fairness.dpd.race"].value
    assert value is not None
    if len(shown) > 1:
        assert value.estimate == pytest.approx(max(rates) - min(rates))
    else:
        assert not value.shown


def test_the_page_still_renders_when_nothing_is_left() -> None:
    rows = make(1, n=60)
    result = run(rows)
    assert result.exit_code == 0, [s.reason for s in result.failed]
    assert "Not shown" in result.to_html()
    assert result.to_text(full=True)


def test_without_a_limit_nothing_is_hidden() -> None:
    result = run(make(0), None)
    assert all(n is not None for n in result.counts["groups"]["race"].values())


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=6),
    st.lists(st.integers(0, 60), min_size=2, max_size=6),
    st.integers(2, 20),
)
def test_no_plan_leaves_a_small_or_computable_group(
    first: list[int], second: list[int], limit: int
) -> None:
    a = np.repeat(np.arange(len(first)), first)
    b = np.repeat(np.arange(len(second)), second)
    n = min(len(a), len(b))
    if n == 0:
        return
    a, b = a[:n], np.random.default_rng(0).permutation(b[:n])
    _, crossed = np.unique(100 * a + b, return_inverse=True)
    codes = {("a",): a, ("b",): b, ("a", "b"): crossed}
    found = plan(codes, [], [], limit)
    atoms = np.unique(np.column_stack([a, b, crossed]), axis=0)
    known, hidden = [np.ones(len(atoms))], []
    for at, name in enumerate(codes):
        for group in np.unique(codes[name]).tolist():
            vector = (atoms[:, at] == group).astype(float)
            (hidden if group in found[name] else known).append(vector)
            size = int((codes[name] == group).sum())
            assert group in found[name] or size >= limit
    if hidden:
        known_rank = np.linalg.matrix_rank(np.array(known))
        for vector in hidden:
            if vector.all():
                continue  # the only group of an attribute is the total
            assert np.linalg.matrix_rank(np.array([*known, vector])) == known_rank + 1
        assert len(disclosed(np.array(hidden), np.array(known))) == len(hidden)
