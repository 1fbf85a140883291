"""What ``privfair audit adult`` tries beyond measuring: attacks, and a model at many epsilons."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privfair.auditing import AttackResult
    from privfair.report import PrivacySweep

__all__ = ["attacks_on", "sweep_of"]

EPSILONS = (0.3, 1.0, 3.0)
CANARIES = 500
_ANOTHER = (
    "Attacked was another fit of the same estimator, at the same settings, on made-up rows of the "
    "same columns: the implementation, not the audited model itself."
)


def attacks_on(twin: Any, schema: Any, *, seed: int) -> list[AttackResult]:
    """Attack the private twin's own plan and a fit of the same estimator; read no real row.

    White box, the training engine runs the twin's plan on gradients of the attacker's choice.
    Black box, the estimator is trained on as many made-up rows of the same columns. Neither
    touches the training data, so that nothing is charged.
    """
    from sklearn.base import clone

    from privfair.accounting import Ledger
    from privfair.auditing import audit_engine, audit_estimator
    from privfair.datasets import make_adult_like

    plan = twin.plan_
    canaries = min(CANARIES, plan.n_public // 2)
    made_up = make_adult_like(plan.n_public, random_state=seed)
    again = clone(twin).set_params(
        schema=schema, ledger=Ledger(dataset_id="made-up rows"), random_state=seed
    )
    delta = twin.privacy_.delta
    fit = audit_estimator(
        again, made_up.data, made_up.target, n_canaries=canaries, kind="rare",
        classes=list(twin.classes_), random_state=seed,
    )  # fmt: skip
    return [
        audit_engine(plan, n_canaries=canaries, delta=delta),
        audit_engine(plan, n_canaries=canaries, delta=delta, test="curve"),
        replace(fit, target=f"{fit.target} on made-up rows", caveats=(*fit.caveats, _ANOTHER)),
    ]


def sweep_of(twin: Any, train: Any, *, runs: int, seed: int, progress: Any = None) -> PrivacySweep:
    """Train the twin's estimator at several epsilons, its own among them, and without privacy."""
    from privfair.report import privacy_sweep

    return privacy_sweep(
        twin, train.data, train.target, epsilons=sorted({*EPSILONS, float(twin.epsilon)}),
        n_runs=runs, random_state=seed, progress=progress,
    )  # fmt: skip
