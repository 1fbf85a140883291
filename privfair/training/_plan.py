"""The public constants of a training run, fixed before any record is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.core.privacy import NEIGHBORING
from privfair.training._factorization import BandedNoise

__all__ = ["StatisticPlan", "TrainingPlan"]


@dataclass(frozen=True)
class StatisticPlan:
    """How often, and under how much noise, a batch statistic is released beside the gradient.

    Parameters
    ----------
    noise_multiplier : float
        Noise standard deviation in units of the statistic's bound.
    every : int, default=1
        The statistic is released at steps 0, every, 2 * every, ...
    """

    noise_multiplier: float
    every: int = 1

    def __post_init__(self) -> None:
        value = check.positive(noise_multiplier=self.noise_multiplier)
        object.__setattr__(self, "noise_multiplier", value)
        object.__setattr__(self, "every", check.positive_int(every=self.every))

    def releases(self, steps: int) -> int:
        """Return at how many of ``steps`` steps the statistic is released."""
        return -(-steps // self.every)


@dataclass(frozen=True)
class TrainingPlan:
    """What a private training run does, in public constants only.

    Clipping, sampling, noise and accounting all read this one object, so that they cannot
    disagree. Nothing in it comes from a data loader or from a private number of records.

    Parameters
    ----------
    n_public : int
        Public size of the data set (a promise about its order of magnitude under
        ``add_remove``, the size itself otherwise).
    expected_batch_size : int
        The constant by which every noisy sum is divided, never the realised batch size.
    steps : int
        Number of steps, all of which are charged.
    max_grad_norm : float
        L2 bound on one record's gradient over all parameters together.
    noise_multiplier : float or None
        Standard deviation of the gradient's noise in units of ``max_grad_norm``; None stands
        for a run without privacy: no clipping and no noise.
    relation : {"zero_out", "add_remove"}, default="zero_out"
        Neighbouring relation of the guarantee.
    statistic : StatisticPlan or None, default=None
        A second quantity released from the same batches.
    correlation : BandedNoise or None, default=None
        Correlates the noise over the steps. Records then take part in turns, and the run is
        accounted as ``ceil(steps / bands)`` steps of ``bands`` times the sampling rate; the
        noise multiplier is in units of ``max_grad_norm`` times the matrix' column norm. Cannot
        go together with a statistic.

    Attributes
    ----------
    sample_rate : float
        ``expected_batch_size / n_public``.

    Examples
    --------
    >>> plan = TrainingPlan(10_000, expected_batch_size=500, steps=100, max_grad_norm=1.0,
    ...                     noise_multiplier=2.0)
    >>> plan.sample_rate
    0.05
    """

    n_public: int
    expected_batch_size: int
    steps: int
    max_grad_norm: float
    noise_multiplier: float | None
    relation: str = "zero_out"
    statistic: StatisticPlan | None = None
    correlation: BandedNoise | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "n_public", check.positive_int(n_public=self.n_public))
        batch = check.positive_int(expected_batch_size=self.expected_batch_size)
        if batch > self.n_public:
            raise InvalidParameterError(
                f"expected_batch_size must be at most n_public = {self.n_public}, got {batch}."
            )
        put(self, "expected_batch_size", batch)
        put(self, "steps", check.steps(steps=self.steps))
        put(self, "max_grad_norm", check.positive(max_grad_norm=self.max_grad_norm))
        if self.noise_multiplier is not None:
            value = check.positive(noise_multiplier=self.noise_multiplier)
            put(self, "noise_multiplier", value)
        check.one_of(NEIGHBORING, relation=self.relation)
        if self.relation == "replace_one":
            raise AccountingAssumptionError(
                "training is accounted under 'zero_out' or 'add_remove'; under 'replace_one' a "
                "Poisson-sampled clipped sum moves by up to twice the bound and has another "
                "dominating pair. Choose neighboring='zero_out'."
            )
        if self.correlation is not None:
            self.correlation.check_plan(self.expected_batch_size, self.n_public)
            if self.statistic is not None:
                raise AccountingAssumptionError(
                    "correlation and statistic cannot go together: a statistic is accounted as "
                    "sampled anew at every step, which correlated noise is not."
                )

    @property
    def accounted_sample_rate(self) -> float:
        """The sampling rate of the run's event: that of a step, or of a record's turn."""
        if self.correlation is None:
            return self.sample_rate
        return self.correlation.bands * self.expected_batch_size / self.n_public

    @property
    def accounted_steps(self) -> int:
        """The number of sampled Gaussians in the run's event."""
        return self.steps if self.correlation is None else -(-self.steps // self.correlation.bands)

    @property
    def sample_rate(self) -> float:
        """The probability with which each record enters each batch."""
        return self.expected_batch_size / self.n_public

    @property
    def private(self) -> bool:
        """Whether gradients are clipped and noised."""
        return self.noise_multiplier is not None

    @property
    def effective_noise_multiplier(self) -> float | None:
        """The noise multiplier of a step at which gradient and statistic are both released."""
        if self.noise_multiplier is None:
            return None
        if self.statistic is None:
            return self.noise_multiplier
        return _joint(self.noise_multiplier, self.statistic.noise_multiplier)

    def event(self) -> Any:
        """Return the whole run as one accounting event."""
        from privfair.accounting import events as ev

        if self.noise_multiplier is None:
            return ev.NonPrivate()
        if self.correlation is not None:
            turn = ev.PoissonSampled(
                self.accounted_sample_rate, ev.Gaussian(self.noise_multiplier)
            )
            return ev.SelfComposed(turn, self.accounted_steps)
        return sampled_run(self, self.noise_multiplier, self.effective_noise_multiplier)

    def redone_event(self, steps: int) -> Any:
        """Return the event of ``steps`` steps that are done again, as the dearest steps are.

        Parameters
        ----------
        steps : int
            How many.
        """
        from privfair.accounting import events as ev

        if self.correlation is not None:
            raise AccountingAssumptionError(
                "steps with correlated noise cannot be done again one by one: a record's part in "
                "them is accounted over the whole run. Run without checkpoints."
            )
        sigma = self.effective_noise_multiplier
        if sigma is None:
            return ev.NonPrivate()
        return ev.SelfComposed(ev.PoissonSampled(self.sample_rate, ev.Gaussian(sigma)), steps)

    def at_noise(
        self, effective: float | None, share: float = 0.0, every: int = 1
    ) -> TrainingPlan:
        """Return this plan with the noise set so that a joint step has multiplier ``effective``.

        Parameters
        ----------
        effective : float or None
            Noise multiplier of gradient and statistic together.
        share : float
            The statistic's part of each step's privacy, in [0, 1): the gradient gets
            ``effective / sqrt(1 - share)`` and the statistic ``effective / sqrt(share)``.
        every : int
            How often the statistic is released.
        """
        from dataclasses import replace

        if effective is None or share == 0.0:
            return replace(self, noise_multiplier=effective, statistic=None)
        return replace(
            self,
            noise_multiplier=effective / math.sqrt(1.0 - share),
            statistic=StatisticPlan(effective / math.sqrt(share), every),
        )


def _joint(*multipliers: float) -> float:
    return sum(m**-2 for m in multipliers) ** -0.5


def sampled_run(plan: TrainingPlan, alone: float, joint: float | None) -> Any:
    """Return the event of a run whose steps have multiplier ``joint`` or ``alone``."""
    from privfair.accounting import events as ev

    def block(sigma: float, count: int) -> Any:
        return ev.SelfComposed(ev.PoissonSampled(plan.sample_rate, ev.Gaussian(sigma)), count)

    if plan.statistic is None or joint is None:
        return block(alone, plan.steps)
    both = plan.statistic.releases(plan.steps)
    if both == plan.steps:
        return block(joint, plan.steps)
    return ev.Composed((block(joint, both), block(alone, plan.steps - both)))
