"""Metrics of the decomposition: five numbers of one result, each a metric of its own."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError, LabelError, SmallSampleWarning
from privfair.core.frames import as_vector
from privfair.core.metric import Metric
from privfair.core.registry import register
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL
from privfair.fairness.pid._analysis import Settings, plain_parts, solve
from privfair.fairness.pid._codes import complete, value_codes
from privfair.fairness.pid._data import tabulate
from privfair.fairness.pid._estimator import PIDDisparity
from privfair.fairness.pid._report import METRIC_OF

__all__ = [
    "PIDMetric",
    "global_disparity",
    "local_disparity",
    "masked_disparity",
    "redundant_disparity",
    "unique_disparity",
]

CONSTANTS: dict[str, PIDMetric] = {}
_TABLE = (
    "bins", "condition", "cuts", "missing_group", "groups", "clients", "decisions", "labels",
    "min_cell", "allow_small", "merge_clients_below", "smoothing",
)  # fmt: skip
_OTHER = (
    "ci", "bias_correction", "stratify_by_client", "device", "tol", "noise_random_state",
)  # fmt: skip
REFERENCES = (
    "Hamman and Dutta 2024, arXiv 2307.11333",
    "Bertschinger et al. 2014, Entropy 16",
)


def _find(name: str) -> PIDMetric:
    return CONSTANTS[name]


class PIDMetric(Metric):
    """One part of the decomposition over clients, in bits.

    Parameters
    ----------
    name : str
        One of ``unique_disparity``, ``redundant_disparity``, ``masked_disparity``,
        ``global_disparity`` and ``local_disparity``.
    definition : str

    Notes
    -----
    Keywords beyond those of :class:`privfair.core.Metric` are ``client`` (needed) and the options
    of :class:`PIDDisparity` about data and intervals; any other is an error. ``pos_label`` turns
    the decisions into one against the rest; without it they are taken as they are.
    """

    def __init__(self, name: str, definition: str) -> None:
        super().__init__(
            name,
            optimum=0.0,
            direction="lower",
            range=(0.0, float("inf")),
            requires=("y_pred", "sensitive_features", "client"),
            references=REFERENCES,
            definition=definition,
        )

    def __reduce__(self) -> Any:
        return (_find, (self.name,)) if CONSTANTS.get(self.name) is self else super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> PIDMetric:
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
        """Return the plug-in value in bits."""
        client = columns.pop("client", None)
        _known(columns, (*_TABLE, "device", "tol"))
        decided, columns = _against_rest(y_pred, pos_label, columns)
        table = tabulate(
            decided,
            sensitive_features=sensitive_features,
            client=client,
            sample_weight=sample_weight,
            y_true=y_true if columns.get("condition") is not None else None,
            **{name: value for name, value in columns.items() if name in _TABLE},
        )
        settings = Settings(**{k: v for k, v in columns.items() if k in {"device", "tol"}})
        return float(plain_parts(table, solve(table, settings))[METRIC_OF[self.name]])

    def estimate(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        confidence: float = 0.95,
        n_resamples: int = 1000,
        random_state: Any = None,
        privacy: Any = None,
        groups: Any = None,
        ledger: Any = None,
        **columns: Any,
    ) -> Estimate:
        """Return the value with its interval; see :func:`pid_estimates` for all five at once."""
        return pid_estimates(
            [self],
            y_true=y_true,
            y_pred=y_pred,
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


def pid_estimates(
    metrics: Sequence[Metric],
    *,
    y_pred: Any,
    y_true: Any = None,
    sensitive_features: Any = None,
    client: Any = None,
    sample_weight: Any = None,
    pos_label: Any = DEFAULT_POS_LABEL,
    **options: Any,
) -> list[Estimate]:
    """Return estimates of several parts from one result, and one release where it is private."""
    known = set(inspect.signature(PIDDisparity).parameters)
    _known(options, tuple(sorted(known)))
    decided, options = _against_rest(y_pred, pos_label, options)
    fitted = PIDDisparity(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)  # the status says it
        fitted.fit(
            decided,
            sensitive_features=sensitive_features,
            client=client,
            sample_weight=sample_weight,
            y_true=y_true if options.get("condition") is not None else None,
        )
    found = {estimate.name: estimate for estimate in fitted.to_estimates()}
    return [found[metric.name] for metric in metrics]


def _known(options: dict[str, Any], allowed: Sequence[str]) -> None:
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise InvalidParameterError(
            f"{unknown[0]!r} is not an option of these metrics; they take client, "
            f"{', '.join(allowed)}."
        )


def _against_rest(
    y_pred: Any, pos_label: Any, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the decisions and options, or whether decisions are the positive one if it is named.

    Under privacy nothing but declared values is compared with the label: whether it occurs in the
    rows is private.
    """
    if pos_label is DEFAULT_POS_LABEL:
        return y_pred, options
    values = as_vector(y_pred, name="y_pred")
    declared, public = options.get("decisions"), options.get("privacy") is not None
    complete(values, "y_pred", public=public)
    if declared is None:
        hit = np.asarray(values == pos_label, dtype=bool)
        if not (public or hit.any()):
            raise LabelError(
                f"pos_label={pos_label!r} does not occur in y_pred, so that all parts would be 0; "
                "check the spelling and the type."
            )
        return hit.astype(np.int64), options
    codes, known = value_codes(values, declared, "y_pred")
    if pos_label not in known:
        raise LabelError(
            f"pos_label={pos_label!r} is not among the declared decisions; check the spelling and "
            "the type."
        )
    outside = np.where(codes < 0, -1, codes == known.index(pos_label))
    return outside.astype(np.int64), {**options, "decisions": (0, 1)}


PIDMetric.together = staticmethod(pid_estimates)
PIDMetric.options = frozenset(_TABLE) | frozenset(_OTHER)


def _constant(name: str, definition: str) -> PIDMetric:
    metric = PIDMetric(name, definition)
    CONSTANTS[name] = metric
    return register("metrics", name)(metric)  # type: ignore[no-any-return]


unique_disparity = _constant(
    "unique_disparity", "U: least I_Q(Z;Yhat|S) over Q with the margins (Z,Yhat) and (Z,S)"
)
redundant_disparity = _constant("redundant_disparity", "R = I(Z;Yhat) - U")
masked_disparity = _constant("masked_disparity", "M = I(Z;Yhat|S) - U")
global_disparity = _constant("global_disparity", "G = I(Z;Yhat) = U + R")
local_disparity = _constant("local_disparity", "L = I(Z;Yhat|S) = U + M")
