"""What labels tell about cells of few rows: rates drawn towards calibrated scores.

The observed rate of a cell has the variance of its few rows, and a rule that is best for it fits
chance. Scores have little variance and may be off. A cell's rates are therefore taken to be a
Dirichlet draw around the calibrated scores, of a precision that is estimated from all cells: the
posterior mean (counts + precision * scores) / (rows + precision) has the observed rates at
precision 0 and the calibrated scores at infinity.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import gammaln, log_softmax

from privfair.fairness.aglfop._scores import ScoreBins

__all__ = ["counted", "drawn_in", "middles", "noisy_rows"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_LOG_RANGE = (math.log(0.1), math.log(1e5))
_WIDTHS = (0.03, 0.1, 0.3, 1.0)
_LEAST = 1e-6  # probability below which a score's logarithm is cut


def calibrated(rows: Array, rates: Array, scores: Array) -> Array:
    """Return rates of all cells by a model of few parameters, fitted to those observed.

    Parameters
    ----------
    rows : ndarray, shape (n_z, n_s, n_r)
        How many rows' worth each cell's rates are.
    rates : ndarray, shape (n_z, n_s, n_y, n_r)
        Observed rates of labels; anything where there are no rows.
    scores : ndarray, shape (n_z, n_s, n_y, n_r)
        Scores in the logarithm's scale, such as logarithms of mean probabilities.

    Returns
    -------
    ndarray, shape (n_z, n_s, n_y, n_r)

    Notes
    -----
    log odds = slope * score + label + (group, label) + (client, label): Platt's scaling with
    offsets, normal around the scores as they are. Their standard deviation is the one under which
    all rates together are likeliest (Laplace's approximation): where scores are right, few rows
    do not move them.
    """
    n_z, n_s, n_y, _ = rates.shape
    counts = rates * rows[:, :, None, :]
    sizes = (1, n_y, n_z * n_y, n_s * n_y)
    ends = np.cumsum(sizes)[:-1]

    def parts(theta: Array) -> tuple[float, Array]:
        slope, label, group, client = np.split(theta, ends)
        offset = label[None, None, :] + group.reshape(n_z, 1, n_y) + client.reshape(1, n_s, n_y)
        return float(slope[0]), offset[..., None]

    start = np.zeros(sum(sizes))
    start[0] = 1.0

    def loss(theta: Array, width: float) -> tuple[float, Array]:
        slope, offset = parts(theta)
        logs = log_softmax(slope * scores + offset, axis=2)
        pull = rows[:, :, None, :] * np.exp(logs) - counts
        off = theta - start
        by_cell = pull.sum(axis=3)
        gradient = np.concatenate([
            [(pull * scores).sum()], by_cell.sum(axis=(0, 1)), by_cell.sum(axis=1).ravel(),
            by_cell.sum(axis=0).ravel(),
        ])  # fmt: skip
        value = -(counts * logs).sum() + 0.5 * (off @ off) / width**2
        return float(value), gradient + off / width**2

    best, theta = math.inf, start
    for width in _WIDTHS:
        found = optimize.minimize(loss, theta, (width,), jac=True, method="L-BFGS-B")
        slope, offset = parts(found.x)
        chances = np.exp(log_softmax(slope * scores + offset, axis=2))
        unlikely = found.fun + 0.5 * _log_curvature(rows, chances, scores, width)
        if unlikely < best:
            best, theta = float(unlikely), found.x
    slope, offset = parts(theta)
    return np.asarray(np.exp(log_softmax(slope * scores + offset, axis=2)))


def _log_curvature(rows: Array, chances: Array, scores: Array, width: float) -> float:
    """Return the log determinant of the loss's second derivatives, times ``width**2`` each.

    Clients have blocks of their own, which only slope, labels and groups couple: what remains of
    them without the clients is small (Schur's complement), however many clients there are.
    """
    n_z, n_s, n_y, _ = chances.shape
    mass = rows[:, :, None, :] * chances
    pull = mass * (scores - (chances * scores).sum(axis=2, keepdims=True))
    by_slope = pull.sum(axis=3)
    cell = -np.einsum("zsyr,zskr->zsyk", mass, chances)
    cell[..., np.arange(n_y), np.arange(n_y)] += mass.sum(axis=3)
    width_of = 1 + n_y + n_z * n_y
    first, second = slice(1, 1 + n_y), slice(1 + n_y, None)
    coupled = np.empty((n_s, width_of, n_y))
    coupled[:, 0], coupled[:, first] = by_slope.sum(axis=0), cell.sum(axis=0)
    coupled[:, second] = np.moveaxis(cell, 0, 1).reshape(n_s, n_z * n_y, n_y)
    shared = np.zeros((width_of, width_of))
    shared[0, 0] = (pull * scores).sum()
    shared[0, 1:] = shared[1:, 0] = np.concatenate(
        [by_slope.sum(axis=(0, 1)), by_slope.sum(axis=1).ravel()]
    )
    shared[first, first] = cell.sum(axis=(0, 1))
    groups = cell.sum(axis=1)
    shared[second, first] = groups.reshape(-1, n_y)
    shared[first, second] = shared[second, first].T
    for z in range(n_z):
        own = slice(1 + n_y + z * n_y, 1 + n_y + (z + 1) * n_y)
        shared[own, own] = groups[z]
    square = width**2
    clients = np.eye(n_y) + square * cell.sum(axis=0)
    removed = square * coupled @ np.linalg.solve(clients, square * coupled.transpose(0, 2, 1))
    rest = np.eye(width_of) + square * shared - removed.sum(axis=0)
    return float(np.linalg.slogdet(clients)[1].sum() + np.linalg.slogdet(rest)[1])


def precision_of(rows: Array, rates: Array, centre: Array) -> float:
    """Return the precision of Dirichlet draws around ``centre`` under which rates are likeliest.

    Parameters
    ----------
    rows : ndarray, shape (n_z, n_s, n_r)
    rates, centre : ndarray, shape (n_z, n_s, n_y, n_r)

    Returns
    -------
    float
        ``inf`` where rates do not vary more than rows by chance.
    """
    n = np.moveaxis(np.broadcast_to(rows[:, :, None, :], rates.shape), 2, -1)[..., 0].ravel()
    seen = n > 0
    n = n[seen]
    flat = (-1, rates.shape[2])
    counts = np.moveaxis(rates, 2, -1).reshape(flat)[seen] * n[:, None]
    mean = np.moveaxis(centre, 2, -1).reshape(flat)[seen]

    def unlikely(log_precision: float) -> float:
        a = math.exp(log_precision)
        return -float(
            (gammaln(a) - gammaln(n + a)).sum()
            + (gammaln(counts + a * mean) - gammaln(a * mean)).sum()
        )

    found = optimize.minimize_scalar(unlikely, bounds=_LOG_RANGE, method="bounded")
    if unlikely(_LOG_RANGE[1]) <= float(found.fun) + 1e-6:
        return math.inf
    return math.exp(float(found.x))


def drawn_in(p: Array, rows: Array, scores: Array | None) -> tuple[Array, float]:
    """Return a table with its rates of labels drawn towards calibrated scores.

    Parameters
    ----------
    p : ndarray, shape (n_z, n_s, n_y, n_r)
        Masses of group, client and bin are kept.
    rows : ndarray, shape (n_z, n_s, n_r)
        How many rows' worth each cell's rates are.
    scores : ndarray, shape (n_z, n_s, n_y, n_r), or None
        Mean probabilities of the labels by the classifier. None takes the rates of each bin over
        all groups and clients.

    Returns
    -------
    table : ndarray, shape of ``p``
    precision : float
        How many rows the calibrated scores count for.
    """
    mass = p.sum(axis=2, keepdims=True)
    rates = p / np.where(mass > 0, mass, 1.0)
    if scores is None:
        counts = (rates * rows[:, :, None, :]).sum(axis=(0, 1)) + 1.0
        scores = np.broadcast_to(counts / counts.sum(axis=0), p.shape)
    logs = np.log(np.maximum(scores, _LEAST))
    centre = calibrated(rows, rates, logs - logs.mean(axis=2, keepdims=True))
    precision = precision_of(rows, rates, centre)
    if math.isinf(precision):
        return mass * centre, precision
    share = (rows / (rows + precision))[:, :, None, :]
    return mass * (share * rates + (1.0 - share) * centre), precision


def noisy_rows(p: Array, n: float, variance: float) -> Array:
    """Return how many rows' worth the rates of cells are under noise of their counts.

    Parameters
    ----------
    p : ndarray, shape (n_z, n_s, n_y, n_r)
        Repaired noisy shares.
    n : float
        Number of rows.
    variance : float
        Of the noise of one count.

    Returns
    -------
    ndarray, shape (n_z, n_s, n_r)
        The number of rows whose sampling alone would make the rates as uncertain.
    """
    count = n * p.sum(axis=2)
    seen = count > 0
    one = np.where(seen, count, 1.0)
    rates = n * p / one[:, :, None, :]
    n_y = p.shape[2]
    # Rates near 0 or 1 would tell that sampling hardly moves them; noise would not be small then.
    square = ((rates * one[:, :, None, :] + 1.0) / (one[:, :, None, :] + n_y)) ** 2
    square = square.sum(axis=2)
    sampled = (1.0 - square) / one
    added = variance * (n_y - 2.0 + n_y * square) / one**2
    return np.where(seen, one * sampled / (sampled + added), 0.0)


def counted(
    codes: tuple[Ints, Ints, Ints, Ints],
    weights: Array | None,
    soft: Array | None,
    shape: tuple[int, ...],
    labels: str,
) -> tuple[Array, Array | None, float]:
    """Return the table of rows for the bounds, the one that tells the cost, and the precision.

    Parameters
    ----------
    codes : tuple of ndarray of shape (n_rows,)
        Group, client, label and bin.
    weights : ndarray of shape (n_rows,), or None
    soft : ndarray of shape (n_rows, n_y), or None
        Probabilities of the labels by the classifier, where it has any.
    shape : tuple of int
    labels : {"shrunk", "observed", "scores"}

    Returns
    -------
    p : ndarray, shape (n_z, n_s, n_y, n_r)
    told : ndarray of the same shape, or None where it is ``p``
    precision : float
        How many rows of a cell the probabilities count for.
    """
    z, s, y, r = codes
    weight = np.ones(y.size) if weights is None else weights
    observed, spread, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(observed, (z, s, y, r), weight)
    np.add.at(square, (z, s, y, r), weight**2)
    if soft is not None:
        for k in range(shape[2]):
            np.add.at(spread, (z, s, np.full(y.size, k), r), weight * soft[:, k])
    if labels == "scores":
        return np.asarray(spread / spread.sum()), None, math.inf
    p = observed / observed.sum()
    if labels == "observed":
        return p, None, 0.0
    total, squares = observed.sum(axis=2), square.sum(axis=2)
    rows = total**2 / np.where(squares > 0, squares, 1.0)  # rows of unequal weight tell less
    if soft is None:
        return (p, *drawn_in(p, rows, None))
    size = np.where(total > 0, total, 1.0)[:, :, None, :]
    mean = np.where(total[:, :, None, :] > 0, spread / size, 1.0 / shape[2])
    return (p, *drawn_in(p, rows, mean))


def middles(bins: ScoreBins, shape: tuple[int, ...]) -> Array | None:
    """Return the probabilities in the middle of public bins, where bins are of probabilities."""
    if bins.method != "predict_proba" or bins.edges is None or bins.classes.size != 2:
        return None
    ends = np.concatenate([[0.0], np.clip(bins.edges, 0.0, 1.0), [1.0]])
    middle = (ends[1:] + ends[:-1]) / 2
    return np.broadcast_to(np.stack([1.0 - middle, middle]), shape)
