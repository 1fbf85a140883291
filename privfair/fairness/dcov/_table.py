"""Predictions by cell of attributes: what the metrics' values, intervals and nulls are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import random_table
from sklearn.base import clone

from privfair.core.exceptions import SensitiveFeatureError
from privfair.core.statistics import multinomial_resamples
from privfair.fairness.dcov._cells import cells_dcov_sq
from privfair.fairness.dcov._encoder import AttributeEncoder
from privfair.fairness.dcov._functions import dcor_sq, dcov_sq
from privfair.fairness.dcov._joint_functions import jdcov_targeted_sq
from privfair.fairness.dcov._kernels import cell_kernel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CoarseTable", "DependenceTable"]

Floats = NDArray[np.float64]
_BINS = 256
_CHUNK = 1 << 22


class DependenceTable:
    """The rows of one call.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    data : dict of arrays
    encoder : AttributeEncoder
        Fitted if it has cells or blocks already, else fitted here.
    weight : ndarray or None
    c : float
    """

    def __init__(
        self,
        scores: Floats,
        data: dict[str, Any],
        encoder: AttributeEncoder,
        weight: Floats | None,
        c: float,
    ) -> None:
        self.scores, self.weight, self.c = scores, weight, c
        self.n = len(scores)
        if not hasattr(encoder, "blocks_"):
            encoder = clone(encoder).fit(data)
        self.encoder = encoder
        self.finite = encoder.cells_ is not None
        self.points = encoder.transform(data)
        if self.finite:
            codes = encoder.cell_codes(data)
            some, self.codes = np.unique(codes, return_inverse=True)
            self.gaps = [d[np.ix_(some, some)] for d in encoder.cell_distances()]
            self.labels = [(encoder.cell_labels_ or [])[i] for i in some]
        self.constant = ""
        if (scores == scores[0]).all():
            self.constant = "the prediction is constant"
        elif (self.points == self.points[0]).all():
            self.constant = "one group only"

    def value(self, kind: str, estimator: str) -> float:
        """Return the value of all rows."""
        if self.constant:
            return 0.0
        if kind == "dcor":
            return float(dcor_sq(self.scores, self.points, estimator=estimator))
        if self.finite:
            mass = np.bincount(self.codes, weights=self.weight)
            kernel = cell_kernel(kind, self.gaps, counts=mass, c=self.c, estimator=estimator)
            return float(
                cells_dcov_sq(
                    self.scores, self.codes, kernel, estimator=estimator, sample_weight=self.weight
                )
            )
        if self.weight is not None:
            raise SensitiveFeatureError(
                "sample_weight needs at most 1,024 combinations of attributes; pass cuts."
            )
        blocks = [self.points[:, b] for b in self.encoder.blocks_.values()]
        if kind == "jdcov":
            return float(jdcov_targeted_sq(self.scores, *blocks, c=self.c, estimator=estimator))
        return float(dcov_sq(self.scores, self.points, estimator=estimator))

    def details(self) -> dict[str, Any]:
        """Return the unbiased forms, and what the value was computed with."""
        out: dict[str, Any] = {"scaling": self.encoder.scaling, "c": self.c}
        if self.finite:
            out["n_cells"] = len(self.labels)
        if self.n < 4 or self.constant or self.weight is not None:
            return out
        whole = self.value("ccdcov", "u")
        alone = [
            float(dcov_sq(self.scores, self.points[:, b])) for b in self.encoder.blocks_.values()
        ]
        return out | {
            "dcov_sq_u": whole,
            "dcor_sq_u": self.value("dcor", "u"),
            "targeted_joint_u": self.value("jdcov", "u"),
            "dcov_sq_u_by_attribute": dict(zip(self.encoder.blocks_, alone, strict=True)),
            "interaction_share_u": whole - sum(alone),
        }

    def by_group(self) -> pd.DataFrame | None:
        """Return size, mean prediction and largest difference of distribution by cell."""
        import pandas as pd

        if not self.finite:
            return None
        n = np.bincount(self.codes)
        order = np.argsort(self.scores, kind="stable")
        ordered = self.scores[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        pooled = (np.arange(1, self.n + 1) / self.n)[last]
        gap = [
            float(np.abs((np.cumsum(self.codes[order] == g) / n[g])[last] - pooled).max())
            for g in range(len(n))
        ]
        index = pd.MultiIndex.from_tuples(self.labels, names=list(self.encoder.blocks_))
        return pd.DataFrame(
            {
                "n": n,
                "share": n / self.n,
                "mean": np.bincount(self.codes, weights=self.scores) / n,
                "ks_to_all": gap,
            },
            index=index,
        )

    def coarse(self) -> CoarseTable:
        """Return the counts of cells in groups of neighbouring predictions."""
        values, spot = np.unique(self.scores, return_inverse=True)
        if len(values) > _BINS:
            rank = np.argsort(np.argsort(self.scores, kind="stable"), kind="stable")
            spot = rank * _BINS // self.n
            size = np.bincount(spot)
            values = np.bincount(spot, weights=self.scores) / size
        counts = np.zeros((len(values), len(self.labels)), dtype=np.int64)
        np.add.at(counts, (spot, self.codes), 1)
        mean_weight = np.ones(len(self.labels))
        if self.weight is not None:
            mean_weight = np.bincount(self.codes, weights=self.weight) / np.bincount(self.codes)
        return CoarseTable(values, counts, self.gaps, mean_weight, self.c)


class CoarseTable:
    """Counts by group of predictions and cell, and statistics of many such tables at once."""

    def __init__(
        self,
        values: Floats,
        counts: NDArray[np.int64],
        gaps: list[Floats],
        weight: Floats,
        c: float,
    ) -> None:
        self.values, self.counts, self.gaps = values, counts, gaps
        self.weight, self.c = weight, c

    def plug_in(self, kind: str) -> float:
        """Return the statistic of the table itself."""
        return float(self._statistic(kind, self.counts[None])[0])

    def bootstrap(self, kind: str, n_resamples: int, rng: np.random.Generator) -> Floats:
        """Return the statistic of tables of rows drawn with replacement."""
        return self._in_parts(kind, n_resamples, rng, self._resampled)

    def permutations(self, kind: str, n_resamples: int, rng: np.random.Generator) -> Floats:
        """Return the statistic of tables with the same margins and no dependence."""
        return self._in_parts(kind, n_resamples, rng, self._permuted)

    def _resampled(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return multinomial_resamples(self.counts, count, rng)

    def _permuted(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        margins = random_table(self.counts.sum(1), self.counts.sum(0))
        drawn = margins.rvs(count, random_state=rng)
        return np.asarray(drawn).astype(np.int64).reshape(count, *self.counts.shape)

    def _in_parts(
        self, kind: str, n_resamples: int, rng: np.random.Generator, draw: Any
    ) -> Floats:
        size = max(_CHUNK // self.counts.size, 1)
        parts = []
        for start in range(0, n_resamples, size):
            parts.append(self._statistic(kind, draw(min(size, n_resamples - start), rng)))
        return np.concatenate(parts)

    def _statistic(self, kind: str, tables: NDArray[np.int64]) -> Floats:
        mass = tables * self.weight
        total = mass.sum(axis=(1, 2))
        mass = mass / total[:, None, None]
        share = mass.sum(axis=1)
        below = np.cumsum(mass, axis=1)[:, :-1]
        away = below - below.sum(axis=2, keepdims=True) * share[:, None, :]
        form = np.einsum("rmg,rgh,rmh->rm", away, self._kernels(kind, share), away, optimize=True)
        value: Floats = 2 * form @ np.diff(self.values)
        if kind != "dcor":
            return value
        scale = _variance(np.abs(np.subtract.outer(self.values, self.values)), mass.sum(axis=2))
        scale = scale * _variance(np.sqrt(sum(g**2 for g in self.gaps)), share)
        out = np.zeros_like(value)
        np.divide(value, np.sqrt(np.maximum(scale, 0)), out=out, where=scale > 0)
        return out

    def _kernels(self, kind: str, share: Floats) -> Floats:
        if kind != "jdcov":
            return np.broadcast_to(
                cell_kernel("ccdcov", self.gaps), (len(share), *self.gaps[0].shape)
            )
        out = np.ones((len(share), *self.gaps[0].shape))
        for gap in self.gaps:
            rows = share @ gap
            middle = (rows * share).sum(axis=1)
            out *= rows[:, :, None] + rows[:, None, :] - gap - middle[:, None, None] + self.c
        return out


def _variance(gap: Floats, share: Floats) -> Floats:
    """Return squared distance variances of many weightings of the same points."""
    rows = share @ gap
    total = (rows * share).sum(axis=1)
    square = ((share @ gap**2) * share).sum(axis=1)
    return np.asarray(square - 2 * (rows**2 * share).sum(axis=1) + total**2)
