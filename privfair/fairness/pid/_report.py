"""The decomposition as estimates, as JSON data, and as text and HTML made of those."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np

from privfair.core._format import json_number, json_safe
from privfair.core.estimate import Estimate
from privfair.fairness.pid._analysis import Analysis
from privfair.fairness.pid._data import EVERYTHING, PIDTable
from privfair.fairness.pid._statements import NAMES, inequalities, statements
from privfair.fairness.pid._uncertainty import PARTS

__all__ = ["METRIC_OF", "as_dict", "as_estimates", "as_html", "as_json", "as_text", "estimate_of"]

METRIC_OF = {
    "unique_disparity": "unique",
    "redundant_disparity": "redundant",
    "masked_disparity": "masked",
    "global_disparity": "global_disparity",
    "local_disparity": "local_disparity",
}
SMALL = 30
BOUNDARY = "may be zero: a one-sided bound instead of an interval"
MOSTLY_BIAS = (
    "most of the value is estimated bias, of which more may be left: merge small clients, or read "
    "the permutation test"
)
BIAS_OF = {
    "unique": "unique",
    "redundant": "global_disparity",
    "masked": "local_disparity",
    "global_disparity": "global_disparity",
    "local_disparity": "local_disparity",
}
MOST_CLIENTS = 20
NULL_OF = {
    "unique": "groups permuted within clients",
    "masked": "groups permuted within clients",
    "local_disparity": "groups permuted within clients",
    "redundant": "groups permuted over all rows",
    "global_disparity": "groups permuted over all rows",
}


# --- estimates ------------------------------------------------------------------------------


def as_estimates(analysis: Analysis, table: PIDTable) -> list[Estimate]:
    """Return one estimate for each metric."""
    return [estimate_of(name, analysis, table) for name in METRIC_OF]


def estimate_of(metric: str, analysis: Analysis, table: PIDTable) -> Estimate:
    """Return the estimate of one metric."""
    part = METRIC_OF[metric]
    low, high = (analysis.intervals or {}).get(part, (np.nan, np.nan))
    status, reason = _status(part, analysis, table)
    details: dict[str, Any] = {
        "unit": "bits",
        "corrected": (analysis.corrected or {}).get(part),
        "bias": (analysis.bias or {}).get(part),
        "standard_error": (analysis.se or {}).get(part),
        "definition": "BROJA",
        "optimiser": analysis.method,
        "certificate_gap": analysis.gap,
        "null_of": NULL_OF[part] if analysis.nulls.get(part) is not None else None,
        "n_clients": len(table.clients),
        "condition": None if table.strata == EVERYTHING else "y",
    }
    frame = None
    if part == "local_disparity":
        import pandas as pd

        frame = pd.DataFrame(analysis.clients.rows(table.clients)).set_index("client")
    if part in ("local_disparity", "global_disparity"):
        details["parity_gap"] = analysis.clients.overall_gap
        details["parity_gap_bound"] = analysis.clients.overall_bound
    return Estimate(
        metric,
        analysis.values[part],
        float(low),
        float(high),
        confidence=analysis.confidence,
        n=analysis.n,
        status=status,
        reason=reason,
        null=analysis.nulls.get(part),
        by_group=frame,
        details=details,
        method=analysis.interval_method,
        privacy=analysis.privacy,
    )


def _status(part: str, analysis: Analysis, table: PIDTable) -> tuple[str, str]:
    if not analysis.converged:
        return "boundary", f"the optimum is certified to {analysis.gap:.1e} bits only"
    if analysis.boundary[part] and analysis.intervals is not None:
        return "boundary", BOUNDARY
    sizes = table.sums.sum(axis=(0, 2, 3)) if analysis.privacy else _rows(table)
    if bool(((sizes > 0) & (sizes < SMALL)).any()):
        return "small_sample", f"a group has fewer than {SMALL} rows"
    if analysis.bias is not None and analysis.bias[BIAS_OF[part]] > 0.5 * analysis.values[part]:
        return "small_sample", MOSTLY_BIAS
    return "ok", ""


def _rows(table: PIDTable) -> Any:
    return table.counts.sum(axis=(0, 2, 3))


# --- JSON data ------------------------------------------------------------------------------


def _part(name: str, analysis: Analysis) -> dict[str, Any]:
    low, high = (analysis.intervals or {}).get(name, (None, None))
    null = analysis.nulls.get(name)
    return {
        "name": name,
        "value": analysis.values[name],
        "corrected": (analysis.corrected or {}).get(name),
        "standard_error": (analysis.se or {}).get(name),
        "low": low,
        "high": high,
        "boundary": analysis.boundary[name],
        "null": None if null is None else null.to_dict(),
    }


def as_dict(
    analysis: Analysis, table: PIDTable, alone: dict[str, Analysis], *, ci: str | None
) -> dict[str, Any]:
    """Return everything as strict JSON data."""
    tests = analysis.tests
    sizes = table.counts.sum(axis=(0, 2, 3))
    client_rows = None if analysis.privacy else table.counts.sum(axis=(0, 1, 2))
    nulls = analysis.nulls
    return json_safe(  # type: ignore[no-any-return]
        {
            "kind": "pid",
            "schema": 1,
            "definition": "BROJA",
            "unit": "bits",
            "n": analysis.n,
            "features": list(table.features),
            "groups": [
                {"group": name, "n": int(n)} for name, n in zip(table.names, sizes, strict=True)
            ],
            "decisions": list(table.decisions),
            "edges": None if table.edges is None else list(table.edges),
            "condition": None if table.strata == EVERYTHING else "y",
            "strata": None if table.strata == EVERYTHING else list(table.strata),
            "weighted": table.rows is not None,
            "n_clients": len(table.clients),
            "merged_clients": table.merged,
            "excluded_rows": table.excluded,
            "smoothing": table.smoothing,
            "confidence": analysis.confidence,
            "interval_method": analysis.interval_method,
            "method": analysis.method,
            "certificate_gap": json_number(analysis.gap),
            "converged": analysis.converged,
            "parts": [_part(name, analysis) for name in PARTS],
            "client_information": analysis.values["redundant"] + analysis.values["unique_client"],
            "p_value_global": _p(nulls["global_disparity"]),
            "p_value_local": _p(nulls["local_disparity"]),
            "g_test": None if tests is None else dict(vars(tests)),
            "parity_gap": json_number(analysis.clients.overall_gap),
            "parity_gap_bound": json_number(analysis.clients.overall_bound),
            "clients": analysis.clients.rows(table.clients, client_rows),
            "by_attribute": {
                name: [_part(part, one) for part in PARTS] for name, one in alone.items()
            },
            "inequalities": inequalities(analysis.values),
            "statements": statements(analysis, table, ci=ci),
            "privacy": None if analysis.privacy is None else analysis.privacy.to_dict(),
        }
    )


def _p(null: Any) -> float | None:
    return None if null is None else null.p_value


# --- text and HTML --------------------------------------------------------------------------


def as_json(data: dict[str, Any]) -> str:
    """Return the data as JSON text."""
    return json.dumps(data, indent=2, allow_nan=False)


def _number(value: Any, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _tables(data: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, head and rows of every table of a report."""
    head = ["part", "bits", "corrected", f"{100 * data['confidence']:g} % interval", "by chance"]
    out = [("Parts", head, [_line(part) for part in data["parts"]])]
    for name, parts in data["by_attribute"].items():
        out.append((f"{name} alone", head, [_line(part) for part in parts]))
    clients = data["clients"]
    shown = sorted(clients, key=lambda row: -(row["share"] * row["local_disparity"]))
    rows = [
        [
            str(row["client"]),
            _number(row["share"], 3),
            _number(row["local_disparity"]),
            _number(row["gap"], 3),
            _number(row["gap_bound"], 3),
            row["silent"],
        ]
        for row in shown[:MOST_CLIENTS]
    ]
    everything = [
        "all rows", "1.000", _number(data["parts"][3]["value"]), _number(data["parity_gap"], 3),
        _number(data["parity_gap_bound"], 3), "",
    ]  # fmt: skip
    title = "Clients"
    if len(clients) > MOST_CLIENTS:
        title = f"Clients (the {MOST_CLIENTS} of {len(clients)} that add most to the local part)"
    columns = ["client", "share", "I(Z;Yhat) bits", "gap of rates", "at most", "note"]
    out.append((title, columns, [everything, *rows]))
    out.append(("Groups", ["group", "rows"], [[g["group"], str(g["n"])] for g in data["groups"]]))
    tests = _tests(data)
    if tests:
        out.append(("Is there any disparity?", ["test", "global", "local"], tests))
    return out


def _tests(data: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the tests that were made."""
    out = []
    if data["p_value_global"] is not None:
        p = [f"p = {data[f'p_value_{where}']:.3g}" for where in ("global", "local")]
        out.append(["permutation", *p])
    if data["g_test"] is not None:
        p = []
        for where in ("global", "local"):
            value, df, reference = (
                data["g_test"][f"{where}_{name}"] for name in ("p_value", "df", "reference")
            )
            if reference == "none":
                p.append("- (expected counts too small)")
            elif reference == "permutation":
                p.append(f"p = {value:.3g}, by permutation: expected counts are small")
            else:
                p.append("-" if value is None else f"p = {value:.3g}, {df} d.f.")
        out.append(["G-test", *p])
    return out


def _line(part: dict[str, Any]) -> list[str]:
    ends = "-"
    if part["low"] is not None:
        ends = f"{part['low']:.4f} to {part['high']:.4f}"
        ends += " (one-sided)" if part["boundary"] else ""
    null = part["null"]
    chance = "-"
    if null is not None:
        chance = f"{null['expected']:.4f}, p = {null['p_value']:.3g}"
    return [
        NAMES[part["name"]],
        _number(part["value"]),
        _number(part["corrected"]),
        ends,
        chance,
    ]


def _title(data: dict[str, Any]) -> str:
    what = " & ".join(data["features"])
    given = " given the label" if data["condition"] else ""
    return f"Disparity over {data['n_clients']} clients by {what}{given}, {data['n']} rows"


def as_text(data: dict[str, Any]) -> str:
    """Return the data as a page of text."""
    out = [_title(data), ""]
    for title, head, rows in _tables(data):
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        out.append(title)
        for row in [head, *rows]:
            cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
            out.append("  " + "  ".join(cells).rstrip())
        out.append("")
    return "\n".join([*out, *(f"- {text}" for text in data["statements"])])


def as_html(data: dict[str, Any], *, short: bool = False) -> str:
    """Return the data as HTML tables, without script or style."""
    tables = _tables(data)[:1] if short else _tables(data)
    out = []
    for title, head, rows in tables:
        caption = f"{_title(data)}: {title.lower()}"
        columns = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
        body = "".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(text)}</td>" for text in row[1:])
            + "</tr>"
            for row in rows
        )
        out.append(
            f"<table><caption>{html.escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )
    said = "".join(f"<li>{html.escape(text)}</li>" for text in data["statements"])
    return "".join(out) + ("" if short else f"<ul>{said}</ul>")
