"""What a published rule achieves on rows that it was not made from, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.statistics import normal_critical
from privfair.fairness._contingency import ContingencyRelease
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._measures import decided
from privfair.fairness.aglfop._rule import differences, measured

__all__ = ["accuracy_of_release", "rule_estimates"]

Array = NDArray[np.float64]

_BLOCK = 4_000_000  # entries of a block of tables
_FEW = 30
_FEWEST, _MOST = 200, 20_000_000  # resamples kept for gaps, and entries of them


def rule_estimates(
    p: Array,
    draws: Callable[[int], Array],
    rule: Array,
    bounds: Sequence[FairnessBound],
    positive: int,
    *,
    n: int,
    confidence: float,
    n_resamples: int,
    privacy: PrivacyGuarantee | None,
    labels: Mapping[str, str],
    release: ContingencyRelease | None = None,
) -> list[Estimate]:
    """Return accuracy, informations and gaps of a rule on a table, with intervals.

    Parameters
    ----------
    p : ndarray, shape (n_z, n_s, n_y, n_r)
    draws : callable
        Returns that many resampled tables; noisy counts where there is a release.
    rule : ndarray, shape (n_z, n_s, n_r, n_k)
    bounds : sequence of FairnessBound
        What is measured, and against which bounds.
    positive : int
    n : int
        Rows behind ``p``.
    confidence : float
    n_resamples : int
    privacy : PrivacyGuarantee or None
    labels : mapping
        Names of clients for the names of estimates.
    release : ContingencyRelease or None
        Where ``p`` comes from.

    Notes
    -----
    Informations are at least zero and biased upwards by sampling. The value is twice the plain
    one less the mean of the resamples, at least zero. The interval goes from the reflected
    quantile (at least zero) to the plain upper quantile of the resamples, which carry the bias
    twice: its upper end errs on the safe side. A gap is a maximum of absolute differences, for
    which no quantile of resamples holds at zero: its interval comes from simultaneous ones of
    the signed differences, see :class:`_Gaps`.
    """
    names, values = _all(p[None], rule, bounds, positive)
    counted = p[None] if release is None else release.counts[None] / n
    gaps = _Gaps(counted, rule, bounds, positive, noisy=release is not None)
    step = max(1, _BLOCK // p.size)
    blocks = []
    for first in range(0, n_resamples, step):
        tables = draws(min(step, n_resamples - first))
        if release is None:
            gaps.add(tables)
        else:
            gaps.add(tables / n)
            tables = release.repaired(tables)
        blocks.append(_all(tables, rule, bounds, positive)[1])
    spread = np.concatenate(blocks, axis=1)
    tail = (1 - confidence) / 2
    ceilings = _ceilings(bounds)
    out = []
    for name, here, there in zip(names, values[:, 0], spread, strict=True):
        low, high = np.quantile(there, [tail, 1 - tail])
        details: dict[str, Any] = {"plug_in": float(here)}
        status, reason, value = "ok", "", float(here)
        if name == "accuracy":
            method = "percentile bootstrap of the expected accuracy of the randomised rule"
        else:
            method = "bootstrap; lower end reflected, upper end plain (conservative)"
            value = max(0.0, 2 * float(here) - float(there.mean()))
            low = max(0.0, 2 * float(here) - float(high))
            if name.startswith("gap_"):
                method = "simultaneous bootstrap intervals of the signed differences (max-t)"
                low, high = gaps.interval(name.removeprefix("gap_"), n, confidence)
                value = min(max(value, low), high)
            if low == 0.0:
                status, reason = "boundary", "zero cannot be told from the value"
            bound = ceilings.get(name)
            if bound is not None:
                verdict = "within" if high <= bound else "exceeded" if low > bound else "undecided"
                details |= {"bound": bound, "verdict": verdict}
        if n < _FEW:
            status, reason = "small_sample", f"{n} rows"
        out.append(
            Estimate(
                labels.get(name, name),
                value,
                float(low),
                float(high),
                confidence=confidence,
                n=n,
                status=status,
                reason=reason,
                details=details,
                method=method,
                privacy=privacy,
            )  # fmt: skip
        )
    return out


class _Gaps:
    """Simultaneous intervals of the differences behind the largest one.

    If every signed difference d_j lies within d_j +- c s_j at once, then the largest absolute one
    lies between max(|d_j| - c s_j) and max(|d_j| + c s_j), at zero too. The differences come from
    the noisy counts themselves, for the repair that an information needs would bias them. A
    standard error is never below that of one row: few rows that all decide alike prove little.
    """

    def __init__(
        self,
        table: Array,
        rule: Array,
        bounds: Sequence[FairnessBound],
        positive: int,
        *,
        noisy: bool,
    ) -> None:
        self.noisy = noisy
        self.rule, self.bounds, self.positive = rule, bounds, positive
        self.centre = differences(table, rule, bounds, positive)
        self.draws: dict[str, list[Array]] = {name: [] for name in self.centre}

    def add(self, tables: Array) -> None:
        """Take resampled tables, up to what memory allows."""
        found = differences(tables, self.rule, self.bounds, self.positive)
        for name, (values, _) in found.items():
            kept = sum(len(block) for block in self.draws[name])
            room = max(_FEWEST, _MOST // max(values.shape[1], 1)) - kept
            if room > 0:
                self.draws[name].append(values[:room])

    def interval(self, name: str, n: int, confidence: float) -> tuple[float, float]:
        """Return the interval of the largest absolute difference."""
        values, sizes = self.centre[name]
        here, rows = values[0], sizes[0] * n
        draws = np.concatenate(self.draws[name])
        if here.size == 0:
            return 0.0, 0.0
        known = np.isfinite(here)
        # Under noise a group without mass may have some; without noise it has no rate.
        unknown = self.noisy and not bool(known.all())
        here, rows, draws = here[known], rows[:, known], draws[:, known]
        if here.size == 0:
            return 0.0, float(unknown)
        seen = np.isfinite(draws)
        count = np.maximum(seen.sum(axis=0), 1)
        off = np.where(seen, draws, 0.0)
        off = np.where(seen, off - off.sum(axis=0) / count, 0.0)
        one_row = (1.0 / (np.maximum(rows, 0.0) + 2.0) ** 2).sum(axis=0)
        se = np.sqrt(np.maximum((off**2).sum(axis=0) / np.maximum(count - 1, 1), one_row))
        critical = float(np.quantile(np.abs(off / se).max(axis=1), confidence, method="weibull"))
        low = max(0.0, float((np.abs(here) - critical * se).max()))
        high = min(1.0, float((np.abs(here) + critical * se).max()))
        return min(low, 1.0), 1.0 if unknown else high


def accuracy_of_release(
    release: ContingencyRelease, rule: Array, *, confidence: float, privacy: PrivacyGuarantee
) -> Estimate:
    """Return the accuracy from the noisy counts themselves.

    It is linear in them, so that no repair is needed, which would bias it: with any constant c,
    c + sum counts (score - c) / n is unbiased, and c near the accuracy keeps the noise low.
    """
    score = rule.transpose(0, 1, 3, 2)  # of a row of cell (z, s, y, r): W(y | z, s, r)
    p, n = release.probabilities(), release.n
    centre = float((p * score).sum())
    off = score - centre
    plain = float((release.counts * off).sum()) / n
    variance = max(0.0, float((p * off**2).sum()) - plain**2) / n
    variance += release.noise.variance * float((off**2).sum()) / n**2
    half = normal_critical(confidence) * math.sqrt(variance)
    value = min(1.0, max(0.0, centre + plain))
    few = n < _FEW
    return Estimate(
        "accuracy", value, max(0.0, value - half), min(1.0, value + half), confidence=confidence,
        n=n, status="small_sample" if few else "ok", reason=f"{n} rows" if few else "",
        details={"plug_in": centre}, privacy=privacy,
        method="unbiased from the noisy counts; normal interval of sampling and noise",
    )  # fmt: skip


def _all(
    p: Array, rule: Array, bounds: Sequence[FairnessBound], positive: int
) -> tuple[list[str], Array]:
    m = decided(p, rule)
    k = min(m.shape[-1], m.shape[-2])
    right = np.einsum("bzsyy->b", m[..., :k, :k]) / m.sum(axis=(1, 2, 3, 4))
    achieved, gaps = measured(p, rule, bounds, positive)
    names = ["accuracy", *(f"information_{n}" for n in achieved), *(f"gap_{n}" for n in gaps)]
    return names, np.stack([right, *achieved.values(), *gaps.values()])


def _ceilings(bounds: Sequence[FairnessBound]) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for bound in bounds:
        prefix = bound.criterion + ":" if len(bounds) > 1 else ""
        out[f"information_{prefix}global"] = bound.eps_global
        out[f"information_{prefix}local"] = bound.eps_local
        out[f"gap_{prefix}global"] = bound.gap_global
        out[f"gap_{prefix}local"] = bound.gap_local
        for client, eps in (bound.eps_client or {}).items():
            out[f"information_{prefix}client:{client}"] = eps
    return out
