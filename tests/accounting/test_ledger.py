"""The ledger: charged before release, never refunded, never passed, the same after a crash."""

import copy
import json
import math
import multiprocessing as mp
import os
import pickle
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.core import Budget
from privfair.core import log as core_log
from privfair.core.events import LedgerLike
from privfair.core.exceptions import (
    BudgetExceededError,
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LedgerError,
    LogIntegrityError,
    PrivacyError,
    PrivfairError,
    UnsupportedEventError,
)

ROOT = Path(__file__).parents[2]
SGD = ac.SelfComposed(ac.PoissonSampled(0.03, ac.Gaussian(4.0)), 500)


def charge(ledger, event, **options):
    with ledger.spend(event, **options) as transaction:
        return transaction.entry_id


@pytest.fixture(params=["memory", "file"])
def ledger(request, tmp_path):
    path = tmp_path / "ledger.db" if request.param == "file" else None
    return ac.Ledger(path, cap=Budget(1.0, 1e-5), dataset_id="patients")


# -- reserve, draw, commit ----------------------------------------------------------------------
def test_the_charge_stands_before_the_body_runs(ledger):
    assert isinstance(ledger, LedgerLike)
    with ledger.spend(ac.PureDP(0.25), purpose="count", label="histogram") as transaction:
        (entry,) = ledger.entries()
        assert entry.id == transaction.entry_id
        assert entry.state == "reserved"
        assert ledger.remaining().epsilon == pytest.approx(0.75)
    (entry,) = ledger.entries()
    assert (entry.state, entry.purpose, entry.label) == ("released", "count", "histogram")
    assert entry.event == ac.PureDP(0.25)
    assert (entry.epsilon, entry.delta) == (0.25, 0.0)
    assert ledger.spent().epsilon == pytest.approx(0.25)
    assert len(ledger) == 1
    ledger.verify()


def test_an_exception_in_the_body_is_spent(ledger):
    with pytest.raises(RuntimeError), ledger.spend(ac.PureDP(0.25)) as transaction:
        raise RuntimeError
    (entry,) = ledger.entries()
    assert entry.state == "reserved"
    assert ledger.remaining().epsilon == pytest.approx(0.75)
    with pytest.raises(PrivacyError, match="settled"):
        transaction.void(touched_data=False)
    assert ledger.remaining().epsilon == pytest.approx(0.75)


def test_void_is_for_untouched_data_only(ledger):
    with ledger.spend(ac.PureDP(0.25)) as transaction:
        with pytest.raises(PrivacyError, match="after data were touched"):
            transaction.void(touched_data=True)
        assert len(ledger) == 1
        transaction.void(touched_data=False)
        with pytest.raises(PrivacyError, match="settled"):
            transaction.void(touched_data=False)
    assert [entry.state for entry in ledger.entries()] == ["void"]
    assert ledger.remaining() == Budget(1.0, 1e-5)
    assert len(ledger) == 0
    with ledger.spend(ac.PureDP(0.25)) as transaction:
        pass
    with pytest.raises(PrivacyError, match="settled"):
        transaction.void(touched_data=False)
    assert len(ledger) == 1
    ledger.verify()


def test_the_cap_is_enforced_before_the_body(ledger):
    charge(ledger, ac.PureDP(0.75))
    ran = []
    with (
        pytest.raises(BudgetExceededError, match="Nothing was released") as caught,
        ledger.spend(ac.PureDP(0.2500001)),
    ):
        ran.append(True)
    assert not ran
    assert caught.value.exit_code == 5
    assert caught.value.remaining == Budget(0.25, 1e-5)
    assert len(ledger) == 1
    charge(ledger, ac.PureDP(0.25))
    assert ledger.remaining().epsilon == 0
    with pytest.raises(BudgetExceededError):
        charge(ledger, ac.PureDP(1e-6))


def test_delta_is_capped_too(ledger):
    charge(ledger, ac.ApproxDP(0.01, 6e-6), delta=6e-6)
    with pytest.raises(BudgetExceededError):
        charge(ledger, ac.ApproxDP(0.01, 6e-6), delta=6e-6)
    charge(ledger, ac.ApproxDP(0.01, 4e-6), delta=4e-6)
    assert ledger.remaining().delta == pytest.approx(0.0, abs=1e-15)


def test_two_hundred_parts_of_the_cap_fit_exactly():
    """0.005 is no binary fraction: 200 of them sum to slightly more than 1."""
    ledger = ac.Ledger(cap=Budget(1.0))
    for _ in range(200):
        charge(ledger, ac.PureDP(0.005))
    with pytest.raises(BudgetExceededError):
        charge(ledger, ac.PureDP(1e-6))
    assert ledger.spent().epsilon == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("event", "options", "error"),
    [
        (3.0, {}, InvalidTypeError),
        (ac.PureDP(0.1), {"purpose": 3}, InvalidTypeError),
        (ac.PureDP(0.1), {"delta": 1.5}, InvalidBudgetError),
        (ac.PureDP(0.1), {"neighboring": "swap"}, InvalidParameterError),
        (ac.PureDP(0.1), {"numerics": "float"}, InvalidParameterError),
        (ac.PureDP(0.1), {"unit": "user"}, IncompatibleNeighboringError),
        (ac.PureDP(0.1), {"seeded": 1}, InvalidTypeError),
        (ac.FixedBatchWOR(10, 2, ac.Gaussian(1.0)), {}, IncompatibleNeighboringError),
        (ac.PoissonSampled(0.1, ac.LocalDP(0.1)), {}, UnsupportedEventError),
        (ac.NonPrivate(), {}, BudgetExceededError),
        (ac.Gaussian(0.0), {}, BudgetExceededError),
    ],
)
def test_a_refused_charge_spends_nothing(ledger, event, options, error):
    head = ledger.head()
    with pytest.raises(error), ledger.spend(event, **options):
        pytest.fail("the body must not run")
    assert ledger.head() == head


@given(st.lists(st.floats(0.001, 0.6), max_size=12))
@settings(max_examples=50, deadline=None)
def test_accepted_charges_never_pass_the_cap(amounts):
    ledger = ac.Ledger(cap=Budget(1.0))
    accepted = []
    for amount in amounts:
        try:
            charge(ledger, ac.PureDP(amount))
            accepted.append(amount)
        except BudgetExceededError:
            assert math.fsum([*accepted, amount]) > 1.0
    assert math.fsum(accepted) <= 1.0 + 1e-9
    assert ledger.spent().epsilon == pytest.approx(math.fsum(accepted))


# -- valuation ----------------------------------------------------------------------------------
def test_events_without_pure_epsilon_take_the_same_share_of_both_budgets(ledger):
    charge(ledger, ac.DiscreteGaussian(25.0))
    (entry,) = ledger.entries()
    assert entry.epsilon / 1.0 == pytest.approx(entry.delta / 1e-5, rel=2e-3)
    assert ac.guarantee(ac.DiscreteGaussian(25.0), delta=entry.delta).epsilon == entry.epsilon


def test_a_stated_delta_is_used(ledger):
    charge(ledger, SGD, delta=4e-6)
    (entry,) = ledger.entries()
    assert entry.delta == 4e-6
    assert entry.epsilon == ac.guarantee(SGD, delta=4e-6).epsilon


def test_a_pure_cap_takes_pure_events_only():
    ledger = ac.Ledger(cap=Budget(1.0))
    charge(ledger, ac.Laplace(2.0))
    with pytest.raises(BudgetExceededError):
        charge(ledger, ac.Gaussian(100.0))
    with pytest.raises(BudgetExceededError):
        charge(ledger, ac.ApproxDP(0.01, 1e-9), delta=1e-9)


def test_a_list_is_one_plan_priced_jointly():
    apart, joint = ac.Ledger(), ac.Ledger()
    for event in (ac.DiscreteGaussian(20.0), SGD):
        charge(apart, event, delta=5e-6)
    charge(joint, [ac.DiscreteGaussian(20.0), SGD], delta=1e-5)
    assert joint.spent().delta == pytest.approx(apart.spent().delta)
    assert joint.spent().epsilon < apart.spent().epsilon
    assert joint.entries()[0].event == ac.Composed([ac.DiscreteGaussian(20.0), SGD])


def test_spent_as_a_plan_is_smaller_and_says_what_it_assumes():
    ledger = ac.Ledger()
    charge(ledger, ac.DiscreteGaussian(20.0), delta=5e-6, numerics="exact")
    charge(ledger, SGD, delta=5e-6, numerics="hardened", seeded=True)
    summed, joint = ledger.spent(), ledger.spent(non_adaptive=True)
    assert joint.delta == summed.delta == pytest.approx(1e-5)
    assert joint.epsilon < summed.epsilon
    assert any("fixed before any output" in sentence for sentence in joint.assumptions)
    assert not any("fixed before any output" in sentence for sentence in summed.assumptions)
    assert any("2 charges" in sentence for sentence in summed.assumptions)
    assert summed.numerics == "hardened"
    assert summed.seeded
    assert ledger.spent(1e-7, non_adaptive=True).epsilon > joint.epsilon
    with pytest.raises(InvalidParameterError, match="non_adaptive"):
        ledger.spent(1e-7)


# -- other filters ------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["zcdp", "gdp", "rdp"])
def test_other_currencies_stop_within_the_cap(kind):
    cap = Budget(1.0, 1e-5)
    ledger = ac.Ledger(cap=cap, filter=kind)
    assert ledger.remaining().epsilon == pytest.approx(1.0, abs=1e-6)
    count = 0
    try:
        while count < 1000:
            charge(ledger, ac.Gaussian(40.0))
            count += 1
    except BudgetExceededError:
        pass
    assert 0 < count < 1000
    total = ac.guarantee(ac.SelfComposed(ac.Gaussian(40.0), count), delta=1e-5)
    assert total.epsilon <= ledger.spent().epsilon <= 1.0 + 1e-9
    assert total.epsilon > 0.75
    if kind == "gdp":
        more = ac.SelfComposed(ac.Gaussian(40.0), count + 1)
        # Nine tenths of delta: the rest is kept for failure probabilities.
        assert ac.guarantee(more, delta=9e-6).epsilon > 1.0


@pytest.mark.parametrize("kind", ["zcdp", "gdp"])
@pytest.mark.parametrize("cap", [Budget(1.0, 1e-5), None])
def test_the_total_is_read_at_an_order_fixed_beforehand(kind, cap):
    """At one order the reading is affine in the sum; at the order that suits it, concave."""
    ledger = ac.Ledger(cap=cap, filter=kind)
    found = []
    for _ in range(3):
        charge(ledger, ac.Gaussian(10.0))
        found.append(ledger.spent().epsilon)
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=1e-9)
    assert found[0] > ledger.spent(non_adaptive=True).epsilon / 2
    fixed = ac.guarantee([ac.Gaussian(10.0)] * 3, delta=1e-5)
    assert found[2] > fixed.epsilon
    if cap is not None:
        refused = 0
        while not refused and len(ledger) < 100:
            try:
                charge(ledger, ac.Gaussian(10.0))
            except BudgetExceededError:
                refused += 1
        assert refused == 1
        assert ledger.spent().epsilon <= cap.epsilon


def test_other_currencies_refuse_what_they_cannot_value():
    zcdp = ac.Ledger(cap=Budget(1.0, 1e-5), filter="zcdp")
    for event in (SGD, ac.ZCDP(0.1, 0.1)):
        with pytest.raises(UnsupportedEventError, match="filter='zcdp'"):
            charge(zcdp, event)
    charge(zcdp, ac.PureDP(0.1))
    gdp = ac.Ledger(cap=Budget(1.0, 1e-5), filter="gdp")
    for event in (SGD, ac.DiscreteGaussian(20.0), ac.PureDP(0.1), ac.ApproxDP(0.1, 1e-9)):
        with pytest.raises(UnsupportedEventError, match="filter='gdp'"):
            charge(gdp, event)
    rdp = ac.Ledger(cap=Budget(1.0, 1e-5), filter="rdp", order=12.0)
    charge(rdp, ac.ApproxDP(0.1, 1e-9))
    charge(rdp, SGD)
    assert rdp.spent().order == 12.0


def test_the_order_of_a_renyi_filter_is_fixed_in_the_file(tmp_path):
    made = ac.Ledger(tmp_path / "a.db", cap=Budget(2.0, 1e-6), filter="rdp")
    order = made._filter.order
    assert order > 1
    assert ac.Ledger.open(tmp_path / "a.db")._filter.order == order
    assert ac.Ledger(tmp_path / "a.db", cap=Budget(2.0, 1e-6), filter="rdp")
    with pytest.raises(LedgerError, match="order"):
        ac.Ledger(tmp_path / "a.db", cap=Budget(2.0, 1e-6), filter="rdp", order=order + 1)


@pytest.mark.parametrize(
    "options",
    [
        {"cap": 1.0}, {"mode": "odometer"}, {"filter": "pld"}, {"analyst": 3},
        {"mode": "plan", "filter": "zcdp", "cap": Budget(1.0, 1e-6)}, {"unit": "row"},
        {"dataset_id": ""}, {"neighboring": "swap"}, {"filter": "zcdp", "cap": Budget(1.0)},
        {"order": 2.0}, {"filter": "rdp", "order": 1.0}, {"hmac_key": "secret"},
    ],
)  # fmt: skip
def test_bad_settings(options):
    with pytest.raises(PrivfairError):
        ac.Ledger(**options)


# -- relations ----------------------------------------------------------------------------------
def test_relations_that_may_be_mixed():
    ledger = ac.Ledger(cap=Budget(3.0, 1e-5))
    charge(ledger, ac.RandomizedResponse(0.5, 4), neighboring="replace_one")
    charge(ledger, ac.SelfComposed(ac.LocalDP(0.1), 2), neighboring="replace_one")
    charge(ledger, ac.PureDP(0.5), neighboring="add_remove", null_ignored=True)
    for options in (
        {"neighboring": "add_remove"}, {"neighboring": "replace_one"},
        {"neighboring": "replace_one", "null_ignored": True},
    ):  # fmt: skip
        with pytest.raises(IncompatibleNeighboringError, match="zero_out"):
            charge(ledger, ac.PureDP(0.1), **options)
    assert len(ledger) == 3
    assert ledger.spent(non_adaptive=True).epsilon <= ledger.spent().epsilon


@pytest.mark.parametrize("own", ["add_remove", "replace_one"])
def test_other_ledgers_take_their_own_relation_only(own):
    ledger = ac.Ledger(neighboring=own)
    charge(ledger, ac.PureDP(0.5))
    for other in {"zero_out", "add_remove", "replace_one"} - {own}:
        with pytest.raises(IncompatibleNeighboringError):
            charge(ledger, ac.PureDP(0.5), neighboring=other, null_ignored=True)
    expected = 1.0 if own == "replace_one" else 0.5
    assert ledger.spent().epsilon == expected


# -- non-private entries ------------------------------------------------------------------------
def test_non_private_use_is_written_down_and_voids_the_total():
    ledger = ac.Ledger()
    charge(ledger, ac.PureDP(0.5))
    number = ledger.record_non_private(purpose="raw report on the evaluation rows")
    assert ledger.entries()[-1].id == number
    total = ledger.spent()
    assert math.isinf(total.epsilon)
    assert total.unsafe == ("non_private",)
    assert ledger.spent(non_adaptive=True).unsafe == ("non_private",)
    assert ledger.remaining() is None
    json.dumps(ledger.export(), allow_nan=False)
    capped = ac.Ledger(cap=Budget(10.0))
    with pytest.raises(BudgetExceededError, match="no privacy guarantee"):
        capped.record_non_private(purpose="raw report")
    assert len(capped) == 0


# -- identity -----------------------------------------------------------------------------------
def test_copies_are_the_same_ledger(ledger):
    assert copy.copy(ledger) is ledger
    assert copy.deepcopy({"a": [ledger]})["a"][0] is ledger
    again = pickle.loads(pickle.dumps(ledger))
    charge(again, ac.PureDP(0.25))
    assert len(ledger) == 1
    assert ledger.remaining().epsilon == pytest.approx(0.75)
    assert bool(ac.Ledger())


def test_scikit_learn_clones_keep_the_ledger(ledger):
    from sklearn.base import BaseEstimator, clone

    class Estimator(BaseEstimator):
        def __init__(self, ledger=None):
            self.ledger = ledger

    assert clone(Estimator(ledger)).ledger is ledger


def test_a_pickle_holds_path_and_no_key(tmp_path, monkeypatch):
    key = os.urandom(32)
    made = ac.Ledger(tmp_path / "keyed.db", hmac_key=key, dataset_id="x")
    text = pickle.dumps(made)
    assert key not in text
    assert key.hex().encode() not in text
    with pytest.raises(LedgerError, match="pass the same key"):
        pickle.loads(text)
    monkeypatch.setenv("PRIVFAIR_LEDGER_KEY", key.hex())
    again = pickle.loads(text)
    charge(again, ac.PureDP(0.1))
    assert len(made) == 1
    made.verify()


def test_a_ledger_in_memory_refuses_elsewhere():
    """In another process the pickle loads, and nothing can be charged to it unseen."""
    made = ac.Ledger(cap=Budget(1.0), dataset_id="patients")
    code = (
        "import pickle, sys\n"
        "from privfair.accounting import PureDP\n"
        "from privfair.core.exceptions import LedgerError\n"
        "ledger = pickle.loads(sys.stdin.buffer.read())\n"
        "assert ledger.dataset_id == 'patients' and 'in memory' in repr(ledger)\n"
        "for act in (ledger.spent, ledger.entries, ledger.verify,\n"
        "            lambda: ledger.spend(PureDP(0.1)).__enter__()):\n"
        "    try:\n"
        "        act()\n"
        "    except LedgerError as error:\n"
        "        assert 'another process' in str(error)\n"
        "    else:\n"
        "        raise SystemExit('not refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(made), cwd=ROOT,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def test_one_default_ledger_for_each_data_set():
    one = ac.default_ledger("test-default-one")
    assert ac.default_ledger("test-default-one") is one
    assert ac.default_ledger("test-default-two") is not one
    assert one.cap is None
    assert one.path is None
    charge(one, ac.PureDP(0.1))
    assert len(ac.default_ledger("test-default-one")) == 1


def test_settings_are_fixed_by_the_file(tmp_path):
    path = tmp_path / "ledger.db"
    ac.Ledger(path, cap=Budget(2.0, 1e-6), dataset_id="patients", neighboring="add_remove")
    taken = ac.Ledger.open(path)
    assert (taken.dataset_id, taken.neighboring) == ("patients", "add_remove")
    assert taken.cap == Budget(2.0, 1e-6)
    kept = ac.Ledger(path, neighboring="add_remove")
    assert (kept.cap, kept.dataset_id) == (Budget(2.0, 1e-6), "patients")
    for change in (
        {"cap": Budget(3.0, 1e-6)}, {"dataset_id": "others"}, {"neighboring": "zero_out"},
        {"unit": "user"}, {"filter": "zcdp", "cap": Budget(2.0, 1e-6)},
    ):  # fmt: skip
        with pytest.raises(LedgerError, match="settings are fixed"):
            ac.Ledger(path, **{"neighboring": "add_remove", **change})
    with pytest.raises(LedgerError, match="does not exist"):
        ac.Ledger.open(tmp_path / "none.db")
    reader = ac.Ledger.open(path, read_only=True)
    assert reader.spent().epsilon == 0
    with pytest.raises(LedgerError, match="reading only"):
        charge(reader, ac.PureDP(0.1))


def test_nothing_computed_from_data_is_stored(tmp_path):
    path = tmp_path / "ledger.db"
    ledger = ac.Ledger(path, cap=Budget(1.0, 1e-5))
    with ledger.spend(ac.PureDP(0.1), purpose="mean age"):
        secret = 54.3217
    row = [row for row in ledger._log.rows() if row.kind == "reserved"][0]
    assert set(row.body) == {
        "event", "purpose", "label", "neighboring", "null_ignored", "numerics", "seeded",
        "epsilon", "delta", "loss", "version", "analyst", "total",
    }  # fmt: skip
    assert str(secret) not in json.dumps(ledger.export())


# -- several writers ----------------------------------------------------------------------------
def _spender(path, count, queue):
    ledger = ac.Ledger.open(path)
    accepted = 0
    for _ in range(count):
        try:
            charge(ledger, ac.PureDP(1 / 200))
            accepted += 1
        except BudgetExceededError:
            pass
    queue.put(accepted)


def test_eight_processes_stop_exactly_at_the_cap(tmp_path):
    """400 attempts at 1/200 of the cap each: exactly 200 are accepted."""
    path = tmp_path / "ledger.db"
    ledger = ac.Ledger(path, cap=Budget(1.0))
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_spender, args=(path, 50, queue)) for _ in range(8)]
    for worker in workers:
        worker.start()
    accepted = [queue.get(timeout=800) for _ in workers]
    for worker in workers:
        worker.join(800)
    assert sum(accepted) == 200
    assert len(ledger) == 200
    assert all(entry.state == "released" for entry in ledger.entries())
    assert ledger.remaining().epsilon == pytest.approx(0.0, abs=1e-9)
    ledger.verify()


@pytest.mark.parametrize("where", ["memory", "file"])
def test_threads_stop_exactly_at_the_cap(tmp_path, where):
    ledger = ac.Ledger(tmp_path / "l.db" if where == "file" else None, cap=Budget(1.0))
    accepted = []

    def work():
        for _ in range(20):
            try:
                charge(ledger, ac.PureDP(1 / 50))
                accepted.append(1)
            except BudgetExceededError:
                pass

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == len(ledger) == 50
    ledger.verify()


def test_charges_of_another_process_count_at_once(tmp_path):
    path = tmp_path / "ledger.db"
    mine = ac.Ledger(path, cap=Budget(1.0))
    charge(mine, ac.PureDP(0.4))
    other = ac.Ledger.open(path)
    charge(other, ac.PureDP(0.4))
    with pytest.raises(BudgetExceededError):
        charge(mine, ac.PureDP(0.4))


def test_a_charge_that_slips_in_while_ours_is_priced_counts(tmp_path, monkeypatch):
    """Between the price, which takes time, and the reservation another process may charge."""
    mine = ac.Ledger(tmp_path / "ledger.db", cap=Budget(1.0))
    other, price = ac.Ledger.open(tmp_path / "ledger.db"), mine._price

    def slow(*args):
        charge(other, ac.PureDP(0.6))
        return price(*args)

    monkeypatch.setattr(mine, "_price", slow)
    with pytest.raises(BudgetExceededError):
        charge(mine, ac.PureDP(0.6))
    assert mine.spent().epsilon == 0.6


# -- what goes wrong ----------------------------------------------------------------------------
def test_a_ledger_altered_while_in_use_is_not_spent_on(tmp_path):
    import sqlite3

    path = tmp_path / "ledger.db"
    ledger = ac.Ledger(path, cap=Budget(1.0))
    charge(ledger, ac.PureDP(0.5))
    charge(ac.Ledger.open(path), ac.PureDP(0.4))
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER log_no_update")
    raw.execute("UPDATE log SET body = replace(body, '0.4', '0.1') WHERE id = 4")
    raw.commit()
    raw.close()
    for act in (ledger.spent, lambda: charge(ledger, ac.PureDP(0.1)),
                lambda: charge(ac.Ledger.open(path), ac.PureDP(0.1))):  # fmt: skip
        with pytest.raises(LogIntegrityError, match="row 4 of"):
            act()


def test_the_clock_may_go_backwards(tmp_path, monkeypatch):
    from datetime import UTC, datetime, timedelta

    class Clock(datetime):
        ticks = iter(range(100))

        @classmethod
        def now(cls, tz=None):
            return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=next(cls.ticks))

    monkeypatch.setattr(core_log, "datetime", Clock)
    ledger = ac.Ledger(tmp_path / "ledger.db", cap=Budget(1.0))
    for _ in range(3):
        charge(ledger, ac.PureDP(0.2))
    times = [entry.time for entry in ledger.entries()]
    assert times == sorted(times, reverse=True)
    assert ledger.remaining().epsilon == pytest.approx(0.4)
    ledger.verify()


def test_a_read_only_file_stops_before_the_data(tmp_path):
    path = tmp_path / "ledger.db"
    ac.Ledger(path, cap=Budget(1.0))._log.close()
    path.chmod(0o444)
    with pytest.raises(LedgerError, match="read-only") as caught:
        ac.Ledger(path)
    assert caught.value.exit_code == 4


DISK_FULL = """
import resource, signal, sys
from privfair.accounting import Ledger, PureDP
from privfair.core import Budget
from privfair.core.exceptions import LedgerError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(sys.argv[1], cap=Budget(1.0))
with ledger.spend(PureDP(0.25)):
    pass
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
ran = 0
try:
    for _ in range(500):
        with ledger.spend(PureDP(0.0001)):
            ran += 1
except LedgerError as error:
    print("refused", ran, error.exit_code)
"""


def test_a_full_disk_stops_before_the_data_and_only_over_counts(tmp_path):
    path = tmp_path / "ledger.db"
    done = subprocess.run([sys.executable, "-c", DISK_FULL, str(path), str(200_000)], cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=800)  # fmt: skip
    assert "refused" in done.stdout, done.stdout + done.stderr
    _, ran, code = done.stdout.split()
    assert code == "4"
    ledger = ac.Ledger.open(path)
    ledger.verify()
    assert int(ran) <= len(ledger) - 1 <= int(ran) + 1
    assert ledger.spent().epsilon >= 0.25 + 0.0001 * int(ran) - 1e-9
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# -- pipelines ----------------------------------------------------------------------------------
def test_pipelines_add_up_and_name_the_step_that_was_not_accounted():
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

    class Step(FunctionTransformer):
        def __init__(self, event=None):
            super().__init__()
            self.event = event

        @property
        def privacy_(self):
            return ac.guarantee(self.event, delta=5e-6, numerics="exact")

    good = make_pipeline(Normalizer(), Step(ac.DiscreteGaussian(20.0)), Step(SGD), "passthrough")
    found = ac.pipeline_guarantee(good)
    joint = ac.guarantee([ac.DiscreteGaussian(20.0), SGD], delta=1e-5)
    assert found.epsilon == pytest.approx(joint.epsilon, rel=1e-6)
    assert found.delta == pytest.approx(1e-5)
    assert found.certified
    bad = ac.pipeline_guarantee(make_pipeline(StandardScaler(), Step(SGD)))
    assert math.isinf(bad.epsilon)
    assert any("standardscaler" in reason for reason in bad.unsafe)
    columns = ColumnTransformer([("a", StandardScaler(), [0]), ("b", "drop", [1])])
    columns.fit([[1.0, 2.0], [3.0, 4.0]])
    nested = ac.pipeline_guarantee(make_pipeline(columns, Step(SGD)))
    assert any("columntransformer__a" in reason for reason in nested.unsafe)
    nothing = ac.pipeline_guarantee(make_pipeline(Normalizer(), "passthrough"))
    assert nothing.epsilon == 0.0
