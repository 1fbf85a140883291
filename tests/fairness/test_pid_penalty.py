"""The parts of a disparity as a training penalty: value, gradient, and who refuses it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privfair.accounting import Ledger
from privfair.core import Numeric, Penalty, Schema
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
)
from privfair.dp import DPClassifier
from privfair.fairness.pid import PIDPenalty, pid_from_joint

SCHEMA = Schema({"x0": Numeric(-4, 4), "x1": Numeric(-4, 4)})


def batch(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.uniform(0.05, 0.95, n)),
        torch.from_numpy(rng.integers(0, 2, n)),
        torch.from_numpy(rng.integers(0, 3, n)),
    )


def expected_table(scores: torch.Tensor, z: torch.Tensor, s: torch.Tensor) -> np.ndarray:
    P = np.zeros((2, 2, 3))
    for p, g, c in zip(scores.tolist(), z.tolist(), s.tolist(), strict=True):
        P[g, 1, c] += p / len(scores)
        P[g, 0, c] += (1 - p) / len(scores)
    return P


def test_the_value_is_the_weighted_sum_of_the_parts_of_random_decisions() -> None:
    scores, z, s = batch()
    parts = pid_from_joint(expected_table(scores, z, s))
    value = PIDPenalty(unique=0.5, redundant=2.0, masked=3.0)(scores, z, client=s)
    total = 0.5 * parts.unique + 2 * parts.redundant + 3 * parts.masked
    assert value.item() == pytest.approx(float(total), abs=1e-12)
    local = PIDPenalty(unique=1, redundant=0, masked=1)(scores, torch.stack([z, s], dim=1))
    assert local.item() == pytest.approx(float(parts.local_disparity), abs=1e-12)
    both = PIDPenalty()(torch.stack([1 - scores, scores], dim=1), z, client=s)
    assert both.item() == pytest.approx(
        float(parts.unique + parts.redundant + parts.masked), abs=1e-12
    )


def test_weights_of_rows_are_copies_of_rows() -> None:
    scores, z, s = batch(30)
    weights = torch.from_numpy(np.random.default_rng(1).integers(1, 4, 30)).double()
    times = weights.long()
    copies = (scores.repeat_interleave(times), z.repeat_interleave(times))
    one = PIDPenalty()(scores, z, client=s, sample_weight=weights)
    assert one.item() == pytest.approx(
        PIDPenalty()(*copies, client=s.repeat_interleave(times)).item(), abs=1e-12
    )


def test_gradient_by_differences() -> None:
    scores, z, s = batch(24)
    leaf = scores.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: PIDPenalty(masked=0.5)(p, z, client=s), (leaf,))


def test_a_batch_of_one_group_has_no_penalty() -> None:
    scores, z, s = batch(10)
    leaf = scores.requires_grad_()
    value = PIDPenalty()(leaf, torch.zeros_like(z), client=s)
    value.backward()
    assert value.item() == 0.0 and leaf.grad is not None and not leaf.grad.any()


def test_several_sensitive_columns_are_crossed() -> None:
    scores, z, s = batch(200)
    other = torch.arange(200) % 2
    crossed = PIDPenalty()(scores, z * 2 + other, client=s)
    assert PIDPenalty()(scores, torch.stack([z, other, s], dim=1)).item() == pytest.approx(
        crossed.item(), abs=1e-9
    )


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"unique": -1.0}, InvalidParameterError),
        ({"masked": float("nan")}, InvalidParameterError),
        ({"redundant": True}, InvalidTypeError),
        ({"strength": "1"}, InvalidTypeError),
        ({"unique": 0, "redundant": 0, "masked": 0}, InvalidParameterError),
    ],
)
def test_bad_weights_are_refused(kwargs: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(kwargs))):
        PIDPenalty(**kwargs)


def test_a_batch_without_clients_or_of_unequal_lengths_is_refused() -> None:
    scores, z, s = batch(10)
    with pytest.raises(SchemaError, match="client"):
        PIDPenalty()(scores, z)
    with pytest.raises(LengthMismatchError, match="one entry a row"):
        PIDPenalty()(scores, z, client=s[:5])


# -- in training --------------------------------------------------------------------------
def rows(n: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions that follow sex, which the client follows in part."""
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 2, n)
    client = np.where(rng.random(n) < 0.8, z, 1 - z)
    X = np.stack([rng.normal(size=n) + 1.5 * z, rng.normal(size=n)], axis=1).clip(-4, 4)
    y = (X.sum(axis=1) + rng.logistic(size=n) > 0.7).astype(int)
    return X, y, np.stack([z, client], axis=1)


def classifier(**kwargs: object) -> DPClassifier:
    return DPClassifier(
        **{"schema": SCHEMA, "ledger": Ledger(), "epochs": 30, "random_state": 0, **kwargs}
    )


def soft_parts(model: DPClassifier, X: np.ndarray, S: np.ndarray) -> dict:
    p = model.predict_proba(X)[:, 1]
    P = np.zeros((2, 2, 2))
    np.add.at(P, (S[:, 0], 1, S[:, 1]), p / len(p))
    np.add.at(P, (S[:, 0], 0, S[:, 1]), (1 - p) / len(p))
    return pid_from_joint(P).as_dict()


def test_a_run_without_privacy_lowers_the_global_disparity() -> None:
    X, y, S = rows()
    frame = {"epsilon": float("inf")}
    plain = classifier(**frame).fit(X, y)
    fair = classifier(**frame, fairness_penalty=PIDPenalty(masked=0.0, strength=8.0)).fit(
        X, y, sensitive_features=S
    )
    before, after = soft_parts(plain, X, S), soft_parts(fair, X, S)
    assert before["global_disparity"] > 0.02
    assert after["unique"] + after["redundant"] < 0.5 * (before["unique"] + before["redundant"])
    assert "non_private" in fair.privacy_.unsafe


def test_a_private_trainer_refuses_it_by_name_before_any_charge() -> None:
    X, y, S = rows(200)
    ledger = Ledger()
    model = classifier(epsilon=1.0, fairness_penalty=PIDPenalty(), ledger=ledger)
    with pytest.raises(AccountingAssumptionError, match="PIDPenalty cannot be trained"):
        model.fit(X, y, sensitive_features=S)
    assert isinstance(PIDPenalty(), Penalty)
    assert not list(ledger.entries())
