"""What a fitted ``AGLFOP`` answers: single points, the surface, intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._frontier import certified_surface
from privfair.fairness.aglfop._oracle import bound_in_nats, result_of
from privfair.fairness.aglfop._program import LN2
from privfair.fairness.aglfop._result import AGLFOPResult
from privfair.fairness.aglfop._rule import FairRule, fair_rule

__all__ = ["AnswersMixin"]


class AnswersMixin:
    """Answers of an estimator with a table ``p_`` and a program."""

    def solve(
        self: Any,
        eps_global: float | None = None,
        eps_local: float | None = None,
        *,
        eps_client: dict[Any, float] | None = None,
    ) -> AGLFOPResult | FairRule:
        """Return the best under bounds in bits.

        Parameters
        ----------
        eps_global, eps_local : float or None
            As in :func:`privfair.fairness.aglfop.aglfop`.
        eps_client : dict of client to float, or None
            Bounds for single clients: the local bound is a mean, which can hide a small client.

        Returns
        -------
        AGLFOPResult or FairRule
            The second with mode="model", and with ``cost``: the oracle's rule W(k | z, s, y).
        """
        check_is_fitted(self, "p_")
        given = FairnessBound(self.criterion, eps_global, eps_local, eps_client)
        places = {name: i for i, name in enumerate(self.clients_)}
        unknown = [name for name in given.eps_client or {} if name not in places]
        if unknown:
            raise InvalidParameterError(
                f"eps_client names {len(unknown)} clients that are not in the fit; see clients_."
            )
        by_place = {places[name]: eps for name, eps in (given.eps_client or {}).items()}
        if self._by_rule:
            placed = FairnessBound(self.criterion, eps_global, eps_local, by_place or None)
            return fair_rule(
                self._rule_table(self.p_), placed, access=self._sees, cost=self.cost,
                client_weight=self._client_weight, positive=self._positive(),
                tol=1e-3 * self.tol,
            )  # fmt: skip
        bounds = {
            "global": bound_in_nats("eps_global", eps_global, "bits"),
            "local": bound_in_nats("eps_local", eps_local, "bits"),
        } | {f"client:{i}": eps * LN2 for i, eps in by_place.items()}
        point = self._program.solve(bounds)
        if self.tie_break == "least_disparity":
            from privfair.fairness.aglfop._ties import least_disparity

            point = least_disparity(self._program, point)
        names = {i: name for name, i in places.items()}
        return result_of(
            self._program, point, eps_global=eps_global, eps_local=eps_local, unit="bits",
            price_client={names[i]: point.prices[f"client:{i}"] * LN2 for i in by_place},
        )  # fmt: skip

    def frontier(
        self: Any,
        n: int = 30,
        *,
        grid: tuple[Iterable[float | None], Iterable[float | None]] | None = None,
        tol: float = 1e-3,
    ) -> Any:
        """Compute the surface over both bounds, or a table of given bounds.

        Parameters
        ----------
        n : int, default=30
            Points of the surface's grid along each axis.
        grid : tuple of two sequences, or None
            Global and local bounds in bits; all pairs are solved.
        tol : float, default=1e-3
            Proven distance at all bounds, in accuracy.

        Returns
        -------
        self, or DataFrame
            Without ``grid`` self, with ``surface_``. With it a table with one row a pair:
            bounds, accuracy, error_lower, prices, disparities, status.
        """
        check_is_fitted(self, "p_")
        if grid is None:
            if check.positive_int(n=n) < 2:
                raise InvalidParameterError(f"n must be at least 2, got {n}.")
            self.surface_ = certified_surface(self._program, n=n, tol=check.positive(tol=tol))
            return self
        import pandas as pd

        rows = []
        for eps_global, eps_local in itertools.product(*grid):
            answer = self.solve(eps_global, eps_local)
            if isinstance(answer, FairRule):
                prices, achieved = answer.prices, answer.achieved
                lower = answer.lower
                found = [prices.get(k, 0.0) for k in ("global", "local")]
                found += [achieved["global"], achieved["local"]]
            else:
                lower = answer.error_lower
                found = [answer.price_global, answer.price_local,
                         answer.global_disparity, answer.local_disparity]  # fmt: skip
            rows.append((eps_global, eps_local, answer.accuracy, lower, *found, answer.status))
        return pd.DataFrame(
            rows,
            columns=["eps_global", "eps_local", "accuracy", "error_lower", "price_global",
                     "price_local", "global_disparity", "local_disparity", "status"],
        )  # fmt: skip

    def estimate(
        self: Any,
        eps_global: float | None = None,
        eps_local: float | None = None,
        *,
        method: str = "delta",
        confidence: float = 0.95,
        n_resamples: int = 200,
        by_client: bool = False,
        random_state: Any = None,
    ) -> Estimate:
        """Return the best accuracy with an interval for the sample that the table comes from.

        Parameters
        ----------
        eps_global, eps_local : float or None
            Bounds in bits.
        method : {"delta", "bootstrap"}, default="delta"
            "delta" uses the multipliers of the cells and solves nothing more. "bootstrap" solves
            resampled tables again; under ``privacy`` with fresh noise. Needed with mode="model",
            ``privacy``, ``cost`` (in [0, 1] then) or ``client_weight``.
        confidence : float, default=0.95
        n_resamples : int, default=200
            Tables of the bootstrap.
        by_client : bool, default=False
            Keep the clients' sizes fixed in the bootstrap.
        random_state : int, Generator or None
            Of the bootstrap.

        Returns
        -------
        Estimate

        Notes
        -----
        The best of a sample is biased: a rule fits its noise (too accurate), its labels look more
        unequal than they are (not accurate enough), and repaired noisy counts are biased
        themselves. ``value`` is the table's own and carries this; the interval of the bootstrap
        covers bias that grows with the noise's standard deviation or its square, and is wider
        than quantiles of the resamples (``details["percentile"]``), which carry the bias twice.
        """
        from privfair.fairness.aglfop._uncertainty import accuracy_estimate

        check_is_fitted(self, "p_")
        if self.cost is not None or self._client_weight is not None:
            self._check_resampled(method)
        asked = _Ruled(self) if self._by_rule else self
        return accuracy_estimate(
            asked, eps_global, eps_local, method=method, confidence=confidence,
            n_resamples=n_resamples, by_client=by_client, random_state=random_state,
        )  # fmt: skip

    def _check_resampled(self: Any, method: str) -> None:
        if method == "delta":
            raise InvalidParameterError(
                "method='delta' counts errors of all clients alike; with cost or client_weight "
                "pass method='bootstrap'."
            )
        if self.cost is not None and not (np.min(self.cost) >= 0.0 and np.max(self.cost) <= 1.0):
            raise InvalidParameterError(
                "cost must lie in [0, 1] for an interval of one minus the cost; scale it."
            )


class _Ruled:
    """A fitted model whose answers are rules, as intervals read it."""

    mode = "model"

    def __init__(self, model: Any) -> None:
        self._table, self._program = model._table, model._program
        self._program_of, self.privacy_ = model._program_of, model.privacy_
