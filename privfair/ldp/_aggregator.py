"""The server: sums of reports, mergeable in any order, and what is estimated from them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.ldp._estimate import FrequencyEstimate, estimate_frequencies
from privfair.ldp._hashing import HashingProtocol
from privfair.ldp._postprocess import POSTPROCESS, expectation_maximisation, postprocess
from privfair.ldp._protocol import FrequencyProtocol
from privfair.ldp._reports import Reports

__all__ = ["Aggregator"]

MAGIC = b"PFLA"
VERSION = 1
_HEAD = struct.Struct("<4sHH16sqI")
_CRC = struct.Struct("<I")
_RULES = (*POSTPROCESS, "ibu", "ibu_marginal")


class Aggregator:
    """Adds up reports and estimates frequencies; holds sums only, never a report.

    Parameters
    ----------
    protocol : FrequencyProtocol
        The one that the clients use.
    values : sequence or None
        The public list of categories; None stands for 0, ..., k - 1.
    device : {"cpu", "auto", "cuda", "cuda:N"}, default="cpu"
        Where reports of local hashing, the only ones whose sums take long, are added up. Sums
        are integers and the same on every device, bit for bit; other protocols use the CPU.

    Attributes
    ----------
    counts_ : ndarray of int64, shape (k,)
        How many reports support each value.
    n_reports_ : int

    Notes
    -----
    Aggregators of one protocol form a commutative monoid under :meth:`merge`: sums of shards are
    the sums of one pass, bit for bit. Privacy: everything here is computed from reports, at no
    further cost.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.ldp import Aggregator, OUE, randomize
    >>> protocol = OUE(4, 2.0)
    >>> reports = randomize(protocol, np.arange(4000) % 4, noise_random_state=0)
    >>> server = Aggregator(protocol).partial_fit(reports)
    >>> server.n_reports_, bool(abs(server.estimate().frequencies - 0.25).max() < 0.05)
    (4000, True)
    """

    def __init__(
        self,
        protocol: FrequencyProtocol,
        values: Sequence[Any] | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        if not isinstance(protocol, FrequencyProtocol):
            raise InvalidTypeError(
                f"protocol must be a protocol such as OUE(k, epsilon), got "
                f"{type(protocol).__name__}."
            )
        if values is not None and len(values) != protocol.k:
            raise InvalidParameterError(
                f"values must name all {protocol.k} values of the domain, got {len(values)}."
            )
        if device != "cpu":
            from privfair.core.device import resolve_device

            resolve_device(device)  # what is not there is said now
        self.device = device
        self.protocol = protocol
        self.values = None if values is None else tuple(values)
        self._tally: NDArray[np.int64] = np.zeros(protocol.tally_size, dtype=np.int64)
        self.n_reports_ = 0

    @property
    def counts_(self) -> NDArray[np.int64]:
        """How many reports support each value, shape (k,)."""
        return self.protocol.support_of(self._tally, self.n_reports_)

    def partial_fit(self, reports: Reports | bytes) -> Aggregator:
        """Add reports, as objects or in wire format; an error adds none of them."""
        if isinstance(reports, bytes | bytearray | memoryview):
            reports = Reports.from_bytes(bytes(reports), self.protocol)
        if not isinstance(reports, Reports):
            raise InvalidTypeError(
                f"reports must be Reports or their bytes, got {type(reports).__name__}."
            )
        if reports.protocol.fingerprint() != self.protocol.fingerprint():
            raise InvalidParameterError(
                f"reports of {reports.protocol!r} cannot be added to those of {self.protocol!r}."
            )
        self._tally += self._sums(reports)
        self.n_reports_ += len(reports)
        return self

    def _sums(self, reports: Reports) -> NDArray[np.int64]:
        payload = reports.payload
        if self.device == "cpu" or not isinstance(self.protocol, HashingProtocol):
            return self.protocol.tally(payload)
        from privfair.core.device import resolve_device
        from privfair.ldp._hashing_device import support_on_device

        return support_on_device(
            payload["seed"], payload["bucket"], self.protocol.k, self.protocol.g_,
            resolve_device(self.device),
        )  # fmt: skip

    def merge(self, other: Aggregator) -> Aggregator:
        """Return an aggregator of the reports of both."""
        if not isinstance(other, Aggregator):
            raise InvalidTypeError(f"other must be an Aggregator, got {type(other).__name__}.")
        if other.protocol.fingerprint() != self.protocol.fingerprint():
            raise InvalidParameterError(
                f"an aggregator of {other.protocol!r} cannot be merged with one of "
                f"{self.protocol!r}: their reports mean different things."
            )
        out = Aggregator(self.protocol, self.values if self.values is not None else other.values)
        out._tally = self._tally + other._tally
        out.n_reports_ = self.n_reports_ + other.n_reports_
        return out

    def __add__(self, other: Aggregator) -> Aggregator:
        return self.merge(other)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Aggregator)
            and other.protocol.fingerprint() == self.protocol.fingerprint()
            and other.n_reports_ == self.n_reports_
            and bool((other._tally == self._tally).all())
        )

    __hash__ = None  # type: ignore[assignment]

    # -- estimates -------------------------------------------------------------------------------
    def estimate(
        self,
        postprocess: str | None = None,
        confidence: float = 0.95,
        simultaneous: bool = False,
        *,
        tol: float = 1e-8,
        max_iter: int = 10_000,
    ) -> FrequencyEstimate:
        """Return frequencies with intervals.

        Parameters
        ----------
        postprocess : str or None, default=None
            None leaves the unbiased estimates as they are. Otherwise a rule of
            :func:`privfair.ldp.postprocess`, ``"ibu"`` (maximum likelihood by iterative Bayesian
            update: GRR, HR, PGR) or ``"ibu_marginal"`` (the same iteration on support counts: a
            consistent pseudo-likelihood, not the maximum).
        confidence : float, default=0.95
        simultaneous : bool, default=False
            Whether all intervals hold together (Bonferroni).
        tol, max_iter : float, int
            Of the iterations.

        Returns
        -------
        FrequencyEstimate
            The raw estimates are always kept beside, and intervals are theirs.

        Raises
        ------
        DataError
            There is no report yet.
        """
        if postprocess is not None:
            check.one_of(_RULES, postprocess=postprocess)
        if self.n_reports_ == 0:
            raise DataError("no report has arrived yet: there is nothing to estimate from.")
        raw = estimate_frequencies(
            self.protocol, self.counts_, self.n_reports_, values=self.values,
            confidence=confidence, simultaneous=simultaneous,
            trials=self.protocol.trials_of(self._tally, self.n_reports_),
        )  # fmt: skip
        if postprocess is None:
            return raw
        found, details = self._processed(raw, postprocess, tol, max_iter)
        return replace(
            raw, frequencies=found, postprocess=postprocess, details={**raw.details, **details}
        )

    def _processed(
        self, raw: FrequencyEstimate, rule: str, tol: float, max_iter: int
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        missing = int(np.isnan(raw.frequencies_raw).sum())
        if missing:
            raise DataError(
                f"no report is about {missing} of the {self.protocol.k} values, so that there is "
                f"no distribution for {rule!r} to make consistent. Collect from more users."
            )
        if rule in POSTPROCESS:
            std = np.sqrt(self.protocol.variance(0.0, self.n_reports_))
            return postprocess(raw.frequencies_raw, rule, std=std), {}
        if rule == "ibu":
            found = expectation_maximisation(
                *self.protocol.channel(), self._tally.astype(float), self.protocol.k,
                tol=tol, max_iter=max_iter,
            )  # fmt: skip
        elif not self.protocol.counts_reports:
            raise InvalidParameterError(
                f"'ibu_marginal' needs counts of reports, and {self.protocol.name} sums numbers. "
                "Use 'norm_sub'."
            )
        else:
            p, q, k = self.protocol.p_, self.protocol.q_, self.protocol.k
            column = p + (k - 1) * q
            trials = self.protocol.trials_of(self._tally, self.n_reports_)
            observed = self.counts_ * (self.n_reports_ / np.maximum(trials, 1))

            def expected(f: NDArray[np.float64]) -> NDArray[np.float64]:
                return (q + (p - q) * f) / column

            def back(w: NDArray[np.float64]) -> NDArray[np.float64]:
                return (q * w.sum() + (p - q) * w) / column

            found = expectation_maximisation(
                expected, back, observed, k, tol=tol, max_iter=max_iter
            )
        details = {"n_iter": found.n_iter, "converged": found.converged}
        return found.frequencies, details

    # -- state -----------------------------------------------------------------------------------
    def to_bytes(self) -> bytes:
        """Return the sums, to be merged elsewhere."""
        head = _HEAD.pack(
            MAGIC, VERSION, 0, self.protocol.fingerprint(), self.n_reports_, len(self._tally)
        )
        body = head + self._tally.astype("<i8").tobytes()
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(
        cls, data: bytes, protocol: FrequencyProtocol, values: Sequence[Any] | None = None
    ) -> Aggregator:
        """Read what :meth:`to_bytes` wrote; anything else is a ``ValueError``."""
        if len(data) < _HEAD.size + _CRC.size or data[:4] != MAGIC:
            raise DataIntegrityError("these bytes are no state of an aggregator, or were cut.")
        (crc,) = _CRC.unpack_from(data, len(data) - _CRC.size)
        if zlib.crc32(data[: -_CRC.size]) != crc:
            raise DataIntegrityError("the checksum does not match: the bytes were cut or changed.")
        _, version, _, mark, n, size = _HEAD.unpack_from(data)
        if version != VERSION:
            raise DataIntegrityError(f"version {version} of the state is unknown.")
        out = cls(protocol, values)
        if mark != protocol.fingerprint():
            raise DataIntegrityError(f"the state belongs to other parameters than {protocol!r}.")
        if size != protocol.tally_size or len(data) != _HEAD.size + 8 * size + _CRC.size or n < 0:
            raise DataIntegrityError("the state has another length than its protocol's.")
        tally = np.frombuffer(data[_HEAD.size : -_CRC.size], dtype="<i8").astype(np.int64)
        if not protocol.is_tally(tally, int(n)):
            raise DataIntegrityError("a count is negative or above the number of reports.")
        out._tally, out.n_reports_ = tally, int(n)
        return out
