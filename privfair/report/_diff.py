"""What changed between two audits: findings that came, went, or moved beyond their intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from privfair.report._model import AuditResult
from privfair.report._parts import Finding, Value

__all__ = ["AuditDiff", "FindingChange", "diff"]


@dataclass(frozen=True)
class FindingChange:
    """One finding in both audits.

    Attributes
    ----------
    id, label : str
    old, new : Value or None
    old_severity, new_severity : str
    """

    id: str
    label: str
    old: Value | None
    new: Value | None
    old_severity: str
    new_severity: str

    @property
    def delta(self) -> float | None:
        """New estimate minus old one."""
        if self.old is None or self.new is None:
            return None
        a, b = self.old.estimate, self.new.estimate
        if not isinstance(a, int | float) or not isinstance(b, int | float):
            return None
        return float(b) - float(a)

    @property
    def apart(self) -> bool:
        """Whether the two intervals have no point in common."""
        if self.old is None or self.new is None:
            return False
        ends = (self.old.low, self.old.high, self.new.low, self.new.high)
        if any(end is None for end in ends):
            return False
        return bool(self.old.low > self.new.high or self.new.low > self.old.high)  # type: ignore[operator]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return self.old != self.new or self.old_severity != self.new_severity

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "id": self.id,
            "label": self.label,
            "old": None if self.old is None else self.old.to_dict(),
            "new": None if self.new is None else self.new.to_dict(),
            "old_severity": self.old_severity,
            "new_severity": self.new_severity,
            "delta": self.delta,
            "apart": self.apart,
        }


@dataclass(frozen=True)
class AuditDiff:
    """The difference between two audits.

    Attributes
    ----------
    changed : tuple of FindingChange
        Those whose intervals do not overlap come first, then the largest changes.
    unchanged : int
    added, removed : tuple of str
        Identifiers of findings in one audit only.
    notes : tuple of str
        What makes the two hard to compare: other data, settings, versions.
    notice : str
        The notices of either audit.
    """

    changed: tuple[FindingChange, ...]
    unchanged: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    notice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "_notice": self.notice,
            "changed": [c.to_dict() for c in self.changed],
            "unchanged": self.unchanged,
            "added": list(self.added),
            "removed": list(self.removed),
            "notes": list(self.notes),
        }


def _notes(old: AuditResult, new: AuditResult) -> tuple[str, ...]:
    out = []
    pairs = {
        "data set": (old.dataset.name, new.dataset.name),
        "version of the data": (old.dataset.version, new.dataset.version),
        "part of the data": (old.dataset.split, new.dataset.split),
        "files": (sorted(old.dataset.sha256.values()), sorted(new.dataset.sha256.values())),
        "number of rows": (old.counts["n_rows"], new.counts["n_rows"]),
        "privfair version": (old.environment.get("privfair"), new.environment.get("privfair")),
        "release": (old.release.get("kind"), new.release.get("kind")),
    }
    for what, (a, b) in pairs.items():
        if a != b:
            out.append(
                f"different {what}" if what == "files" else f"different {what}: {a!r} and {b!r}"
            )
    settings = sorted(
        k for k in old.config.keys() | new.config.keys() if old.config.get(k) != new.config.get(k)
    )
    if settings:
        out.append(f"different settings: {', '.join(settings)}")
    return tuple(out)


def diff(old: AuditResult, new: AuditResult) -> AuditDiff:
    """Compare two audits finding by finding.

    Parameters
    ----------
    old, new : AuditResult

    Returns
    -------
    AuditDiff

    Notes
    -----
    Intervals of two audits that do not overlap are a safe sign of a change where the audits rest
    on different rows. On the same rows the models are better compared in one audit, whose
    intervals use the pairing.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> diff(result, result).changed
    ()
    """
    a, b = old.findings, new.findings
    shared = [i for i in a if i in b]
    pairs = [_pair(a[i], b[i]) for i in shared]
    changed = [p for p in pairs if p.changed]
    changed.sort(key=lambda c: (not c.apart, -abs(c.delta or 0.0), c.id))
    notice = " ".join(dict.fromkeys(n for n in (old.notice, new.notice) if n))
    return AuditDiff(
        tuple(changed),
        len(pairs) - len(changed),
        tuple(i for i in b if i not in a),
        tuple(i for i in a if i not in b),
        _notes(old, new),
        notice,
    )


def _pair(old: Finding, new: Finding) -> FindingChange:
    return FindingChange(old.id, new.label, old.value, new.value, old.severity, new.severity)
