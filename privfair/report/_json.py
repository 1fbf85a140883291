"""JSON of an audit: strict, sorted, versioned, and read back only if it is ours."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from privfair.core.exceptions import ReportError, SchemaVersionError
from privfair.report._model import SCHEMA_VERSION, AuditResult

__all__ = ["from_json", "json_schema", "to_json"]

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 40


def to_json(result: AuditResult) -> str:
    """Return the audit as a JSON document.

    Keys are sorted, text is UTF-8, NaN and infinity never occur (null with a status, or the
    string "inf"). The first line after the brace is the notice, which says whether the audited
    data were embedded or the noise was seeded.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> from_json(to_json(result)).title
    'Audit of unnamed data'
    """
    return (
        json.dumps(result.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
        + "\n"
    )


def _version(data: Any) -> tuple[int, int, int]:
    text = data.get("schema_version") if isinstance(data, dict) else None
    parts = str(text).split(".")
    if text is None or len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise SchemaVersionError(
            f"this is not a privfair audit: schema_version is {str(text)[:40]!r}, and should be "
            f"three numbers such as {SCHEMA_VERSION!r}. Give the file that `privfair audit "
            "... --json-file` wrote."
        )
    return int(parts[0]), int(parts[1]), int(parts[2])


def _too_deep(data: Any) -> bool:
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for c in inner for v in (c.values() if isinstance(c, dict) else c)]
        if not inner:
            return False
    return True


def _parse(text: str) -> Any:
    try:
        data = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise SchemaVersionError(
            f"the file is not JSON (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        data = None
    except ValueError as error:
        if isinstance(error, SchemaVersionError):
            raise
        raise SchemaVersionError("the JSON holds a number that no audit holds.") from None
    if data is None or _too_deep(data):
        raise SchemaVersionError(
            f"the JSON is nested deeper than {MAX_DEPTH} levels, or empty; no audit is."
        )
    return data


def from_json(text: str) -> AuditResult:
    """Read an audit that :func:`to_json` wrote.

    Raises
    ------
    SchemaVersionError
        If the file is of a newer version, damaged, altered, or no audit at all.

    Examples
    --------
    >>> from_json("{}")
    Traceback (most recent call last):
        ...
    privfair.core.exceptions.SchemaVersionError: this is not a privfair audit: ...
    """
    if len(text) > MAX_BYTES:
        raise SchemaVersionError(
            f"the file is larger than {MAX_BYTES // 2**20} MiB, which no audit is."
        )
    data = _parse(text)
    found, ours = _version(data), tuple(int(p) for p in SCHEMA_VERSION.split("."))
    if found[:2] > ours[:2]:
        raise SchemaVersionError(
            f"the audit has schema version {'.'.join(map(str, found))}; this privfair reads up to "
            f"{SCHEMA_VERSION}. Update privfair to read it."
        )
    _validate(data)
    try:
        return AuditResult.from_dict(data)
    except (ReportError, TypeError, ValueError, KeyError, AttributeError) as error:
        why = str(error) if isinstance(error, ReportError) else "Its parts do not fit together."
        raise SchemaVersionError(f"the file is no audit as it was written. {why}") from None


def _refuse(name: str) -> Any:
    raise SchemaVersionError(f"the file holds {name}, which is not JSON; privfair writes null.")


def _validate(data: Any) -> None:
    import jsonschema

    error = next(iter(jsonschema.Draft202012Validator(json_schema()).iter_errors(data)), None)
    if error is not None:
        where = "/".join(str(p) for p in error.absolute_path) or "the top level"
        raise SchemaVersionError(
            f"the audit does not follow its schema at {where[:120]} ({error.validator}). "
            "The file was changed after it was written."
        )


@cache
def _schema_text() -> str:
    name = f"audit-{SCHEMA_VERSION}.schema.json"
    return files("privfair.report").joinpath("schema", name).read_text("utf-8")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an audit's JSON.

    Examples
    --------
    >>> json_schema()["title"]
    'privfair audit'
    """
    return dict(json.loads(_schema_text()))
