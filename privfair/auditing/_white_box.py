"""White-box attacks on the training engine: every noisy sum is seen, gradients are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.auditing._canaries import draw_inclusion
from privfair.auditing._mechanism import audit_mechanism
from privfair.auditing._one_run import one_run_audit
from privfair.core import _validation as check
from privfair.core.attack import AttackResult
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

if TYPE_CHECKING:
    import torch

    from privfair.training import TrainingPlan

__all__ = ["audit_engine", "audit_engine_step"]

PAIRS = ("dirac", "opposed")
DELTAS = (0.2, 0.05, 0.001)
_FACTOR = 10.0  # gradients of canaries before clipping, in units of the bound


class _LinearLoss:
    """A loss whose derivative is a constant: gradients do not depend on the parameters."""

    n_outputs = 1

    def per_record(self, output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return output[:, 0] * y

    def backprop(self, output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y[:, None] + 0.0 * output

    def score(self, output: torch.Tensor) -> None:
        return None

    def score_backprop(self, output: torch.Tensor) -> None:
        return None


class _Evidence:
    """Stands for the optimiser: sees each noisy sum, moves nothing, adds up log-likelihoods.

    The sum's coordinate j is N(b, sigma^2) in units of the bound, with b = 1 if canary j is in
    the batch. Given inclusion it is in the batch with the sampling probability q, so that the
    log-likelihood ratio of one step is log(1 - q + q exp((2 z - 1) / (2 sigma^2))): the most
    powerful score that there is.
    """

    def __init__(self, plan: TrainingPlan, m: int) -> None:
        self._scale = plan.expected_batch_size / plan.max_grad_norm
        self._q, self._variance = plan.sample_rate, float(plan.noise_multiplier or 0.0) ** 2
        self.scores = np.zeros(m)

    def step(self, theta: torch.Tensor, gradient: torch.Tensor) -> None:
        z = gradient[: len(self.scores)].detach().double().cpu().numpy() * self._scale
        ratio = (2 * z - 1) / (2 * self._variance)
        if self._q < 1.0:
            ratio = np.logaddexp(np.log1p(-self._q), np.log(self._q) + ratio)
        self.scores += ratio


class _Record:
    """Stands for the optimiser: keeps the first coordinate of each noisy sum."""

    def __init__(self, plan: TrainingPlan) -> None:
        self._scale = plan.expected_batch_size / plan.max_grad_norm
        self.seen: list[float] = []

    def step(self, theta: torch.Tensor, gradient: torch.Tensor) -> None:
        self.seen.append(float(gradient[0]) * self._scale)


def _checked_plan(plan: Any) -> TrainingPlan:
    from privfair.training import TrainingPlan

    if not isinstance(plan, TrainingPlan):
        raise InvalidTypeError(
            f"plan must be a TrainingPlan, got {type(plan).__name__}. A fitted private estimator "
            "has it in plan_."
        )
    if not plan.private:
        raise InvalidParameterError(
            "the plan has no noise (noise_multiplier is None), so that it claims nothing that an "
            "attack could refute."
        )
    if plan.correlation is not None:
        raise InvalidParameterError(
            "the plan correlates its noise over the steps, and these attacks are for independent "
            "noise. Attack the plan without it, dataclasses.replace(plan, correlation=None)."
        )
    if plan.statistic is not None:
        raise InvalidParameterError(
            "the plan releases a batch statistic beside the gradient. Attack the plan without it, "
            "dataclasses.replace(plan, statistic=None)."
        )
    return plan


def _run(
    plan: TrainingPlan,
    X: NDArray[np.float32],
    signs: NDArray[np.float32],
    observer: Any,
    weights: NDArray[np.float32] | None,
    options: dict[str, Any],
) -> None:
    """Run the engine on records whose gradients are ``sign * row``, with an observer inside."""
    import torch
    from torch import nn

    from privfair.training import DPEngine

    module = nn.Linear(X.shape[1], 1, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        module.weight.zero_()
    device = options.pop("device", "cpu")
    engine = DPEngine(module.to(device), _LinearLoss(), plan, optimizer=observer, **options)
    engine.run(
        torch.from_numpy(X).to(device),
        torch.from_numpy(signs).to(device),
        sample_weight=None if weights is None else torch.from_numpy(weights).to(device),
    )


def audit_engine(
    plan: TrainingPlan,
    *,
    n_canaries: int = 1000,
    k_plus: int | None = None,
    k_minus: int | None = None,
    delta: float | None = None,
    beta: float = 0.05,
    test: str = "epsilon",
    grad_path: str = "auto",
    device: str = "cpu",
    noise_random_state: int | None = None,
) -> AttackResult:
    """Attack one run of the training engine with canaries in gradient space.

    Canary j has the gradient ``10 * max_grad_norm * e_j``, a direction of its own, which an
    honest engine clips to ``max_grad_norm``. The attacker sees the noisy sum of every step and
    scores each canary by its log-likelihood ratio: no attack on the engine is stronger.

    Parameters
    ----------
    plan : TrainingPlan
        What is attacked, at its own batch size, noise and number of steps; private.
    n_canaries : int, default=1000
        In [1, plan.n_public]. The other records have gradients in one direction of their own.
    k_plus, k_minus : int or None
        Number of canaries guessed as included and as excluded; None takes a twentieth of them.
    delta : float or None
        In (0, 1), where the plan is certified; None is the largest power of ten that is at most
        1 / (10 n_public).
    beta : float, default=0.05
        In (0, 1): probability with which the lower bound may be wrong.
    test : {"epsilon", "curve", "gdp"}, default="epsilon"
        What is put to the test: see :func:`one_run_audit`.
    grad_path : {"auto", "closed_form", "functional"}, default="auto"
        Which of the engine's ways to clip is attacked.
    device : str, default="cpu"
        Where the engine runs.
    noise_random_state : int or None, default=None
        Makes inclusion, batches and noise repeatable, for tests.

    Returns
    -------
    AttackResult

    Raises
    ------
    InvalidParameterError
        A plan without noise or with a statistic, or more canaries than records.

    Notes
    -----
    Time and memory O(n_public * n_canaries). Exclusion follows the plan's relation: under
    ``zero_out`` the canary's gradient is zero, under ``add_remove`` its row is absent. Privacy:
    no data are involved, and nothing is charged.

    References
    ----------
    Nasr et al. 2023, "Tight auditing of differentially private machine learning", arXiv
    2302.07956. Steinke, Nasr, Jagielski 2023, arXiv 2305.08846.

    Examples
    --------
    >>> from privfair.training import TrainingPlan
    >>> plan = TrainingPlan(200, expected_batch_size=200, steps=1, max_grad_norm=1.0,
    ...                     noise_multiplier=1.0)
    >>> audit_engine(plan, n_canaries=200, delta=1e-5).verdict
    'no violation found'
    """
    from privfair.accounting import guarantee

    plan = _checked_plan(plan)
    m = check.positive_int(n_canaries=n_canaries)
    if m > plan.n_public:
        raise InvalidParameterError(
            f"n_canaries must be at most the plan's n_public = {plan.n_public}, got {m}: "
            "canaries are records of the run."
        )
    k_plus = max(1, m // 20) if k_plus is None else k_plus
    k_minus = (max(1, m // 20) if m > 1 else 0) if k_minus is None else k_minus
    if delta is None:
        delta = 10.0 ** -int(np.ceil(np.log10(10 * plan.n_public) - 1e-12))
    certified = guarantee(
        plan.event(), delta=delta, neighboring=plan.relation, numerics="hardened",
        seeded=noise_random_state is not None,
    )  # fmt: skip
    included = draw_inclusion(m, noise_random_state=noise_random_state)
    X, signs, weights = _dirac_rows(plan, included)
    observer = _Evidence(plan, m)
    options = {"grad_path": grad_path, "device": device, "noise_random_state": noise_random_state}
    _run(plan, X, signs, observer, weights, options)
    result = one_run_audit(
        observer.scores, included, k_plus=k_plus, k_minus=k_minus, beta=beta,
        test=test, certified=certified, target="the training engine",
    )  # fmt: skip
    return replace(
        result,
        method="White box: gradients chosen, every noisy sum seen. " + result.method,
        details={**result.details, "steps": plan.steps, "sample_rate": plan.sample_rate,
                 "noise_multiplier": plan.noise_multiplier, "canaries": "dirac"},
    )  # fmt: skip


def _dirac_rows(
    plan: TrainingPlan, included: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
    """Return one row per record: e_j for canary j, the last direction for all others."""
    m = len(included)
    X = np.zeros((plan.n_public, m + 1), dtype=np.float32)
    X[np.arange(m), np.arange(m)] = 1.0
    X[m:, m] = 1.0
    signs = np.full(plan.n_public, _FACTOR * plan.max_grad_norm, dtype=np.float32)
    if plan.relation == "add_remove":
        kept = np.concatenate([included, np.ones(plan.n_public - m, dtype=bool)])
        return X[kept], signs[kept], None
    weights = np.ones(plan.n_public, dtype=np.float32)
    weights[:m] = included
    return X, signs, weights


def audit_engine_step(
    plan: TrainingPlan,
    *,
    draws: int = 2000,
    pairs: Sequence[str] = PAIRS,
    deltas: Sequence[float] = DELTAS,
    confidence: float = 1 - 1e-6,
    grad_path: str = "auto",
    device: str = "cpu",
    noise_random_state: int | None = None,
) -> AttackResult:
    """Attack one step of the training engine with many independent draws of it.

    Far stronger than :func:`audit_engine` against an engine that is wrong, because thousands of
    independent steps are seen on two data sets that differ in one record.

    Parameters
    ----------
    plan : TrainingPlan
        Its clipping bound, noise, sampling rate and relation are attacked; ``steps`` is not used.
    draws : int, default=2000
        Steps on either data set, at least 200.
    pairs : sequence of {"dirac", "opposed"}, default=both
        ``"dirac"``: one record with a gradient ten times the bound, against none.
        ``"opposed"``: the same record against another whose gradient has three times the bound
        and the opposite sign; this shows clipping after the sum.
    deltas : sequence of float, default=(0.2, 0.05, 0.001)
        In (0, 1): the points of the certified curve that are attacked. A few thousand draws can
        refute a claim at a large delta and hardly one at a small delta.
    confidence : float, default=1 - 1e-6
        Of the lower bound, over all pairs and points together.
    grad_path : {"auto", "closed_form", "functional"}, default="auto"
        Which of the engine's ways to clip is attacked.
    device : str, default="cpu"
        Where the engine runs.
    noise_random_state : int or None, default=None
        Makes batches and noise repeatable, for tests.

    Returns
    -------
    AttackResult
        Of the pair and the delta with the largest excess of the audited over the certified
        epsilon; all are in ``details``.

    Raises
    ------
    InvalidParameterError
        A plan without noise or with a statistic, or an unknown pair.

    Notes
    -----
    The loss is linear, so that a step does not depend on those before it: ``draws`` steps of one
    run are ``draws`` independent releases. O(draws). Privacy: no data are involved.

    References
    ----------
    Tramer, Terzis, Steinke, Song, Jagielski, Carlini 2022, "Debugging differential privacy",
    arXiv 2202.12219.

    Examples
    --------
    >>> from privfair.training import TrainingPlan
    >>> plan = TrainingPlan(2, expected_batch_size=2, steps=1, max_grad_norm=1.0,
    ...                     noise_multiplier=1.0)
    >>> audit_engine_step(plan, draws=500).verdict
    'no violation found'
    """
    from privfair.accounting import guarantee

    plan = _checked_plan(plan)
    draws = check.positive_int(draws=draws)
    if plan.n_public < 2:
        raise InvalidParameterError("the plan must have n_public of at least 2, got 1.")
    if not pairs or not deltas:
        raise InvalidParameterError(
            f"pairs must name at least one of {', '.join(PAIRS)}, and deltas one number."
        )
    for pair in pairs:
        check.one_of(PAIRS, pairs=pair)
    seeded = noise_random_state is not None
    certified = guarantee(
        replace(plan, steps=1).event(), delta=min(deltas), neighboring=plan.relation,
        numerics="hardened", seeded=seeded,
    )  # fmt: skip
    level = 1 - (1 - check.confidence(confidence=confidence)) / (len(pairs) * len(deltas))
    found: dict[str, AttackResult] = {}
    for number, pair in enumerate(pairs):
        seeds = [noise_random_state + 2 * number + k if seeded else None for k in (0, 1)]  # type: ignore[operator]
        samples = [
            _step_draws(plan, pair, present, draws, grad_path, device, seed)
            for present, seed in zip((True, False), seeds, strict=True)
        ]
        for delta in deltas:
            found[f"{pair}, delta = {delta:g}"] = audit_mechanism(
                *samples, certified=certified, delta=delta, confidence=level,
                target="one step of the training engine",
            )  # fmt: skip
    worst = max(found.values(), key=lambda r: (r.lower_epsilon or 0.0) - (r.upper_epsilon or 0.0))
    points = {name: [r.lower_epsilon, r.upper_epsilon] for name, r in found.items()}
    return replace(
        worst, confidence=confidence, assumption="curve",
        details={**worst.details, "lower_and_upper_epsilon": points},
    )  # fmt: skip


def _step_draws(
    plan: TrainingPlan,
    pair: str,
    present: bool,
    draws: int,
    grad_path: str,
    device: str,
    seed: int | None,
) -> NDArray[np.float64]:
    """Return the first coordinate of ``draws`` noisy sums, in units of the clipping bound."""
    n = plan.n_public
    long = replace(plan, steps=draws)
    X = np.zeros((2, 2), dtype=np.float32)
    X[0, 0] = 1.0
    X[1, 0 if pair == "opposed" else 1] = 1.0
    signs = np.array([_FACTOR, -3.0 if pair == "opposed" else 1.0], dtype=np.float32)
    signs *= np.float32(plan.max_grad_norm)
    if plan.relation == "zero_out":
        # All other records contribute nothing: rows of weight zero.
        X = np.concatenate([X, np.zeros((n - 2, 2), dtype=np.float32)])
        signs = np.concatenate([signs, np.zeros(n - 2, dtype=np.float32)])
        weights = np.ones(n, dtype=np.float32)
        weights[0] = float(present)
    else:
        weights = None
        if not present:
            X, signs = X[1:], signs[1:]
    observer = _Record(long)
    options = {"grad_path": grad_path, "device": device, "noise_random_state": seed}
    _run(long, X, signs, observer, weights, options)
    return np.array(observer.seen)
