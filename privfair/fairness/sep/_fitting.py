"""How SEPClassifier trains: its checks, its three methods, and what it notes about a fit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import clone

from privfair.core import _validation as check
from privfair.core.exceptions import (
    ConvergenceError,
    InvalidParameterError,
    InvalidTypeError,
    UtilityWarning,
)
from privfair.core.randomness import check_random_state
from privfair.fairness.sep._auglag import refit_threshold, train, unconstrained
from privfair.fairness.sep._constraints import CellConstraints, Constraints, target_matrix
from privfair.fairness.sep._gaps import frame_of, gap_table
from privfair.fairness.sep._minibatch import Batches, train_in_batches
from privfair.fairness.sep._network import Network
from privfair.fairness.sep._post import ThresholdMix, atoms, fit_thresholds, mixed_decisions
from privfair.fairness.sep._sets import REFERENCES, CellSums, Sets, read_sets

__all__ = ["SEPTraining"]

Floats = NDArray[np.float64]
NOTIONS = ("SEP", "CSEP")
METHODS = ("auglag", "reductions", "post")
_PER_SET = 20
"""Rows that a batch should have of the smallest set."""
_WARM = 5
"""Rounds of steps for the unconstrained model, where training is in batches."""
CONSTRAIN = ("soft", "hard_surrogate", "post")


class SEPTraining:
    """The methods of :class:`SEPClassifier` that train; its parameters are described there."""

    estimator: Any
    notion: str
    ses: Any
    effort: Any
    tolerance: float
    one_sided: bool
    method: str
    constrain: str
    no_leveling_down: bool
    margin: float
    reference: str
    protected: str
    hidden_layer_sizes: tuple[int, ...]
    alpha: float
    solver: str
    max_iter: int
    learning_rate: float
    batch_size: int | None
    max_rounds: int
    tol: float
    min_group: int
    min_accuracy: float | None
    max_selection_change: float | None
    label_columns: Any
    random_state: Any
    classes_: NDArray[Any]
    model_: Any
    mixes_: dict[int, ThresholdMix] | None
    threshold_: float

    def _check_parameters(self) -> None:
        check.one_of(NOTIONS, notion=self.notion)
        check.one_of(METHODS, method=self.method)
        check.one_of(CONSTRAIN, constrain=self.constrain)
        check.one_of(REFERENCES, reference=self.reference)
        check.one_of(("groups", "all"), protected=self.protected)
        check.one_of(("lbfgs", "adam"), solver=self.solver)
        check.non_negative(tolerance=self.tolerance)
        check.boolean(one_sided=self.one_sided)
        check.boolean(no_leveling_down=self.no_leveling_down)
        check.non_negative(margin=self.margin)
        check.non_negative(alpha=self.alpha)
        check.positive(learning_rate=self.learning_rate)
        if self.batch_size is not None:
            check.positive_int(batch_size=self.batch_size)
            if self.method != "auglag" or self.solver != "adam":
                raise InvalidParameterError(
                    "batch_size was given, and only method='auglag' with solver='adam' trains in "
                    "batches. Set these, or leave batch_size out."
                )
        check.positive(tol=self.tol)
        check.positive_int(max_iter=self.max_iter)
        check.positive_int(max_rounds=self.max_rounds)
        check.non_negative_int(min_group=self.min_group)
        if not isinstance(self.hidden_layer_sizes, tuple | list):
            raise InvalidTypeError(
                "hidden_layer_sizes must be a tuple of widths, such as (16,); got "
                f"{type(self.hidden_layer_sizes).__name__}."
            )
        for size in self.hidden_layer_sizes:
            check.positive_int(hidden_layer_sizes=size)
        for name in ("min_accuracy", "max_selection_change"):
            if getattr(self, name) is not None:
                check.probability(**{name: getattr(self, name)})
        if self.method == "auglag" and self.estimator is not None:
            raise InvalidParameterError(
                "estimator was given, and method='auglag' trains a differentiable model of its "
                "own. Use method='reductions' or 'post' for it, or hidden_layer_sizes."
            )
        if self.method != "auglag" and self.constrain != "soft":
            raise InvalidParameterError(
                f"constrain={self.constrain!r} is about method='auglag'; {self.method!r} limits "
                "randomised decisions. Leave constrain out."
            )
        if self.notion == "SEP" and self.effort is not None:
            raise InvalidParameterError(
                "effort was given, and notion='SEP' has no condition on it. Use notion='CSEP'."
            )

    def _sets(
        self, sensitive: Any, ses_features: Any, effort_features: Any, rows: Any, **more: Any
    ) -> Sets:
        condition = None
        if self.notion == "CSEP":
            condition = self.effort if self.effort is not None else effort_features
            if condition is None:
                raise InvalidParameterError(
                    "notion='CSEP' needs effort=EffortRule(...), or effort_features in fit."
                )
        return read_sets(
            sensitive, more.pop("ses", self.ses), effort=more.pop("effort", condition),
            ses_features=ses_features, effort_features=effort_features, reference=self.reference,
            everyone=self.protected == "all", label_columns=self.label_columns, rows=rows,
            y_true=more.pop("y_true", rows), **more,
        )  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        return {
            "alpha": float(self.alpha),
            "solver": self.solver,
            "learning_rate": float(self.learning_rate),
        }

    def _own_model(self, X: Floats, y: Floats, mass: Floats) -> tuple[Network, Floats, Floats]:
        """Return the network, the standardised table and unconstrained parameters."""
        network = Network.of(X, tuple(self.hidden_layer_sizes), mass)
        Z = network.prepare(X)
        start = network.start(check_random_state(self.random_state))
        theta, self.n_iter_ = unconstrained(
            network, Z, y, mass, theta=start, max_iter=10 * self.max_iter, **self._settings()
        )
        return network, Z, theta

    def _batches(self, X: Floats, y: Floats, sets: Sets, mass: Floats) -> tuple[Batches, Floats]:
        """Return the rows in batches and unconstrained parameters."""
        size = int(self.batch_size or len(X))
        some = mass > 0
        least = min(int((rows & some).sum()) for rows in (sets.in_reference, *sets.targets()))
        parts = -(-len(X) // size)
        if least < _PER_SET * parts:
            warnings.warn(
                f"batch_size={size} leaves the smallest set {least / parts:.1f} rows of a batch, "
                "so that its gap is mostly noise there. Take at least "
                f"{-(-len(X) // max(least // _PER_SET, 1))}.",
                UtilityWarning,
                stacklevel=5,
            )
        rng = check_random_state(self.random_state)
        steps = max(int(self.max_iter), parts)
        network = Network.of(X, tuple(self.hidden_layer_sizes), mass)
        batches = Batches(
            network, X, y, mass / mass.sum(), size, float(self.alpha), float(self.learning_rate),
            steps, rng,
        )  # fmt: skip
        theta = batches.unconstrained(network.start(rng), _WARM)
        self.n_iter_ = _WARM * batches.steps
        return batches, theta

    def _floor(self, sets: Sets, mass: Floats, h: Floats) -> Floats | None:
        import pandas as pd

        rates = np.asarray(target_matrix(sets, mass) @ h)
        self.base_rates_ = pd.Series(
            rates if self.no_leveling_down else [],
            index=sets.names if self.no_leveling_down else [],
            dtype=float,
        )
        return rates if self.no_leveling_down else None

    def _fit_auglag(self, X: Floats, y: Floats, sets: Sets, mass: Floats) -> None:
        hard = self.constrain == "hard_surrogate"
        limits: dict[str, Any] = {"tolerance": self.tolerance, "one_sided": self.one_sided}
        ends: dict[str, Any] = {
            "hard": hard, "threshold": 0.5, "max_rounds": self.max_rounds, "tol": float(self.tol)
        }  # fmt: skip

        def floored(base: Floats) -> Floats | None:
            self._base_selection = float(np.average(base >= 0.5, weights=mass))
            return self._floor(sets, mass, (base >= 0.5).astype(float) if hard else base)

        constraints: Constraints | CellConstraints
        if self.batch_size is not None and self.batch_size < len(X):
            batches, theta = self._batches(X, y, sets, mass)
            network = batches.network
            base = network.scores(theta, X)
            constraints = CellConstraints.build(sets, mass, floor=floored(base), **limits)
            found = train_in_batches(batches, constraints, theta=theta, **ends)
        else:
            network, Z, theta = self._own_model(X, y, mass)
            base = expit(network.logits(theta, Z)[0])
            constraints = Constraints.build(sets, mass, floor=floored(base), **limits)
            found = train(
                network, Z, y, mass, constraints, theta=theta, max_iter=self.max_iter, **ends,
                **self._settings(),
            )  # fmt: skip
        self.network_, self.model_ = network, found.theta
        self.n_rounds_, self.converged_ = found.n_rounds, found.converged
        self.n_iter_ += found.n_iter
        self._note(constraints.names, found.multipliers, found.violation)
        if not found.converged:
            worst = self.violations_[self.violations_ > self.tol].round(4).to_dict()
            what = f"these constraints were still broken by {worst}"
            if not worst:
                what = "no constraint was broken, and prices had not come to rest"
            warnings.warn(
                f"after {found.n_rounds} rounds {what}. Raise max_rounds, max_iter or tolerance.",
                UtilityWarning,
                stacklevel=3,
            )
        scores = network.scores(found.theta, X)
        if hard:
            self.threshold_ = refit_threshold(
                scores, y, mass, constraints, found.multipliers, slack=float(self.tol)
            )
        elif self.constrain == "post":
            self._mix(scores, base >= 0.5, y, sets, mass)

    def _fit_post(self, X: Floats, y: Floats, sets: Sets, mass: Floats) -> None:
        if self.estimator is None:
            self.network_, Z, self.model_ = self._own_model(X, y, mass)
            scores = expit(self.network_.logits(self.model_, Z)[0])
        else:
            plain = bool((mass == 1).all())
            self.model_ = clone(self.estimator)
            names = self.classes_[y.astype(int)]
            self.model_.fit(X, names, **({} if plain else {"sample_weight": mass}))
            scores = np.asarray(self.model_.predict_proba(X)[:, 1], dtype=float)
        self._base_selection = float(np.average(scores >= 0.5, weights=mass))
        self.n_rounds_, self.converged_ = 1, True
        self.n_iter_ = getattr(self, "n_iter_", 1) if self.estimator is None else 1
        self._mix(scores, scores >= 0.5, y, sets, mass)

    def _mix(self, scores: Floats, base: Any, y: Floats, sets: Sets, mass: Floats) -> None:
        floor = self._floor(sets, mass, np.asarray(base, dtype=float))
        limits: dict[str, Any] = {"tolerance": self.tolerance, "one_sided": self.one_sided}
        constraints = Constraints.build(sets, mass, floor=floor, **limits)
        part = atoms(sets)
        mixes, prices, _ = fit_thresholds(scores, y, mass, sets, floor=floor, **limits)
        h = mixed_decisions(mixes, scores, part)
        if self.margin > 0 and self.tolerance > 0:
            # On new rows gaps scatter around those of the training rows, which obey exactly.
            se = np.nan_to_num(gap_table(CellSums.of(sets, h, mass), sets, 0).se)
            limits["tolerance"] = np.maximum(self.tolerance - self.margin * se, 0.0)
            mixes, prices, _ = fit_thresholds(scores, y, mass, sets, floor=floor, **limits)
            h = mixed_decisions(mixes, scores, part)
        self.mixes_ = mixes
        self._note(constraints.names, prices, constraints.violation(h))

    def _fit_reduction(
        self,
        X: Floats,
        y: NDArray[np.int64],
        sets: Sets,
        mass: Floats,
        weight: Floats | None,
        attributes: dict[str, Any],
    ) -> None:
        from privfair.fairness.sep._reduce import base_learner, reduce

        if weight is not None:
            raise InvalidParameterError(
                "sample_weight is not supported by method='reductions': the reduction makes "
                "weights of its own. Use method='auglag', or leave the weights out."
            )
        learner, weight_name = base_learner(self.estimator)
        base = clone(learner).fit(X, y).predict(X)
        self._base_selection = float(base.mean())
        floor = self._floor(sets, mass, base.astype(float))
        moment: dict[str, Any] = {
            "ses": sets.ses_rule if sets.ses_rule is not None else self.ses,
            "effort": sets.effort_rule if sets.effort_rule is not None else self.effort,
            "tolerance": self.tolerance, "one_sided": self.one_sided,
            "reference": self.reference, "protected": self.protected, "min_group": 0,
            "floors": None if floor is None else dict(zip(sets.names, floor, strict=True)),
        }  # fmt: skip
        if self.notion == "SEP":
            attributes = {**attributes, "effort_features": None}
        self.model_ = reduce(
            learner, weight_name, moment, X, y, attributes, max_iter=self.max_rounds,
            eps=max(float(self.tolerance), 1e-3),
        )  # fmt: skip
        prices, violations = self.model_.prices, self.model_.violations
        self.n_rounds_ = self.n_iter_ = self.model_.n_iterations
        self.converged_ = bool(violations.max() <= max(self.tol, self.tolerance))
        self._note(list(self.model_.names), prices, violations)

    def _note(self, names: list[tuple[str, str]], prices: Floats, violations: Floats) -> None:
        import pandas as pd

        index = pd.MultiIndex.from_tuples(names, names=["constraint", "target"])
        self.multipliers_ = pd.Series(np.asarray(prices, dtype=float), index=index)
        self.violations_ = pd.Series(np.asarray(violations, dtype=float), index=index)

    def _scores(self, X: Floats) -> Floats:
        """Return the model's scores; SEPClassifier has it."""
        raise NotImplementedError

    def _decisions(self, scores: Floats, sets: Sets | None) -> Floats:
        """Return chances of a positive decision; SEPClassifier has it."""
        raise NotImplementedError

    def _report(self, X: Floats, y: Floats, sets: Sets, mass: Floats) -> None:
        """Note the gaps of scores and of decisions, and hold the guards."""
        import pandas as pd

        scores = self._scores(X)
        h = self._decisions(scores, sets)
        soft, hard = (
            frame_of(gap_table(CellSums.of(sets, v, mass), sets, 0), sets, 0.95, pd)
            for v in (scores, h)
        )
        self.gaps_ = pd.DataFrame(
            {
                "n_target": hard["n_target"],
                "soft_gap": soft["gap"],
                "hard_gap": hard["gap"],
                "rate_target": hard["rate_target"],
                "rate_reference": hard["rate_reference"],
            }
        )
        accuracy = float(np.average(h * y + (1 - h) * (1 - y), weights=mass))
        if self.min_accuracy is not None and accuracy < self.min_accuracy:
            raise ConvergenceError(
                f"min_accuracy={self.min_accuracy} was asked for, and the constrained model has "
                f"{accuracy:.4f} on the training rows. Raise tolerance, or lower the guard."
            )
        moved = abs(float(np.average(h, weights=mass)) - self._base_selection)
        if self.max_selection_change is not None and moved > self.max_selection_change:
            raise ConvergenceError(
                f"max_selection_change={self.max_selection_change} was asked for, and the overall "
                f"selection rate moved by {moved:.4f}. Raise tolerance, or loosen the guard."
            )
