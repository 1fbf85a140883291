"""unit="user": all records of a user are drawn, clipped and accounted as one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from privfair.accounting import Ledger
from privfair.core import Numeric, Schema
from privfair.core.exceptions import (
    AccountingAssumptionError,
    DataError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    LengthMismatchError,
    PrivfairError,
)
from privfair.core.randomness import secret_stream
from privfair.dp import DPClassifier, DPRegressor
from privfair.training import (
    Checkpoints,
    DPEngine,
    LogisticLoss,
    SquaredLoss,
    TrainingPlan,
    make_optimizer,
)
from privfair.training._users import UserPath, UserRecords, encode_users

SCHEMA = Schema({"a": Numeric(-3, 3), "b": Numeric(-3, 3)})


def table(n_users=400, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(n_users), rng.integers(1, 8, n_users)))
    X = pd.DataFrame(rng.normal(size=(len(ids), 2)), columns=["a", "b"])
    y = (X["a"] - X["b"] + 0.3 * rng.normal(size=len(ids)) > 0).astype(int).to_numpy()
    return X, y, np.array([f"user {i}" for i in ids])


def classifier(**kwargs):
    return DPClassifier(
        **{"unit": "user", "schema": SCHEMA, "ledger": Ledger(unit="user"), **kwargs}
    )


# -- the sums, against brute force ---------------------------------------------------------
def stack(kind, rng):
    torch.manual_seed(0)
    if kind == "linear":
        made = nn.Sequential(nn.Linear(3, 1))
    elif kind == "network":
        made = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    else:  # no closed form
        made = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 1))
    return made


def brute_force(module, loss, X, y, w, codes, users, bound):
    """One autograd call per user, no padding, no batching."""
    total, norms = 0.0, []
    for user in users:
        rows = np.flatnonzero(codes == user)
        value = (w[rows] * loss.per_record(module(X[rows]), y[rows])).sum()
        grads = torch.autograd.grad(value, list(module.parameters()))
        flat = torch.cat([g.flatten() for g in grads]).double()
        norms.append(float(flat.norm()))
        total = total + flat * min(1.0, bound / max(norms[-1], 1e-300))
    return total, np.array(norms)


@pytest.mark.parametrize("loss", [LogisticLoss(), SquaredLoss()])
@pytest.mark.parametrize("kind", ["linear", "network", "other"])
@pytest.mark.parametrize("small", [False, True])
def test_sums_equal_those_of_one_gradient_per_user(kind, loss, small, monkeypatch):
    if small:  # many pieces
        monkeypatch.setattr("privfair.training._users._PLACES", 16)
        monkeypatch.setattr("privfair.training._users._BYTES", 2_000)
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(30), rng.integers(1, 12, 30))
    rng.shuffle(codes)
    n = len(codes)
    X = torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 2, n).astype(np.float32))
    w = torch.from_numpy(rng.uniform(0.5, 2, n).astype(np.float32))
    module = stack(kind, rng)
    held = UserRecords.build(X, y, w, codes, 30, None, secret_stream(0))
    path = UserPath(module, loss, held)
    users = np.array([0, 3, 7, 8, 19, 29])
    found = path.sums(held.places, held.places, torch.from_numpy(users), 0.8, 0.0)
    total, norms = brute_force(module, loss, X, y, w, codes, users, 0.8)
    np.testing.assert_allclose(found.norms.numpy(), norms, rtol=2e-5)
    np.testing.assert_allclose(found.total.numpy(), total.numpy(), atol=5e-6)
    assert (norms > 0.8).any() and (norms < 0.8).any() or kind != "linear"
    free = path.sums(held.places, held.places, torch.from_numpy(users), None, 0.0)
    whole, _ = brute_force(module, loss, X, y, w, codes, users, 1e9)
    np.testing.assert_allclose(free.total.numpy(), whole.numpy(), atol=5e-5)


@pytest.mark.parametrize("kind", ["linear", "network", "other"])
def test_whatever_one_user_holds_its_part_stays_within_the_bound(kind):
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(20), 5)
    X = rng.normal(size=(100, 3)).astype(np.float32)
    y = rng.integers(0, 2, 100).astype(np.float32)
    module = stack(kind, rng)
    users = torch.arange(20)

    def total(X, y, codes):
        held = UserRecords.build(
            torch.from_numpy(X), torch.from_numpy(y), None, codes, 20, None, secret_stream(0)
        )
        return UserPath(module, LogisticLoss(), held).sums(
            held.places, held.places, users, 0.5, 1e-5
        )

    base = total(X, y, codes).total
    keep = codes != 4
    without = total(X[keep], y[keep], codes[keep]).total
    for hostile in (
        np.full((500, 3), 1e4), np.full((500, 3), np.nan), np.full((1, 3), np.inf),
        rng.normal(size=(3_000, 3)) * 1e3,
    ):  # fmt: skip
        many = np.concatenate([X[keep], hostile.astype(np.float32)])
        labels = np.concatenate([y[keep], np.ones(len(hostile), np.float32)])
        owners = np.concatenate([codes[keep], np.full(len(hostile), 4)])
        other = total(many, labels, owners).total
        assert torch.isfinite(other).all()
        assert (other - without).norm() <= 0.5
    assert 0 < (base - without).norm() <= 0.5


def test_one_record_each_is_the_record_engine():
    rng = np.random.default_rng(3)
    X = torch.from_numpy(rng.normal(size=(60, 3)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 2, 60).astype(np.float32))
    found = []
    for user in (False, True):
        module = nn.Sequential(nn.Linear(3, 1))
        nn.init.zeros_(module[0].weight)
        nn.init.zeros_(module[0].bias)
        # Both sum in float64 there: under zero_out the record path sums in float32 blocks, whose
        # error widens its noise by 0.2 %.
        plan = TrainingPlan(60, 20, 15, 1.0, 1.3, "add_remove")
        options = {"optimizer": make_optimizer("sgd", 0.5), "noise_random_state": 4}
        if user:
            held = UserRecords.build(X, y, None, np.arange(60), 60, None, secret_stream(0))
            path = UserPath(module, LogisticLoss(), held)
            DPEngine(module, LogisticLoss(), plan, path=path, **options).run(
                held.places, held.places[:, 0]
            )
        else:
            DPEngine(module, LogisticLoss(), plan, **options).run(X, y)
        found.append(module[0].weight.detach().numpy().copy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_at_most_so_many_records_of_each_user():
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(3), [2, 50, 5]))
    X = torch.arange(57.0)[:, None]
    chosen = []
    for seed in range(40):
        held = UserRecords.build(X, X[:, 0], None, codes, 3, 4, secret_stream(seed))
        assert held.starts.tolist() == [0, 2, 6, 10]
        for user in range(3):
            rows = held.X[held.starts[user] : held.starts[user + 1], 0].numpy().astype(int)
            assert (codes[rows] == user).all() and len(set(rows)) == len(rows)
        chosen.append(tuple(held.X[2:6, 0].tolist()))
        assert torch.equal(held.X[:, 0], held.y)
    assert len(set(chosen)) > 35  # drawn, not the first ones


# -- estimators ----------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"hidden_layer_sizes": (8,)}])
def test_learns_and_certifies_users(options):
    X, y, ids = table(1_500)
    ledger = Ledger(unit="user")
    clf = classifier(ledger=ledger, epsilon=3.0, **options).fit(X, y, user_ids=ids)
    test_X, test_y, _ = table(300, seed=9)
    assert clf.score(test_X, test_y) > 0.85
    g = clf.privacy_
    assert (g.unit, g.certified) == ("user", True) and g.epsilon <= 3.0
    assert clf.plan_.n_public == 1_500 and ledger.unit == "user"
    assert any("number of users is public" in text for text in g.assumptions)
    assert "user" in g.explain()


def test_regressor_by_user():
    X, y, ids = table(800)
    reg = DPRegressor(
        target_range=(-1, 2), unit="user", schema=SCHEMA, ledger=Ledger(unit="user"),
        max_records_per_user=3, epsilon=3.0,
    ).fit(X, y, user_ids=list(ids))  # fmt: skip
    assert reg.privacy_.unit == "user" and reg.score(X, y) > 0.3


def test_add_remove_needs_a_public_number_and_does_not_look_at_the_true_one():
    X, y, ids = table(300)
    ledger = Ledger(unit="user", neighboring="add_remove")
    options = {"neighboring": "add_remove", "ledger": ledger, "epochs": 2}
    with pytest.raises(InvalidParameterError, match="n_public"):
        classifier(**options).fit(X, y, user_ids=ids)
    clf = classifier(n_public=1_000, **options).fit(X, y, user_ids=ids)
    assert clf.plan_.n_public == 1_000


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (None, AccountingAssumptionError),
        (lambda ids: [*ids[:-1], None], DataError),
        (lambda ids: np.r_[np.arange(len(ids) - 1.0), np.nan], DataError),
        (lambda ids: ids[:-1], LengthMismatchError),
    ],
    ids=["missing", "none", "nan", "short"],
)
def test_bad_identifiers_are_refused_before_the_charge(ids, error):
    X, y, good = table(50)
    ledger = Ledger(unit="user")
    with pytest.raises(error, match="user_ids") as caught:
        classifier(ledger=ledger).fit(X, y, user_ids=None if ids is None else ids(good))
    assert len(ledger) == 0 and "user 7" not in str(caught.value)


def test_identifiers_need_the_unit_and_a_public_schema():
    X, y, ids = table(50)
    with pytest.raises(InvalidParameterError, match="unit='user'"):
        DPClassifier(schema=SCHEMA, ledger=Ledger()).fit(X, y, user_ids=ids)
    for options in ({"schema": None}, {"binning": "dp_quantiles"}):
        with pytest.raises(AccountingAssumptionError, match="public schema"):
            classifier(**options).fit(X, y, user_ids=ids)
    with pytest.raises(LengthMismatchError, match="number of users"):
        classifier(n_public=len(X)).fit(X, y, user_ids=ids)
    with pytest.raises(IncompatibleNeighboringError):
        classifier(ledger=Ledger()).fit(X, y, user_ids=ids)


def test_identifiers_keep_their_kind():
    codes, n = encode_users(np.array([1, "1", 2, 1], dtype=object))
    assert n == 3 and codes.tolist() == [0, 1, 2, 0]


def test_a_user_without_records_is_drawn_and_contributes_nothing():
    """The null user of the relation: same batches, same noise, a sum within the bound."""
    X, y, ids = table(60)
    rows = torch.tensor(X.to_numpy(np.float32))
    labels = torch.tensor(y.astype(np.float32))
    codes, n = encode_users(ids)
    keep = codes != 5
    module = nn.Sequential(nn.Linear(2, 1))
    held = UserRecords.build(
        rows[keep], labels[keep], None, codes[keep], n, None, secret_stream(0)
    )
    path = UserPath(module, LogisticLoss(), held)
    alone = path.sums(held.places, held.places, torch.tensor([5]), 1.0, 0.0)
    assert alone.total.abs().max() == 0 and alone.norms.tolist() == [0.0]


# -- one identifier, one user ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("ids", "n_users"),
    [
        ([2**53, 2**53 + 1, 0.5], 3), ([2**63, 2**63 + 1, -1], 3), (["a", "a\x00"], 2),
        ([2**70, 2**70 + 1], 2), ([1, 1.0], 1), ([1, "1"], 2),
        (np.array([2**53, 2**53 + 1], dtype="u8"), 2),
    ],
)  # fmt: skip
def test_two_users_are_never_made_one(ids, n_users):
    codes, found = encode_users(ids)
    assert found == n_users == len(set(codes.tolist()))


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        ([2.0**53, 1.0], "2\\*\\*53"), ([1, None], "missing"),
        (np.array([1e17, 2.0]), "2\\*\\*53"), (pd.Series([2.0**60, 1.0]), "2\\*\\*53"),
        (np.ma.array([1, 2], mask=[False, True]), "missing"),
    ],
)  # fmt: skip
def test_identifiers_that_may_have_been_merged_are_refused(ids, match):
    with pytest.raises(DataError, match=match):
        encode_users(ids)


def _path_and_rows():
    records = UserRecords.build(
        torch.randn(12, 3), torch.ones(12), None, np.arange(12) // 2, 6, None, secret_stream(1)
    )
    module = torch.nn.Linear(3, 1)
    return module, UserPath(module, LogisticLoss(), records), records.places


def _engine(module, path, **options):
    return DPEngine(
        module, LogisticLoss(), TrainingPlan(6, 3, 2, 1.0, 2.0),
        optimizer=make_optimizer("sgd", 0.1), path=path, **options,
    )  # fmt: skip


def test_users_cannot_be_spread_over_ranks():
    """A user with records on two ranks would contribute twice the bound."""
    module, path, _ = _path_and_rows()
    with pytest.raises(AccountingAssumptionError, match="two ranks"):
        _engine(module, path, parallel=object())


def test_checkpoints_of_a_run_over_users_need_a_ledger_of_users(tmp_path):
    module, path, places = _path_and_rows()
    with pytest.raises(PrivfairError, match="unit"):
        _engine(module, path).run(
            places, places[:, 0], checkpoints=Checkpoints(tmp_path / "a", ledger=Ledger())
        )
    ledger = Ledger(unit="user")
    module, path, places = _path_and_rows()
    _engine(module, path).run(
        places, places[:, 0], checkpoints=Checkpoints(tmp_path / "b", ledger=ledger)
    )
    assert len(ledger) == 1
