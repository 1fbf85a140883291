"""Variances of weighted sums of estimated frequencies, with their covariances."""

from __future__ import annotations

import numpy as np

from privfair.ldp._aggregator import Aggregator
from privfair.ldp._direct import GRR, SS
from privfair.ldp._fakes import RSFD
from privfair.ldp._hashing import OLH
from privfair.ldp._postprocess import postprocess
from privfair.ldp._protocol import Floats, FrequencyProtocol, Ints
from privfair.ldp._row_aggregator import RowAggregator
from privfair.ldp._structured import HR, PGR, walsh_hadamard
from privfair.ldp._unary import UnaryProtocol

__all__ = ["linear_variance"]


def linear_variance(server: RowAggregator, j: int, weights: Floats) -> float:
    r"""Return the variance of :math:`\sum_v w_v \hat f_v` for one attribute, users sampled i.i.d.

    Parameters
    ----------
    server : RowAggregator
        With reports.
    j : int
        Position of the attribute.
    weights : ndarray, shape (k,)

    Notes
    -----
    Where the tally counts whole reports (GRR, HR, PGR) this is the sample variance of what each
    report adds. Elsewhere it follows from three covariances of support indicators, of which
    unary encoding has none and subset selection has closed forms; for local hashing they vanish
    for hash functions that are independent on triples, of which ours are so on pairs only. Any
    other protocol gets the bound that holds whatever the covariances are.
    """
    part = server.attributes_[j]
    if isinstance(server.strategy, RSFD):
        return _with_fakes(server, server.strategy, j, weights)
    protocol, n = part.protocol, part.n_reports_
    added = _added_by_report(protocol, weights)
    if added is not None:
        return _sample_variance(part._tally, added, n)
    found = part.estimate().frequencies_raw
    share = postprocess(found, "norm_sub")
    within = _given_value(protocol, weights)
    if within is None:
        deviations = np.sqrt(protocol.variance(share, n, "iid"))
        return float((np.abs(weights) @ deviations) ** 2)
    between = share @ weights**2 - (share @ weights) ** 2
    return float((share @ within + between) / n)


def _sample_variance(tally: Ints, added: Floats, n: int) -> float:
    mean = tally @ added / n
    return float(tally @ (added - mean) ** 2 / n / n)


def _added_by_report(protocol: FrequencyProtocol, weights: Floats) -> Floats | None:
    """Return what each possible report adds to the sum, where the tally counts them."""
    total = weights.sum()
    if isinstance(protocol, GRR):
        inside = weights
    elif isinstance(protocol, HR):
        padded = np.zeros(protocol.K_)
        padded[1 : protocol.k + 1] = weights
        inside = (total + walsh_hadamard(padded)) / 2
    elif isinstance(protocol, PGR):
        padded = np.zeros(protocol.K_)
        padded[: protocol.k] = weights
        inside = protocol._on_hyperplanes(padded)
    else:
        return None
    return np.asarray((inside - protocol.q_ * total) / (protocol.p_ - protocol.q_))


def _given_value(protocol: FrequencyProtocol, w: Floats) -> Floats | None:
    """Return the variance of what one report adds, given each value that its user may hold."""
    p, q, k = protocol.p_, protocol.q_, protocol.k
    beside = apart = 0.0  # covariance of two indicators, one of which is of the true value or not
    if isinstance(protocol, SS):
        size = protocol.omega_
        beside = p * (size - 1) / (k - 1) - p * q
        if k > 2:
            both = p * (size - 1) * (size - 2) + (1 - p) * size * (size - 1)
            apart = both / ((k - 1) * (k - 2)) - q * q
    elif not isinstance(protocol, UnaryProtocol | OLH):
        return None
    total, square = w.sum(), (w**2).sum()
    others = total - w
    spread = w**2 * p * (1 - p) + (square - w**2) * q * (1 - q)
    spread += 2 * beside * w * others + apart * (others**2 - (square - w**2))
    return np.asarray(spread / (p - q) ** 2)


def _with_fakes(server: RowAggregator, strategy: RSFD, j: int, w: Floats) -> float:
    part: Aggregator = server.attributes_[j]
    protocol, n, d = part.protocol, server.n_reports_, strategy.d
    lift = (protocol.p_ - protocol.q_) / d
    if isinstance(protocol, GRR):
        constant = float(w @ strategy.column_law(j)[1])
        return _sample_variance(part._tally, (w - constant) / lift, n)
    # A report is about a vector: of the true value, of a fake one, or of none at all.
    share = postprocess(server.estimate(j).frequencies_raw, "norm_sub")
    prior = np.array([float(x) for x in strategy._prior(j)])
    nothing = (d - 1) / d if strategy.fake == "ue_zero" else 0.0
    about = share / d + (0.0 if nothing else (d - 1) / d * prior)
    p, q = protocol.p_, protocol.q_
    square = float((w**2).sum())
    given = w**2 * p * (1 - p) + (square - w**2) * q * (1 - q)
    within = (about @ given + nothing * square * q * (1 - q)) / lift**2
    mean = about @ w
    between = (about @ w**2 - mean**2) * d**2
    return float((within + between) / n)
