"""Other forms of an audit: findings for continuous integration, a model card, tables, a PDF.

All are made from an :class:`AuditResult` and hold nothing that the page does not show: no value
of a single row. Names are escaped in the language of each form.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from privfair.core._format import format_upper
from privfair.core.exceptions import MissingDependencyError
from privfair.report import _numbers as show
from privfair.report._catalogue import catalogue
from privfair.report._clean import clean_text, csv_text
from privfair.report._model import AuditResult
from privfair.report._parts import Column, Finding, Table, Value

__all__ = ["to_csv_zip", "to_pdf", "to_sarif"]

_LEVELS = {"critical": "error", "attention": "warning", "note": "note"}
_SARIF = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_RULES = {
    "change": "Change between two models on the same rows.",
    "data": "State of the audited data.",
    "fairness": "Disparity between groups.",
    "integrity": "The data or the document are not what they claim to be.",
    "intersections": "Crossing of sensitive attributes that differs beyond doubt.",
    "performance": "Agreement of decisions and scores with the recorded outcome.",
    "privacy": "Certified or measured privacy.",
}


def plain_value(value: Value | None, *, upper: bool = False) -> str:
    """Return a value in words, with its interval in parentheses; empty where there is none.

    An upper bound, such as a certified epsilon, is rounded up.
    """
    if value is None:
        return ""
    if not value.shown:
        words = value.status.replace("_", " ")
        return f"{words}: {value.reason}" if value.reason else words
    if isinstance(value.estimate, str):
        text = value.estimate
    elif upper and value.estimate is not None:
        text = str(format_upper(float(value.estimate)))
    else:
        text = show.number(value.estimate)
    if value.low is not None and value.high is not None:
        text += f" ({show.number(value.low)} to {show.number(value.high)})"
    return f"{text}, small sample" if value.status == "small_sample" else text


# -- SARIF ------------------------------------------------------------------------------------
def to_sarif(result: AuditResult, *, artifact: str | None = None) -> str:
    """Return the findings in the shape of SARIF 2.1.0, for annotations in continuous integration.

    Parameters
    ----------
    result : AuditResult
    artifact : str or None, default=None
        File that the annotations point to, usually the audit's JSON: its name or relative path.
        Some services show only results that point to a file.

    Returns
    -------
    str
        A JSON document, the same for the same result.

    Notes
    -----
    Rules are the first two words of a finding's identifier, such as ``fairness.dpd``: they depend
    on no name from the data. The whole identifier is the fingerprint. Critical findings have
    level "error", those marked attention "warning", others "note". Where the audited data were
    embedded or noise was seeded, the first field of the document and the first result say so.
    Failed sections are notifications. Linear in the number of findings; nothing about
    rows is added to what the audit holds, so that the privacy of the audit is unchanged.

    References
    ----------
    OASIS 2020, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.

    Examples
    --------
    >>> import json
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> json.loads(to_sarif(result))["runs"][0]["tool"]["driver"]["name"]
    'privfair'
    """
    findings = sorted(result.findings.values(), key=lambda f: f.id)
    rules = sorted({_rule(f.id) for f in findings} | ({"data.notice"} if result.notice else set()))
    places = _places(artifact)
    results = [_result(f, rules, places) for f in findings]
    if result.notice:
        results.insert(0, _annotation("data.notice", rules, "warning", result.notice, places))
    driver: dict[str, Any] = {
        "name": "privfair",
        "rules": [
            {
                "id": rule,
                "shortDescription": {"text": _RULES.get(rule.split(".")[0], "A finding.")},
            }
            for rule in rules
        ],
    }
    version = result.environment.get("privfair")
    if isinstance(version, str) and version:
        driver["version"] = clean_text(version)
    failed = [
        {"level": "error", "message": {"text": _message(f"{s.title}: {s.reason}")}}
        for s in result.failed
    ]
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": not failed, "toolExecutionNotifications": failed}],
        "results": results,
        "properties": {
            "title": clean_text(result.title),
            "created": clean_text(result.created),
            "data": clean_text(result.dataset.name),
            "release": clean_text(result.release.get("kind", "raw")),
        },
    }
    document: dict[str, Any] = {"properties": {"_notice": result.notice}} if result.notice else {}
    document |= {"$schema": _SARIF, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _rule(identifier: str) -> str:
    base = clean_text(identifier).split("@")[0]
    return ".".join(base.split(".")[:2]) or "finding"


def _message(text: Any) -> str:
    """Return plain text: "[a](b)" would be a link, and "{0}" a placeholder."""
    plain = clean_text(text).replace("](", "] (")
    return plain.replace("{", "{{").replace("}", "}}") or "(no text)"


def _places(artifact: str | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    uri = quote(clean_text(artifact).replace("\\", "/").lstrip("/"), safe="/")
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}


def _annotation(
    rule: str, rules: list[str], level: str, text: str, place: dict[str, Any], where: str = ""
) -> dict[str, Any]:
    location = dict(place)
    if where:
        location["logicalLocations"] = [{"fullyQualifiedName": clean_text(where)}]
    out: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": rules.index(rule),
        "level": level,
        "message": {"text": _message(text)},
    }
    return out | ({"locations": [location]} if location else {})


def _result(finding: Finding, rules: list[str], place: dict[str, Any]) -> dict[str, Any]:
    number = plain_value(finding.value, upper=finding.id.startswith("privacy."))
    head = finding.label or finding.id
    text = f"{head}: {number}. {finding.text}" if number else f"{head}. {finding.text}"
    out = _annotation(
        _rule(finding.id), rules, _LEVELS[finding.severity], text, place, finding.evidence_path
    )
    out["partialFingerprints"] = {"privfairFinding/v1": clean_text(finding.id)}
    out["properties"] = {
        "id": clean_text(finding.id),
        "severity": finding.severity,
        "model": clean_text(finding.model),
        "value": None if finding.value is None else finding.value.to_dict(),
        "null": None if finding.null is None else dict(sorted(finding.null.items())),
        "attained_by": [clean_text(name) for name in finding.attained_by],
    }
    return out


# -- tables -----------------------------------------------------------------------------------
def to_csv_zip(result: AuditResult) -> bytes:
    """Return all tables, and the data of all figures, as CSV files in one ZIP archive.

    Parameters
    ----------
    result : AuditResult

    Returns
    -------
    bytes
        The same for the same result: stored without compression, files dated 1980-01-01.

    Notes
    -----
    ``README.txt`` is the first file; its first line says whether the audited data were embedded
    or noise was seeded, and so does the first column, ``_notice``, of every table. Cells that a
    spreadsheet would take for a formula are preceded by an apostrophe. Names of files are made
    of letters, digits, "-", "_" and "." only, so that no archive can write outside its folder.
    Linear in the size of the tables. Suppressed cells are empty here as on the page.

    References
    ----------
    Shafranovich 2005, RFC 4180.

    Examples
    --------
    >>> import io, zipfile
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> zipfile.ZipFile(io.BytesIO(to_csv_zip(result))).namelist()[:2]
    ['README.txt', 'findings.csv']
    """
    files = [("findings.csv", "All findings", _findings_csv(result))]
    taken = {"readme.txt", "findings.csv"}
    for section, table in _tables(result):
        name = _file_name(section, table.id, taken)
        files.append((name, table.caption, _noticed(table, result.notice).csv()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = result.notice.encode("utf-8")[:65_535]
        _store(archive, "README.txt", _readme(result, [(n, c) for n, c, _ in files]))
        for name, _, text in files:
            _store(archive, name, text)
    return out.getvalue()


def _store(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # otherwise the operating system's
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, text.encode("utf-8"))


def _tables(result: AuditResult) -> Iterator[tuple[str, Table]]:
    for section in result.sections:
        for table in section.tables:
            yield section.id, table
        for figure in section.figures:
            yield section.id, replace(figure.table, id=figure.id, caption=figure.title)


def _noticed(table: Table, notice: str) -> Table:
    if not notice:
        return table
    columns = (Column("_notice", "Notice"), *table.columns)
    return replace(table, columns=columns, rows=tuple((notice, *row) for row in table.rows))


def _findings_csv(result: AuditResult) -> str:
    lead = ["_notice"] if result.notice else []
    header = [
        *lead, "id", "severity", "model", "label", "estimate", "low", "high", "confidence", "n",
        "status", "null_expected", "null_q95", "p_value", "attained_by", "text",
    ]  # fmt: skip
    rows = []
    for f in result.findings.values():
        v, null = f.value or Value(None), f.null or {}
        rows.append([
            *([result.notice] if lead else []), clean_text(f.id), f.severity, clean_text(f.model),
            clean_text(f.label), v.estimate, v.low, v.high, v.confidence, v.n,
            "" if f.value is None else v.status, null.get("expected"), null.get("q95"),
            null.get("p_value"), clean_text(" / ".join(f.attained_by)), clean_text(f.text),
        ])  # fmt: skip
    return csv_text(header, rows)


def _file_name(section: str, table: str, taken: set[str]) -> str:
    folder, base = (re.sub(r"[^A-Za-z0-9_-]", "_", part)[:80] for part in (section, table))
    # Some systems reserve names such as "con" or "nul".
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)?", re.IGNORECASE)
    folder, base = (f"{p}_" if reserved.fullmatch(p) else p for p in (folder, base))
    name, k = f"{folder}/{base}.csv", 1
    while name.lower() in taken:
        k += 1
        name = f"{folder}/{base}-{k}.csv"
    taken.add(name.lower())
    return name


def _readme(result: AuditResult, files: Iterable[tuple[str, str]]) -> str:
    t = catalogue(result.language)
    kind = result.release.get("kind")
    banner = t(f"banner.{kind}" if kind in {"dp", "local"} else "banner.raw")
    lines = [result.notice] if result.notice else []
    lines += [result.title, f"Data: {result.dataset.name}. Made: {result.created}.", banner]
    caveats = [*result.dataset.caveats, *(c for s in result.sections for c in s.caveats)]
    lines += [f"Caveat: {text}" for text in dict.fromkeys(caveats)]
    lines += [f"Could not be built: {s.title}: {s.reason}" for s in result.failed]
    lines += ["Empty cells: no value; the column ending in _status says why.", ""]
    lines += [f"{name}: {caption}" for name, caption in files]
    return "".join(clean_text(line) + "\n" for line in lines)


# -- PDF --------------------------------------------------------------------------------------
def to_pdf(result: AuditResult) -> bytes:
    """Return the page as a PDF document, where WeasyPrint is installed.

    Parameters
    ----------
    result : AuditResult

    Returns
    -------
    bytes
        The printed form of :func:`privfair.report.to_html`; nothing is loaded for it.

    Raises
    ------
    MissingDependencyError
        WeasyPrint, or a system library that it needs, is not installed.

    Notes
    -----
    The same content as the page, so that the privacy of the audit is unchanged. Without
    WeasyPrint, open the page in a browser and print it into a PDF file.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> document = to_pdf(result)  # doctest: +SKIP
    """
    try:
        import weasyprint
    except (ImportError, OSError):  # OSError: a system library of it is absent
        raise MissingDependencyError(
            "a PDF needs WeasyPrint and its system library Pango: pip install 'privfair[pdf]'. "
            "Or write the page with --html, open it in a browser and print it into a PDF file; "
            "the page is made for paper as well.",
            name="weasyprint",
        ) from None
    document = weasyprint.HTML(string=result.to_html(), url_fetcher=_refuse)
    return bytes(document.write_pdf())


def _refuse(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError("the page of an audit loads nothing")
