"""Success of an attack as metrics: ``y_true`` is membership, ``y_pred`` the attacker's score."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.auditing._one_run import (
    checked_membership,
    checked_scores,
    one_run_audit,
)
from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError, LabelError
from privfair.core.metric import Metric
from privfair.core.privacy import Budget
from privfair.core.registry import register
from privfair.core.statistics import clopper_pearson_interval

__all__ = [
    "AttackMetric",
    "attack_advantage",
    "attack_auc",
    "audited_epsilon",
    "roc_points",
    "tpr_at_fpr",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MIN_FALSE = 10  # expected false positives below which a rate cannot be stated


def _read(y_true: Any, y_pred: Any) -> tuple[Bools, Floats]:
    scores = checked_scores(np.asarray(y_pred), "y_pred (scores)")
    member = np.asarray(y_true)
    if member.dtype.kind in "iu" and set(np.unique(member).tolist()) <= {0, 1}:
        member = member == 1  # make_scorer and MetricFrame hand labels over as numbers
    member = checked_membership(member, len(scores), "y_true (membership)")
    return member, scores


def _both(member: Bools, name: str) -> None:
    if member.all() or not member.any():
        raise LabelError(
            f"{name} needs records that were trained on and records that were not; there is only "
            "one kind."
        )


class AttackMetric(Metric):
    """Base of the metrics of attacks.

    Called as ``metric(membership, score)``; ``estimate`` adds the interval, and the value in
    every group where ``sensitive_features`` is given.

    Parameters
    ----------
    name : str
    **fields
        As of :class:`privfair.core.Metric`.
    """

    def __init__(self, name: str, **fields: Any) -> None:
        super().__init__(name, direction="lower", requires=("y_true", "y_score"), **fields)

    def __reduce__(self) -> Any:
        return (_find, (self.name,))

    def __deepcopy__(self, memo: dict[int, Any]) -> AttackMetric:
        return self

    def _check(self, sample_weight: Any, privacy: Budget | None, columns: dict[str, Any]) -> None:
        if sample_weight is not None:
            raise InvalidParameterError(f"{self.name} counts records: sample_weight must be None.")
        if privacy is not None:
            raise InvalidParameterError(
                f"{self.name} has no release under differential privacy: its scores are made from "
                "the very records that it is about. privacy must be None."
            )
        if columns:
            raise InvalidParameterError(f"{self.name} has no option {sorted(columns)}.")

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = 1,
        **columns: Any,
    ) -> float:
        options = self._options(columns)
        self._check(sample_weight, None, columns)
        member, scores = _read(y_true, y_pred)
        return self._one(member, scores, 0.95, options).value

    def estimate(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = 1,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        random_state: Any = None,
        privacy: Budget | None = None,
        groups: Any = None,
        ledger: Any = None,
        **columns: Any,
    ) -> Estimate:
        """Return the value with its interval, overall and in every group."""
        options = self._options(columns)
        self._check(sample_weight, privacy, columns)
        check.confidence(confidence=confidence)
        member, scores = _read(y_true, y_pred)
        total = self._one(member, scores, confidence, options)
        if sensitive_features is None:
            return total
        return replace(
            total, by_group=self._groups(member, scores, sensitive_features, confidence, options)
        )

    def _groups(
        self, member: Bools, scores: Floats, sensitive: Any, confidence: float, options: Any
    ) -> Any:
        import pandas as pd

        names = group_names(sensitive, len(scores))
        rows = []
        for group in sorted(set(names.tolist())):
            inside = names == group
            try:
                e = self._one(member[inside], scores[inside], confidence, options)
            except (LabelError, InvalidParameterError) as error:
                e = Estimate.not_estimable(self.name, str(error), n=int(inside.sum()))
            rows.append(
                {"group": group, "value": e.value, "low": e.low, "high": e.high, "n": e.n,
                 "status": e.status, "reason": e.reason}
            )  # fmt: skip
        return pd.DataFrame(rows).set_index("group")

    def _options(self, columns: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _one(self, member: Bools, scores: Floats, confidence: float, options: Any) -> Estimate:
        raise NotImplementedError


def _find(name: str) -> Any:
    import privfair.auditing as home

    return getattr(home, name)


def group_names(sensitive: Any, n: int) -> NDArray[np.object_]:
    """Return the group of each row as text; several columns are crossed."""
    from privfair.core.exceptions import LengthMismatchError
    from privfair.core.frames import as_table, missing_mask

    table = as_table(sensitive, name="sensitive_features")
    if table.n_rows != n:
        raise LengthMismatchError(
            f"sensitive_features has {table.n_rows} rows, and there are {n} scores."
        )
    parts = []
    for name in table.columns:
        values = table.column(name)
        missing = missing_mask(values)
        text = ["missing" if gone else str(v) for v, gone in zip(values, missing, strict=True)]
        parts.append(text)
    return np.array([" × ".join(row) for row in zip(*parts, strict=True)], dtype=object)


class _Auc(AttackMetric):
    def _one(self, member: Bools, scores: Floats, confidence: float, options: Any) -> Estimate:
        _both(member, self.name)
        value = _rank_auc(member, scores)
        low, high, method = _auc_interval(member, scores, value, confidence)
        return Estimate(
            self.name, value, low, high, confidence=confidence, n=len(scores), method=method,
            details={"n_in": int(member.sum()), "n_out": int((~member).sum())},
        )  # fmt: skip


def _rank_auc(member: Bools, scores: Floats) -> float:
    from scipy.stats import rankdata

    n_in, n_out = int(member.sum()), int((~member).sum())
    ranks = rankdata(scores)
    return float((ranks[member].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))


def _auc_interval(
    member: Bools, scores: Floats, value: float, confidence: float
) -> tuple[float, float, str]:
    """DeLong's interval on the logit scale, and an exact one where scores do not overlap."""
    from scipy.stats import rankdata

    from privfair.core.statistics import normal_critical

    inner, outer = scores[member], scores[~member]
    n_in, n_out = len(inner), len(outer)
    if value in (0.0, 1.0) or min(n_in, n_out) < 2:
        # min(n_in, n_out) disjoint pairs, all (or none) in order.
        k = min(n_in, n_out)
        found = clopper_pearson_interval(round(value * k), k, confidence=confidence)
        return float(found.low), float(found.high), "Clopper-Pearson over disjoint pairs"
    every = rankdata(np.concatenate([inner, outer]))
    v_in = (every[:n_in] - rankdata(inner)) / n_out
    v_out = 1 - (every[n_in:] - rankdata(outer)) / n_in
    spread = v_in.var(ddof=1) / n_in + v_out.var(ddof=1) / n_out
    spread = max(spread, 1e-12)
    centre = math.log(value / (1 - value))
    half = normal_critical(confidence) * math.sqrt(spread) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-x)) for x in (centre - half, centre + half))
    return low, high, "DeLong, logit scale"


class _Advantage(AttackMetric):
    def _one(self, member: Bools, scores: Floats, confidence: float, options: Any) -> Estimate:
        _both(member, self.name)
        n_in, n_out = int(member.sum()), int((~member).sum())
        cuts = np.unique(scores)
        tpr = 1 - np.searchsorted(np.sort(scores[member]), cuts, side="left") / n_in
        fpr = 1 - np.searchsorted(np.sort(scores[~member]), cuts, side="left") / n_out
        value = max(0.0, float((tpr - fpr).max()))
        # Dvoretzky, Kiefer, Wolfowitz with Massart's constant, half the error on either sample.
        tail = math.log(4 / (1 - confidence)) / 2
        half = math.sqrt(tail / n_in) + math.sqrt(tail / n_out)
        return Estimate(
            self.name, value, max(0.0, value - half), min(1.0, value + half),
            confidence=confidence, n=len(scores),
            method="largest TPR - FPR over all thresholds, Dvoretzky-Kiefer-Wolfowitz interval",
        )  # fmt: skip


class _AuditedEpsilon(AttackMetric):
    def _options(self, columns: dict[str, Any]) -> dict[str, Any]:
        return {k: columns.pop(k) for k in ("delta", "k_plus", "k_minus") if k in columns}

    def _one(self, member: Bools, scores: Floats, confidence: float, options: Any) -> Estimate:
        twentieth = max(1, len(scores) // 20)
        found = one_run_audit(
            scores, member,
            k_plus=options.get("k_plus", twentieth),
            k_minus=options.get("k_minus", twentieth if len(scores) > 1 else 0),
            delta=options.get("delta", 1e-5), beta=1 - confidence,
        )  # fmt: skip
        return replace(found.estimate("audited_epsilon"), confidence=confidence)


def roc_points(member: Bools, scores: Floats) -> tuple[tuple[float, float], ...]:
    """Return the ROC curve on a fixed grid of false positive rates."""
    order = np.argsort(-scores, kind="stable")
    ranked, inside = scores[order], member[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    tpr = np.concatenate([[0.0], np.cumsum(inside)[ends] / inside.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(~inside)[ends] / (~inside).sum()])
    grid = np.concatenate([[0.0], np.logspace(-3, 0, 31)])
    return tuple(
        (float(x), float(y)) for x, y in zip(grid, np.interp(grid, fpr, tpr), strict=True)
    )


def tpr_at_fpr(member: Bools, scores: Floats, fpr: float, confidence: float) -> Estimate:
    """Return the true positive rate at a threshold with at most this false positive rate."""
    name = f"attack_tpr_at_fpr_{fpr:g}"
    fpr = check.probability(fpr=fpr)
    n_in, n_out = int(member.sum()), int((~member).sum())
    if n_in == 0 or fpr * n_out < MIN_FALSE * (1 - 1e-9):
        return Estimate.not_estimable(
            name,
            f"a false positive rate of {fpr:g} needs {math.ceil(MIN_FALSE / fpr)} records that "
            f"were not trained on; there are {n_out}"
            if n_in
            else "there are no members",
            confidence=confidence,
            n=n_in,
        )
    allowed = int(math.floor(fpr * n_out + 1e-9))
    outer = np.sort(scores[~member])[::-1]
    # Above the (allowed + 1)-th largest score of a non-member, at most `allowed` of them remain.
    cut = outer[allowed] if allowed < n_out else -np.inf
    hits = int((scores[member] > cut).sum()) if allowed < n_out else n_in
    false = int((outer > cut).sum()) if allowed < n_out else n_out
    found = clopper_pearson_interval(hits, n_in, confidence=confidence)
    real = clopper_pearson_interval(false, n_out, confidence=confidence)
    return Estimate(
        name, hits / n_in, float(found.low), float(found.high), confidence=confidence, n=n_in,
        method="Clopper-Pearson at the threshold that the records not trained on give",
        details={"fpr": false / n_out, "fpr_low": float(real.low), "fpr_high": float(real.high),
                 "n_out": n_out},
    )  # fmt: skip


def _constant(metric: AttackMetric) -> AttackMetric:
    return register("metrics", metric.name)(metric)


attack_auc = _constant(
    _Auc(
        "attack_auc",
        optimum=0.5,
        references=("Hanley, McNeil 1982", "DeLong, DeLong, Clarke-Pearson 1988"),
        definition="probability that a member scores higher than a non-member",
    )
)
attack_advantage = _constant(
    _Advantage(
        "attack_advantage",
        optimum=0.0,
        references=("Yeom, Giacomelli, Fredrikson, Jha 2018, arXiv 1709.01604", "Massart 1990"),
        definition="largest difference of true and false positive rate over all thresholds",
    )
)
audited_epsilon = _constant(
    _AuditedEpsilon(
        "audited_epsilon",
        optimum=0.0,
        range=(0.0, math.inf),
        references=("Steinke, Nasr, Jagielski 2023, arXiv 2305.08846",),
        definition="lower bound on epsilon from the canaries of one training run",
    )
)
