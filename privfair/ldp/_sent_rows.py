"""One randomised report per row and attribute, and unbiased numbers from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.ldp._choose import choose
from privfair.ldp._direct import GRR, SS
from privfair.ldp._hashing import BLH, OLH
from privfair.ldp._protocol import FrequencyProtocol, Ints
from privfair.ldp._reports import Reports
from privfair.ldp._structured import HR, PGR
from privfair.ldp._unary import OUE, SUE

__all__ = ["PROTOCOLS", "RowRandomiser", "SentRows", "attributes_per_row", "make_protocol"]

_MAKERS: dict[str, Any] = {
    "grr": GRR, "sue": SUE, "oue": OUE, "ss": SS, "olh": OLH, "blh": BLH, "hr": HR, "pgr": PGR,
}  # fmt: skip
PROTOCOLS = (*_MAKERS, "auto")


def make_protocol(name: str, k: int, epsilon: float) -> FrequencyProtocol:
    """Return the named protocol on a domain; ``"auto"`` is the one of least variance."""
    protocol: FrequencyProtocol = (
        choose(k, epsilon).best if name == "auto" else _MAKERS[name](k, epsilon)
    )
    return protocol


def attributes_per_row(strategy: Any, d: int) -> int:
    """Return how many of d attributes a row reports."""
    if isinstance(strategy, str):
        check.one_of(("spl", "smp"), strategy=strategy)
        return d if strategy == "spl" else 1
    count = check.positive_int(strategy=strategy)
    if count > d:
        raise InvalidParameterError(
            f"strategy must be 'spl', 'smp' or a number of attributes up to {d}, got {count}."
        )
    return count


def share(epsilon: float, parts: int) -> float:
    """Return the largest float of which ``parts`` together are at most epsilon, exactly."""
    each = epsilon / parts
    while Fraction(each) * parts > Fraction(epsilon):
        each = math.nextafter(each, 0.0)
    return each


@dataclass(frozen=True)
class RowRandomiser:
    """Report ``per_row`` attributes of every row, drawn without looking at it.

    Attributes
    ----------
    protocols : tuple of FrequencyProtocol
        One for each attribute, of ``share(epsilon, per_row)`` each.
    per_row : int
    """

    protocols: tuple[FrequencyProtocol, ...]
    per_row: int

    @classmethod
    def make(
        cls, sizes: Sequence[int], epsilon: float, protocol: str, strategy: Any
    ) -> RowRandomiser:
        """Divide epsilon over the attributes that a row reports."""
        per_row = attributes_per_row(strategy, len(sizes))
        each = share(epsilon, per_row)
        return cls(tuple(make_protocol(protocol, k, each) for k in sizes), per_row)

    def draw(self, codes: Ints, stream: SecretStream) -> SentRows:
        """Return the reports of rows, given as positions of shape (n, d)."""
        n, d = codes.shape
        if self.per_row == d:
            picked = np.ones((n, d), dtype=bool)
        else:
            # Which attributes: the d - m largest of d random words stay at home. Ties, of
            # probability 2^-64, bias the choice, on which no guarantee rests.
            keys = stream.uint64((n, d))
            kept = np.argpartition(keys, self.per_row - 1, axis=1)[:, : self.per_row]
            picked = np.zeros((n, d), dtype=bool)
            np.put_along_axis(picked, kept, True, axis=1)
        reports = tuple(
            Reports(protocol, protocol.randomise(codes[picked[:, j], j], stream))
            for j, protocol in enumerate(self.protocols)
        )
        return SentRows(picked, reports, self.per_row)


@dataclass(frozen=True, eq=False)
class SentRows:
    """What the devices send: which attributes, and one report for each.

    Attributes
    ----------
    picked : ndarray of bool, shape (n, d)
    reports : tuple of Reports
        For each attribute, of the rows that picked it.
    per_row : int
    """

    picked: NDArray[np.bool_]
    reports: tuple[Reports, ...]
    per_row: int

    def codes(self) -> NDArray[np.int64]:
        """Return reported values of GRR, shape (n, d); k where nothing was reported."""
        out = np.empty(self.picked.shape, dtype=np.int64)
        for j, part in enumerate(self.reports):
            out[:, j] = part.protocol.k
            out[self.picked[:, j], j] = part.payload["code"]
        return out

    def support(self) -> NDArray[np.float64]:
        """Return 1 where a report supports a value, shape (n, sum of k); 0 elsewhere."""
        return self._blocks(lambda part: part.protocol.support_matrix(part.payload))

    def debiased(self) -> NDArray[np.float64]:
        """Return numbers whose mean, over the reports of one row, is its one-hot encoding."""
        d = self.picked.shape[1]

        def unbiased(part: Reports) -> NDArray[np.float64]:
            p, q = part.protocol.p_, part.protocol.q_
            supported = part.protocol.support_matrix(part.payload)
            return (supported - q) * (d / self.per_row / (p - q))

        return self._blocks(unbiased)

    def _blocks(self, make: Any) -> NDArray[np.float64]:
        sizes = [part.protocol.k for part in self.reports]
        out = np.zeros((len(self.picked), sum(sizes)))
        at = 0
        for j, (part, k) in enumerate(zip(self.reports, sizes, strict=True)):
            out[self.picked[:, j], at : at + k] = make(part)
            at += k
        return out


def one_hot(codes: Ints, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return indicator columns of positions, shape (n, sum of sizes)."""
    out = np.zeros((len(codes), sum(sizes)))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    np.put_along_axis(out, codes + starts, 1.0, axis=1)
    return out
