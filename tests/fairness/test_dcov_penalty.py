"""The batch-level penalty: against its definition, pair by pair, and refused under privacy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privfair.accounting import Ledger
from privfair.core import Penalty
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.dp import DPClassifier
from privfair.fairness.dcov import AttributeEncoder, DistanceCovariancePenalty
from privfair.testing import check_penalty

KINDS = ["ccdcov", "jdcov", "pairwise", "cells"]


def sample(n=120, seed=0):
    rng = np.random.default_rng(seed)
    S = {"sex": rng.choice(["f", "m"], n, p=[0.3, 0.7]), "race": rng.choice(list("abc"), n)}
    f = rng.random(n) + 0.3 * (S["sex"] == "f") * (S["race"] == "a")
    return torch.from_numpy(f), S


def u_centred(d):
    n = len(d)
    out = d.sum(1)[:, None] / (n - 2) + d.sum(0)[None] / (n - 2) - d
    out -= d.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(out, 0.0)
    return out


def v_centred(d, w):
    means = d @ w
    return means[:, None] + means[None, :] - d - w @ d @ w


def by_pairs(kind, f, S, encoder, estimator, tau, c):
    """Return the penalty from all n x n pairs."""
    n = len(f)
    codes = encoder.transform(S)
    blocks = [codes[:, b] for b in encoder.blocks_.values()]
    apart = [np.linalg.norm(b[:, None] - b[None], axis=2) for b in blocks]
    cell = np.unique(codes, axis=0, return_inverse=True)[1].ravel()
    share = np.bincount(cell) / n
    target = share**tau / (share**tau).sum()
    w = (target / share / n)[cell]
    own = np.abs(f[:, None] - f[None])

    def centre(d):
        return u_centred(d) if estimator == "u" else v_centred(d, w)

    if kind == "jdcov":
        other = np.prod([centre(d) + c for d in apart], axis=0)
    elif kind == "cells":
        other = centre((cell[:, None] != cell[None]).astype(float))
    elif kind == "pairwise":
        other = centre(sum(apart))
    else:
        other = centre(np.sqrt(sum(d**2 for d in apart)))
    product = centre(own) * other
    return product.sum() / (n * (n - 3)) if estimator == "u" else w @ product @ w


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("estimator", "tau"), [("u", 1.0), ("v", 1.0), ("v", 0.5), ("v", 0.0)])
def test_the_penalty_is_its_definition_over_all_pairs(kind, estimator, tau):
    f, S = sample()
    encoder = AttributeEncoder(weights={"race": 2.0}).fit(S)
    penalty = DistanceCovariancePenalty(
        kind, c=0.7, estimator=estimator, group_weighting=tau, encoder=encoder, min_cell=1
    )
    penalty.fit(S)
    assert penalty.encoder_ is encoder and penalty.n_cells == 6
    found = float(penalty(f, penalty.encode(S)))
    wanted = by_pairs(kind, f.numpy(), S, encoder, estimator, tau, 0.7)
    assert abs(wanted) > 1e-4
    assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["u", "v"])
def test_gradients_agree_with_differences(kind, estimator):
    f, S = sample(24)
    penalty = DistanceCovariancePenalty(kind, estimator=estimator, min_cell=1).fit(S)
    codes = penalty.encode(S)
    assert torch.autograd.gradcheck(
        lambda x: penalty(x, codes), f.clone().requires_grad_(True), eps=1e-7, atol=1e-6
    )


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("pairwise", 0.0), ("ccdcov", 0.0732233047), ("jdcov", 0.125), ("cells", 0.125)],
)
def test_gerrymandered_predictions(kind, wanted):
    """Prediction = exclusive or of two fair bits: closed forms."""
    S = {"a": [0, 0, 1, 1] * 10, "b": [0, 1, 0, 1] * 10}
    f = torch.tensor([0.0, 1.0, 1.0, 0.0] * 10, dtype=torch.float64)
    encoder = AttributeEncoder(types={"a": "binary", "b": "binary"}, scaling="paper")
    penalty = DistanceCovariancePenalty(
        kind, estimator="v", group_weighting=1.0, encoder=encoder, min_cell=1
    ).fit(S)
    assert float(penalty(f, penalty.encode(S))) == pytest.approx(wanted, abs=1e-10)


def test_it_keeps_the_contract_of_a_penalty_and_private_trainers_refuse_it_by_name():
    penalty = DistanceCovariancePenalty()
    check_penalty(penalty)
    assert isinstance(penalty, Penalty) and not penalty.decomposable
    f, S = sample()
    clf = DPClassifier(epsilon=1.0, schema="as_is", fairness_penalty=penalty, ledger=Ledger())
    with pytest.raises(AccountingAssumptionError, match="DistanceCovariancePenalty"):
        clf.fit(f[:, None].numpy(), (f > 0.5).numpy(), sensitive_features=S)
    assert len(clf.ledger) == 0


def test_without_privacy_the_private_trainer_takes_it():
    rng = np.random.default_rng(0)
    S = {"s": rng.choice(["f", "m"], 2_000)}
    X = np.stack([rng.normal(size=2_000) + 2 * (S["s"] == "f"), rng.normal(size=2_000)], axis=1)
    y = (X.sum(axis=1) + rng.logistic(size=2_000) > 1).astype(int)
    found = []
    for strength in (0.0, 30.0):
        penalty = DistanceCovariancePenalty("cells", strength=strength)
        clf = DPClassifier(
            epsilon=float("inf"), schema="as_is", fairness_penalty=penalty, lr=0.05, epochs=40,
            random_state=0,
        ).fit(X, y, sensitive_features=S)  # fmt: skip
        assert penalty.encoder_ is None  # the parameter itself is never changed
        assert not any("declared" in note for note in clf.privacy_.assumptions)
        scores = torch.from_numpy(clf.predict_proba(X)[:, 1])
        fitted = DistanceCovariancePenalty("cells", estimator="v").fit(S)
        found.append(float(fitted(scores, fitted.encode(S))))
    assert found[1] < 0.2 * found[0]


def test_small_cells_are_pooled_once_and_for_all():
    n = 400
    S = {"g": np.array(["a"] * 200 + ["b"] * 180 + ["c"] * 12 + ["d"] * 8)}
    penalty = DistanceCovariancePenalty(estimator="v").fit(S)
    assert penalty.n_cells == 3
    assert sorted(label[0] for label in penalty.pooled_cells_) == ["c", "d"]
    assert penalty.encode({"g": ["d", "c", "a"]}).tolist() == [2, 2, 0]  # in any batch
    f = torch.linspace(0, 1, n, dtype=torch.float64)
    merged = {"g": np.where(np.isin(S["g"], ["c", "d"]), "z", S["g"])}
    apart = DistanceCovariancePenalty("cells", estimator="v", min_cell=1).fit(merged)
    pooled = DistanceCovariancePenalty("cells", estimator="v").fit(S)
    found = [float(p(f, p.encode(s))) for p, s in ((pooled, S), (apart, merged))]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    alone = DistanceCovariancePenalty(min_cell=1).fit(S)
    assert alone.n_cells == 4 and alone.pooled_cells_ == []


def test_estimators_weights_scales_and_outputs():
    f, S = sample(1_100)
    make = DistanceCovariancePenalty
    values = {}
    for name in ("auto", "u", "v"):
        penalty = make(estimator=name, group_weighting=1.0).fit(S)
        codes = penalty.encode(S)
        values[name] = [float(penalty(f[:m], codes[:m])) for m in (1_023, 1_024)]
    assert values["auto"] == [values["u"][0], values["v"][1]]
    assert values["v"][0] > values["u"][0]
    penalty = make(estimator="v").fit(S)
    codes = penalty.encode(S)
    # A weight of two is the row twice.
    twice = torch.cat([f[:100], f[:40]]), torch.cat([codes[:100], codes[:40]])
    weight = torch.ones(100, dtype=torch.float64)
    weight[:40] = 2.0
    found = penalty(f[:100], codes[:100], sample_weight=weight)
    assert float(found) == pytest.approx(float(penalty(*twice)), rel=1e-9)
    both = torch.stack([f, f**2], dim=1)
    assert float(penalty(both, codes)) == pytest.approx(
        float(penalty(f, codes)) + float(penalty(f**2, codes)), rel=1e-9
    )
    scaled = make(estimator="v", normalise="target_scale", scale=4.0).fit(S)
    assert float(scaled(f, codes)) == pytest.approx(float(penalty(f, codes)) / 4, rel=1e-9)
    few = f[:3].clone().requires_grad_(True)
    nothing = make(estimator="u").fit(S)(few, codes[:3])
    nothing.backward()
    assert float(nothing.detach()) == 0.0 and not few.grad.any()


def test_continuous_attributes_and_correlations():
    rng = np.random.default_rng(0)
    f = torch.from_numpy(rng.random(60))
    S = {"age": rng.random(60) * 50, "income": rng.normal(size=60)}
    encoder = AttributeEncoder(max_cells=20).fit(S)
    for kind in ("ccdcov", "pairwise", "jdcov"):
        penalty = DistanceCovariancePenalty(
            kind, estimator="v", group_weighting=1.0, encoder=encoder, c=0.7
        ).fit(S)
        assert penalty.n_cells is None
        wanted = by_pairs(kind, f.numpy(), S, encoder, "v", 1.0, 0.7)
        assert float(penalty(f, penalty.encode(S))) == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(InvalidParameterError, match="finitely many"):
        DistanceCovariancePenalty(encoder=encoder, group_weighting=0.5).fit(S)
    with pytest.raises(InvalidParameterError, match="finitely many"):
        DistanceCovariancePenalty("cells", encoder=encoder, group_weighting=1.0).fit(S)
    f, S = sample()
    own = v_centred(np.abs(f.numpy()[:, None] - f.numpy()[None]), np.full(120, 1 / 120))
    plain = DistanceCovariancePenalty(estimator="v").fit(S)
    ratio = DistanceCovariancePenalty(estimator="v", normalise="dcor").fit(S)
    codes = plain.encode(S)
    assert float(ratio(f, codes)) == pytest.approx(
        float(plain(f, codes)) / np.sqrt((own**2).mean()), rel=1e-6
    )


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"kind": "dcov"}, InvalidParameterError, "ccdcov"),
        ({"c": -1.0}, InvalidParameterError, "c must be"),
        ({"estimator": "w"}, InvalidParameterError, "estimator"),
        ({"group_weighting": 2.0}, InvalidParameterError, "group_weighting"),
        ({"normalise": "yes"}, InvalidParameterError, "target_scale"),
        ({"scale": 0.0}, InvalidParameterError, "scale"),
        ({"strength": -0.5}, InvalidParameterError, "strength"),
        ({"min_cell": 0}, InvalidParameterError, "min_cell"),
        ({"encoder": "one-hot"}, InvalidTypeError, "AttributeEncoder"),
    ],
)
def test_refusals(options, error, match):
    with pytest.raises(error, match=match):
        DistanceCovariancePenalty(**options)


def test_attributes_are_encoded_by_a_fitted_penalty_only():
    with pytest.raises(InvalidParameterError, match="fit"):
        DistanceCovariancePenalty().encode({"s": ["a"]})
