"""Distance covariance as metrics: a value, its interval, and what chance alone would show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    PrivacyError,
    SensitiveFeatureError,
)
from privfair.core.frames import as_table, as_vector, check_aligned
from privfair.core.metric import Metric
from privfair.core.randomness import check_random_state
from privfair.core.registry import register
from privfair.core.statistics import null_reference
from privfair.fairness.dcov._encoder import AttributeEncoder
from privfair.fairness.dcov._table import DependenceTable
from privfair.fairness.metrics import bin_sensitive

__all__ = [
    "DependenceMetric",
    "distance_correlation",
    "distance_covariance",
    "targeted_joint_distance_covariance",
]

Floats = NDArray[np.float64]
_CONSTANTS: dict[str, DependenceMetric] = {}


def _find(name: str) -> DependenceMetric:
    return _CONSTANTS[name]


class DependenceMetric(Metric):
    """A metric of dependence between a prediction and all sensitive features jointly.

    Keywords beyond those of :class:`privfair.core.Metric` are ``y_score`` (used instead of
    ``y_pred``), ``encoder`` (an :class:`AttributeEncoder`), ``cuts`` (of numeric features) and
    ``c`` (of the joint form). ``y_true`` is not read and may be None.

    Parameters
    ----------
    name : str
        Of the metric.
    kind : {"ccdcov", "dcor", "jdcov"}
        Which functional.

    Notes
    -----
    The value is the plug-in (V) form, which does not change when all rows are repeated; the
    unbiased forms are in ``details``. Interval: percentiles of the bootstrap, moved from the
    mean of the bootstrap to the unbiased estimate and cut at 0; conservative where there is no
    dependence. Null: permutations of
    the prediction against whole rows of attributes. Both are made from a table of cells by at
    most 256 groups of neighbouring predictions. Distances are those of ``scaling="paper"``
    unless an encoder is given: no scale depends on the number of rows.
    """

    def __init__(self, name: str, *, kind: str, **fields: Any) -> None:
        super().__init__(
            name,
            requires=("y_pred", "sensitive_features"),
            optimum=0.0,
            direction="lower",
            **fields,
        )
        self.kind = kind

    def __reduce__(self) -> Any:
        return (_find, (self.name,)) if _CONSTANTS.get(self.name) is self else super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> DependenceMetric:
        return self  # metrics have no state

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
        """Return the plug-in value."""
        table = self._read(y_pred, sensitive_features, sample_weight, pos_label, columns)
        return table.value(self.kind, "v")

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
        privacy: Any = None,
        groups: Any = None,
        ledger: Any = None,
        **columns: Any,
    ) -> Estimate:
        """Return the value with interval, null reference and a table by group."""
        check.confidence(confidence=confidence)
        check.positive_int(n_resamples=n_resamples)
        if privacy is not None:
            raise PrivacyError(
                f"{self.name} under privacy= is not available: it reads the order of all "
                "predictions, and only tables of counts are released. Use metrics of decisions, "
                "or privacy=None; nothing was charged."
            )
        if groups is not None:
            raise InvalidParameterError(
                "groups are declared through encoder=AttributeEncoder(schema=...) here."
            )
        rng = check_random_state(random_state)
        table = self._read(y_pred, sensitive_features, sample_weight, pos_label, columns)
        value = table.value(self.kind, "v")
        common: dict[str, Any] = {
            "confidence": confidence,
            "n": table.n,
            "details": {"definition": self.definition, **table.details()},
            "by_group": table.by_group(),
        }
        if table.constant:
            return Estimate(
                self.name, 0.0, 0.0, 0.0, status="boundary", reason=table.constant,
                method="constant", **common,
            )  # fmt: skip
        if not table.finite:
            reason = "more than 1,024 combinations of attributes: no interval; pass cuts"
            return Estimate(self.name, value, reason=reason, method="value only", **common)
        coarse = table.coarse()
        drawn = coarse.bootstrap(self.kind, n_resamples, rng)
        null = coarse.permutations(self.kind, n_resamples, rng)
        centre = value - float(null.mean())
        if sample_weight is None and table.n >= 4:
            centre = table.value(self.kind, "u")
        tail = (1 - confidence) / 2
        spread = np.quantile(drawn - drawn.mean(), [tail, 1 - tail])
        low = min(max(centre + spread[0], 0.0), value)
        high = min(max(centre + spread[1], value), self.range[1])
        small = table.n < 30
        return Estimate(
            self.name,
            value,
            float(low),
            float(high),
            status="small_sample" if small else "ok",
            reason=f"{table.n} rows < 30" if small else "",
            null=null_reference(coarse.plug_in(self.kind), null),
            method="bootstrap, bias-corrected",
            **common,
        )

    def _read(
        self,
        y_pred: Any,
        sensitive: Any,
        sample_weight: Any,
        pos_label: Any,
        columns: dict[str, Any],
    ) -> DependenceTable:
        unknown = set(columns) - {"y_score", "encoder", "cuts", "c"}
        if unknown:
            raise InvalidParameterError(
                f"unknown keywords {sorted(unknown)}; {self.name} takes y_score, encoder, cuts "
                "and c."
            )
        if sensitive is None:
            raise SensitiveFeatureError(
                f"{self.name} needs sensitive_features, one or more columns in the rows' order."
            )
        if sample_weight is not None and self.kind == "dcor":
            raise InvalidParameterError(
                f"{self.name} takes no sample_weight; use distance_covariance."
            )
        c = check.positive(c=columns.get("c", 1.0))
        given = columns.get("y_score")
        given = y_pred if given is None else given
        check_aligned(y_pred=given, sensitive_features=sensitive, sample_weight=sample_weight)
        scores = as_vector(given, name="y_pred")
        if scores.dtype.kind not in "fiub":
            scores = np.asarray(scores == pos_label)
        scores = scores.astype(float)
        if len(scores) < 2 or not np.isfinite(scores).all():
            raise DataError("y_pred must have at least two rows and be finite in every row.")
        encoder = columns.get("encoder")
        encoder = AttributeEncoder(scaling="paper") if encoder is None else encoder
        data = _binned(sensitive, columns.get("cuts"))
        weight = None
        if sample_weight is not None:
            weight = as_vector(sample_weight, name="sample_weight").astype(float)
            if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() == 0:
                raise DataError("sample_weight must be finite, non-negative and not all zero.")
        return DependenceTable(scores, data, encoder, weight, c)


def _binned(sensitive: Any, cuts: Any) -> dict[str, Any]:
    table = as_table(sensitive, name="sensitive_features", prefix="sensitive_feature_")
    binned = dict(cuts or {})
    unknown = [name for name in binned if name not in table.columns]
    if unknown:
        raise InvalidParameterError(
            f"cuts names {unknown}, not among the sensitive features {list(table.columns)}."
        )
    return {
        name: bin_sensitive(table.column(name), binned[name], name=name)
        if name in binned
        else table.column(name)
        for name in table.columns
    }


def _constant(metric: DependenceMetric) -> DependenceMetric:
    _CONSTANTS[metric.name] = metric
    register("metrics", metric.name)(metric)
    return metric


_SZEKELY = "Szekely, Rizzo and Bakirov 2007, Ann. Stat. 35(6)"
distance_covariance = _constant(
    DependenceMetric(
        "distance_covariance",
        kind="ccdcov",
        range=(0.0, np.inf),
        references=(_SZEKELY, "Lee et al. 2025, arXiv 2509.08163"),
        definition="squared distance covariance of the prediction with all attributes as a vector",
    )
)
distance_correlation = _constant(
    DependenceMetric(
        "distance_correlation",
        kind="dcor",
        range=(0.0, 1.0),
        references=(_SZEKELY,),
        definition="squared distance correlation of the prediction with all attributes",
    )
)
targeted_joint_distance_covariance = _constant(
    DependenceMetric(
        "targeted_joint_distance_covariance",
        kind="jdcov",
        range=(0.0, np.inf),
        references=("Chakraborty and Zhang 2019, JASA 114(528)",),
        definition="sum over sets of attributes of c^(d - size) times dCov^2(prediction, set)",
    )
)
