"""The normal form of a list of events under one neighbouring relation.

Reading events is the one place where relations are converted; the accountants behind it only
see quantities that already hold for the relation asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from privfair.accounting import events as ev
from privfair.core.exceptions import (
    IncompatibleNeighboringError,
    InvalidTypeError,
    UnsupportedEventError,
)

__all__ = ["Plan", "as_events", "check_unit", "read"]

_PARTS = "The parts were fixed without looking at the data, and no record is in two."
NO_NOISE = 1e-100
"""A scale up to this, relative to one unit's contribution, is no noise: the square of its inverse
is near the end of the numbers that a computer has."""
Truncated = tuple[int, float, int, float]
Mixture = tuple[float, int, float]
Selected = tuple["Plan", float, float, int]


@dataclass
class Plan:
    """What a list of events amounts to; every number holds under ``relation``.

    Attributes
    ----------
    mu2 : float
        Sum of ``1 / sigma^2`` over unsubsampled Gaussians.
    sampled : Counter
        ``(q, sigma) -> count`` of Poisson-sampled Gaussians.
    laplace : Counter
        ``(q, b) -> count``, with ``q = 1`` for unsubsampled ones.
    discrete_laplace, responses, approx, ranged : Counter
        ``(a, sensitivity)``, ``(eps0, k)``, ``(eps, delta)`` and ``(eps, range)`` to counts.
    truncated : Counter
        ``(n, q, max_batch, sigma) -> count`` of truncated Poisson batches.
    mixtures : Counter
        ``(sigma, most, q) -> count`` of Gaussians on a sample of a unit's several records.
    batches : Counter
        ``(batch, n, sigma) -> count`` of Gaussians on batches drawn without replacement;
        ``sigma`` is relative to the change by a replaced unit.
    selected : list
        ``(plan, mean, shape, count)``: the best of a random number of runs.
    rho, xi : float
        Sums over events known only by their zCDP bound.
    parallel : list
        ``(parts, parts_if_moved, count)``: plans of the parts, and under replace_one the plans
        of the parts for a unit that leaves one part and enters another.
    loose : bool
        Whether some mechanism was replaced by a worse one, so that no lower bound follows.
    reasons : tuple of str
        Why there is no guarantee at all.
    assumptions : tuple of str
        What the prices rest on beyond the events.
    """

    relation: str
    mu2: float = 0.0
    sampled: Counter[tuple[float, float]] = field(default_factory=Counter)
    laplace: Counter[tuple[float, float]] = field(default_factory=Counter)
    discrete_laplace: Counter[tuple[float, int]] = field(default_factory=Counter)
    responses: Counter[tuple[float, int]] = field(default_factory=Counter)
    approx: Counter[tuple[float, float]] = field(default_factory=Counter)
    ranged: Counter[tuple[float, float]] = field(default_factory=Counter)
    truncated: Counter[Truncated] = field(default_factory=Counter)
    mixtures: Counter[Mixture] = field(default_factory=Counter)
    batches: Counter[tuple[int, int, float]] = field(default_factory=Counter)
    selected: list[Selected] = field(default_factory=list)
    rho: float = 0.0
    xi: float = 0.0
    parallel: list[tuple[tuple[Plan, ...], tuple[Plan, ...] | None, int]] = field(
        default_factory=list
    )
    loose: bool = False
    reasons: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    def refuse(self, reason: str) -> None:
        """Note that there is no guarantee."""
        if reason not in self.reasons:
            self.reasons += (reason,)

    def assume(self, sentence: str) -> None:
        """Note an assumption."""
        if sentence not in self.assumptions:
            self.assumptions += (sentence,)

    @property
    def only_gaussian(self) -> bool:
        """Whether the plan is unsubsampled Gaussians and nothing else."""
        return not (
            self.sampled
            or self.without_rho
            or self.laplace
            or self.discrete_laplace
            or self.responses
            or self.approx
            or self.ranged
            or self.rho
            or self.xi
            or self.parallel
        )

    @property
    def without_rho(self) -> bool:
        """Whether there are events of newer kinds, none of which has a pure or a zCDP bound."""
        return bool(self.truncated or self.mixtures or self.batches or self.selected)

    @property
    def without_renyi(self) -> str:
        """Name of a kind of event here that has no Renyi bound, or nothing."""
        if self.truncated:
            return "TruncatedPoisson"
        if self.mixtures:
            return "UserPoisson"
        if self.sampled and self.relation == "replace_one":
            return "PoissonSampled(Gaussian)"
        return ""

    @property
    def slow(self) -> bool:
        """Whether a Renyi divergence of the plan takes time that grows with the order."""
        return bool(
            self.sampled
            or self.batches
            or any(plan.slow for plan, *_ in self.selected)
            or any(part.slow for parts, _, _ in self.parallel for part in parts)
        )

    @property
    def revealed(self) -> float:
        """Probability of total failure, summed over the (eps, delta) events."""
        if sum(self.approx.values()) == 1:  # exactly the delta that was stated
            return next(delta for (_, delta), n in self.approx.items() if n)
        stays = sum(n * math.log1p(-d) for (_, d), n in self.approx.items())
        return -math.expm1(stays)

    def pure_epsilon(self) -> float:
        """Return the sum of the pure epsilons, infinite when some event has none."""
        if self.mu2 or self.sampled or self.rho or self.xi or self.without_rho:
            return math.inf
        total = [n * amplified(1 / b if b else math.inf, q) for (q, b), n in self.laplace.items()]
        total += [n * a * s for (a, s), n in self.discrete_laplace.items()]
        total += [n * eps for (eps, _), n in self.responses.items()]
        total += [n * eps for (eps, _), n in self.approx.items()]
        total += [n * eps for (eps, _), n in self.ranged.items()]
        for parts, moved, count in self.parallel:
            worst = max((part.pure_epsilon() for part in parts), default=0.0)
            if moved is not None:
                two = sorted((part.pure_epsilon() for part in moved), reverse=True)[:2]
                worst = max(worst, sum(two))
            total.append(count * worst)
        return math.fsum(total)

    def total_rho(self) -> tuple[float, float]:
        """Return ``(rho, xi)`` of the whole plan, infinite when some event has no zCDP bound.

        As in :func:`privfair.accounting._rdp.curve`, the failure probabilities of (eps, delta)
        events are not in it: subtract ``revealed`` from delta.
        """
        if self.sampled or self.without_rho:
            return math.inf, 0.0
        rho = self.rho + self.mu2 / 2
        pure = [(amplified(1 / b if b else math.inf, q), n) for (q, b), n in self.laplace.items()]
        pure += [(a * s, n) for (a, s), n in self.discrete_laplace.items()]
        pure += [(eps, n) for (eps, _), n in self.responses.items()]
        pure += [(eps, n) for (eps, _), n in self.approx.items()]
        rho += math.fsum(n * pure_rho(eps) for eps, n in pure)
        rho += math.fsum(n * min(pure_rho(e), r * r / 8) for (e, r), n in self.ranged.items())
        xi = self.xi
        for parts, moved, count in self.parallel:
            found = [part.total_rho() for part in parts]
            if moved is not None:
                ranked = [part.total_rho() for part in moved]
                tops = [
                    sum(sorted(column, reverse=True)[:2]) for column in zip(*ranked, strict=True)
                ]
                found.append((tops[0], tops[1]) if tops else (0.0, 0.0))
            rho += count * max((r for r, _ in found), default=0.0)
            xi += count * max((x for _, x in found), default=0.0)
        return rho, xi


def pure_rho(eps: float) -> float:
    """Return the zCDP bound of pure eps-DP (Bun, Steinke 2016, proposition 3.3)."""
    return eps * eps / 2


def amplified(eps: float, q: float) -> float:
    """Return the pure epsilon of an eps-DP mechanism on a Poisson sample (add/remove)."""
    if q == 1.0 or eps == 0:
        return eps
    if eps > 700:
        return eps + math.log(q)
    return math.log1p(q * math.expm1(eps))


def as_events(events: Any) -> tuple[ev.AccountedEvent, ...]:
    """Return a tuple of our events from one event or a sequence, dp_accounting's included."""
    if isinstance(events, ev.AccountedEvent):
        return (events,)
    if isinstance(events, dict):
        return (ev.event_from_dict(events),)
    if type(events).__module__.startswith("dp_accounting"):
        from privfair.accounting._convert import from_dp_accounting

        return (from_dp_accounting(events),)
    if isinstance(events, Iterable) and not isinstance(events, str | bytes):
        return tuple(single for item in events for single in as_events(item))
    raise InvalidTypeError(
        f"an event or a sequence of events is needed, got {type(events).__name__}."
    )


def check_unit(events: Iterable[ev.AccountedEvent], unit: str) -> None:
    """Refuse events that speak of another unit than the one whose guarantee is asked for.

    Raises
    ------
    IncompatibleNeighboringError
        Names the event.
    """
    for event in events:
        if isinstance(event, ev.UserPoisson) and unit != "user":
            raise IncompatibleNeighboringError(
                f"event UserPoisson states what one user's several records do, and unit={unit!r} "
                "was asked for. Use unit='user'; for records, PoissonSampled(q, Gaussian(sigma))."
            )
        inner = getattr(event, "event", None)
        check_unit(getattr(event, "events", () if inner is None else (inner,)), unit)


def read(events: Sequence[ev.AccountedEvent], relation: str) -> Plan:
    """Return the normal form of ``events`` under ``relation``.

    Raises
    ------
    UnsupportedEventError
        Names the sub-event that cannot be priced.
    IncompatibleNeighboringError
        Names the sub-event that has no guarantee under ``relation``.
    """
    plan = Plan(relation)
    for event in events:
        _add(plan, event, 1)
    return plan


def _add(plan: Plan, event: ev.AccountedEvent, count: int) -> None:
    if count == 0:
        return
    if isinstance(event, ev.SelfComposed):
        _add(plan, event.event, count * event.count)
    elif isinstance(event, ev.Composed):
        for part in event.events:
            _add(plan, part, count)
    elif isinstance(event, ev.Parallel):
        _add_parallel(plan, event, count)
    elif isinstance(event, ev.PoissonSampled):
        _add_sampled(plan, event, count)
    elif isinstance(event, ev.NonPrivate):
        plan.refuse("non_private")
    elif isinstance(event, ev.RandomizedResponse | ev.LocalDP):
        _add_local(plan, event, count)
    elif isinstance(event, ev.ShuffledEpochs):
        _add_shuffled(plan, event, count)
    elif isinstance(event, ev.FixedBatchWOR):
        _add_batches(plan, event, count)
    elif isinstance(event, ev.TruncatedPoisson):
        _add_truncated(plan, event, count)
    elif isinstance(event, ev.UserPoisson):
        _add_users(plan, event, count)
    elif isinstance(event, ev.RepeatAndSelect):
        _add_selected(plan, event, count)
    else:
        _add_central(plan, event, count)


def _add_central(plan: Plan, event: ev.AccountedEvent, count: int) -> None:
    """Events about one unit's bounded contribution; replacing it doubles the contribution."""
    two = 2.0 if plan.relation == "replace_one" else 1.0
    if isinstance(event, ev.Gaussian | ev.DiscreteGaussian | ev.Laplace):
        scale = event.b if isinstance(event, ev.Laplace) else event.sigma
        if scale <= NO_NOISE:
            plan.refuse("no_noise")
        elif isinstance(event, ev.Gaussian):
            plan.mu2 += count * (two / scale) ** 2
        elif isinstance(event, ev.DiscreteGaussian):
            plan.rho += count * (two / scale) ** 2 / 2
        else:
            plan.laplace[1.0, scale / two] += count
    elif isinstance(event, ev.DiscreteLaplace):
        plan.discrete_laplace[event.a, int(two) * event.sensitivity] += count
    elif isinstance(event, ev.PureDP):
        plan.loose |= two == 2
        _pure(plan, two * event.eps, count)
    elif isinstance(event, ev.ExponentialMechanism):
        width = event.eps if event.range_bound is None else event.range_bound
        if event.eps > 0:
            plan.ranged[two * event.eps, two * width] += count
    elif isinstance(event, ev.ApproxDP):
        plan.loose |= two == 2
        lost = event.delta * (1 + math.exp(min(event.eps, 700.0))) if two == 2 else event.delta
        if lost >= 1:
            plan.refuse("delta_of_one")
        elif lost == 0:
            _pure(plan, two * event.eps, count)
        else:
            plan.approx[two * event.eps, lost] += count
    elif isinstance(event, ev.ZCDP):
        plan.rho += count * two * two * event.rho
        plan.xi += count * (3 * event.xi if two == 2 else event.xi)
    else:
        raise UnsupportedEventError(
            f"event {event.kind or type(event).__name__} cannot be priced by any accountant; "
            "an event that nobody can price is never treated as free."
        )


def _pure(plan: Plan, eps: float, count: int) -> None:
    # Binary randomised response dominates every eps-DP mechanism (Kairouz, Oh, Viswanath 2015).
    if eps > 0:
        plan.responses[eps, 2] += count


def _add_local(plan: Plan, event: ev.RandomizedResponse | ev.LocalDP, count: int) -> None:
    if plan.relation == "add_remove":
        raise IncompatibleNeighboringError(
            f"event {event.kind} is local: everybody sends a report, so whether somebody takes "
            "part is not hidden. It has a guarantee under replace_one and zero_out (where the "
            "null record still sends a report of some fixed answer), not under add_remove."
        )
    if event.eps0 > 0:
        plan.responses[event.eps0, getattr(event, "k", 2)] += count
    if plan.relation == "zero_out":
        plan.assume(
            "A record replaced by nothing still sends a randomised report of some fixed answer."
        )


def _add_shuffled(plan: Plan, event: ev.ShuffledEpochs, count: int) -> None:
    if plan.relation == "add_remove":
        raise IncompatibleNeighboringError(
            "event ShuffledEpochs needs a public number of records (the batches are cut from "
            "it): use zero_out or replace_one."
        )
    plan.assume(
        "Batches were shuffled, not Poisson sampled: no amplification by sampling is claimed; "
        "each record is used once in each epoch."
    )
    plan.loose = True
    _add_central(plan, ev.Gaussian(event.sigma), count * event.epochs)


def _add_batches(plan: Plan, event: ev.FixedBatchWOR, count: int) -> None:
    if plan.relation != "replace_one":
        raise IncompatibleNeighboringError(
            "event FixedBatchWOR has a guarantee under replace_one only: with a unit gone, "
            "another one takes its place in the batch. Use replace_one, or Poisson sampling."
        )
    if event.batch == event.n:
        _add(plan, event.event, count)
        return
    if isinstance(event.event, ev.NonPrivate):
        plan.refuse("non_private")
        return
    sigma = _joint_sigma(event.event)
    if sigma is None:
        raise UnsupportedEventError(
            f"event FixedBatchWOR({event.event.kind}) cannot be priced: batches without "
            "replacement are priced for Gaussian events only."
        )
    if sigma <= NO_NOISE:
        plan.refuse("no_noise")
    elif math.isfinite(sigma):
        plan.batches[event.batch, event.n, sigma / 2] += count
        plan.assume("Each batch was drawn uniformly among all of its size, anew for each step.")


def _add_truncated(plan: Plan, event: ev.TruncatedPoisson, count: int) -> None:
    if plan.relation == "add_remove":
        raise IncompatibleNeighboringError(
            "event TruncatedPoisson needs a public number of records (how often a batch is cut "
            "depends on it): use zero_out or replace_one."
        )
    if event.sigma <= NO_NOISE:
        plan.refuse("no_noise")
        return
    if event.max_batch >= event.n:  # nothing is ever cut
        _add(plan, ev.PoissonSampled(event.q, ev.Gaussian(event.sigma)), count)
        return
    plan.truncated[event.n, event.q, event.max_batch, event.sigma] += count
    plan.assume("Each unit entered each batch independently with the stated probability.")
    plan.assume("A batch above the stated size was cut to a uniformly drawn part of it.")


def _add_users(plan: Plan, event: ev.UserPoisson, count: int) -> None:
    if plan.relation == "replace_one":
        raise IncompatibleNeighboringError(
            "event UserPoisson has a guarantee under add_remove and zero_out, not under "
            "replace_one."
        )
    if event.sigma <= NO_NOISE:
        plan.refuse("no_noise")
    elif event.q == 1.0:
        plan.mu2 += count * (event.max_records / event.sigma) ** 2
    elif event.max_records == 1:
        plan.sampled[event.q, event.sigma] += count
    else:
        plan.mixtures[event.sigma, event.max_records, event.q] += count
    plan.assume("Each record entered each batch independently with the stated probability.")
    plan.assume("No user holds more than the stated number of records.")


def _add_selected(plan: Plan, event: ev.RepeatAndSelect, count: int) -> None:
    one = read((event.event,), plan.relation)
    for reason in one.reasons:
        plan.refuse(reason)
    for sentence in one.assumptions:
        plan.assume(sentence)
    if plan.reasons:
        return
    if kind := one.without_renyi:
        raise UnsupportedEventError(
            f"event RepeatAndSelect({kind}) cannot be priced under {plan.relation}: what is "
            "repeated needs Renyi divergences, and this has none here."
        )
    plan.assume(
        "The number of runs was drawn from the stated law and kept secret, only the best run was "
        "released, and runs were compared by a rule fixed beforehand."
    )
    if one.revealed:
        # A run that fails with probability d: some run of K does with at most E[K] d, and the
        # rest is a selection among runs that do not (docs/proofs/repeat-and-select.md).
        lost = event.mean * one.revealed
        if lost >= 1:
            plan.refuse("delta_of_one")
            return
        plan.approx[0.0, lost] += count
    plan.selected.append((one, event.mean, event.shape, count))


def _add_sampled(plan: Plan, event: ev.PoissonSampled, count: int) -> None:
    q, inner = event.q, event.event
    if q == 1.0:
        _add(plan, inner, count)
        return
    if isinstance(inner, ev.SelfComposed | ev.Composed | ev.Gaussian):
        sigma = _joint_sigma(inner)
        if sigma is not None:
            if sigma <= NO_NOISE:
                plan.refuse("no_noise")
            elif math.isfinite(sigma):
                plan.sampled[q, sigma] += count
                _note_sampling(plan)
            return
    if isinstance(inner, ev.NonPrivate):
        plan.refuse("non_private")
        return
    if isinstance(inner, ev.Laplace) and inner.b <= NO_NOISE:
        plan.refuse("no_noise")
        return
    if isinstance(inner, ev.Laplace) and plan.relation != "replace_one":
        plan.laplace[q, inner.b] += count
        _note_sampling(plan)
        return
    eps, lost = _amplifiable(inner)
    if math.isinf(eps):
        raise UnsupportedEventError(
            f"event PoissonSampled({inner.kind}) cannot be priced: amplification by Poisson "
            "sampling is implemented for Gaussian (also several on the same batch), Laplace, "
            "DiscreteLaplace, ExponentialMechanism, PureDP and ApproxDP."
        )
    smaller = amplified(eps, q)
    plan.loose = True
    _note_sampling(plan)
    if plan.relation == "replace_one" and not lost:
        # Both laws share the part without the unit: (1 - q + q e^eps) / (1 - q + q e^-eps).
        _pure(plan, smaller - math.log1p(q * math.expm1(-eps)), count)
    elif lost:
        _add_central(plan, ev.ApproxDP(smaller, q * lost), count)
    else:
        _add_central(plan, ev.PureDP(smaller), count)


def _note_sampling(plan: Plan) -> None:
    plan.assume("Each unit entered each batch independently with the stated probability.")
    if plan.relation == "replace_one" and plan.sampled:
        plan.assume(
            "Under replacement, a Poisson-sampled Gaussian is dominated by opposite "
            "contributions of full norm."
        )


def _joint_sigma(event: ev.AccountedEvent) -> float | None:
    """Return the scale of one Gaussian equal to the Gaussians in ``event``, if all are."""
    precision = _precision(event, 1)
    if precision is None:
        return None
    if precision == 0:
        return math.inf
    return 0.0 if math.isinf(precision) else precision**-0.5


def _precision(event: ev.AccountedEvent, count: int) -> float | None:
    if isinstance(event, ev.Gaussian):
        return count / event.sigma**2 if event.sigma > NO_NOISE else math.inf
    if isinstance(event, ev.SelfComposed):
        return _precision(event.event, count * event.count)
    if isinstance(event, ev.Composed):
        parts = [_precision(part, count) for part in event.events]
        return None if None in parts else math.fsum(p for p in parts if p is not None)
    return None


def _amplifiable(event: ev.AccountedEvent) -> tuple[float, float]:
    if isinstance(event, ev.PureDP | ev.ExponentialMechanism | ev.ApproxDP):
        return event.eps, getattr(event, "delta", 0.0)
    if isinstance(event, ev.Laplace):
        return (1 / event.b if event.b > NO_NOISE else math.inf), 0.0
    if isinstance(event, ev.DiscreteLaplace):
        return event.a * event.sensitivity, 0.0
    return math.inf, 0.0


def _add_parallel(plan: Plan, event: ev.Parallel, count: int) -> None:
    if plan.relation != "replace_one" and len(set(event.events)) == 1:
        plan.assume(_PARTS)
        _add(plan, event.events[0], count)
        return
    parts = tuple(read((part,), plan.relation) for part in event.events)
    moved = None
    if plan.relation == "replace_one":
        moved = tuple(read((part,), "add_remove") for part in event.events)
    for part in parts:
        for reason in part.reasons:
            plan.refuse(reason)
        for sentence in part.assumptions:
            plan.assume(sentence)
    plan.assume(_PARTS)
    if plan.reasons or not parts:
        return
    for part in parts + (moved or ()):
        if kind := part.without_renyi:
            raise UnsupportedEventError(
                f"event Parallel cannot be priced with {kind} in a part under {part.relation}: "
                "different parts are compared by Renyi divergences, and this has none here."
            )
    # A failure probability is not maximised by these bounds: charge them all, in sequence.
    if any(part.approx for part in parts):
        for inner in event.events:
            _add(plan, inner, count)
    else:
        plan.parallel.append((parts, moved, count))
