"""One-way marginals given a conditioning root: measure once, then post-process freely.

The table's joint law is modelled as "root, and every feature independent given the root". The
measurement releases f + 1 histograms (the root's, and one of root x feature for each of the f
features) with exact discrete Gaussian noise. A record lies in exactly one cell of each, so that
adding or removing it changes each histogram by 1 in one cell: the step is rho-zCDP with
rho = (f + 1) / (2 sigma^2). Everything after :func:`measure` uses released numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.events import LedgerLike
from privfair.core.exceptions import DataError, InvalidParameterError, LengthMismatchError
from privfair.core.randomness import check_random_state

__all__ = ["Measurement", "OneWayModel", "Plan", "fit", "measure", "plan", "project", "sample"]

RARE = 3.0
"""Counts below this many standard deviations of their noise are pooled."""

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What will be measured, fixed before the data are touched.

    Attributes
    ----------
    root, features : tuple of str
        Conditioning columns, and the columns modelled given them.
    sizes : dict of str to int
        Public number of codes of each column.
    sigma : Fraction
        Scale of the discrete Gaussian noise on every count.
    """

    root: tuple[str, ...]
    features: tuple[str, ...]
    sizes: Mapping[str, int]
    sigma: Fraction

    @property
    def root_shape(self) -> tuple[int, ...]:
        """Sizes of the root columns."""
        return tuple(self.sizes[name] for name in self.root)

    @property
    def n_roots(self) -> int:
        """Number of root states."""
        return math.prod(self.root_shape)

    @property
    def n_marginals(self) -> int:
        """Number of histograms released."""
        return len(self.features) + 1

    @property
    def rho(self) -> float:
        """The zCDP parameter of the whole measurement."""
        return float(Fraction(self.n_marginals) / (2 * self.sigma**2))

    def event(self) -> Any:
        """Return what is charged: ``n_marginals`` discrete Gaussians of sensitivity 1."""
        from privfair.accounting import DiscreteGaussian, SelfComposed

        below = float(self.sigma)
        if Fraction(below) > self.sigma:
            below = math.nextafter(below, 0.0)
        return SelfComposed(DiscreteGaussian(below), self.n_marginals)

    def guarantee(self, delta: float, accountant: str = "zcdp") -> Any:
        """Return the guarantee of the measurement at ``delta``, per record, add/remove."""
        from privfair.accounting import guarantee

        return guarantee(
            self.event(), delta=delta, accountant=accountant, unit="record",
            neighboring="add_remove", numerics="exact",
        )  # fmt: skip


def plan(
    sizes: Mapping[str, int],
    root: tuple[str, ...],
    *,
    epsilon: float,
    delta: float,
    decimals: int = 3,
) -> Plan:
    """Return the plan with the least noise whose zCDP certificate stays within a budget.

    Parameters
    ----------
    sizes : mapping of str to int
        Public number of codes of each column, root and features.
    root : tuple of str
        The conditioning columns; at least one, and not all.
    epsilon, delta : float
        The budget.
    decimals : int, default=3
        sigma is rounded up to that many decimal places.
    """
    target = check.epsilon(epsilon=epsilon)
    check.delta(delta=delta)
    if not root or len(set(root)) != len(root) or not set(root) < set(sizes):
        raise InvalidParameterError(
            f"root must name at least one and not all of the columns, each once; got {root}."
        )
    for name, size in sizes.items():
        check.positive_int(**{f"sizes[{name!r}]": size})
    features = tuple(name for name in sizes if name not in root)
    grid = 10**decimals

    def spent(steps: int) -> float:
        trial = Plan(tuple(root), features, dict(sizes), Fraction(steps, grid))
        return float(trial.guarantee(delta).epsilon)

    high = grid
    while spent(high) > target:
        high *= 2
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if spent(middle) > target:
            low = middle
        else:
            high = middle
    return Plan(tuple(root), features, dict(sizes), Fraction(high, grid))


@dataclass(frozen=True, eq=False)
class Measurement:
    """Released counts: differentially private, safe to store and to process.

    Attributes
    ----------
    plan : Plan
    root : ndarray of int64, shape (n_roots,)
    features : dict of str to ndarray of int64, shape (n_roots, size)
    seeded : bool
        Whether the noise can be drawn again.
    """

    plan: Plan
    root: Counts
    features: Mapping[str, Counts]
    seeded: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON data."""
        return {
            "schema": 1,
            "root_columns": list(self.plan.root),
            "feature_columns": list(self.plan.features),
            "sizes": dict(self.plan.sizes),
            "sigma": [self.plan.sigma.numerator, self.plan.sigma.denominator],
            "seeded": self.seeded,
            "root": self.root.tolist(),
            "features": {name: counts.tolist() for name, counts in self.features.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Read a measurement, checking every shape."""
        what = Plan(
            tuple(data["root_columns"]),
            tuple(data["feature_columns"]),
            dict(data["sizes"]),
            Fraction(*data["sigma"]),
        )
        root = np.array(data["root"], dtype=np.int64)
        features = {
            name: np.array(data["features"][name], dtype=np.int64) for name in what.features
        }
        if root.shape != (what.n_roots,) or any(
            counts.shape != (what.n_roots, what.sizes[name]) for name, counts in features.items()
        ):
            raise DataError("the measurement's counts do not fit its columns and sizes.")
        return cls(what, root, features, bool(data["seeded"]))


def _check_codes(codes: Mapping[str, Counts], what: Plan) -> None:
    lengths = set()
    for name in (*what.root, *what.features):
        values = np.asarray(codes[name])
        lengths.add(values.shape)
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise DataError(f"the codes of {name!r} must be a vector of integers.")
        if len(values) and (values.min() < 0 or values.max() >= what.sizes[name]):
            raise DataError(f"the codes of {name!r} leave their declared domain.")
    if len(lengths) != 1:
        raise LengthMismatchError("the columns of codes have different lengths.")


def exact_marginals(codes: Mapping[str, Counts], what: Plan) -> tuple[Counts, dict[str, Counts]]:
    """Return the exact counts: private, never released."""
    state = np.ravel_multi_index([codes[name] for name in what.root], what.root_shape)
    root = np.bincount(state, minlength=what.n_roots).astype(np.int64)
    features = {}
    for name in what.features:
        size = what.sizes[name]
        cells = np.bincount(state * size + codes[name], minlength=what.n_roots * size)
        features[name] = cells.reshape(what.n_roots, size).astype(np.int64)
    return root, features


def measure(
    codes: Mapping[str, Counts],
    what: Plan,
    *,
    ledger: LedgerLike,
    purpose: str = "one-way marginals given the root",
    noise_random_state: int | None = None,
) -> Measurement:
    """Release the histograms of a plan, charged as one entry before anything is counted.

    Parameters
    ----------
    codes : mapping of str to ndarray
        Integer codes of each column.
    what : Plan
        What to release.
    ledger : Ledger
        Charged first; if it refuses, nothing is counted.
    purpose : str
        Written to the ledger.
    noise_random_state : int or None, default=None
        For tests only: marks the measurement ``seeded``.

    Notes
    -----
    Privacy: unit one record, neighbours differ by one record added or removed; the analyst sees
    all counts; exact discrete Gaussian noise; zCDP composition over the f + 1 histograms.
    """
    from privfair.mechanisms import DiscreteGaussianMechanism

    _check_codes(codes, what)
    sizes = [what.n_roots, *(what.n_roots * what.sizes[name] for name in what.features)]
    mechanism = DiscreteGaussianMechanism(
        what.sigma, 1, size=sum(sizes), noise_random_state=noise_random_state
    )
    with ledger.spend(what.event(), purpose=purpose, numerics="exact", seeded=mechanism.seeded):
        root, features = exact_marginals(codes, what)
        flat = np.concatenate([root, *(features[name].ravel() for name in what.features)])
        noisy = np.asarray(mechanism.release(flat), dtype=np.int64)
    parts = np.split(noisy, np.cumsum(sizes)[:-1])
    released = {
        name: part.reshape(what.n_roots, what.sizes[name])
        for name, part in zip(what.features, parts[1:], strict=True)
    }
    return Measurement(what, parts[0], released, mechanism.seeded)


def project(values: Floats, total: float) -> Floats:
    """Return the nearest non-negative vector with the given sum.

    Examples
    --------
    >>> project(np.array([3.0, 1.0, -1.0]), 3.0).tolist()
    [2.5, 0.5, 0.0]
    """
    if total <= 0:
        return np.zeros_like(values)
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    last = np.flatnonzero(falling >= excess)[-1]  # the first always is
    return np.maximum(values - excess[last], 0.0)


@dataclass(frozen=True, eq=False)
class OneWayModel:
    """Root probabilities and, given the root, independent features.

    Attributes
    ----------
    n_rows : float
        Noisy number of rows, at least 1.
    root : ndarray, shape (n_roots,)
        Probabilities of the root states.
    conditionals : dict of str to ndarray, shape (n_roots, size)
        Probabilities of each feature given the root state.
    compressed : dict of str to list of int
        Codes too rare to be told apart, which share one bucket evenly.
    pooled : dict of str to list of int
        Root states too small for a law of their own: they take the law of all states that share
        their first root column.
    """

    plan: Plan
    n_rows: float
    root: Floats
    conditionals: Mapping[str, Floats]
    compressed: Mapping[str, list[int]] = field(default_factory=dict)
    pooled: Mapping[str, list[int]] = field(default_factory=dict)


def _rare(counts: Counts, sigma: float) -> list[int]:
    """Return the codes whose noisy total is below RARE standard deviations, if there are two."""
    spread = RARE * sigma * math.sqrt(len(counts))
    rare = np.flatnonzero(counts.sum(axis=0) < spread)
    return rare.tolist() if len(rare) > 1 else []


def _law(noisy: Floats, total: float, rare: list[int]) -> Floats:
    """Return probabilities from noisy counts, rare codes sharing one bucket evenly."""
    if not rare:
        found = project(noisy, total)
    else:
        kept = np.setdiff1d(np.arange(len(noisy)), rare)
        merged = project(np.append(noisy[kept], noisy[rare].sum()), total)
        found = np.zeros_like(noisy)
        found[kept] = merged[:-1]
        found[rare] = merged[-1] / len(rare)
    mass = found.sum()
    return found / mass if mass > 0 else np.full(len(noisy), 1.0 / len(noisy))


def _conditional(
    counts: Counts, rows: Floats, what: Plan, rare: list[int]
) -> tuple[Floats, list[int]]:
    noisy = counts.astype(np.float64)
    size = noisy.shape[1]
    sigma = float(what.sigma)
    small = rows < RARE * sigma * math.sqrt(size)
    first = np.unravel_index(np.arange(what.n_roots), what.root_shape)[0]
    laws = np.empty_like(noisy)
    for state in range(what.n_roots):
        group = (first == first[state]) if small[state] else np.arange(what.n_roots) == state
        total = float(rows[group].sum())
        if total <= 0:  # nothing is known about these states, and none of them is ever drawn
            laws[state] = 1.0 / size
        else:
            laws[state] = _law(noisy[group].sum(axis=0), total, rare)
    return laws, np.flatnonzero(small).tolist()


def fit(measured: Measurement) -> OneWayModel:
    """Turn released counts into a model; post-processing, at no further cost.

    Every root state is counted f + 1 times, once in the root's histogram and once as the sum of
    its cells in each feature's; the counts are averaged with weights inverse to their variances
    (1 and the feature's size) and projected on the non-negative vectors with the same sum.
    """
    what = measured.plan
    weights = np.array([1.0, *(1.0 / what.sizes[name] for name in what.features)])
    views = np.stack(
        [measured.root, *(measured.features[name].sum(axis=1) for name in what.features)]
    ).astype(np.float64)
    combined = weights @ views / weights.sum()
    n_rows = max(1.0, float(combined.sum()))
    rows = project(combined, n_rows)
    conditionals, compressed, pooled = {}, {}, {}
    for name in what.features:
        counts = measured.features[name]
        rare = _rare(counts, float(what.sigma))
        conditionals[name], small = _conditional(counts, rows, what, rare)
        if rare:
            compressed[name] = rare
        if small:
            pooled[name] = small
    return OneWayModel(what, n_rows, rows / rows.sum(), conditionals, compressed, pooled)


def allocate(probabilities: Floats, n: int, rng: np.random.Generator) -> Counts:
    """Return whole counts that sum to n and lie within 1 of their expectation.

    Examples
    --------
    >>> allocate(np.array([0.5, 0.25, 0.25]), 4, np.random.default_rng(0)).tolist()
    [2, 1, 1]
    """
    edges = np.concatenate([[0.0], np.cumsum(probabilities / probabilities.sum()) * n])
    marks = np.minimum(np.floor(edges + rng.random()).astype(np.int64), n)
    marks[-1] = n
    return np.diff(marks)


def sample(
    model: OneWayModel, n: int | None = None, *, random_state: Any = None
) -> dict[str, Counts]:
    """Draw rows by systematic allocation: as little sampling error as whole rows allow.

    Parameters
    ----------
    model : OneWayModel
    n : int or None, default=None
        Number of rows; None is the noisy number of rows, rounded.
    random_state : None, int or Generator
        Public: no guarantee depends on it.

    Returns
    -------
    dict of str to ndarray
        Codes of every column, rows in random order.
    """
    what = model.plan
    rng = check_random_state(random_state)
    rows = check.positive_int(n=round(model.n_rows) if n is None else n)
    per_state = allocate(model.root, rows, rng)
    state = np.repeat(np.arange(what.n_roots), per_state)
    out: dict[str, Counts] = {}
    for name in what.features:
        columns = []
        for k, count in enumerate(per_state.tolist()):
            share = allocate(model.conditionals[name][k], count, rng)
            columns.append(rng.permutation(np.repeat(np.arange(what.sizes[name]), share)))
        out[name] = np.concatenate(columns).astype(np.int64)
    order = rng.permutation(rows)
    parts = np.unravel_index(state[order], what.root_shape)
    result = {name: part.astype(np.int64) for name, part in zip(what.root, parts, strict=True)}
    return {**result, **{name: values[order] for name, values in out.items()}}
