"""What all metrics of this room have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from privfair.core.estimate import Estimate
from privfair.core.exceptions import LabelError
from privfair.core.metric import Metric
from privfair.core.registry import register
from privfair.fairness.metrics._context import Context, Options
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL
from privfair.fairness.metrics._table import GroupTable

__all__ = ["CONSTANTS", "ContextMetric", "constant"]

CONSTANTS: dict[str, ContextMetric] = {}


def constant(metric: Any) -> Any:
    """Register a metric under its name and return it."""
    CONSTANTS[metric.name] = metric
    return register("metrics", metric.name)(metric)


def _find(name: str) -> ContextMetric:
    import privfair.fairness.metrics as home

    return getattr(home, name)  # type: ignore[no-any-return]


class ContextMetric(Metric):
    """Base of the metrics of group tables and scores.

    Keywords beyond those of :class:`privfair.core.Metric` are ``y_score``, ``cuts``,
    ``missing_group``, ``min_count``, ``min_pos``, ``min_neg`` and ``n_bins``; any other is an
    error.
    """

    from_scores = False

    def __reduce__(self) -> Any:
        return (_find, (self.name,)) if CONSTANTS.get(self.name) is self else super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> ContextMetric:
        return self  # metrics have no state

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        **columns: Any,
    ) -> float:
        y_score = columns.pop("y_score", None)
        context = Context(
            y_true,
            y_pred,
            y_score=y_pred if self.from_scores and y_score is None else y_score,
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
            pos_label=pos_label,
            options=Options.of(columns),
        )
        if not self.from_scores and context.table.correctness_only and not self.multiclass:
            raise LabelError(
                f"{self.name} needs two classes, and there are more. Pass pos_label=..., the "
                "class that the rates count (one versus rest)."
            )
        return float(self.value(context))

    def estimate(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        random_state: Any = None,
        privacy: Any = None,
        groups: Any = None,
        ledger: Any = None,
        **columns: Any,
    ) -> Estimate:
        from privfair.fairness.metrics._estimate import estimate_all

        y_score = columns.pop("y_score", None)
        return estimate_all(
            [self],
            y_true,
            y_pred,
            y_score=y_pred if self.from_scores and y_score is None else y_score,
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
            pos_label=pos_label,
            confidence=confidence,
            n_resamples=n_resamples,
            random_state=random_state,
            privacy=privacy,
            groups=groups,
            ledger=ledger,
            **columns,
        )[0]

    def from_table(self, table: GroupTable, **options: Any) -> Estimate:
        """Return the estimate from a :class:`GroupTable`.

        Parameters
        ----------
        table : GroupTable
        **options
            ``confidence``, ``n_resamples``, ``random_state``, ``min_count``, ``min_pos`` and
            ``min_neg``.
        """
        if self.from_scores:
            raise TypeError(f"{self.name} needs scores, which a table of counts does not hold.")
        return self.checked(Context(None, None, table=table, options=Options.of(options)))

    multiclass = False

    def checked(self, context: Context) -> Estimate:
        """Return the estimate, or "not applicable" where the classes do not fit."""
        if not self.from_scores and context.table.correctness_only and not self.multiclass:
            return Estimate.not_estimable(
                self.name,
                "more than two classes; pass pos_label to compare one class with the rest",
                status="not_applicable",
                confidence=context.options.confidence,
                n=context.table.n,
            )
        return self.build(context)

    @abstractmethod
    def value(self, context: Context) -> float:
        """Return the value alone."""

    @abstractmethod
    def build(self, context: Context) -> Estimate:
        """Return the full estimate."""
