"""Conditions on findings, for pipelines: ``fairness.dpd.sex.low > 0.1``."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from privfair.core.exceptions import InvalidParameterError
from privfair.report._model import AuditResult

__all__ = ["Condition", "Outcome", "parse_condition"]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_FIELDS = ("estimate", "low", "high", "n", "expected", "q95", "p_value")
_COMPARISON = re.compile(
    r"^(?P<id>[a-z0-9_]+(?:[.@][a-z0-9_-]+)*)\.(?P<field>" + "|".join(_FIELDS) + r")"
    r"\s*(?P<op><=|>=|<|>)\s*(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)$"
)
_IDENTIFIER = re.compile(r"^[a-z0-9_]+(?:[.@][a-z0-9_-]+)*$")
# Findings that exist only when something is wrong: naming one that is absent is no mistake.
_ONLY_IF_WRONG = ("privacy.contradiction", "integrity.data")


@dataclass(frozen=True)
class Outcome:
    """Whether a condition is met, and by what."""

    met: bool
    text: str


@dataclass(frozen=True)
class Condition:
    """One condition; see :func:`parse_condition`.

    Attributes
    ----------
    text : str
        As written.
    finding : str
        Identifier of a finding, "attention" or "critical".
    field, compare : str
        What of the finding is compared, and how; empty where its presence is enough.
    number : float
        With what.
    """

    text: str
    finding: str
    field: str = ""
    compare: str = ""
    number: float = 0.0

    def check(self, result: AuditResult) -> Outcome:
        """Return whether the audit meets the condition.

        A number that is not estimable meets every comparison: a gate must not open because the
        data were too few.

        Raises
        ------
        InvalidParameterError
            The audit has no such finding; the message suggests the nearest.
        """
        findings = result.findings
        if self.finding in {"attention", "critical"}:
            wanted = {"attention", "critical"} if self.finding == "attention" else {"critical"}
            hits = [f.id for f in findings.values() if f.severity in wanted]
            return Outcome(bool(hits), f"{self.text}: {', '.join(hits) or 'none'}")
        if self.finding not in findings:
            if self.finding in _ONLY_IF_WRONG and not self.field:
                return Outcome(False, f"{self.text}: no such finding")
            near = difflib.get_close_matches(self.finding, findings, n=3, cutoff=0.4)
            hint = f" Nearest: {', '.join(near)}." if near else ""
            raise InvalidParameterError(
                f"this audit has no finding {self.finding!r}, so that the condition "
                f"{self.text!r} would never fail.{hint}"
            )
        found = findings[self.finding]
        if not self.field:
            return Outcome(True, f"{self.text}: present, {found.severity}")
        number = self._number(found)
        if number is None:
            return Outcome(True, f"{self.text}: {self.field} is not estimable")
        met = _OPERATORS[self.compare](number, self.number)
        return Outcome(met, f"{self.text}: {self.field} is {number:.6g}")

    def _number(self, found: Any) -> float | None:
        if self.field in {"expected", "q95", "p_value"}:
            raw = (found.null or {}).get(self.field)
        else:
            raw = None if found.value is None else getattr(found.value, self.field)
        return None if raw is None else float(raw)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Parameters
    ----------
    text : str
        ``ID.FIELD OP NUMBER`` with FIELD among estimate, low, high, n, expected, q95, p_value
        and OP among < <= > >=; or ``ID`` alone (met if there is such a finding); or
        ``attention`` or ``critical`` (met if any finding is that severe).

    Examples
    --------
    >>> c = parse_condition("fairness.dpd.sex.low>0.1")
    >>> c.finding, c.field, c.compare, c.number
    ('fairness.dpd.sex', 'low', '>', 0.1)
    """
    line = text.strip()
    match = _COMPARISON.match(line)
    if match:
        return Condition(line, match["id"], match["field"], match["op"], float(match["number"]))
    if _IDENTIFIER.match(line) and line.rsplit(".", 1)[-1] not in _FIELDS:
        return Condition(line, line)
    raise InvalidParameterError(
        f"condition {text[:80]!r} is not of the form ID.FIELD OP NUMBER, such as "
        f"'fairness.dpd.sex.low > 0.1' (FIELD: {', '.join(_FIELDS)}; OP: < <= > >=), a finding's "
        "ID alone, 'attention' or 'critical'."
    )
