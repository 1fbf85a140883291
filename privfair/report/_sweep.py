"""Trains one estimator at several epsilons, several times each, beside its non-private twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    PrivacyError,
)
from privfair.core.frames import as_vector
from privfair.core.privacy import NUMERICS, PrivacyGuarantee

__all__ = ["PrivacySweep", "SweepDecisions", "SweepRun", "privacy_sweep", "read_sweep"]

TWIN = math.inf


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One fitted model of a sweep.

    Attributes
    ----------
    epsilon : float
        What was asked for; infinite for the twin without privacy.
    run : int
        Number of the repetition; runs of one number start alike.
    model : estimator
        Fitted; holds no training rows.
    """

    epsilon: float
    run: int
    model: Any


@dataclass(frozen=True, eq=False)
class PrivacySweep:
    """Models at several epsilons and their twin without privacy: see :func:`privacy_sweep`.

    Attributes
    ----------
    runs : tuple of SweepRun
        The same repetitions for each epsilon.
    guarantee : PrivacyGuarantee or None
        Of all private models together; the twins have none.
    name : str
        Class of the estimator.
    training_rows : int
        Public number of rows that each was trained on.
    """

    runs: tuple[SweepRun, ...]
    guarantee: PrivacyGuarantee | None = None
    name: str = ""
    training_rows: int = 0
    _by_epsilon: dict[float, list[SweepRun]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        by: dict[float, list[SweepRun]] = {}
        for item in self.runs:
            if not isinstance(item, SweepRun):
                raise InvalidTypeError(f"runs must hold SweepRun, got {type(item).__name__}.")
        for item in sorted(self.runs, key=lambda r: (r.epsilon, r.run)):
            by.setdefault(item.epsilon, []).append(item)
        numbers = {tuple(r.run for r in runs) for runs in by.values()}
        if TWIN not in by or len(by) < 2 or len(numbers) != 1:
            raise InvalidParameterError(
                "a sweep needs the twin without privacy (epsilon = inf), at least one finite "
                "epsilon, and the same runs for each: changes are measured run by run."
            )
        object.__setattr__(self, "_by_epsilon", by)

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The finite epsilons in increasing order."""
        return tuple(e for e in self._by_epsilon if math.isfinite(e))

    @property
    def n_runs(self) -> int:
        """Repetitions of each."""
        return len(self._by_epsilon[TWIN])

    def at(self, epsilon: float) -> list[SweepRun]:
        """Return the runs at one epsilon, in order."""
        return self._by_epsilon[epsilon]


@dataclass(frozen=True, eq=False)
class SweepDecisions:
    """What the models of a sweep decide about the audited rows.

    Attributes
    ----------
    sweep : PrivacySweep
    decisions : dict of float to ndarray of bool, shape (n_runs, n_rows)
        Positive decisions, by epsilon.
    """

    sweep: PrivacySweep
    decisions: dict[float, NDArray[np.bool_]]


def read_sweep(
    sweep: Any, X: Any, positive: Any, n: int, config: Any, rows: str
) -> SweepDecisions | None:
    """Let the models of a sweep decide; refuse what would publish statistics of private rows."""
    if sweep is None:
        return None
    if not isinstance(sweep, PrivacySweep):
        raise InvalidTypeError(
            f"sweep must be a PrivacySweep, got {type(sweep).__name__}; "
            "privfair.report.privacy_sweep makes one."
        )
    if config.dp_report is not None:
        raise PrivacyError(
            "a sweep compares decisions row by row, and a report under differential privacy must "
            "not show that. Leave out one of sweep and dp_report."
        )
    if rows == "training" and not config.allow_raw_training_rows:
        raise PrivacyError(
            "the audited rows trained the models of the sweep: raw numbers about them would void "
            "every certificate. Audit held-out rows, or pass allow_raw_training_rows=True."
        )
    if X is None:
        raise InvalidTypeError("X is None, and the models of a sweep need it to predict.")
    found: dict[float, NDArray[np.bool_]] = {}
    for epsilon in (*sweep.epsilons, TWIN):
        made = []
        for item in sweep.at(epsilon):
            decided = as_vector(item.model.predict(X), name="decisions of the sweep")
            if len(decided) != n:
                raise LengthMismatchError(
                    f"a model of the sweep decided {len(decided)} rows of {n} audited ones."
                )
            made.append(np.asarray(decided == positive, dtype=bool))
        found[epsilon] = np.stack(made)
    return SweepDecisions(sweep, found)


def privacy_sweep(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    epsilons: Sequence[float] = (0.3, 1.0, 3.0),
    n_runs: int = 5,
    sensitive_features: Any = None,
    ledger: Any = None,
    random_state: int = 0,
    progress: Any = None,
) -> PrivacySweep:
    """Train an estimator at several epsilons and without privacy, several times each.

    What :func:`privfair.report.audit` needs to show whom privacy costs what.

    Parameters
    ----------
    estimator : estimator
        With the parameters ``epsilon`` and ``random_state``, such as ``DPClassifier``; cloned,
        not fitted.
    X : array-like or data frame, shape (n_rows, n_features)
    y : array-like, shape (n_rows,)
        Training rows; audit others.
    epsilons : sequence of float, default=(0.3, 1.0, 3.0)
        Finite and above 0, each once.
    n_runs : int, default=5
        Repetitions of each, at least 2: one run cannot tell what privacy does from what luck
        does.
    sensitive_features : array-like, shape (n_rows,), or None
        Handed to ``fit`` when given.
    ledger : Ledger or None
        Ledger of the training rows, without a cap; None takes the estimator's, or else the
        process's own.
    random_state : int, default=0
        Run k of every epsilon has ``random_state + k``. Noise stays secret.
    progress : callable or None
        Called with (fits done, fits in all).

    Returns
    -------
    PrivacySweep

    Raises
    ------
    PrivacyError
        The ledger has a cap: the twin's numbers are protected by nothing, and no capped ledger
        pays for them.
    InvalidParameterError, InvalidTypeError
        A setting out of its range, or an estimator without ``epsilon``.

    Notes
    -----
    (number of epsilons + 1) * n_runs fits.

    Privacy: every private fit charges its own epsilon to the ledger before it reads the rows, and
    ``guarantee`` states what they cost together. The twins' decisions are released without
    protection, which a ``NonPrivate`` entry per twin says. Whoever needs a certificate for these
    training rows must not publish a sweep of them.

    References
    ----------
    Bagdasaryan, Poursaeed, Shmatikov 2019, "Differential privacy has disparate impact on model
    accuracy", arXiv 1905.12101.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import Ledger
    >>> from privfair.dp import DPClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 3))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> sweep = privacy_sweep(DPClassifier(schema="as_is", epochs=2), X, y, epsilons=(1.0,),
    ...                       n_runs=2, ledger=Ledger())
    >>> sweep.epsilons, sweep.n_runs, sweep.guarantee.epsilon <= 2.0
    ((1.0,), 2, True)
    """
    from sklearn.base import clone

    from privfair.accounting import default_ledger

    wanted = _checked_epsilons(epsilons)
    n_runs = check.positive_int(n_runs=n_runs)
    if n_runs < 2:
        raise InvalidParameterError(
            f"n_runs must be at least 2, got {n_runs}: with one run, what privacy does cannot be "
            "told from what luck does. 5 is the default."
        )
    seed = check.non_negative_int(random_state=random_state)
    known = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    absent = [name for name in ("epsilon", "random_state") if name not in known]
    if absent:
        raise InvalidTypeError(
            f"the estimator needs the parameters epsilon and random_state, and has no "
            f"{' and no '.join(absent)}: {type(estimator).__name__}."
        )
    book = known.get("ledger") if ledger is None else ledger
    if getattr(book, "cap", None) is not None:
        raise PrivacyError(
            "the ledger has a cap, and a sweep publishes the decisions of models without privacy, "
            "which no cap covers. Sweep on rows that are public or that were given up, with a "
            "ledger of their own."
        )
    if book is None:  # named, since a fit without privacy writes into a ledger that is named only
        book = default_ledger(
            unit=known.get("unit", "record"), neighboring=known.get("neighboring", "zero_out")
        )
    options = {"ledger": book} if "ledger" in known else {}
    more = {} if sensitive_features is None else {"sensitive_features": sensitive_features}
    total, runs = (len(wanted) + 1) * n_runs, []
    for k in range(n_runs):
        for epsilon in (*wanted, TWIN):
            model = clone(estimator).set_params(epsilon=epsilon, random_state=seed + k, **options)
            runs.append(SweepRun(epsilon, k, model.fit(X, y, **more)))
            if progress is not None:
                progress(len(runs), total)
    return PrivacySweep(
        tuple(runs),
        _together(runs),
        type(estimator).__name__,
        len(X) if hasattr(X, "__len__") else 0,
    )


def _checked_epsilons(epsilons: Any) -> tuple[float, ...]:
    if isinstance(epsilons, str) or not hasattr(epsilons, "__iter__"):
        raise InvalidTypeError("epsilons must be a sequence of numbers.")
    values = tuple(sorted(check.epsilon(epsilons=e) for e in epsilons))
    if not values or len(set(values)) != len(values):
        raise InvalidParameterError(
            f"epsilons must hold at least one value, each once; got {len(values)} values. The "
            "twin without privacy is always trained and is not named here."
        )
    return values


def _together(runs: list[SweepRun]) -> PrivacyGuarantee | None:
    """Return the guarantee of all private models together, if all are certified."""
    from privfair.accounting import guarantee

    private = [r.model for r in runs if math.isfinite(r.epsilon)]
    promises: list[PrivacyGuarantee] = [m.privacy_ for m in private if hasattr(m, "privacy_")]
    if len(promises) < len(private) or any(p.unsafe or not p.events for p in promises):
        return None
    first = promises[0]
    # One joint computation: composing one by one would do it as often as there are models.
    total: PrivacyGuarantee = guarantee(
        [event for p in promises for event in p.events],
        delta=min(math.fsum(p.delta for p in promises), 0.5),
        unit=first.unit,
        neighboring=first.neighboring,
        numerics=max((p.numerics for p in promises), key=NUMERICS.index),
        seeded=any(p.seeded for p in promises),
        assumptions=tuple(dict.fromkeys(a for p in promises for a in p.assumptions)),
    )
    return total
