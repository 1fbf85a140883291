"""The training loop: sample, clip, sum, add noise, divide by a constant, update."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.core.randomness import secret_stream
from privfair.training._averaging import make_average
from privfair.training._checkpoint import Checkpoints, RunState
from privfair.training._checks import add_up, check_contributions
from privfair.training._clip_rules import Clipping, check_rule, make_clipping
from privfair.training._clipping import (
    GUARD,
    block_sum,
    clip_rows,
)
from privfair.training._closed_form import StepSums
from privfair.training._distributed import DataParallel, ShardSampler
from privfair.training._factorization import CorrelatedNoise
from privfair.training._losses import RecordLoss
from privfair.training._noise import StepNoise as _Noise
from privfair.training._optim import FlatOptimizer
from privfair.training._paths import GradientPath, choose_path
from privfair.training._plan import TrainingPlan
from privfair.training._progress import Progress
from privfair.training._sampling import CyclicPoissonSampler, PoissonSampler, make_sampler
from privfair.training._statistic import (
    BatchStatistic,
    BatchView,
    check_statistic,
    own_statistic,
)
from privfair.training._users import UserPath

__all__ = ["BatchStatistic", "BatchView", "DPEngine"]

AnySampler = PoissonSampler | CyclicPoissonSampler | ShardSampler
AnyNoise = _Noise | CorrelatedNoise
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DPEngine:
    """Train a torch module with DP-SGD under a :class:`TrainingPlan`.

    Parameters
    ----------
    module : torch.nn.Module
        Trained in place, in evaluation mode (dropout off).
    loss : RecordLoss
        A sum over records.
    plan : TrainingPlan
        Public constants.
    optimizer : FlatOptimizer
        Updates the parameters from the noisy mean gradient.
    noise_random_state : int or None, default=None
        None draws batches and noise from the operating system's entropy. An int makes them
        repeatable, for tests and benchmarks only.
    statistic : BatchStatistic or None, default=None
        The one hook; must agree with ``plan.statistic``.
    clipping : {"flat", "automatic", "per_layer", "adaptive"} or Clipping, default="flat"
        How each record's gradient is bounded; see :func:`make_clipping`. Adaptive clipping
        uses the hook itself, with the plan that :meth:`AdaptiveClipping.plan` makes.
    grad_path : {"auto", "closed_form", "ghost", "functional", "opacus"}, default="auto"
        ``"closed_form"`` for stacks of linear layers with elementwise activations, ``"ghost"``
        for networks of known layers, ``"functional"`` for everything else; ``"auto"`` takes the
        first of these that fits. ``"opacus"`` takes per-record gradients from Opacus.
    path : UserPath or None, default=None
        The gradients of users instead, whose records it holds: ``X`` and ``y`` of :meth:`run`
        then have one row for each user.
    average : float, default=0.0
        Fraction of the last steps over which parameters are averaged (post-processing).
    ema_decay : float, default=0.0
        Decay, in [0, 1), of an exponential moving average of the parameters, which then are the
        result (post-processing); 0 is none.
    max_physical_batch : int or None, default=None
        Largest number of records that are handled at once; longer batches are cut in pieces,
        whose sums are added up before the noise is drawn, once.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Of the forward pass and of the derivatives. Norms, factors and sums are float64
        whatever it is, and the parameters float32.
    check_contributions : bool, default=False
        For tests and debugging: compute each record's clipped contribution alone, as well, and
        compare it with the bound. An error then depends on private data.
    parallel : DataParallel or None, default=None
        Do the run together with other processes, each of which holds a part of the records.
    progress : Progress or None
        Shows public quantities only.

    Notes
    -----
    The caller charges ``plan.event()`` to a ledger before :meth:`run`. One step draws a Poisson
    batch, clips each record's gradient (over all parameters together), sums in float64, adds
    noise through :class:`privfair.mechanisms.HardenedGaussian` and divides by
    ``plan.expected_batch_size``. An empty batch is a step like any other. Cost per step:
    O(expected batch size * parameters).

    References
    ----------
    Abadi et al. (2016), "Deep Learning with Differential Privacy", arXiv 1607.00133.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: RecordLoss,
        plan: TrainingPlan,
        *,
        optimizer: FlatOptimizer,
        noise_random_state: int | None = None,
        statistic: BatchStatistic | None = None,
        clipping: str | Clipping = "flat",
        grad_path: str = "auto",
        path: UserPath | None = None,
        average: float = 0.0,
        ema_decay: float = 0.0,
        max_physical_batch: int | None = None,
        precision: str = "float32",
        check_contributions: bool = False,
        parallel: DataParallel | None = None,
        progress: Progress | None = None,
    ) -> None:
        chosen = make_clipping(clipping)
        self._bound = chosen.rule(module, plan.max_grad_norm) if plan.private else None
        if plan.private:
            check_rule(self._bound, plan.max_grad_norm)
        if hasattr(self._bound, "statistic"):
            statistic = own_statistic(self._bound, plan, statistic)
        check_statistic(plan, statistic)
        self.plan = plan
        self._module = module.eval()
        self._trainable = _trainable(module)
        self._loss = loss
        self._optimizer = optimizer
        self._seeds = _seeds(noise_random_state)
        self._statistic = statistic
        self._average = (average, ema_decay)
        if max_physical_batch is not None:
            check.positive_int(max_physical_batch=max_physical_batch)
        self._physical = max_physical_batch
        self._precision = _DTYPES[check.one_of(_DTYPES, precision=precision)]
        self._parallel = parallel
        self._checked = check.boolean(check_contributions=check_contributions)
        self._progress = progress or Progress(enabled=False)
        if path is not None and parallel is not None:
            raise AccountingAssumptionError(
                "path and parallel cannot go together: a user with records on two ranks would be "
                "two users there, and count twice. Run users in one process."
            )
        if path is None:
            in_place = plan.private and plan.relation == "zero_out"
            self._path: GradientPath = choose_path(grad_path, module, loss, in_place)
        else:
            self._path = path
        # Under add_remove the number of rows is private: the error bound must not depend on it.
        self._terms = plan.n_public if plan.relation == "zero_out" else 10 * plan.n_public

    @property
    def grad_path(self) -> str:
        """The path in use; ``"auto"`` where it is chosen when the data's shape is known."""
        return self._path.name

    def run(
        self,
        X: Tensor,
        y: Tensor,
        sensitive: Tensor | None = None,
        sample_weight: Tensor | None = None,
        *,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Train on encoded records; everything that leaves is the module's parameters.

        Parameters
        ----------
        X : Tensor, shape (n_rows, ...), float32 or int64
            Rows of a table, images, sequences of vectors, or token ids.
        y : Tensor, shape (n_rows,)
        sensitive : Tensor or None, shape (n_rows, n_sensitive)
        sample_weight : Tensor or None, shape (n_rows,)
            Factor of each record's loss, part of the record; clipping comes after it.
        checkpoints : Checkpoints or None, default=None
            Folder from which the run goes on, or in which it begins. It charges the run to its
            own ledger; without it, the caller has charged ``plan.event()``.
        """
        plan = self.plan
        before, n_rows = (0, len(X)) if self._parallel is None else self._parallel.place(len(X))
        if n_rows != plan.n_public and plan.relation == "zero_out":
            raise AccountingAssumptionError(
                f"under 'zero_out' the number of records is public and must be the plan's "
                f"n_public = {plan.n_public}; the data have another. Leave n_public out, or use "
                "neighboring='add_remove'."
            )
        sampler = self._sampler(before, len(X), n_rows)
        if _trainable(self._module) != self._trainable:
            raise AccountingAssumptionError(
                "the module's trainable parameters are not those that the engine was made for: "
                "freeze, unfreeze, add and replace (load_state_dict with assign=True) parameters "
                "before, or their gradients would not be clipped as accounted."
            )
        theta = _flatten(self._module)
        sigma, bound = plan.noise_multiplier, plan.max_grad_norm
        shared = (self._pieces(), self._parallel)
        noise: AnyNoise
        extra = self._extra_error()
        size, seed = theta.numel(), self._seeds[1]
        noise = _Noise(sigma, bound, size, self._terms, seed, *shared, extra_error=extra)
        if plan.correlation is not None and sigma is not None:
            noise = CorrelatedNoise(
                plan.correlation, sigma, bound, size, self._terms, seed, *shared, extra
            )
        aside = self._statistic_noise()
        average = make_average(theta, plan.steps, *self._average)
        observe = getattr(self._optimizer, "observe_noise", None)
        absorb = None if self._statistic is None else self._statistic.absorb
        if self._parallel is not None:
            self._check_ranks(theta, checkpoints)
        self._path.prepare(X)
        seeded = self._seeds[0] is not None
        unit = "user" if isinstance(self._path, UserPath) else None
        state = RunState(theta, self._optimizer, average, self._bound, seeded, unit)
        with ExitStack() as stack:
            first = 0
            if checkpoints is not None:
                self._check_restorable()
                first = stack.enter_context(checkpoints.running(plan, state))
                self._replay(first, sampler, noise, aside)
            advance = stack.enter_context(self._progress.running(plan.steps))
            for step in range(first, plan.steps):
                if checkpoints is not None:
                    checkpoints.before(step)
                rows = torch.from_numpy(sampler.sample()).to(X.device)
                sums = self._sums(X, y, sensitive, sample_weight, rows)
                mean = noise.add(sums.total) / plan.expected_batch_size
                scale = getattr(self._bound, "scale", 1.0)
                mean *= scale
                released = self._released(step, sums, y, sensitive, sample_weight, rows, aside)
                if observe is not None:
                    observe(noise.std * scale / plan.expected_batch_size)
                with torch.no_grad():
                    self._optimizer.step(theta, mean.to(theta.dtype))
                average.add(step, theta)
                if released is not None and absorb is not None:
                    absorb(released)
                advance(step + 1)
                if checkpoints is not None:
                    checkpoints.after(step + 1)
        average.finish(theta)

    def _sums(
        self,
        X: Tensor,
        y: Tensor,
        sensitive: Tensor | None,
        sample_weight: Tensor | None,
        rows: Tensor,
    ) -> StepSums:
        """Return the clipped sum over one batch, piece by piece where it is long."""

        def sums(part: Tensor) -> StepSums:
            with torch.autocast(
                X.device.type, self._precision, enabled=self._precision != torch.float32
            ):
                return self._path.sums(
                    X,
                    y,
                    part,
                    self._bound,
                    GUARD,
                    self._weigh(y, sensitive, sample_weight, part),
                    sample_weight,
                )

        found = add_up([sums(part) for part in self._parts(rows)])
        if self._checked and self.plan.private:
            check_contributions(sums, rows, found, self.plan.max_grad_norm)
        return found

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        # A batch-level penalty, which only a run without privacy takes, sees the batch whole.
        whole = not self.plan.private and self._statistic is not None
        return (rows,) if self._physical is None or whole else rows.split(self._physical)

    def _pieces(self) -> int:
        """Return a public bound on the number of partial sums of a step."""
        ranks = 0 if self._parallel is None else self._parallel.size
        return ranks + (0 if self._physical is None else ranks + -(-self._terms // self._physical))

    def _extra_error(self) -> float:
        """Return what the path's arithmetic adds to the error of a sum."""
        found = getattr(self._path, "extra_error", None)
        return 0.0 if found is None else found(self._terms, self._bound)

    def _weigh(
        self, y: Tensor, sensitive: Tensor | None, sample_weight: Tensor | None, rows: Tensor
    ) -> Callable[[Tensor], Tensor] | None:
        weigh = None if self._statistic is None else self._statistic.score_weights
        if weigh is None:
            return None
        part = None if sensitive is None else sensitive[rows]

        def score_weights(output: Tensor) -> Tensor:
            found = weigh(self._loss.score(output), part, y[rows]).to(output.dtype)
            if sample_weight is None:
                return found
            return torch.where(sample_weight[rows] != 0, found, torch.zeros_like(found))

        return score_weights

    def _sampler(self, before: int, own: int, everyone: int) -> AnySampler:
        """Return what draws this process's part of each batch."""
        stream = secret_stream(self._seeds[0])
        if self._parallel is None or self._seeds[0] is None:
            return make_sampler(self.plan, own, stream)
        return ShardSampler(make_sampler(self.plan, everyone, stream), before, own)

    def _check_ranks(self, theta: Tensor, checkpoints: Checkpoints | None) -> None:
        assert self._parallel is not None
        if checkpoints is not None:
            raise InvalidParameterError(
                "checkpoints are for runs of one process: leave them or parallel out."
            )
        if not self.plan.private and self._statistic is not None:
            raise InvalidParameterError(
                "a penalty without privacy may look at the whole batch, of which each process "
                "has a part only: leave it or parallel out."
            )
        self._parallel.agree(
            theta,
            plan=self.plan,
            seeds=self._seeds,
            clipping=type(self._bound).__name__,
            optimizer=(type(self._optimizer).__name__, getattr(self._optimizer, "lr", None)),
        )

    def _check_restorable(self) -> None:
        if self.plan.correlation is not None:
            raise InvalidParameterError(
                "a run with correlated noise cannot have checkpoints: they would have to hold "
                "sums without noise."
            )
        if self._statistic is not None and not hasattr(self._bound, "statistic"):
            raise InvalidParameterError(
                "a run with a statistic (or penalty) of its own cannot have checkpoints: what the "
                "statistic has learnt would not be in them."
            )

    def _replay(
        self,
        steps: int,
        sampler: AnySampler,
        noise: AnyNoise,
        aside: _Noise | None,
    ) -> None:
        """Bring seeded streams to where they were after so many steps; nothing is released."""
        if self._seeds[0] is None:
            return
        for step in range(steps):
            sampler.sample()
            noise.add(torch.zeros(noise.size, dtype=torch.float64))
            if aside is not None and self._statistic and step % self._statistic.every == 0:
                aside.add(torch.zeros(aside.size, dtype=torch.float64))

    def _statistic_noise(self) -> _Noise | None:
        if self._statistic is None:
            return None
        s = self._statistic
        sigma = s.noise_multiplier if self.plan.private else None
        shared = (0 if self._parallel is None else self._parallel.size, self._parallel)
        return _Noise(sigma, s.bound, s.n_features, self._terms, self._seeds[2], *shared)

    def _released(
        self,
        step: int,
        sums: StepSums,
        y: Tensor,
        sensitive: Tensor | None,
        sample_weight: Tensor | None,
        rows: Tensor,
        noise: _Noise | None,
    ) -> Tensor | None:
        """Return the noisy statistic over B, or None at a step that releases none."""
        s = self._statistic
        if s is None or noise is None or step % s.every:
            return None
        output = sums.output.float()
        scores = self._loss.score(output)
        view = BatchView(
            output if scores is None else scores,
            y[rows],
            None if sensitive is None else sensitive[rows],
            sums.norms,
        )
        with torch.no_grad():
            features = clip_rows(s.features(view).reshape(len(rows), s.n_features), s.bound)
            if sample_weight is not None:  # a record of weight 0 stands for none at all
                features = torch.where(sample_weight[rows, None] != 0, features, 0.0)
            total = block_sum(features)
        return noise.add(total) / self.plan.expected_batch_size


def _seeds(noise_random_state: int | None) -> list[int | None]:
    """Return seeds of three streams that share nothing: batches, gradient, statistic."""
    if noise_random_state is None:
        return [None, None, None]
    words = np.random.SeedSequence(noise_random_state).generate_state(3, np.uint64)
    return [int(word) for word in words]


def _trainable(module: nn.Module) -> list[tuple[str, torch.Size, int]]:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    # The object itself, too: a path differentiates by the parameters that it was made with.
    return [(name, p.shape, id(p)) for name, p in named]


def _flatten(module: nn.Module) -> Tensor:
    """Move the trainable parameters into one flat tensor and make them views of it."""
    params = [p for p in module.parameters() if p.requires_grad]
    flat = torch.cat([p.detach().flatten() for p in params])
    at = 0
    for p in params:
        p.data = flat[at : at + p.numel()].view_as(p)
        at += p.numel()
    return flat
