"""Figures: what may be in one, what a drawing of each kind shows."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree as ET

import pytest

from privfair.core.exceptions import ReportError
from privfair.report import Column, Figure, Table, Value
from privfair.report._figures import KINDS, draw
from privfair.report._svg import SVG, check_svg

OPEN = f'<svg xmlns="{SVG}" viewBox="0 0 1 1">'


@pytest.mark.parametrize(
    "inner",
    [
        "<script>alert(1)</script>",
        "<foreignObject/>",
        "<image href='x.png'/>",
        "<a href='#x'/>",
        "<style>*{}</style>",
        "<animate/>",
        '<rect onclick="alert(1)"/>',
        '<use href="https://evil.example/x.svg#a"/>',
        '<use href="javascript:alert(1)"/>',
        '<rect style="fill:url(https://evil.example/x)"/>',
        "<rect style=\"fill:url('http://evil.example/x')\"/>",
        '<rect style="background:expression(alert(1))"/>',
        '<h:script xmlns:h="http://www.w3.org/1999/xhtml"/>',
        "<rect>",
    ],
)
def test_active_content_is_refused(inner: str) -> None:
    with pytest.raises(ReportError):
        check_svg(OPEN + inner + "</svg>")


def test_an_entity_is_refused() -> None:
    with pytest.raises(ReportError):
        check_svg('<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + OPEN + "&x;</svg>")


def test_a_plain_drawing_passes() -> None:
    check_svg(OPEN + '<g id="a"><path d="M0 0" clip-path="url(#a)"/><use href="#a"/></g></svg>')


def value(e: float) -> Value:
    return Value(e, e - 0.1, e + 0.1, confidence=0.95, n=50)


def figures() -> dict[str, Figure]:
    name = "$100k-$200k <b>"
    dots = Table(
        "d", "d",
        (Column("attribute", "A", "label"), Column("group", "G"), Column("series", "S"),
         Column("rate", "R", "value")),
        (("pay", name, "one", value(0.3)), ("pay", "Ελλάδα 漢字", "two", Value.missing("few"))),
    )  # fmt: skip
    forest = Table(
        "f", "f",
        (Column("attribute", "A", "label"), Column("metric", "M"), Column("series", "S"),
         Column("value", "V", "value"), Column("null_q95", "Q", "number")),
        (("pay", name, "one", value(0.3), 0.2), ("pay", "gap", "two", Value.missing("few"), None)),
    )  # fmt: skip
    lines = Table(
        "l", "l",
        (Column("panel", "P", "label"), Column("series", "S"), Column("x", "x", "number"),
         Column("y", "y", "number")),
        (("a", name, 1e-6, 0.5), ("a", name, 1e-3, 0.7), ("b", "two", 0.1, 0.2)),
    )  # fmt: skip
    heat = Table(
        "h", "h",
        (Column("row", "R", "label"), Column("column", "C"), Column("value", "V", "value"),
         Column("n", "n", "count")),
        ((name, "x", value(0.5), 20), (name, "y", Value.missing("few"), 3)),
    )  # fmt: skip
    stack = Table(
        "s", "s",
        (Column("attribute", "A", "label"), Column("row", "R"), Column("part", "P"),
         Column("value", "V", "value")),
        (("pay", name, "Unique", value(0.3)), ("pay", name, "Masked", value(0.2)),
         ("pay", "gone", "Unique", Value.missing("few"))),
    )  # fmt: skip
    dumbbell = Table(
        "b", "b",
        (Column("attribute", "A", "label"), Column("metric", "M"), Column("series", "S"),
         Column("value", "V", "value"), Column("change", "C", "value")),
        (("pay", name, "one", value(0.3), None), ("pay", name, "two", value(0.5), value(0.2)),
         ("pay", "gap", "one", value(0.3), None),
         ("pay", "gap", "two", Value.missing("few"), Value.missing("few"))),
    )  # fmt: skip
    panels = [
        {"title": "a", "x_label": "x", "y_label": "y", "x_scale": "log", "markers": True,
         "points": [{"x": 1e-4, "y": 0.6, "label": name}]},
        {"title": "b", "x_label": "x", "y_label": "y", "diagonal": "up", "steps": True},
    ]  # fmt: skip
    series = {"series": ["one", "two"]}
    return {
        "dots": Figure("a", "dots", name, "d", dots,
                       {"panels": [{"key": "rate", "label": name, "reference": [0.2]}], **series}),
        "forest": Figure("a", "forest", name, "d", forest, series),
        "lines": Figure("a", "lines", name, "d", lines, {"panels": panels}),
        "heat": Figure("a", "heat", name, "d", heat, {"rows": [name], "columns": ["x", "y"]}),
        "stack": Figure("a", "stack", name, "d", stack, {"parts": ["Unique", "Masked"]}),
        "dumbbell": Figure("a", "dumbbell", name, "d", dumbbell, series),
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_draws_its_words_as_text(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that the measuring font lacks is no warning
        root = ET.fromstring(draw(figures()[kind]))
    words = " | ".join(t.text or "" for t in root.iter(f"{{{SVG}}}text"))
    assert "$100k-$200k <b>"[: len("$100k-$200k")] in words
    title = root.find(f"{{{SVG}}}title")
    assert title is not None and title.text == "$100k-$200k <b>"
    assert root.get("viewBox") and "width" not in root.attrib
    if kind != "lines":
        assert "not estimable" in words or "n/e" in words


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_colours_are_variables_with_fallbacks(kind: str) -> None:
    text = draw(figures()[kind])
    import re

    colours = set(re.findall(r"(?:fill|stroke):\s*([^;\"]+)", text))
    bare = {c for c in colours if not c.startswith(("var(--", "none", "url(#"))}
    assert not bare
    assert "var(--s0,#" in text


def test_a_dumbbell_writes_the_change_and_a_stack_the_sum() -> None:
    assert "+0.200 [0.100, 0.300]" in draw(figures()["dumbbell"])
    assert ">0.500<" in draw(figures()["stack"])


def test_panels_may_have_heights_in_columns_of_their_own() -> None:
    from dataclasses import replace

    plain = figures()["lines"]
    columns = (*plain.table.columns[:3], Column("first", "1", "number"), Column("second", "2"))
    rows = tuple((*r[:3], r[3] if r[0] == "a" else None, r[3] if r[0] == "b" else None)
                 for r in plain.table.rows)  # fmt: skip
    split = replace(
        plain, table=replace(plain.table, columns=columns, rows=rows),
        spec={**plain.spec, "y_columns": ["first", "second"]},
    )  # fmt: skip
    assert draw(split) == draw(plain)


def test_two_figures_share_no_identifier() -> None:
    from dataclasses import replace

    found = []
    for name in ("a", "b"):
        root = ET.fromstring(draw(replace(figures()["lines"], id=name)))
        found.append({e.get("id") for e in root.iter() if e.get("id")})
    assert found[0] and not found[0] & found[1]


def test_drawing_leaves_no_trace_in_matplotlib() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(figures()["dots"])
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, privfair.report._figures as f, tests.report.test_svg as t\n"
        "f.draw(t.figures()['dots'])\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_an_unknown_kind_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(ReportError, match="known are"):
        draw(replace(figures()["dots"], kind="pie"))
