"""From rows to the table p(z, s, y[, r]) that AGLFOP is about, exact or privately released."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    ProbabilityRangeError,
    SensitiveFeatureError,
)
from privfair.core.frames import as_vector, missing_mask
from privfair.core.privacy import Budget, PrivacyGuarantee
from privfair.core.statistics import multinomial_resamples
from privfair.fairness._contingency import ContingencyRelease
from privfair.fairness._release import release_contingency
from privfair.fairness.aglfop._scores import ScoreBins, client_codes, client_list, label_codes
from privfair.fairness.metrics._inputs import check_rows, read_groups, read_weights

__all__ = ["FairnessTable", "read_table"]

Array = NDArray[np.float64]

NAMES = ("z", "client", "y", "r")


@dataclass(frozen=True, eq=False)
class FairnessTable:
    """The joint distribution of a data set, with the names of its axes.

    Attributes
    ----------
    p : ndarray of shape (n_z, n_s, n_y) or (n_z, n_s, n_y, n_r)
    counts : ndarray of int of the same shape, or None
        None for weighted rows and for private releases.
    n : int
        Number of rows, noisy if released.
    groups, clients : tuple
    classes : ndarray
    edges : ndarray or None
        Inner edges of the score bins.
    release : ContingencyRelease or None
    privacy : PrivacyGuarantee
    """

    p: Array
    counts: NDArray[np.int64] | None
    n: int
    groups: tuple[Any, ...]
    clients: tuple[Any, ...]
    classes: NDArray[Any]
    edges: Array | None
    release: ContingencyRelease | None
    privacy: PrivacyGuarantee

    def resampled(self, rng: np.random.Generator, size: int, *, by_client: bool) -> Array:
        """Return distributions as other samples, and fresh noise, would have given them."""
        if self.release is not None:
            return self.release.repaired(self.release.resample(rng, size))
        if self.counts is None:
            raise InvalidParameterError(
                "the fit had sample_weight, and rows with weights cannot be resampled from their "
                "table. Use method='delta', or fit without weights."
            )
        strata = None
        if by_client:
            strata = np.broadcast_to(
                np.arange(self.p.shape[1]).reshape(1, -1, *[1] * (self.p.ndim - 2)), self.p.shape
            )
        return np.asarray(multinomial_resamples(self.counts, size, rng, strata=strata) / self.n)


def read_table(
    model: Any, y: Any, sensitive_features: Any, client: Any, y_score: Any, sample_weight: Any
) -> FairnessTable:
    """Check rows and make their table, charging the ledger first where it is private."""
    private = model.privacy is not None
    if private:
        _check_public(model, client, sample_weight)
    if y is None:
        raise LabelError("y is None, but accuracy is measured against labels. Pass them.")
    n = check_rows(
        y=y, sensitive_features=sensitive_features, client=client, y_score=y_score,
        sample_weight=sample_weight,
    )  # fmt: skip
    groups = read_groups(sensitive_features, groups=model.groups)
    if (groups.codes < 0).any():
        raise SensitiveFeatureError(
            "sensitive_features has groups that are not among the declared groups. Declare every "
            "group that could occur."
        )
    clients = client_list(client, model.clients, n)
    s = client_codes(client, clients, n)
    if (s < 0).any():
        raise DataError("client has clients that are not among the declared clients.")
    labels = as_vector(y, name="y")
    if missing_mask(labels).any():
        raise LabelError("y has missing values; leave those rows out.")
    if labels.dtype.kind == "f" and np.unique(labels).size > 50:
        raise LabelError("y holds more than 50 distinct numbers; labels are classes.")
    given = np.unique(labels) if model.classes is None else np.asarray(model.classes)
    codes = [groups.codes, s, label_codes(labels, given, "y")]
    shape = [len(groups.labels), len(clients), given.size]
    bins = None
    if y_score is not None:
        bins, r = _responses(model, y_score, given, private)
        codes.append(r)
        shape.append(bins.size)
    names = tuple(
        label[0] if len(label) == 1 else label for label in groups.labels
    )  # one column: plain names
    weights = read_weights(sample_weight, n)
    edges = None if bins is None else bins.edges
    if private:
        release = release_contingency(
            dict(zip(NAMES, codes, strict=False)),
            {name: list(range(size)) for name, size in zip(NAMES, shape, strict=False)},
            privacy=model.privacy, ledger=model.ledger, purpose="AGLFOP: table",
            noise_random_state=model.noise_random_state,
        )  # fmt: skip
        return FairnessTable(
            release.probabilities(), None, release.n, names, clients, given, edges, release,
            release.privacy,
        )  # fmt: skip
    flat = np.ravel_multi_index(tuple(codes), tuple(shape))
    sums = np.bincount(flat, weights=weights, minlength=math.prod(shape)).reshape(shape)
    return FairnessTable(
        np.asarray(sums / sums.sum(), dtype=float),
        sums.astype(np.int64) if weights is None else None,
        n, names, clients, given, edges, None, PrivacyGuarantee.none("non_private"),
    )  # fmt: skip


def _responses(
    model: Any, y_score: Any, classes: NDArray[Any], private: bool
) -> tuple[ScoreBins, NDArray[np.int64]]:
    if model.bins is None:
        bins = ScoreBins("predict", None, classes)
        return bins, label_codes(y_score, classes, "y_score")
    scores = as_vector(y_score, name="y_score")
    if scores.dtype.kind not in "iuf":
        raise ProbabilityRangeError(
            "y_score must be numbers, the scores of the positive class. For predicted classes "
            "pass bins=None."
        )
    if not np.isfinite(scores.astype(float)).all():
        raise ProbabilityRangeError("y_score has NaN or infinite values.")
    bins = ScoreBins.plan(model.bins, "predict_proba", scores, np.zeros(2), public=private)
    return bins, bins.codes(scores)


def _check_public(model: Any, client: Any, sample_weight: Any) -> None:
    if not isinstance(model.privacy, Budget):
        raise InvalidTypeError(
            f"privacy must be a Budget, got {type(model.privacy).__name__}. Write "
            "privacy=Budget(epsilon=1.0)."
        )
    for name, given in (("groups", model.groups), ("classes", model.classes)):
        if given is None:
            raise InvalidParameterError(
                f"{name} is None, but under privacy= the {name} must be public knowledge. Pass "
                f"{name}=[...], every one that could occur."
            )
    if client is not None and model.clients is None:
        raise InvalidParameterError(
            "clients is None, but under privacy= the clients must be public knowledge. Pass "
            "clients=[...], every client that could occur."
        )
    if sample_weight is not None:
        raise InvalidParameterError(
            "sample_weight cannot be used with privacy=: a weight would scale one row's influence."
        )
