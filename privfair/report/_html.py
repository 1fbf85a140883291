"""One self-contained page: no request to any host, readable without scripts, hostile-proof.

Everything that comes from an audit passes through Jinja's autoescape. Only four things are
written as they are, and each is made here: the style sheet, the script (its hash is in the
page's security policy), the checked figures, and the escaped JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from privfair.core._format import format_upper
from privfair.report import _numbers as show
from privfair.report._catalogue import Catalogue, banner_key, catalogue
from privfair.report._figures import draw
from privfair.report._model import AuditResult, Figure, Finding, Table, Value

__all__ = ["to_html"]

_GLYPHS = {"critical": "■", "attention": "▲", "note": "●"}
_URL = re.compile(r"(https?://[^\s<>\"]+[^\s<>\".,;)])")
_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")


def _template(name: str) -> str:
    return files("privfair.report").joinpath("templates", name).read_text("utf-8")


@cache
def _css() -> str:
    text = re.sub(r"/\*.*?\*/", "", _template("style.css"), flags=re.DOTALL)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"\s*([{};,>])\s*", r"\1", text).strip()


@cache
def _script() -> str:
    return _template("script.js").strip()


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _embed(data: dict[str, Any]) -> str:
    """Return JSON that no HTML parser takes for a tag or the end of the element."""
    text = json.dumps(
        data, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _show(kind: str, value: Any) -> str:
    if value is None:
        return ""
    if kind == "count":
        return show.count(value) if isinstance(value, int) else str(value)
    if isinstance(value, str):
        return "∞" if value == "inf" else value
    if kind == "upper":
        return str(format_upper(float(value)))
    if kind == "exact":
        return f"{value:g}".replace("-", show.MINUS)
    return show.signed(value) if kind == "signed" else show.number(value)


def _interval(value: Value) -> str:
    return show.interval(value.low, value.high) if value.shown else ""


def _level(value: Value) -> str:
    return f"{100 * (value.confidence or 0.95):g}"


def _headline(finding: Finding, t: Catalogue) -> str:
    value = finding.value
    if value is None or not value.shown:
        return t("status." + (value.status if value else "not_estimable"))
    if finding.id.startswith("privacy."):
        number = float(value.estimate or 0)
        return "∞" if number == float("inf") else str(format_upper(number))
    if finding.id.startswith("change."):
        return show.signed(value.estimate)
    return show.number(value.estimate)


def _strip(finding: Finding) -> dict[str, float] | None:
    """Return positions, in per cent, of a finding's interval on an axis that starts at zero."""
    v = finding.value
    if v is None or not v.shown or v.low is None or v.high is None or v.estimate is None:
        return None
    if min(v.low, v.estimate) < 0:
        return None
    q95 = (finding.null or {}).get("q95")
    top = max(v.high, v.estimate, q95 or 0.0)
    if top <= 0:
        return None
    scale = 100 / (1.0 if 0.5 < top <= 1.0 else 1.15 * top)
    return {
        "lo": round(scale * v.low, 2),
        "hi": round(scale * v.high, 2),
        "at": round(scale * v.estimate, 2),
        "q": round(scale * (q95 or 0.0), 2),
    }


def _legends(table: Table, t: Catalogue) -> list[str]:
    cells = [c for row in table.rows for c in row if isinstance(c, Value)]
    lines = []
    if any(c.shown and c.status == "small_sample" for c in cells):
        lines.append("† " + t("legend.small_sample"))
    if any(c.status == "not_estimable" for c in cells):
        lines.append(t("legend.not_estimable"))
    if any(c.status == "suppressed" for c in cells):
        lines.append(t("legend.suppressed"))
    levels = sorted({_level(c) for c in cells if _interval(c)})
    if levels:
        lines.append(t("legend.interval", level=", ".join(levels)))
    return lines


def _shown_columns(table: Table) -> list[int]:
    """Return the columns that hold anything; a single unnamed series needs none."""
    return [
        k for k in range(len(table.columns))
        if not table.rows or any(row[k] not in (None, "") for row in table.rows)
    ]  # fmt: skip


def _spans(table: Table) -> list[int]:
    """Return how many rows each first label stands for, 0 where one above goes on.

    Only for tables with marked rows, which come in groups and are not sorted by readers.
    """
    if not table.marks or not table.columns or table.columns[0].kind != "label":
        return []
    labels = [row[0] for row in table.rows]
    spans = [0] * len(labels)
    start = 0
    for k, label in enumerate(labels):
        if k and label == labels[k - 1]:
            spans[start] += 1
        else:
            start, spans[k] = k, 1
    return spans


def _linked(text: str) -> Any:
    """Return a reference with its addresses as links; everything else is escaped."""
    from markupsafe import Markup, escape

    def link(url: str, label: str) -> Markup:
        return Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(url, label)

    out = Markup()
    for k, part in enumerate(_URL.split(text)):
        if k % 2:
            out += link(part, part)
            continue
        at = 0
        for match in _ARXIV.finditer(part):
            out += escape(part[at : match.start()])
            out += link(f"https://arxiv.org/abs/{match.group(1)}", match.group(0))
            at = match.end()
        out += escape(part[at:])
    return out


@cache
def _environment() -> Any:
    from jinja2 import DictLoader, Environment, StrictUndefined

    names = ("page.html.j2", "parts.html.j2")
    return Environment(
        loader=DictLoader({name: _template(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def to_html(result: AuditResult, *, embed_data: bool = True) -> str:
    """Return the audit as one HTML page.

    Parameters
    ----------
    result : AuditResult
    embed_data : bool, default=True
        Whether the page carries its JSON, for whoever receives the page alone.

    Returns
    -------
    str
        A page that loads nothing, works from a file, and is readable with scripts off.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> to_html(result).lower().startswith("<!doctype html>")
    True
    """
    from markupsafe import Markup

    t = catalogue(result.language)

    def svg(figure: Figure) -> Markup:
        return Markup(draw(figure))

    page = _environment().get_template("page.html.j2")
    html: str = page.render(
        result=result,
        t=t,
        csp=Markup(_policy()),
        css=Markup(_css()),
        script=Markup(_script()),
        data=Markup(_embed(result.to_dict() if embed_data else {})),
        banner=t(banner_key(result)),
        subtitle=_subtitle(result, t),
        svg=svg,
        num=show.number,
        interval=_interval,
        level=_level,
        show=_show,
        glyph=_GLYPHS.__getitem__,
        headline=lambda f: _headline(f, t),
        shown_columns=_shown_columns,
        spans_of=_spans,
        strip_of=_strip,
        legends=lambda table: _legends(table, t),
        linked=_linked,
    )
    return html


def _subtitle(result: AuditResult, t: Catalogue) -> str:
    rows = result.counts.get("n_rows")
    return t(
        "ui.subtitle",
        data=result.dataset.name,
        rows=show.count(rows) if rows is not None else t("status.suppressed"),
        models=", ".join(m.name for m in result.models),
        date=result.created,
    )
