"""What an attack found, and what it says about a certificate."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from privfair.core import _validation as check
from privfair.core._format import json_number, json_safe
from privfair.core.estimate import Estimate
from privfair.core.exceptions import PrivacyContradictionError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NO_BOUND", "NO_CLAIM", "NO_VIOLATION", "VIOLATION", "AttackResult", "verdict_of"]

NO_VIOLATION = "no violation found"
VIOLATION = "VIOLATION"
NO_CLAIM = "nothing certified"
NO_BOUND = "no bound on epsilon"
VERDICTS = (NO_VIOLATION, VIOLATION, NO_CLAIM, NO_BOUND)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The outcome of an attack on privacy: what was found, how, and what it can refute.

    Parameters
    ----------
    attack : str
        Which attack: ``"one_run_audit"``, ``"membership_inference"``, ``"mechanism_audit"``,
        ``"local_audit"``.
    method : str
        One sentence on how the numbers were made.
    estimates : tuple of Estimate
        The numbers, each with its interval; per-group tables are in ``by_group`` of each.
    lower_epsilon : float or None
        Lower bound on epsilon that holds with probability ``confidence``; None where the attack
        gives none.
    upper_epsilon : float or None
        The certified epsilon that was attacked, inf for none; None where nothing was claimed.
    delta : float or None
        The delta that both refer to.
    confidence : float, default=0.95
        Of the lower bound.
    p_value : float or None
        Largest probability of an outcome at least this good if the certificate holds.
    verdict : {"no violation found", "VIOLATION", "nothing certified", "no bound on epsilon"}
        An attack that fails proves nothing: the first one is never a verification.
    assumption : {"dp", "curve", "gdp"}
        What is refuted by a violation: the pair (epsilon, delta), a certified trade-off curve, or
        a Gaussian one.
    counts : dict of str to int
        Canaries, guesses, correct guesses, members and the like.
    roc : tuple of (float, float)
        False and true positive rates on a fixed grid.
    groups : dict of str to tuple of (float, float)
        The same for each group.
    power : str
        What this attack would have found, and what it would have missed.
    caveats : tuple of str
        What a reader must know.
    target : str
        Name of what was attacked.
    details : dict
        Anything else, JSON-able.
    model : object or None
        The attacked model, where the attack trained it; never part of ``to_dict``.

    Examples
    --------
    >>> from privfair.auditing import one_run_audit
    >>> result = one_run_audit([3.0, 2.0, 1.0, 0.0], [True, True, False, False], k_plus=2,
    ...                        k_minus=2, delta=0.0)
    >>> result.verdict, result.counts["correct"]
    ('nothing certified', 4)
    """

    attack: str
    method: str
    estimates: tuple[Estimate, ...] = ()
    lower_epsilon: float | None = None
    upper_epsilon: float | None = None
    delta: float | None = None
    confidence: float = 0.95
    p_value: float | None = None
    verdict: str = NO_BOUND
    assumption: str = "dp"
    counts: dict[str, int] = field(default_factory=dict)
    roc: tuple[tuple[float, float], ...] = ()
    groups: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    power: str = ""
    caveats: tuple[str, ...] = ()
    target: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    model: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check.one_of(VERDICTS, verdict=self.verdict)
        check.one_of(("dp", "curve", "gdp"), assumption=self.assumption)
        check.confidence(confidence=self.confidence)

    @property
    def violated(self) -> bool:
        """Whether the attack contradicts the certificate."""
        return self.verdict == VIOLATION

    def raise_for_violation(self) -> AttackResult:
        """Return the result, or raise if it contradicts the certificate.

        Raises
        ------
        PrivacyContradictionError
            The lower bound lies above the certified epsilon.
        """
        if self.violated and self.lower_epsilon is None:
            p = "" if self.p_value is None else f" (p = {self.p_value:.2g})"
            raise PrivacyContradictionError(
                f"the certified curve of {self.target or 'the attacked mechanism'} is refuted by "
                f"{self.attack}{p} at confidence {self.confidence:g}. Either the implementation "
                "or an assumption of the certificate is wrong: do not release."
            )
        if self.violated:
            raise PrivacyContradictionError(
                f"{self.target or 'the attacked mechanism'} is certified at epsilon = "
                f"{self.upper_epsilon:.4g} (delta = {self.delta:g}), and {self.attack} shows at "
                f"least {self.lower_epsilon:.4g} with confidence {self.confidence:g}. Either the "
                "implementation or an assumption of the certificate is wrong: do not release."
            )
        return self

    def estimate(self, name: str) -> Estimate:
        """Return one of the estimates by its name."""
        for found in self.estimates:
            if found.name == name:
                return found
        raise KeyError(f"no estimate {name!r}; there are {[e.name for e in self.estimates]}.")

    def to_estimates(self) -> list[Estimate]:
        """Return all numbers as a list of estimates."""
        return list(self.estimates)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as strict JSON data, without the model."""
        return {
            "attack": self.attack,
            "target": self.target,
            "method": self.method,
            "verdict": self.verdict,
            "lower_epsilon": json_number(self.lower_epsilon),
            "upper_epsilon": json_number(self.upper_epsilon),
            "delta": self.delta,
            "confidence": self.confidence,
            "p_value": json_number(self.p_value),
            "assumption": self.assumption,
            "counts": dict(self.counts),
            "estimates": [e.to_dict() for e in self.estimates],
            "roc": [list(p) for p in self.roc],
            "groups": {g: [list(p) for p in points] for g, points in self.groups.items()},
            "power": self.power,
            "caveats": list(self.caveats),
            "details": json_safe(self.details),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates as a data frame, indexed by name."""
        import pandas as pd

        rows = [
            {"name": e.name, "value": e.value, "low": e.low, "high": e.high, "n": e.n,
             "status": e.status, "reason": e.reason}
            for e in self.estimates
        ]  # fmt: skip
        columns = ["name", "value", "low", "high", "n", "status", "reason"]
        return pd.DataFrame(rows, columns=columns).set_index("name")

    def __str__(self) -> str:
        lines = [f"{self.attack}{f' of {self.target}' if self.target else ''}: {self.verdict}"]
        if self.lower_epsilon is not None:
            upper = "nothing" if self.upper_epsilon is None else f"{self.upper_epsilon:.4g}"
            at = "" if self.delta is None else f" at delta = {self.delta:g}"
            lines.append(
                f"  epsilon{at}: at least {self.lower_epsilon:.4g} (confidence "
                f"{self.confidence:g}), certified {upper}"
            )
        lines += [f"  {e}" for e in self.estimates]
        lines += [f"  {text}" for text in (self.power, *self.caveats) if text]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [("verdict", self.verdict)]
        if self.lower_epsilon is not None:
            rows.append(("audited epsilon, at least", f"{self.lower_epsilon:.4g}"))
        if self.upper_epsilon is not None:
            rows.append(("certified epsilon", f"{self.upper_epsilon:.4g}"))
        rows += [(e.name, str(e)) for e in self.estimates]
        rows += [("note", text) for text in (self.power, *self.caveats) if text]
        cells = "".join(
            f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(v)}</td></tr>'
            for k, v in rows
        )
        return f"<table><caption>{html.escape(self.attack)}</caption>{cells}</table>"

    def plot(self, ax: Any = None) -> Any:
        """Draw the attack's ROC curve (false positives on a logarithmic axis).

        Parameters
        ----------
        ax : matplotlib axes or None
            Where to draw; None makes a figure of its own.

        Returns
        -------
        matplotlib axes
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(5, 4)).add_subplot()
        curves = {"all records": self.roc, **self.groups}
        for name, points in curves.items():
            shown = [(max(x, 1e-4), max(y, 1e-4)) for x, y in points]
            if shown:
                xs, ys = zip(*shown, strict=True)
                ax.plot(xs, ys, label=name)
        ax.plot([1e-4, 1], [1e-4, 1], linestyle=":", color="0.5", label="guessing")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("false positive rate")
        ax.set_ylabel("true positive rate")
        ax.legend()
        return ax


def verdict_of(lower: float, upper: float | None) -> str:
    """Return the verdict on a certified epsilon, given a lower bound."""
    if upper is None or math.isinf(upper):
        return NO_CLAIM
    return VIOLATION if lower > upper else NO_VIOLATION
