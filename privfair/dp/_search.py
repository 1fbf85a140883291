"""Choosing hyper-parameters under the same guarantee as the model that comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_regressor
from sklearn.model_selection import ParameterGrid
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils.validation import check_is_fitted

from privfair.accounting import Ledger, default_ledger, guarantee
from privfair.accounting import events as ev
from privfair.core import _validation as check
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.core.frames import as_vector, check_aligned
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.randomness import SecretStream, check_random_state, secret_stream
from privfair.core.schema import Schema
from privfair.mechanisms import DiscreteGaussianMechanism

__all__ = ["DPGridSearchCV"]

_ONE_FIT = "this guarantee is about this fit alone"  # of a run's certificate, not of the whole
_STEPS = 1_000  # of a regression's bounded score
_SET_HERE = {
    "epsilon", "delta", "n_public", "neighboring", "unit", "ledger", "allow_weak",
    "allow_idealized", "noise_random_state", "preprocessing_share", "fairness_share",
}  # fmt: skip


class DPGridSearchCV(PrivateEstimatorMixin, MetaEstimatorMixin, BaseEstimator):
    """Choose among settings of a private estimator, and pay for the choice.

    A fixed part of the rows, by position, is for validation. One run fits the estimator on the
    other rows and counts how many validation rows it gets right, with exact discrete Gaussian
    noise. With ``method="repeat_and_select"`` a secret random number of runs is made, each with a
    setting drawn at random, and only the best run is released: its model and its noisy score.
    That costs a small multiple of one run however many settings there are. With
    ``method="composition"`` every setting is run once and everything may be released.

    Parameters
    ----------
    estimator : DPClassifier or DPRegressor
        Cloned for every run; its epsilon, delta and ledger are set by the search.
    param_grid : mapping or sequence of mappings
        As in scikit-learn. All settings must cost the same, so that parameters which change the
        noise of a run (``batch_size``, ``epochs``, whether a schema is learnt) cannot vary.
    epsilon : float, default=1.0
        Privacy of the whole search and of the model that comes out, above 0, at most 20.
    delta : float or "auto", default="auto"
        ``"auto"`` is the largest power of ten that is at most 1 / (10 n_rows).
    method : {"repeat_and_select", "composition"}, default="repeat_and_select"
        How the choice is paid for.
    mean_runs : float or "auto", default="auto"
        Mean number of runs, at least 1, of the first method; ``"auto"`` is the number of settings.
    shape : float, default=1.0
        Shape of the truncated negative binomial law of that number, at least 0; 1 is the
        geometric law, 0 the logarithmic one.
    validation_fraction : float, default=0.2
        In (0, 1).
    ledger : Ledger or None, default=None
        Charged once, for everything, before the data are read.
    random_state : int, Generator, RandomState or None, default=None
        Seeds which positions are for validation, and the initial weights, the same for all runs.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: the guarantee is then ``seeded`` and not certified.

    Attributes
    ----------
    privacy_ : PrivacyGuarantee
        Of everything that the search releases.
    best_estimator_ : estimator
        The best run's model, trained on the rows that are not for validation. Its ``privacy_`` is
        that of the search.
    best_params_ : dict
    best_score_ : float
        Noisy share of validation rows that were right (for a regressor, one minus the noisy
        mean squared error in units of the squared ``target_range``).
    best_index_ : int
    cv_results_ : dict
        ``params``, and ``noisy_score`` with None for what was not released.
    run_epsilon_ : float
        The epsilon that each run's fit was given.

    Raises
    ------
    InvalidParameterError
        A parameter is out of range, or the grid sets one that belongs to the search.
    AccountingAssumptionError
        Settings cost differently, the relation is not ``zero_out``, or there is a fairness
        penalty, which a score of correct predictions would always vote down.

    Notes
    -----
    *Algorithm.* The epsilon of a run is found by bisection, so that the whole search certifies at
    most ``epsilon``. O(mean_runs) fits.

    *Privacy.* Unit: one row. Relation: ``zero_out`` (positions and the number of rows are
    public). Seen by the adversary: the best run (or all, under composition); not the number of
    runs, nor the others' settings and scores. Fit and score of a run use disjoint rows and are
    composed in parallel; runs by the theorem of Papernot and Steinke (2022) on the selection
    of the best of a random number of runs, or in sequence. The running time shows how many runs
    were made and must not be published.

    References
    ----------
    Papernot, Steinke, "Hyperparameter Tuning with Renyi Differential Privacy", 2022,
    arXiv:2110.03620. Liu, Talwar, 2019, arXiv:1811.07971.

    Examples
    --------
    >>> from privfair.accounting import Ledger
    >>> from privfair.dp import DPClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2000, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> search = DPGridSearchCV(
    ...     DPClassifier(schema="as_is", epochs=3), {"lr": [1e-6, 0.1]}, epsilon=2.0,
    ...     ledger=Ledger(), mean_runs=4,
    ... ).fit(X, y)
    >>> search.privacy_.epsilon <= 2.0, search.privacy_.certified
    (True, True)
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        epsilon: float = 1.0,
        delta: float | str = "auto",
        method: str = "repeat_and_select",
        mean_runs: float | str = "auto",
        shape: float = 1.0,
        validation_fraction: float = 0.2,
        ledger: Any = None,
        random_state: Any = None,
        noise_random_state: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.epsilon = epsilon
        self.delta = delta
        self.method = method
        self.mean_runs = mean_runs
        self.shape = shape
        self.validation_fraction = validation_fraction
        self.ledger = ledger
        self.random_state = random_state
        self.noise_random_state = noise_random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Search, having charged the ledger for all of it first.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,)
        """
        candidates = self._check()
        n_rows = check_aligned(X=X, y=y)
        delta = 10.0 ** -len(str(10 * n_rows - 1)) if self.delta == "auto" else self.delta
        delta = check.delta(delta=delta)
        check.strong_enough(self.epsilon, delta, n_rows)
        rng = check_random_state(self.random_state)
        order = rng.permutation(n_rows)
        held = max(1, round(self.validation_fraction * n_rows))
        if n_rows - held < 1:
            raise InvalidParameterError(f"{n_rows} rows leave none to fit on.")
        train, test = np.sort(order[held:]), np.sort(order[:held])
        start = int(rng.integers(2**31))  # of every run: a seed of its own would number it
        X_train = take_rows(X, train)
        event, run_epsilon, run_delta, sigma = self._price(candidates, X_train, delta)
        stream = secret_stream(self.noise_random_state)
        ledger = default_ledger() if self.ledger is None else self.ledger
        with ledger.spend(
            event,
            purpose="hyper-parameter search",
            label=type(self.estimator).__name__,
            delta=delta,
            neighboring="zero_out",
            null_ignored=True,
            unit="record",
            numerics="hardened",
            seeded=stream.seeded,
        ):
            fitting = X_train, take_rows(y, train)
            held_out = take_rows(X, test), take_rows(y, test)
            best, scores = self._search(
                candidates, fitting, held_out, run_epsilon, run_delta, sigma, stream, start
            )
        charges = f"its ledger holds {len(ledger)} charges against the same data"
        self._release(best, scores, candidates, event, delta, run_epsilon, stream.seeded, charges)
        return self

    # -- before the data -------------------------------------------------------------------
    def _check(self) -> list[dict[str, Any]]:
        check.epsilon(epsilon=self.epsilon)
        check.one_of(("repeat_and_select", "composition"), method=self.method)
        check.non_negative(shape=self.shape)
        fraction = check.real(validation_fraction=self.validation_fraction)
        if not 0 < fraction < 1:
            raise InvalidParameterError(f"validation_fraction must be in (0, 1), got {fraction}.")
        if self.mean_runs != "auto" and check.positive(mean_runs=self.mean_runs) < 1:
            raise InvalidParameterError(f"mean_runs must be at least 1, got {self.mean_runs}.")
        candidates = [dict(params) for params in ParameterGrid(self.param_grid)]
        taken = sorted({name for params in candidates for name in params} & _SET_HERE)
        if taken:
            raise InvalidParameterError(
                f"param_grid must not set {taken}: the search's own privacy follows from them. "
                "Set them on the search or on the estimator."
            )
        if self.estimator.neighboring != "zero_out" or self.estimator.unit != "record":
            raise AccountingAssumptionError(
                "the search splits rows by position, which is public under "
                "neighboring='zero_out' and unit='record' only."
            )
        runs = (self._one(params, 1.0, 0.5) for params in candidates)
        if any(run._penalty() is not None for run in runs if hasattr(run, "_penalty")):
            raise AccountingAssumptionError(
                "a search scores correct predictions only, and would choose whichever setting is "
                "the least fair: it takes no fairness penalty. Choose its strength on public rows."
            )
        return candidates

    def _mean(self, candidates: list[dict[str, Any]]) -> float:
        return float(len(candidates) if self.mean_runs == "auto" else self.mean_runs)

    def _one(self, params: dict[str, Any], epsilon: float, delta: float) -> Any:
        """Return an unfitted estimator for a run, whose price the search has charged."""
        made = clone(self.estimator).set_params(**params)
        own = Ledger(dataset_id="inside a search")
        if hasattr(made, "verbose"):
            made.verbose = 0  # progress would show how many runs there are
        return made.set_params(epsilon=epsilon, delta=delta, ledger=own, n_public=None)

    def _price(
        self, candidates: list[dict[str, Any]], X: Any, delta: float
    ) -> tuple[Any, float, float, float]:
        """Return the event of the search and what a run gets, by bisection on its epsilon."""
        runs = self._mean(candidates) if self.method == "repeat_and_select" else len(candidates)
        run_delta = delta / (4.0 * runs)

        def whole(epsilon: float) -> tuple[Any, float]:
            sigma = 2.0 * math.sqrt(2.0 * math.log(1.25 / run_delta)) / epsilon
            sigma = math.ceil(1024 * sigma) / 1024  # times 1,000 without rounding
            charged = self._one(candidates[0], epsilon, run_delta).cost(X)
            return self._event(charged, sigma, len(candidates), runs), sigma

        low, high = self.epsilon / (8.0 * runs + 8.0), min(self.epsilon, check.MAX_EPSILON)
        for _ in range(7):
            middle = math.sqrt(low * high)
            total = guarantee((whole(middle)[0],), delta=delta, neighboring="zero_out")
            low, high = (middle, high) if total.epsilon <= self.epsilon else (low, middle)
        event, sigma = whole(low)
        total = guarantee((event,), delta=delta, neighboring="zero_out")
        if not total.epsilon <= self.epsilon:
            raise InvalidParameterError(
                f"epsilon = {self.epsilon:g} is too small for a search over {runs:g} runs. Use a "
                "larger one, or fewer settings or runs."
            )
        expected = self._one(candidates[0], low, run_delta).cost(X)
        for params in candidates[1:]:
            if self._one(params, low, run_delta).cost(X) != expected:
                raise AccountingAssumptionError(
                    "the settings of param_grid cost differently (batch_size, epochs, or what is "
                    "learnt, varies). A selection among them has one price only if every run "
                    "costs the same: search over lr, max_grad_norm, optimizer or the model."
                )
        return event, low, run_delta, sigma

    def _event(self, charged: tuple[Any, ...], sigma: float, settings: int, runs: float) -> Any:
        # A plain delta stands outside of the parallel part, which would add the parts up for it.
        plain = tuple(e for e in charged if isinstance(e, ev.ApproxDP))
        rest = tuple(e for e in charged if not isinstance(e, ev.ApproxDP))
        fit = rest[0] if len(rest) == 1 else ev.Composed(rest)
        run = ev.Composed((ev.Parallel((fit, ev.DiscreteGaussian(sigma))), *plain))
        if self.method == "composition":
            return ev.SelfComposed(run, settings)
        return ev.RepeatAndSelect(run, runs, float(self.shape))

    # -- the runs --------------------------------------------------------------------------
    def _search(
        self,
        candidates: list[dict[str, Any]],
        train: tuple[Any, Any],
        test: tuple[Any, Any],
        epsilon: float,
        delta: float,
        sigma: float,
        stream: SecretStream,
        start: int,
    ) -> tuple[tuple[int, float, Any], dict[int, float]]:
        """Return index, score and model of the best run, and the scores of all."""
        plan: list[int] = list(range(len(candidates)))
        if self.method == "repeat_and_select":
            uniform = int(stream.uint64(1)[0] >> np.uint64(11)) * 2.0**-53
            runs = ev.RepeatAndSelect(
                ev.PureDP(0.0), self._mean(candidates), float(self.shape)
            ).runs(uniform)
            plan = [_draw(len(candidates), stream) for _ in range(max(1, runs))]
        best: tuple[int, float, Any] | None = None
        scores: dict[int, float] = {}
        for index in plan:
            model = self._one(candidates[index], epsilon, delta)
            model.set_params(random_state=start)
            if stream.seeded:
                model.set_params(noise_random_state=int(stream.uint64(1)[0] >> np.uint64(2)))
            model.fit(*train)
            score = self._noisy_score(model, test, sigma, stream)
            scores[index] = score
            if best is None or score > best[1]:
                best = (index, score, model)
        assert best is not None
        return best, scores

    def _noisy_score(
        self, model: Any, test: tuple[Any, Any], sigma: float, stream: SecretStream
    ) -> float:
        answers, y = np.asarray(model.predict(test[0])), as_vector(test[1], name="y")
        if is_regressor(model):
            low, high = model.target_range_
            loss = np.clip((np.clip(y, low, high) - answers) / (high - low), -1, 1) ** 2
            right, unit = np.rint(_STEPS * (1.0 - loss)).astype(np.int64), _STEPS
        else:
            right, unit = (answers == y).astype(np.int64), 1
        seed = int(stream.uint64(1)[0] >> np.uint64(2)) if stream.seeded else None
        noise = DiscreteGaussianMechanism(sigma * unit, unit, noise_random_state=seed)
        return float(noise.release(int(right.sum()))) / (unit * len(y))

    # -- what comes out --------------------------------------------------------------------
    def _release(
        self,
        best: tuple[int, float, Any],
        scores: dict[int, float],
        candidates: list[dict[str, Any]],
        event: Any,
        delta: float,
        run_epsilon: float,
        seeded: bool,
        charges: str,
    ) -> None:
        index, score, model = best
        notes = tuple(note for note in model.privacy_.assumptions if not note.startswith(_ONE_FIT))
        found: PrivacyGuarantee = guarantee(
            (event,),
            delta=delta,
            neighboring="zero_out",
            unit="record",
            numerics="hardened",
            seeded=seeded,
            assumptions=(
                *notes,
                "rows were split into fitting and validation by their public positions",
                f"this guarantee is about this search alone; {charges}",
            ),
        )
        for origin in self._origins(candidates):
            found = found.compose(origin)
        self.privacy_ = found
        model.privacy_, model.events_, model.ledger = found, found.events, self.ledger
        if hasattr(model, "verbose"):
            model.verbose = self.estimator.verbose
        self.best_estimator_, self.best_index_, self.best_score_ = model, index, score
        self.best_params_ = candidates[index]
        self.run_epsilon_ = run_epsilon
        everything = self.method == "composition"
        self.cv_results_ = {
            "params": candidates,
            "noisy_score": [
                scores[at] if everything else (score if at == index else None)
                for at in range(len(candidates))
            ],
        }

    def _origins(self, candidates: list[dict[str, Any]]) -> list[PrivacyGuarantee]:
        """Return what learning the settings' schemas cost before, each once."""
        found: list[PrivacyGuarantee] = []
        for params in candidates:
            schema = params.get("schema", self.estimator.schema)
            origin = schema.origin if isinstance(schema, Schema) else None
            if origin is not None and origin not in found:
                found.append(origin)
        return found

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the best model's predictions."""
        check_is_fitted(self, "best_estimator_")
        predicted: NDArray[Any] = self.best_estimator_.predict(X)
        return predicted

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the best classifier's probabilities."""
        check_is_fitted(self, "best_estimator_")
        found: NDArray[np.float64] = self.best_estimator_.predict_proba(X)
        return found

    def score(self, X: Any, y: Any) -> float:
        """Return the best model's own score on other rows; not private for those."""
        check_is_fitted(self, "best_estimator_")
        return float(self.best_estimator_.score(X, y))


def _draw(n: int, stream: SecretStream) -> int:
    """Return an integer below n, each with the same probability."""
    limit = (1 << 64) // n * n
    while True:
        word = int(stream.uint64(1)[0])
        if word < limit:
            return word % n
