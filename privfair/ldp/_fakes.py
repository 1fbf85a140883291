"""Random sampling plus fake data: one true attribute hidden among made-up ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, PrivfairWarning
from privfair.core.randomness import SecretStream
from privfair.ldp._direct import GRR, code_dtype
from privfair.ldp._exact import ONE, below
from privfair.ldp._protocol import MAX_EPSILON, Floats, FrequencyProtocol, Ints, _log_up
from privfair.ldp._rows import RowStrategy
from privfair.ldp._unary import OUE, SUE, UnaryProtocol

__all__ = ["RSFD", "RSRFD"]

GUARANTEES = ("tuple", "attribute", "published")
FAKES = ("grr", "ue_zero", "ue_random")


@dataclass(frozen=True)
class RSFD(RowStrategy):
    r"""RS+FD: one attribute, drawn secretly, is reported truly, and all others are made up.

    Parameters
    ----------
    sizes : sequence of int
        Size of each attribute's domain, each at least 2.
    epsilon : float
        In (0, 50].
    fake : {"grr", "ue_zero", "ue_random"}, default="grr"
        GRR with uniform fake values, or unary encoding with fake reports of a vector of zeros,
        or of a random value.
    guarantee : {"tuple", "attribute", "published"}, default="tuple"
        What ``epsilon`` bounds. ``"tuple"``: any two rows; the randomisers run at epsilon itself,
        for hiding the attribute amplifies nothing there. ``"attribute"``: two rows that differ in
        one attribute; the randomisers' epsilon is solved for. ``"published"``: nothing; the
        randomisers run at :math:`\ln(d (e^\epsilon - 1) + 1)` as in the paper, and the true
        epsilons are larger than declared.
    unary : {"OUE", "SUE"}, default="OUE"
        Which unary encoding.

    Warns
    -----
    PrivfairWarning
        With ``guarantee="published"``: names the true epsilons.

    Notes
    -----
    *Privacy.* The paper claims that sampling a hidden attribute amplifies privacy as sampling
    records does. It does not: where two rows differ in every attribute, every report in them is
    evidence, and the ratio reaches the randomisers' own :math:`e^{\epsilon'}`
    (``docs/ldp-rows.md`` has the proof). With :math:`c_i = A_i / F_i` the ratio of the
    randomiser's law to that of the fakes, and :math:`s_j` the least sum of the others' c,

    .. math:: \epsilon_{attribute} = \max_j \ln \frac{\max c_j + s_j}{\min c_j + s_j},

    with both extremes at one report; exact, computed with fractions. Both numbers are always
    there as ``epsilon_tuple`` and ``epsilon_attribute``.

    References
    ----------
    Arcolezi, Couchot, Al Bouna, Xiao 2021, "Random sampling plus fake data: multidimensional
    frequency estimates with local differential privacy", CIKM, arXiv 2109.07269.

    Examples
    --------
    >>> strategy = RSFD([2, 8], 1.0)
    >>> strategy.epsilon_tuple, round(strategy.epsilon_attribute, 4)
    (1.0, 0.7126)
    >>> round(RSFD([2, 8], 1.0, guarantee="attribute").epsilon_local_, 6)
    1.307422
    """

    fake: str = "grr"
    guarantee: str = "tuple"
    unary: str = "OUE"
    name: ClassVar[str] = "RSFD"

    def __post_init__(self) -> None:
        super().__post_init__()
        check.one_of(FAKES, fake=self.fake)
        check.one_of(GUARANTEES, guarantee=self.guarantee)
        check.one_of(("OUE", "SUE"), unary=self.unary)
        self._check_priors()
        made = self._at(self._solved())
        object.__setattr__(self, "_protocols", made)
        if self.guarantee == "published" and self.d > 1:
            warnings.warn(
                f"guarantee='published': a report is ({self.epsilon_tuple:.5g})-LDP about whole "
                f"rows and ({self.epsilon_attribute:.5g})-LDP about one attribute, not "
                f"{self.epsilon:g}. Both are reported; use guarantee='tuple' for a sound choice.",
                PrivfairWarning,
                stacklevel=3,
            )

    def _check_priors(self) -> None:
        """Check what only realistic fakes have."""

    # -- the randomisers ---------------------------------------------------------------------
    @property
    def protocols_(self) -> tuple[FrequencyProtocol, ...]:
        """The randomiser of each attribute."""
        out: tuple[FrequencyProtocol, ...] = self._protocols  # type: ignore[attr-defined]
        return out

    @property
    def epsilon_local_(self) -> float:
        """Epsilon at which the randomisers run."""
        return self.protocols_[0].epsilon

    def _at(self, epsilon: float) -> tuple[FrequencyProtocol, ...]:
        make = GRR if self.fake == "grr" else {"OUE": OUE, "SUE": SUE}[self.unary]
        return tuple(make(k, epsilon) for k in self.sizes)

    def _solved(self) -> float:
        published = math.log1p(self.d * math.expm1(self.epsilon))
        if self.guarantee == "tuple" or self.d == 1:
            return self.epsilon
        if published > MAX_EPSILON:
            raise InvalidParameterError(
                f"epsilon = {self.epsilon:g} with {self.d} attributes makes the randomisers run "
                f"above {MAX_EPSILON:g}; lower it."
            )
        if self.guarantee == "published":
            return published
        from scipy.optimize import brentq

        def excess(x: float) -> float:
            return self._of_attribute(self._at(x)) - self.epsilon

        if excess(published) <= 0:
            return published
        found = float(brentq(excess, self.epsilon, published, xtol=1e-13, rtol=1e-14))
        while excess(found) > 0:  # the exact epsilon must be on the safe side
            found -= 1e-13
        return found

    # -- what a report discloses ---------------------------------------------------------------
    @property
    def epsilon_tuple(self) -> float:
        """What a report discloses about a whole row: as much as the randomisers do."""
        return self.epsilon_local_

    @cached_property
    def epsilon_attribute(self) -> float:  # type: ignore[override]
        """What a report discloses about one attribute, all others being the same."""
        return self._of_attribute(self.protocols_)

    def _of_attribute(self, protocols: tuple[FrequencyProtocol, ...]) -> float:
        ranges = [self._range(j, p) for j, p in enumerate(protocols)]
        total = sum((least for _, _, least in ranges), start=Fraction(0))
        worst = max((high + total - least) / (low + total - least) for high, low, least in ranges)
        return _log_up(worst)

    def _range(self, j: int, protocol: FrequencyProtocol) -> tuple[Fraction, Fraction, Fraction]:
        """Return the largest c_j and the least beside it, at the worst report; the least of all.

        A ratio (h + s) / (l + s) grows when h and l grow together, so that the worst report is
        the one whose fakes are rarest.
        """
        p, q = protocol.exact_p, protocol.exact_q
        prior = self._prior(j)
        rare, common = min(prior), max(prior)
        if self.fake == "grr":
            return p / rare, q / rare, q / common
        one, zero = p / q, (1 - p) / (1 - q)  # a bit that is set, or not, against zeros
        if self.fake == "ue_zero":
            return one, zero, zero

        def fakes(share: Fraction) -> Fraction:  # values with their bit set have this prior share
            return zero + (one - zero) * share

        return one / fakes(rare), zero / fakes(rare), zero / fakes(1 - rare)

    def _prior(self, j: int) -> tuple[Fraction, ...]:
        """Return the law of attribute j's fake values."""
        k = self.sizes[j]
        return (Fraction(1, k),) * k

    # -- client ------------------------------------------------------------------------------
    def randomise(
        self, rows: Ints, stream: SecretStream
    ) -> tuple[None, list[dict[str, NDArray[Any]]]]:
        """Return one report of every attribute per row, of which one is about the row."""
        chosen = below(self.d, len(rows), stream)
        parts = []
        for j, protocol in enumerate(self.protocols_):
            mine = chosen == j
            true = protocol.randomise(rows[mine, j], stream)
            made = self._fakes(j, protocol, len(rows) - int(mine.sum()), stream)
            part = {}
            for key, array in true.items():
                part[key] = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
                part[key][mine], part[key][~mine] = array, made[key]
            parts.append(part)
        return None, parts

    def _fakes(
        self, j: int, protocol: FrequencyProtocol, n: int, stream: SecretStream
    ) -> dict[str, NDArray[Any]]:
        if self.fake == "ue_zero":
            assert isinstance(protocol, UnaryProtocol)
            return protocol.randomise_zeros(n, stream)
        values = self._fake_values(j, n, stream)
        if self.fake == "ue_random":
            return protocol.randomise(values, stream)
        return {"code": values.astype(code_dtype(protocol.k))}

    def _fake_values(self, j: int, n: int, stream: SecretStream) -> Ints:
        return below(self.sizes[j], n, stream)

    # -- server ------------------------------------------------------------------------------
    def column_law(self, j: int) -> tuple[Floats, Floats]:
        """Return, per value, the chance that a report supports it with and without holding it."""
        protocol = self.protocols_[j]
        p, q = protocol.p_, protocol.q_
        prior = np.array([float(x) for x in self._prior(j)])
        fakes = {
            "grr": prior,
            "ue_zero": np.full(protocol.k, q),
            "ue_random": q + (p - q) * prior,
        }[self.fake]
        rest = (self.d - 1) * fakes
        return (p + rest) / self.d, (q + rest) / self.d

    # -- the law, for enumeration --------------------------------------------------------------
    def outputs(self) -> Iterator[Any]:
        """Yield every tuple of reports."""
        yield from product(*(outputs for outputs, _ in self._tables))

    def chances(self, output: Any) -> Any:
        """Return the exact chance of one tuple of reports given every row."""
        fakes = [self._fake_chance(j, one) for j, one in enumerate(output)]
        out: Any = 0
        for j, one in enumerate(output):
            others = math.prod(fakes[:j] + fakes[j + 1 :], start=Fraction(1))
            out = out + self._along(j, self._tables[j][1][one]) * others / self.d
        return out

    def _fake_chance(self, j: int, output: Any) -> Fraction:
        prior, protocol = self._prior(j), self.protocols_[j]
        if self.fake == "grr":
            return prior[output]
        if self.fake == "ue_zero":
            q, ones = protocol.exact_q, sum(output)
            return q**ones * (1 - q) ** (protocol.k - ones)
        chances = self._tables[j][1][output]
        return sum((a * b for a, b in zip(prior, chances, strict=True)), start=Fraction(0))

    def parameters(self) -> dict[str, Any]:
        """Return everything on which client and server must agree, JSON-able."""
        return {**super().parameters(), "fake": self.fake}


@lru_cache(maxsize=256)
def _thresholds(prior: tuple[float, ...]) -> tuple[int, ...]:
    """Return whole numbers that sum to 2^64, in proportion to a prior."""
    exact = [Fraction(x) for x in prior]
    total = sum(exact)
    parts = [x * ONE / total for x in exact]
    whole = [x.numerator // x.denominator for x in parts]
    whole[whole.index(max(whole))] += ONE - sum(whole)
    return tuple(whole)


@dataclass(frozen=True)
class RSRFD(RSFD):
    r"""RS+RFD: as :class:`RSFD`, with fake values that follow a public prior.

    Realistic fakes hide the true attribute better from whoever guesses it, and disclose more
    about it: a rare value is rarely a fake.

    Parameters
    ----------
    sizes : sequence of int
        Size of each attribute's domain, each at least 2.
    epsilon : float
        In (0, 50].
    fake : {"grr", "ue_random"}, default="grr"
        GRR or unary encoding.
    guarantee : {"tuple", "attribute", "published"}, default="tuple"
        As in :class:`RSFD`.
    unary : {"OUE", "SUE"}, default="OUE"
        Which unary encoding.
    priors : sequence of sequences of float
        One distribution per attribute, without zeros. It must be public, or have been released
        privately and paid for: fakes disclose it.

    Notes
    -----
    *Privacy.* As in :class:`RSFD`; values that are rare under the prior are the worst case.

    References
    ----------
    Arcolezi, Gambs, Couchot, Palamidessi 2023, "On the risks of collecting multidimensional data
    under local differential privacy", PVLDB 16(5), arXiv 2209.01684.

    Examples
    --------
    >>> strategy = RSRFD([3, 3], 1.0, priors=[[0.9, 0.05, 0.05]] * 2)
    >>> strategy.epsilon_tuple, bool(strategy.epsilon_attribute <= 1.0)
    (1.0, True)
    """

    priors: Any = None
    name: ClassVar[str] = "RSRFD"

    def _check_priors(self) -> None:
        if self.fake == "ue_zero":
            raise InvalidParameterError(
                "fake='ue_zero' makes no fake values, so that there is nothing to draw from a "
                "prior; use 'grr' or 'ue_random', or RSFD."
            )
        given = self.priors
        if not isinstance(given, Sequence | np.ndarray) or len(given) != self.d:
            raise InvalidParameterError(
                f"priors must hold one distribution for each of the {self.d} attributes."
            )
        priors = []
        for j, (k, one) in enumerate(zip(self.sizes, given, strict=True)):
            prior = tuple(check.real(**{f"priors[{j}]": x}) for x in one)
            if len(prior) != k or min(prior) <= 0 or abs(math.fsum(prior) - 1.0) > 1e-6:
                raise InvalidParameterError(
                    f"priors[{j}] must be {k} positive numbers that sum to one. A fake that is "
                    "never drawn would give the true value away."
                )
            if min(_thresholds(prior)) < 1:
                raise InvalidParameterError(f"priors[{j}] has a number below 2^-64.")
            priors.append(prior)
        object.__setattr__(self, "priors", tuple(priors))

    def _prior(self, j: int) -> tuple[Fraction, ...]:
        return tuple(Fraction(t, ONE) for t in _thresholds(self.priors[j]))

    def _fake_values(self, j: int, n: int, stream: SecretStream) -> Ints:
        edges = np.array(np.cumsum(np.array(_thresholds(self.priors[j])[:-1], dtype=object)),
                         dtype=np.uint64)  # fmt: skip
        return np.searchsorted(edges, stream.uint64(n), side="right").astype(np.int64)

    def parameters(self) -> dict[str, Any]:
        """Return everything on which client and server must agree, JSON-able."""
        priors = [[float(x).hex() for x in prior] for prior in self.priors]
        return {**super().parameters(), "priors": priors}
