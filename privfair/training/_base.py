"""The estimator behind all private estimators: encode, calibrate, charge, train, certify."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.device import resolve_device
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import (
    AccountingAssumptionError,
    DataError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
)
from privfair.core.frames import as_vector, check_aligned
from privfair.core.privacy import NEIGHBORING, UNITS, PrivacyGuarantee
from privfair.core.randomness import check_random_state, secret_stream
from privfair.core.schema import Schema
from privfair.training._budget import (
    Charge,
    FitBudget,
    certify,
    check_budget,
    check_draws,
    plan_training,
    spending,
)
from privfair.training._clip_rules import AdaptiveClipping, make_clipping
from privfair.training._encoding import Encoding, table_like
from privfair.training._engine import BatchStatistic, DPEngine
from privfair.training._losses import RecordLoss
from privfair.training._models import build_module
from privfair.training._optim import OPTIMIZERS, make_optimizer
from privfair.training._penalty import (
    DECLARED,
    PER_RECORD,
    check_penalty,
    encode_sensitive,
    penalty_statistic,
)
from privfair.training._persist import SavedEstimatorMixin
from privfair.training._plan import TrainingPlan
from privfair.training._probe import refuse_batch_norm
from privfair.training._progress import Progress
from privfair.training._users import UserPath, UserRecords, encode_users

__all__ = ["BasePrivateEstimator", "Problem"]

_NORM_OF_LR = 16.0  # the squared input norm up to which the default step size is safe
_AVERAGE = 0.5  # the fraction of last steps whose parameters are averaged
_CHUNK = 65_536
_CALLS_FIXED = (
    "how often partial_fit was called, and with what epsilon and delta, was fixed beforehand; "
    "else the sums that the ledger keeps hold, and not this joint price"
)


@dataclass(frozen=True)
class Problem:
    """What an estimator makes of its targets.

    Attributes
    ----------
    loss : RecordLoss
    targets : ndarray, shape (n_rows,)
        In the form that the loss needs.
    assumptions : tuple of str
        What is taken as public about them.
    """

    loss: RecordLoss
    targets: NDArray[Any]
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Records:
    """What was read from the caller's data besides X."""

    problem: Problem
    sensitive: NDArray[Any] | None
    weights: NDArray[np.float32] | None
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class _Resumed:
    """Where an earlier call stopped: released quantities only."""

    encoding: Encoding
    weights: dict[str, Any]
    privacy: PrivacyGuarantee

    def check(self, budget: FitBudget) -> None:
        """Raise if the two calls have no common guarantee."""
        labels = (self.privacy.unit, self.privacy.neighboring)
        if labels != (budget.unit, budget.neighboring):
            raise IncompatibleNeighboringError(
                f"the earlier calls are per {labels[0]} under {labels[1]}, and this one is per "
                f"{budget.unit} under {budget.neighboring}: no guarantee covers both. Keep unit "
                "and neighboring, or start again with fit."
            )

    def restore(self, module: nn.Module) -> None:
        """Put the weights into a fresh module."""
        try:
            module.load_state_dict(self.weights)
        except RuntimeError as error:
            raise InvalidParameterError(
                "the weights of the earlier call do not fit the module that the parameters "
                "describe now. Keep hidden_layer_sizes and module, or start again with fit."
            ) from error


class BasePrivateEstimator(SavedEstimatorMixin, PrivateEstimatorMixin, BaseEstimator):
    """Base class of estimators that are trained by DP-SGD.

    A subclass has the parameters of :class:`privfair.dp.DPClassifier` (those that it leaves out
    take the defaults below), and implements :meth:`_problem` and whatever predicts. Its ``fit``
    calls :meth:`_fit`, which does these steps in this order:

    1. check every parameter; look at the number of rows and at nothing else of the data;
    2. fix the plan (batch constant, steps, noise) from public numbers;
    3. charge the ledger with everything that will be released;
    4. read and check the data, learn the encoder if it is not public, encode, train;
    5. certify.

    An error in 1 to 3 spends nothing. An error in the checks of 4 voids the charge: it tells the
    caller one bit about the data, which no epsilon covers. Everything later counts as spent.
    """

    fairness_penalty: Any = None
    fairness_share: float = 0.1
    hidden_layer_sizes: Any = ()
    module: Any = None
    binning: str | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    max_records_per_user: int | None = None
    clipping: Any = "flat"

    # lr="auto", by optimiser: of a linear model, and with hidden layers or a module
    _step_sizes: ClassVar[dict[str, tuple[float, float]]] = {
        "sgd": (4.0, 2.0),
        "adam": (0.05, 0.02),
        "dp_adam_bc": (0.05, 0.02),
    }

    # -- to be implemented -----------------------------------------------------------------
    def _problem(self, y: NDArray[Any]) -> Problem:
        """Return loss and targets; may set attributes such as ``classes_``."""
        raise NotImplementedError

    # -- fit -------------------------------------------------------------------------------
    def cost(self, X: Any, *, n_users: int | None = None) -> tuple[Any, ...]:
        """Return the events that a fit on such a table will charge; reads no value.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
            Its number of rows counts, and names and dtypes of its columns where something is
            learnt.
        n_users : int or None, default=None
            Number of users, for ``unit="user"``.
        """
        self._check_parameters()
        encoding = Encoding(self.schema, self.binning)
        self._check_unit_of_learning(encoding)
        n_units = len(_sized(X)) if n_users is None else check.positive_int(n_users=n_users)
        budget = check_budget(self, n_units, learns_schema=encoding.learns)
        before = encoding.plan(X, budget, self.noise_random_state)
        share = self._statistic_share()
        return plan_training(budget, self._draft(budget), statistic_share=share, before=before)[1]

    def _fit(
        self,
        X: Any,
        y: Any,
        sensitive_features: Any,
        sample_weight: Any,
        user_ids: Any = None,
        *,
        go_on: bool = False,
    ) -> None:
        """Train; with ``go_on`` from the present weights, if there are any."""
        before = dict(vars(self))
        resumed = self._state() if go_on and hasattr(self, "module_") else None
        try:
            self._fit_steps(X, y, sensitive_features, sample_weight, user_ids, resumed)
        except BaseException:  # a fit that failed leaves the estimator as it was
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _state(self) -> _Resumed:
        return _Resumed(self.encoding_.fixed(), self.module_.state_dict(), self.privacy_)

    def _fit_steps(
        self,
        X: Any,
        y: Any,
        sensitive_features: Any,
        sample_weight: Any,
        user_ids: Any,
        resumed: _Resumed | None,
    ) -> None:
        self._check_parameters()
        device = resolve_device(self.device)
        self._check_users(user_ids)
        n_rows = _rows_of(X, y, sensitive_features, sample_weight, user_ids)
        self._check_penalty(sensitive_features)
        # The run's own, which its absorb changes; the parameter stays as it was.
        self._used_penalty: Any = copy.deepcopy(self._penalty())
        encoding = Encoding(self.schema, self.binning) if resumed is None else resumed.encoding
        self._check_unit_of_learning(encoding)
        # The number of users is public, or n_public is given: only that is taken from the ids.
        users = None if user_ids is None else encode_users(_sized(user_ids))
        n_units = n_rows if users is None else users[1]
        budget = check_budget(self, n_units, learns_schema=encoding.learns)
        if budget.neighboring == "zero_out" and budget.n_public != n_units:
            kind = "rows" if users is None else "users"
            raise LengthMismatchError(
                f"n_public = {budget.n_public} is not the number of {kind}, {n_units}. Under "
                f"'zero_out' the number of {self.unit}s is public: leave n_public out, or use "
                "neighboring='add_remove'."
            )
        if resumed is not None:
            resumed.check(budget)
        plan, events = plan_training(
            budget,
            self._draft(budget),
            statistic_share=self._statistic_share(),
            before=encoding.plan(X, budget, self.noise_random_state),
            clipping=make_clipping(self.clipping),
        )
        rng = check_random_state(self.random_state)
        seeded = self.noise_random_state is not None and budget.private
        label = type(self).__name__
        with spending(self.ledger, budget, events, label, seeded=seeded) as charge:
            with charge.void_on_error():
                records = self._read(
                    X, y, sensitive_features, sample_weight, encoding, first=resumed is None
                )
                hook = self._hook(records.problem.loss, plan)
                module = None if encoding.learns else self._build(encoding, records, rng)
                if module is not None and resumed is not None:
                    resumed.restore(module)
                if module is not None:
                    check_draws(budget, plan.steps, _width_of_noise(module, hook, plan))
            encoded = encoding.fit_transform(X)
            if module is None:
                module = self._build(encoding, records, rng)
                check_draws(budget, plan.steps, _width_of_noise(module, hook, plan))
            module = module.to(device)
            tensors = _tensors(encoded, records, device)
            path = None
            if users is not None:
                seed = self._stream_seed(plan, rng)
                held = UserRecords.build(
                    tensors[0], tensors[1], tensors[3], *users, self.max_records_per_user,
                    secret_stream(None if seed is None else seed + 1),
                )  # fmt: skip
                path = UserPath(module, records.problem.loss, held)
                tensors = (held.places, held.places[:, 0], None, None)
            engine = self._engine(module, records, encoding, plan, hook, rng, path)
            engine.run(*tensors)
        first = resumed is None
        self._finish(module, plan, encoding, budget, events, charge, records, first=first)
        if resumed is not None:
            total = resumed.privacy.compose(self.privacy_)
            notes = tuple(dict.fromkeys((*total.assumptions, _CALLS_FIXED)))
            self.privacy_ = replace(total, assumptions=notes)
            self.events_ = self.privacy_.events

    def _draft(self, budget: FitBudget) -> TrainingPlan:
        n = budget.n_public
        batch = self.batch_size
        if batch == "auto":
            batch = min(n, max(256, round(6 * n**0.5)))
        batch = min(n, check.positive_int(batch_size=batch))
        steps = max(1, -(-int(round(self.epochs * n)) // batch))
        return TrainingPlan(n, batch, steps, self.max_grad_norm, None, budget.neighboring)

    def _statistic_share(self) -> float:
        return 0.0 if self._penalty() is None else self.fairness_share

    def _read(
        self,
        X: Any,
        y: Any,
        sensitive: Any,
        weights: Any,
        encoding: Encoding,
        *,
        first: bool = True,
    ) -> _Records:
        """Check the data: the first look at the records, of which only a refusal comes out."""
        X = table_like(X)
        validate_data(self, X, skip_check_array=True, reset=first)
        n_rows = encoding.check(X)
        problem = self._problem(_labels(y))
        notes: tuple[str, ...] = ()
        penalty = self._used_penalty
        codes, labelled = (
            (None, []) if sensitive is None else encode_sensitive(sensitive, penalty=penalty)
        )
        if penalty is None:
            codes = None
        elif hasattr(penalty, "encode_sensitive"):
            notes += (DECLARED,) if penalty.decomposable else ()
        elif labelled:
            notes += (f"the lists of groups of {', '.join(labelled)} are public",)
        if weights is not None:
            weights = _checked_weights(weights, n_rows)
            notes += (
                "a record's sample_weight depends on that record and on public knowledge only",
            )
        return _Records(problem, codes, weights, notes)

    def _build(
        self,
        encoding: Encoding,
        records: _Records,
        rng: np.random.Generator,
    ) -> nn.Module:
        outputs = records.problem.loss.n_outputs
        return build_module(
            self.module, self._hidden(), encoding.width, outputs, rng,
            getattr(self, "activation", "tanh"),
        )  # fmt: skip

    def _engine(
        self,
        module: nn.Module,
        records: _Records,
        encoding: Encoding,
        plan: TrainingPlan,
        hook: BatchStatistic | None,
        rng: np.random.Generator,
        path: UserPath | None = None,
    ) -> DPEngine:
        optimizer = make_optimizer(
            self.optimizer,
            self._learning_rate(encoding),
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        return DPEngine(
            module,
            records.problem.loss,
            plan,
            optimizer=optimizer,
            noise_random_state=self._stream_seed(plan, rng),
            statistic=hook,
            clipping=self.clipping,
            path=path,
            average=_AVERAGE,
            progress=Progress(enabled=bool(self.verbose), label=self._progress_label()),
        )

    def _penalty(self) -> Any:
        """Return the penalty of the fit, or None."""
        return self.fairness_penalty

    def _hook(self, loss: RecordLoss, plan: TrainingPlan) -> BatchStatistic | None:
        penalty = self._used_penalty
        if penalty is None:
            return None
        sigma = None if plan.statistic is None else plan.statistic.noise_multiplier
        return penalty_statistic(penalty, loss, sigma, plan.expected_batch_size, plan.steps)

    def _take_from_penalty(self, penalty: Any) -> None:
        """Keep what a subclass shows of the trained penalty: released quantities only."""

    def _stream_seed(self, plan: TrainingPlan, rng: np.random.Generator) -> int | None:
        """Return the seed of batches and noise: none unless the run is a test or not private."""
        if plan.private:
            return self.noise_random_state
        return int(rng.integers(2**63))

    def _learning_rate(self, encoding: Encoding) -> float:
        if self.lr != "auto":
            return float(self.lr)
        linear = self.module is None and not self._hidden()
        rate = self._step_sizes[self.optimizer][0 if linear else 1]
        if self.optimizer == "sgd" and encoding.square_norm is not None:
            rate /= max(1.0, (1.0 + encoding.square_norm) / _NORM_OF_LR)
        return rate

    def _progress_label(self) -> str:
        return f"{type(self).__name__} (epsilon {self.epsilon:g}, charged)"

    def _hidden(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        if isinstance(sizes, int | np.integer) and not isinstance(sizes, bool):
            sizes = (sizes,)
        return tuple(check.positive_int(hidden_layer_sizes=s) for s in sizes)

    def _finish(
        self,
        module: nn.Module,
        plan: TrainingPlan,
        encoding: Encoding,
        budget: FitBudget,
        events: tuple[Any, ...],
        charge: Charge,
        records: _Records,
        *,
        first: bool = True,
    ) -> None:
        notes = records.problem.assumptions + encoding.assumptions + records.assumptions
        if budget.private:
            notes = (*_run_assumptions(plan, self.unit), *notes)
            notes += () if self._penalty() is None else (PER_RECORD,)
        if budget.private and budget.epsilon > check.MAX_EPSILON:
            notes += ("epsilon above 20 was allowed by allow_weak=True",)
        if budget.private and budget.delta * budget.n_public >= 1.0:
            notes += ("delta of at least 1/n was allowed by allow_weak=True",)
        count = charge.count()
        if count is not None and budget.private:
            word = "charge" if count == 1 else "charges"
            notes += (
                f"this guarantee is about this fit alone; its ledger holds {count} {word} "
                "against the same data",
            )
        self.privacy_ = certify(
            budget, events, notes, seeded=self.noise_random_state is not None and budget.private
        )
        origin = self._learnt_elsewhere()
        if origin is not None and first:  # bounds and categories of these records, released before
            self.privacy_ = self.privacy_.compose(origin)
        self.module_ = module.to("cpu").requires_grad_(False)
        self.encoding_ = encoding
        self.plan_ = plan
        self.events_ = self.privacy_.events
        self.noise_multiplier_ = plan.effective_noise_multiplier or 0.0
        self.n_steps_ = plan.steps
        self.sample_rate_ = plan.sample_rate
        self.ledger_entry_id_ = charge.entry_id
        used = self.__dict__.pop("_used_penalty", None)
        if used is not None:
            self._take_from_penalty(used)

    # -- parameters ------------------------------------------------------------------------
    def _check_parameters(self) -> None:
        check.epsilon(epsilon=self.epsilon, allow_inf=True)
        if not (isinstance(self.delta, str) and self.delta == "auto"):
            if isinstance(self.delta, str):
                raise InvalidParameterError(
                    f"delta must be 'auto' or a number, got {self.delta!r}."
                )
            check.delta(delta=self.delta)
        check.one_of(NEIGHBORING, neighboring=self.neighboring)
        if self.neighboring == "replace_one":
            raise AccountingAssumptionError(
                "neighboring='replace_one' is not supported for training: a Poisson-sampled "
                "clipped sum then moves by up to twice the bound and has another dominating "
                "pair. Use 'zero_out' (number of records public) or 'add_remove'."
            )
        if check.one_of(UNITS, unit=self.unit) == "client":
            raise AccountingAssumptionError(
                "unit='client' is for training across data holders. Use unit='user' with "
                "fit(..., user_ids=), which clips all records of one user together."
            )
        if self.max_records_per_user is not None:
            check.positive_int(max_records_per_user=self.max_records_per_user)
        share = check.real(preprocessing_share=self.preprocessing_share)
        _inside(preprocessing_share=share)
        _inside(fairness_share=check.real(fairness_share=self.fairness_share))
        check.positive(max_grad_norm=self.max_grad_norm)
        if self.batch_size != "auto":
            check.positive_int(batch_size=_no_text("batch_size", self.batch_size))
        check.positive(epochs=self.epochs)
        check.one_of(OPTIMIZERS, optimizer=self.optimizer)
        clipping = make_clipping(self.clipping)
        if isinstance(clipping, AdaptiveClipping) and self._penalty() is not None:
            raise InvalidParameterError(
                "clipping='adaptive' and a fairness_penalty each release a statistic at every "
                "step, and a step releases only one: use another clipping."
            )
        if self.lr != "auto":
            check.positive(lr=_no_text("lr", self.lr))
        self._check_model_parameters()
        check.boolean(allow_weak=self.allow_weak)
        check.boolean(allow_idealized=self.allow_idealized)
        check_random_state(self.random_state)
        if self.noise_random_state is not None:
            check.non_negative_int(noise_random_state=self.noise_random_state)

    def _check_users(self, user_ids: Any) -> None:
        if self.unit != "user":
            if user_ids is not None:
                raise InvalidParameterError(
                    "user_ids were given and unit='record' protects one row, not one user. Pass "
                    "unit='user' to the constructor, or leave user_ids out."
                )
            return
        if user_ids is None:
            raise AccountingAssumptionError(
                "unit='user' needs user_ids: fit(X, y, user_ids=ids), one for each row. "
                "Without them no bound on what one user contributes is known."
            )
        if self._penalty() is not None:
            raise AccountingAssumptionError(
                "fairness_penalty releases a statistic of records, which unit='user' does not "
                "bound. Leave it out, or aggregate to one row per user and use unit='record'."
            )

    def _check_unit_of_learning(self, encoding: Encoding) -> None:
        if self.unit == "user" and encoding.learns:
            raise AccountingAssumptionError(
                "unit='user' needs a public schema (schema=Schema(...) or 'as_is', and public "
                "bins): bounds, categories and cut points are learnt record by record, and a user "
                "may have any number of records."
            )

    def _learnt_elsewhere(self) -> PrivacyGuarantee | None:
        """Return the guarantee under which the schema was learnt, if it is not public."""
        return self.schema.origin if isinstance(self.schema, Schema) else None

    def _check_model_parameters(self) -> None:
        if not (self.schema is None or self.schema == "as_is" or isinstance(self.schema, Schema)):
            raise InvalidTypeError(
                "schema must be a privfair.Schema (public bounds and categories), 'as_is' "
                "(numeric columns used as they are) or None (learnt for preprocessing_share), "
                f"got {type(self.schema).__name__}."
            )
        origin = self._learnt_elsewhere()
        if origin is not None and (origin.unit, origin.neighboring) != (
            self.unit, self.neighboring,
        ):  # fmt: skip
            raise IncompatibleNeighboringError(
                f"the schema was learnt per {origin.unit} under {origin.neighboring}, and this "
                f"fit is per {self.unit} under {self.neighboring}: no guarantee covers both. "
                "Learn the schema under the same unit and relation, or declare a public one."
            )
        check.one_of((None, "public", "dp_quantiles"), binning=self.binning)
        hidden = self._hidden()
        if self.module is not None and hidden:
            raise InvalidParameterError("give either module or hidden_layer_sizes, not both.")
        if isinstance(self.module, nn.Module):
            refuse_batch_norm(self.module)
        elif self.module is not None and not callable(self.module):
            raise InvalidTypeError(
                "module must be a torch.nn.Module or a callable (n_features, n_outputs) -> "
                f"Module, got {type(self.module).__name__}."
            )

    def _check_penalty(self, sensitive_features: Any) -> None:
        penalty = self._penalty()
        if penalty is None:
            return
        shape: tuple[int, ...] = getattr(sensitive_features, "shape", ())
        coded = hasattr(penalty, "encode_sensitive")  # it sees one number for each record
        check_penalty(
            penalty,
            private=bool(np.isfinite(self.epsilon)),
            n_sensitive=int(shape[1]) if len(shape) == 2 and not coded else 1,
        )
        if sensitive_features is None:
            raise InvalidParameterError(
                "fairness_penalty needs sensitive_features: fit(X, y, sensitive_features=S)."
            )

    def _linear_module(self) -> nn.Linear:
        """Return the one layer of a linear model."""
        check_is_fitted(self, "module_")
        parts = list(self.module_.children())
        if self.module is not None or len(parts) != 1:
            raise AttributeError(
                "coef_ and intercept_ exist for the linear model only (no hidden layers, no "
                "module); see module_."
            )
        layer: nn.Linear = parts[0]  # type: ignore[assignment]
        return layer

    # -- prediction ------------------------------------------------------------------------
    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """Return the module's outputs for rows of a table, shape (n_rows, n_outputs)."""
        check_is_fitted(self, "module_")
        X = table_like(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        encoded = self.encoding_.transform(X)
        # In float64 a row's output does not depend on the other rows handed in with it. A custom
        # module keeps its own precision.
        own = self.module is None
        module = copy.deepcopy(self.module_).double() if own else self.module_
        parts = []
        with torch.no_grad():
            for start in range(0, len(encoded), _CHUNK):
                block = torch.from_numpy(encoded[start : start + _CHUNK])
                parts.append(module(block.double() if own else block).double().numpy())
        return np.concatenate(parts)


def _width_of_noise(module: nn.Module, hook: BatchStatistic | None, plan: TrainingPlan) -> int:
    """Return the number of coordinates that get noise at a step."""
    size = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if hook is None:
        return size + (plan.statistic is not None)  # adaptive clipping's count
    return size + hook.n_features


def _tensors(
    encoded: NDArray[np.float32], records: _Records, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    def tensor(values: NDArray[Any] | None) -> Any:
        return None if values is None else torch.from_numpy(values).to(device)

    return (
        tensor(encoded),
        tensor(records.problem.targets),
        tensor(records.sensitive),
        tensor(records.weights),
    )


def _run_assumptions(plan: TrainingPlan, unit: str) -> tuple[str, ...]:
    from privfair.mechanisms import HardenedGaussian

    noise = HardenedGaussian(1.0, 1.0, 1).assumptions[0]
    alone = f"the arithmetic on one {unit} does not depend on which others are in its batch"
    whole = () if unit == "record" else ("user_ids name the same user in the same way everywhere",)
    if plan.relation == "zero_out":
        # A null record keeps its place in a batch; a user without records has none.
        bits = "products of the same numbers in the same places have the same bits on this machine"
        alike = (bits,) if unit == "record" else (alone,)
        return (f"the number of {unit}s is public", *whole, *alike, noise)
    return (
        f"the data hold at most {10 * plan.n_public} {unit}s (ten times n_public)",
        *whole,
        alone,
        noise,
    )


def _rows_of(X: Any, y: Any, sensitive: Any, weights: Any, user_ids: Any) -> int:
    """Return the number of rows; reads lengths and row labels, no value."""
    if y is None:
        raise InvalidParameterError("fit requires y to be passed, but the target y is None.")
    given = {"X": X, "y": y, "sensitive_features": sensitive, "sample_weight": weights}
    given["user_ids"] = user_ids
    n_rows = check_aligned(**{name: _sized(value) for name, value in given.items()})
    if n_rows < 1:
        raise DataError("X has 0 sample(s) while a minimum of 1 is required.")
    return n_rows


def _labels(y: Any) -> NDArray[Any]:
    if getattr(y, "ndim", 1) == 2 and hasattr(y, "dtype"):
        return np.asarray(column_or_1d(y, warn=True))
    return as_vector(_sized(y), name="y")


def _sized(value: Any) -> Any:
    """Return something that has a length; array-likes without one become arrays."""
    if value is None or hasattr(value, "shape") or hasattr(value, "__len__"):
        return value
    return np.asarray(value)


def _checked_weights(weights: Any, n_rows: int) -> NDArray[np.float32]:
    values = as_vector(weights, name="sample_weight")
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all() or (values < 0).any():
        raise DataError("sample_weight must hold finite numbers of at least 0, one per row.")
    if len(values) != n_rows:
        raise LengthMismatchError(f"sample_weight has {len(values)} entries for {n_rows} rows.")
    if not values.any():
        raise DataError("sample_weight must contain at least one non-zero number.")
    return np.ascontiguousarray(values, dtype=np.float32)


def _inside(**kwargs: float) -> None:
    ((name, value),) = kwargs.items()
    if not 0.0 < value < 1.0:
        raise InvalidParameterError(f"{name} must be in (0, 1), got {value}.")


def _no_text(name: str, value: Any) -> Any:
    if isinstance(value, str):
        raise InvalidParameterError(f"{name} must be 'auto' or a number, got {value!r}.")
    return value
