"""The whole statement about a plan: what is promised, about whom, and what is not covered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from privfair.cli._common import output
from privfair.cli.accountant._plan import Plan
from privfair.core._format import format_lower, format_upper, json_number, round_down, round_up

if TYPE_CHECKING:
    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["DIGITS", "NOT_COVERED", "RELATIONS", "Answer", "lower", "payload", "show", "upper"]

DIGITS = 6
NOT_COVERED = (
    "choosing hyper-parameters on the private data",
    "statistics of the data used in preprocessing",
    "early stopping or model choice on private validation data",
    "noise drawn from a seed that somebody else knows",
)
RELATIONS = {
    "zero_out": "its data replaced by nothing, n public",
    "add_remove": "added or removed, n private",
    "replace_one": "its data replaced by any other, n public",
}


def upper(value: float | None) -> Any:
    """Return an upper bound for JSON: rounded up, infinity as text, None as null."""
    return None if value is None else json_number(round_up(value, DIGITS))


def lower(value: float | None) -> Any:
    """Return a lower bound for JSON: rounded down."""
    return None if value is None else json_number(round_down(value, DIGITS))


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    import platform
    from importlib.metadata import version

    import numpy
    import scipy

    from privfair import __version__

    return {
        "privfair": __version__,
        "dp-accounting": version("dp-accounting"),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def payload(
    found: PrivacyGuarantee | None = None, *, warnings: list[str] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the keys that every command prints with ``--json``; null where without meaning."""
    base: dict[str, Any] = {
        "schema": 1,
        "epsilon": None, "epsilon_lower": None, "delta": None,
        "noise_multiplier": None, "sample_rate": None, "steps": None, "epochs": None,
        "sampling": None, "neighboring": None, "unit": None, "max_records_per_user": None,
        "accountant": None, "order": None,
        "epsilon_no_amplification": None, "epsilon_if_shuffled": None,
        "epsilon_poisson_if_shuffled": None,
        "assumptions": [], "not_covered": list(NOT_COVERED), "warnings": warnings or [],
        "versions": versions(),
    }  # fmt: skip
    if found is not None:
        base |= {
            "epsilon": upper(found.epsilon),
            "epsilon_lower": lower(found.lower),
            "delta": upper(found.delta),
            "neighboring": found.neighboring,
            "unit": found.unit,
            "accountant": found.accountant,
            "order": json_number(found.order),
            "assumptions": list(found.assumptions),
        }
    return base | more


def show(data: dict[str, Any], lines: list[str]) -> None:
    """Print an answer; what is in ``warnings`` follows as notes."""
    output(data, "\n".join([*lines, *(f"Note: {text}" for text in data["warnings"])]))


@dataclass(frozen=True)
class Answer:
    """A priced plan, ready to be shown.

    Parameters
    ----------
    plan : Plan
    sigma : float
        Noise multiplier.
    steps : int
    found : PrivacyGuarantee
    """

    plan: Plan
    sigma: float
    steps: int
    found: PrivacyGuarantee

    @property
    def _comparable(self) -> bool:
        """Whether there is a delta at which other events can be priced too."""
        return 0 < self.found.delta < 1 and math.isfinite(self.found.epsilon)

    @cached_property
    def lower(self) -> float | None:
        """A lower bound on the true epsilon, where one is known."""
        delta = self.found.delta
        known = [self.found.lower]
        if 0 < delta < 1:
            known.append(self.plan.lower_bound(self.sigma, self.steps, delta))
        return max((value for value in known if value is not None), default=None)

    @cached_property
    def plain(self) -> float | None:
        """Epsilon of the same noise if every step used all the data."""
        if not 0 < self.found.delta < 1:
            return None
        from privfair.accounting import Gaussian, SelfComposed

        event = SelfComposed(Gaussian(self.sigma / self.plan.max_records), self.steps)
        return self.plan.compared(event, self.found.delta)

    @cached_property
    def if_poisson(self) -> float | None:
        """Epsilon that would hold for shuffled batches had they been Poisson sampled."""
        if self.plan.sampling != "shuffle" or not self._comparable:
            return None
        from dataclasses import replace

        from privfair.core.exceptions import PrivacyError

        try:
            event = replace(self.plan, sampling="poisson").event(self.sigma, self.steps)
            return self.plan.compared(event, self.found.delta)
        except PrivacyError:
            return None

    @cached_property
    def if_shuffled(self) -> float | None:
        """Epsilon that can be certified if the batches were shuffled and not Poisson sampled."""
        plan = self.plan
        if plan.sampling != "poisson" or plan.sample_rate >= 1 or not self._comparable:
            return None
        from privfair.accounting import Gaussian, SelfComposed

        # Each record once in each of the passes begun.
        passes = math.ceil(self.steps * plan.sample_rate * (1 - 1e-12))
        event = SelfComposed(Gaussian(self.sigma / plan.max_records), passes)
        return plan.compared(event, self.found.delta)

    def payload(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        plan = self.plan
        return payload(self.found, warnings=self.warnings()) | {
            "epsilon_lower": lower(self.lower),
            "noise_multiplier": self.sigma,
            "sample_rate": plan.sample_rate,
            "steps": self.steps,
            "epochs": self.steps * plan.sample_rate,
            "sampling": plan.sampling,
            "max_records_per_user": None if plan.unit == "record" else plan.max_records,
            "epsilon_no_amplification": upper(self.plain),
            "epsilon_if_shuffled": upper(self.if_shuffled),
            "epsilon_poisson_if_shuffled": upper(self.if_poisson),
        }

    def warnings(self) -> list[str]:
        """Return what a careful reader would ask about."""
        out = []
        if math.isinf(self.found.epsilon):
            out.append("There is no finite guarantee.")
        elif self.found.epsilon > 20:
            out.append("An epsilon above 20 protects nobody in practice.")
        size = self.plan.batches.dataset_size
        if size is None:
            out.append("Without --dataset-size, delta was not compared with 1/n.")
        elif self.found.delta >= 1 / size:
            out.append("A delta of 1/n or more permits releasing a record outright.")
        return out

    def lines(self, *, head: str | None = None) -> list[str]:
        """Return the statement in words."""
        plan, found = self.plan, self.found
        out = [
            head
            or f"epsilon <= {format_upper(found.epsilon, DIGITS)} at delta = {found.delta:g}  "
            f"(accountant {found.accountant})",
            f"  protects    one {plan.unit}, {RELATIONS[plan.neighboring]} ({plan.neighboring})",
            f"  batches     {self._batches()}",
            f"  steps       {self.steps} ({self.steps * plan.sample_rate:.4g} epochs)",
            f"  noise       noise multiplier {self.sigma:.12g}",
        ]
        if plan.unit != "record":
            out.append(f"  records     at most {plan.max_records} of one {plan.unit}")
        if self.lower is not None and plan.sampling != "shuffle":
            out.append(f"  true value  epsilon >= {format_lower(self.lower, DIGITS)}")
        if plan.sampling in ("poisson", "wor") and plan.sample_rate < 1 and self.plain is not None:
            out.append(
                f"  unsampled   epsilon <= {format_upper(self.plain, DIGITS)} if every step "
                "used all the data"
            )
        out += self._sampling_sentence()
        out.append("Covers every intermediate model and gradient, not only the last model.")
        out.append("Does not cover: " + "; ".join(NOT_COVERED) + ".")
        out += [f"Assumes: {sentence}" for sentence in found.assumptions]
        return out

    def _sampling_sentence(self) -> list[str]:
        if self.if_poisson is not None:
            least = (
                ""
                if self.lower is None
                else f"; the true value is at least {format_lower(self.lower)}"
            )
            return [
                "Batches were shuffled, not Poisson sampled. Certified epsilon = "
                f"{format_upper(self.found.epsilon)}. The commonly quoted Poisson value "
                f"{format_upper(self.if_poisson)} is not a guarantee{least}."
            ]
        if self.if_shuffled is not None:
            return [
                "Holds for Poisson sampling only: for batches that were shuffled and cut, "
                f"{format_upper(self.if_shuffled)} could be certified (--sampling shuffle)."
            ]
        return []

    def _batches(self) -> str:
        plan = self.plan
        rate, size = plan.sample_rate, plan.batches.dataset_size
        if plan.sampling == "full" or (plan.sampling == "poisson" and rate == 1):
            return "all data in every step" + ("" if size is None else f", {size} records")
        if plan.sampling == "shuffle":
            return f"shuffled, {plan.batch_size} of {size} records each"
        if plan.sampling == "wor":
            return f"{plan.batch_size} of {size} records each, drawn without replacement"
        expected = "" if size is None else f", {rate * size:.6g} of {size} records expected"
        return f"Poisson, each record with probability {rate:.6g}{expected}"
