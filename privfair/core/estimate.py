"""A number with its interval, its null reference and the reason when there is no number."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from privfair.core import _validation as check
from privfair.core._format import json_number, json_safe

if TYPE_CHECKING:
    import pandas as pd

    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["STATUSES", "Estimate", "NullReference"]

STATUSES = ("ok", "small_sample", "boundary", "not_estimable", "not_applicable")


@dataclass(frozen=True)
class NullReference:
    """What a metric would show on these data if there were no disparity.

    Parameters
    ----------
    expected : float
        Mean of the metric under the null hypothesis.
    q95 : float
        Its 95th percentile under the null hypothesis.
    p_value : float
        Share of null draws at least as extreme as the value, with one added to both counts.
    """

    expected: float
    q95: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return the reference as JSON data."""
        return {
            "expected": json_number(self.expected),
            "q95": json_number(self.q95),
            "p_value": json_number(self.p_value),
        }


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimated quantity with its interval.

    Parameters
    ----------
    name : str
        Name of the metric.
    value : float
        Point estimate; NaN when it cannot be estimated.
    low, high : float
        Ends of the interval; NaN when there is none.
    confidence : float
        Level of the interval, in (0, 1).
    n : int
        Number of records behind the estimate.
    status : {"ok", "small_sample", "boundary", "not_estimable", "not_applicable"}
    reason : str
        Why the status is not "ok".
    null : NullReference or None
        For gaps: what to expect without any disparity.
    attained_by : tuple or None
        The groups that attain a max-min gap.
    by_group : pandas.DataFrame or None
        Per-group table behind the value.
    details : dict
        Anything else, JSON-able.
    method : str
        How the interval was made.
    privacy : PrivacyGuarantee or None
        The guarantee of the release, when it was made under differential privacy.

    Examples
    --------
    >>> e = Estimate("selection_rate", 0.25, 0.2, 0.3, confidence=0.95, n=100)
    >>> e.estimable, str(e)
    (True, 'selection_rate 0.250 [0.200, 0.300]')
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    confidence: float = 0.95
    n: int = 0
    status: str = "ok"
    reason: str = ""
    null: NullReference | None = None
    attained_by: tuple[Any, ...] | None = None
    by_group: pd.DataFrame | None = field(default=None, repr=False)
    details: dict[str, Any] = field(default_factory=dict)
    method: str = ""
    privacy: PrivacyGuarantee | None = None

    def __post_init__(self) -> None:
        check.one_of(STATUSES, status=self.status)
        check.confidence(confidence=self.confidence)

    @property
    def estimable(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    @classmethod
    def not_estimable(cls, name: str, reason: str, **fields: Any) -> Estimate:
        """Return the estimate of a quantity that these data do not determine."""
        fields.setdefault("status", "not_estimable")
        return cls(name, math.nan, reason=reason, **fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as strict JSON data; undefined numbers are null."""
        by_group = None
        if self.by_group is not None:
            by_group = json_safe(self.by_group.reset_index().to_dict(orient="records"))
        return {
            "name": self.name,
            "value": json_number(self.value),
            "low": json_number(self.low),
            "high": json_number(self.high),
            "confidence": self.confidence,
            "n": int(self.n),
            "status": self.status,
            "reason": self.reason,
            "null": None if self.null is None else self.null.to_dict(),
            "attained_by": json_safe(self.attained_by),
            "by_group": by_group,
            "details": json_safe(self.details),
            "method": self.method,
            "privacy": None if self.privacy is None else self.privacy.to_dict(),
        }

    def __str__(self) -> str:
        if not self.estimable:
            return f"{self.name} not estimable ({self.reason})"
        interval = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.name} {self.value:.3f}{interval}"

    def _repr_html_(self) -> str:
        level = f"{100 * self.confidence:g} %"
        value = f"{self.value:.4g}" if self.estimable else "not estimable"
        ends = "" if math.isnan(self.low) else f"{self.low:.4g} to {self.high:.4g}"
        rows = [
            ("value", value),
            (f"{level} interval", ends),
            ("n", str(self.n)),
            ("status", self.status if not self.reason else f"{self.status}: {self.reason}"),
        ]
        if self.null is not None:
            rows.append(("95th percentile without disparity", f"{self.null.q95:.4g}"))
        cells = "".join(
            f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(v)}</td></tr>'
            for k, v in rows
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"
