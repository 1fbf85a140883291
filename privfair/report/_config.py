"""What a user decides about an audit, in one frozen object that the report prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.report._model import DatasetInfo

__all__ = ["AuditConfig", "Predictions"]

MAX_BINS = 50
MAX_DEPTH = 3
DEFAULT_TOLERANCES = {
    "demographic_parity_difference": 0.1,
    "demographic_parity_ratio": 0.8,
    "equalized_odds_difference": 0.1,
    "equalized_odds_difference_mean": 0.1,
    "equalized_odds_ratio": 0.8,
    "equal_opportunity_difference": 0.1,
    "predictive_parity_difference": 0.1,
    "calibration_gap": 0.1,
    "privacy_cost_gap": 0.02,
}


@dataclass(frozen=True)
class AuditConfig:
    """Settings of an audit.

    Parameters
    ----------
    confidence : float, in (0, 1), default=0.95
        Level of all intervals.
    n_resamples : int, default=2000
        Bootstrap replicates and permutations.
    min_count : int, default=30
        Groups with fewer rows are marked as small samples.
    min_pos, min_neg : int, default=10
        A true positive rate of fewer than ``min_pos`` positives, or a false positive rate of
        fewer than ``min_neg`` negatives, is not estimable in the table of intersections.
    intersections : int, 0 to 3, default=3
        How many attributes are crossed; 0 or 1 leaves intersections out.
    min_cell : int or None, default=None
        Suppress groups with a count below this, and what would reveal them.
    dp_report : float or None, default=None
        Epsilon of a report under differential privacy: tables of group, label and decision are
        released with noise, and everything else is made of them.
    public_groups : mapping of str to sequence of str
        For ``dp_report``: the groups of each attribute that has no cuts, as public knowledge.
    merge_clients_below : int, default=100
        Clients with fewer rows are merged into one.
    client_note : str or None, default=None
        What the client column stands for, if not for clients.
    n_bins : int, default=10
        Equal-width bins of the calibration error and figure.
    tolerances : mapping of str to float
        By metric name; a finding is marked "attention" if the interval's near end passes its
        tolerance. They mark, they do not judge.
    metrics : sequence of Metric or str, default=()
        Further metrics of disparity, or names of registered ones. Metrics that installed
        packages register are in every report without being named here.
    pos_label : object, default=None
        The positive class; 1 (or True) where the labels hold it.
    cuts : mapping of str to sequence of float
        Declared cuts of numeric sensitive features, as public knowledge.
    missing_group : str or None, default=None
        Name of the group of missing values; None makes them an error.
    sections : sequence of str or None
        Which sections, by identifier; None for all.
    rows : {"held_out", "training", "unknown"} or None
        Whose rows are audited; None takes it from ``dataset``.
    allow_raw_training_rows : bool, default=False
        Audit training rows of a private model as they are. This voids its certificate.
    title : str or None
    dataset : DatasetInfo or None
    language : str, default="en"
    command : str or None
        The command line to print under methods.

    Examples
    --------
    >>> AuditConfig(n_resamples=500).n_resamples
    500
    """

    confidence: float = 0.95
    n_resamples: int = 2000
    min_count: int = 30
    min_pos: int = 10
    min_neg: int = 10
    intersections: int = 3
    min_cell: int | None = None
    dp_report: float | None = None
    public_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    merge_clients_below: int = 100
    client_note: str | None = None
    n_bins: int = 10
    tolerances: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_TOLERANCES))
    metrics: Sequence[Any] = ()
    pos_label: Any = None
    cuts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    missing_group: str | None = None
    sections: Sequence[str] | None = None
    rows: str | None = None
    allow_raw_training_rows: bool = False
    title: str | None = None
    dataset: DatasetInfo | None = None
    language: str = "en"
    command: str | None = None

    def __post_init__(self) -> None:
        check.confidence(confidence=self.confidence)
        check.positive_int(n_resamples=self.n_resamples)
        for name in ("min_count", "min_pos", "min_neg", "merge_clients_below"):
            check.non_negative_int(**{name: getattr(self, name)})
        if self.n_resamples < 100:
            raise InvalidParameterError(
                f"n_resamples must be at least 100, got {self.n_resamples}: the ends of a 95 % "
                "interval rest on the outer 5 % of the resamples. 2000 is the default."
            )
        if check.non_negative_int(intersections=self.intersections) > MAX_DEPTH:
            raise InvalidParameterError(
                f"intersections must be at most {MAX_DEPTH}, got {self.intersections}: deeper "
                "crossings leave almost nobody in each group."
            )
        if not 2 <= check.positive_int(n_bins=self.n_bins) <= MAX_BINS:
            raise InvalidParameterError(
                f"n_bins must be between 2 and {MAX_BINS}, got {self.n_bins}."
            )
        if self.min_cell is not None and check.positive_int(min_cell=self.min_cell) < 2:
            raise InvalidParameterError("min_cell must be at least 2, or None for no suppression.")
        check.boolean(allow_raw_training_rows=self.allow_raw_training_rows)
        if self.rows is not None:
            check.one_of(("held_out", "training", "unknown"), rows=self.rows)
        for name, value in dict(self.tolerances).items():
            check.real(**{f"tolerances[{name!r}]": value})
        self._check_metrics()
        if self.missing_group is not None and not isinstance(self.missing_group, str):
            raise InvalidTypeError(
                f"missing_group must be a name or None, got {self.missing_group!r}."
            )

    def _check_metrics(self) -> None:
        from privfair.core import registry
        from privfair.core.metric import Metric

        if isinstance(self.metrics, str) or not isinstance(self.metrics, Sequence):
            raise InvalidTypeError("metrics must be a sequence of metrics or names of metrics.")
        for item in self.metrics:
            if isinstance(item, str):
                registry.load("metrics", item)  # an unknown name is an error that lists all
            elif not isinstance(item, Metric):
                raise InvalidTypeError(
                    f"metrics holds a {type(item).__name__}; it takes objects of "
                    "privfair.core.Metric or names that were registered."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data, for the report's methods section."""
        skip = {"dataset", "command", "title", "language", "sections", "rows", "client_note"}
        out: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in skip:
                continue
            if item.name == "metrics":
                value = [m if isinstance(m, str) else m.name for m in value]
            elif isinstance(value, Mapping):
                value = {
                    str(k): list(v) if isinstance(v, Sequence) else v for k, v in value.items()
                }
            elif not isinstance(value, str | int | float | bool | None):
                value = str(value)
            out[item.name] = value
        return out


@dataclass(frozen=True, eq=False)
class Predictions:
    """Decisions of a model that is not at hand, with its scores where they are known.

    Parameters
    ----------
    y_pred : array-like, shape (n_rows,)
        Decisions, in the classes of the labels.
    y_score : array-like, shape (n_rows,), or None
        Scores of the positive class.
    probability : bool, default=True
        Whether scores are probabilities. If not (a risk decile, say), they only order rows, and
        no calibration is computed.
    name : str or None
    privacy : PrivacyGuarantee or None
        What is certified about the training of the model.
    """

    y_pred: Any
    y_score: Any = None
    probability: bool = True
    name: str | None = None
    privacy: Any = None
