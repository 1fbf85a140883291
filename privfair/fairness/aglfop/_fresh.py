"""From fresh rows to the estimates of what a fitted rule achieves on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.events import LedgerLike
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.privacy import Budget
from privfair.core.randomness import check_random_state
from privfair.core.statistics import multinomial_resamples, normal_critical
from privfair.fairness._contingency import ContingencyRelease
from privfair.fairness.aglfop._certify import accuracy_of_release, rule_estimates
from privfair.fairness.aglfop._fit import released
from privfair.fairness.aglfop._rows import as_rows, bin_codes, known_clients, known_groups
from privfair.fairness.aglfop._scores import client_codes, client_list, label_codes
from privfair.fairness.metrics._inputs import check_rows

__all__ = ["MeasuredMixin", "assess", "certify"]

Array = NDArray[np.float64]


class MeasuredMixin:
    """What a fitted rule achieves, on fresh rows and on its own table."""

    def certify(
        self,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        client: Any = None,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        random_state: Any = None,
        privacy: Budget | None = None,
        ledger: LedgerLike | None = None,
    ) -> list[Estimate]:
        """Measure the rule on rows that it was not made from, with intervals.

        Parameters
        ----------
        X, y : array-like
            Fresh rows and their labels.
        sensitive_features, client : array-like or None
            Groups, always needed; clients, None for one.
        confidence : float, default=0.95
        n_resamples : int, default=2000
        random_state : int or None
        privacy : Budget or None, default=None
            Release the fresh rows' table under this budget; the intervals then cover its noise.
        ledger : Ledger or None

        Returns
        -------
        list of Estimate
            ``accuracy``; ``information_global``, ``information_local`` and those of single
            clients, in bits; ``gap_...``, the largest differences of rates. Where there is a
            bound, ``details["verdict"]`` says whether the interval is ``within`` it, has
            ``exceeded`` it, or leaves it ``undecided``.

        Notes
        -----
        Expectations over the rule's own draws: the intervals cover the sampling of rows, and
        the noise of ``privacy``.
        """
        check_is_fitted(self, "rule_")
        return certify(
            self, X, y, sensitive_features, client, confidence=confidence,
            n_resamples=n_resamples, random_state=random_state, privacy=privacy, ledger=ledger,
        )  # fmt: skip

    def assess(
        self, *, confidence: float = 0.95, n_resamples: int = 2000, random_state: Any = None
    ) -> list[Estimate]:
        """Measure the rule on the table that it was made from, with intervals.

        Parameters
        ----------
        confidence : float, default=0.95
        n_resamples : int, default=2000
        random_state : int or None

        Returns
        -------
        list of Estimate
            As by :meth:`certify`. Optimistic: the rule was chosen on these rows.

        Notes
        -----
        *Privacy.* With ``privacy`` post-processing of ``release_``: tables are resampled through
        sampling and noise, so that the intervals cover both, and nothing more is charged.
        """
        check_is_fitted(self, "rule_")
        return assess(
            self, confidence=confidence, n_resamples=n_resamples, random_state=random_state
        )


def certify(
    model: Any,
    X: Any,
    y: Any,
    sensitive_features: Any,
    client: Any,
    *,
    confidence: float,
    n_resamples: int,
    random_state: Any,
    privacy: Any,
    ledger: Any,
) -> list[Estimate]:
    """Measure a fitted rule on fresh rows."""
    level = check.confidence(confidence=confidence)
    number = check.positive_int(n_resamples=n_resamples)
    rng = check_random_state(random_state)
    X, y = as_rows(X), as_rows(y)
    n = check_rows(X=X, y=y, sensitive_features=sensitive_features, client=client)
    z = known_groups(model, sensitive_features)
    if client is None and len(model.clients_) > 1:
        raise DataError("client is None, and the rule was fitted for several clients.")
    clients, rule = model.clients_, model.rule_
    s = client_codes(client, clients, n)
    if (s < 0).any():
        known_clients(model, client, n)  # an error, unless unseen clients are pooled
        if privacy is not None:
            raise DataError("client has clients that were not declared; nothing was charged.")
        new = [c for c in client_list(client, None, n) if c not in clients]
        clients = (*clients, *new)
        rule = np.concatenate([rule, *([model.pooled_rule_[:, None]] * len(new))], axis=1)
        s = client_codes(client, clients, n)
    labels = label_codes(y, model.classes_, "y")
    codes = (z, s, labels, bin_codes(model, X))
    shape = (rule.shape[0], rule.shape[1], model.classes_.size, rule.shape[2])
    draws: Callable[[int], Array]
    release: ContingencyRelease | None = None
    if privacy is None:
        counts = np.bincount(np.ravel_multi_index(codes, shape), minlength=math.prod(shape))
        p = counts.reshape(shape) / n

        def draws(size: int) -> Array:
            return multinomial_resamples(counts.reshape(shape), size, rng) / n
    else:
        release = released(codes, shape, privacy, ledger, model.noise_random_state,
                            "AGLFOP post-processing: certificate")  # fmt: skip
        p, table = release.probabilities(), release

        def draws(size: int) -> Array:
            return np.asarray(table.resample(rng, size))

    names = _client_names(clients)
    found = rule_estimates(
        p, draws, rule, model._bounds, model._positive, n=n, confidence=level,
        n_resamples=number, labels=names,
        privacy=None if release is None else release.privacy, release=release,
    )  # fmt: skip
    return [_accuracy(found[0], p, n, rule, release, level), *found[1:]]


def assess(
    model: Any, *, confidence: float, n_resamples: int, random_state: Any
) -> list[Estimate]:
    """Measure a fitted rule on the table that it was made from."""
    level = check.confidence(confidence=confidence)
    number = check.positive_int(n_resamples=n_resamples)
    rng = check_random_state(random_state)
    table, release = model._table, model.release_
    if table is None:
        raise InvalidParameterError(
            "the table of the fit is not in the file that this rule was loaded from. Measure the "
            "rule on fresh rows: certify(X, y, ...)."
        )
    if model._weighted:
        raise InvalidParameterError(
            "the fit had sample_weight, and rows with weights cannot be resampled from their "
            "table. Measure the rule on fresh rows: certify(X, y, ...)."
        )

    def draws(size: int) -> Array:
        if release is not None:
            return np.asarray(release.resample(rng, size))
        drawn = rng.multinomial(model.n_fit_, table.ravel() / table.sum(), size=size)
        return np.asarray(drawn.reshape(size, *table.shape) / model.n_fit_)

    found = rule_estimates(
        table, draws, model.rule_, model._bounds, model._positive, n=model.n_fit_,
        confidence=level, n_resamples=number, labels=_client_names(model.clients_),
        privacy=None if release is None else model.privacy_, release=release,
    )  # fmt: skip
    found[0] = _accuracy(found[0], table, model.n_fit_, model.rule_, release, level)
    if release is not None:
        found[0] = replace(found[0], privacy=model.privacy_)
    return [replace(e, details=e.details | {"in_sample": True}) for e in found]


def _accuracy(
    found: Estimate,
    p: Array,
    n: int,
    rule: Array,
    release: ContingencyRelease | None,
    level: float,
) -> Estimate:
    """Return the accuracy with an interval in closed form: it is linear in the counts.

    Quantiles of resamples would add the resamples' own chance to it.
    """
    if release is not None:
        return accuracy_of_release(release, rule, confidence=level, privacy=release.privacy)
    score = rule.transpose(0, 1, 3, 2)  # of a row of cell (z, s, y, r): W(y | z, s, r)
    value = float((p * score).sum())
    variance = float((p * (score - value) ** 2).sum()) / n
    # Few rows that were all decided rightly prove little: never below the error of one row.
    half = normal_critical(level) * math.sqrt(max(variance, 1.0 / (n + 2.0) ** 2))
    return replace(
        found, value=value, low=max(0.0, value - half), high=min(1.0, value + half),
        method="normal interval of the expected accuracy of the randomised rule",
    )  # fmt: skip


def _client_names(clients: tuple[Any, ...]) -> dict[str, str]:
    return {
        f"{kind}_client:{i}": f"{kind}_client:{c}"
        for kind in ("information", "gap")
        for i, c in enumerate(clients)
    }
