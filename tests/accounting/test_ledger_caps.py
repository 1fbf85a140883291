"""Caps of purposes and analysts: checked with the data set's, changed by new rows only."""

import json
import math
import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.accounting._filters import Spent
from privfair.accounting._sums import ExactSum, SpentSum
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LedgerError,
    LogIntegrityError,
    PrivacyError,
    PrivfairError,
)


def charge(ledger, epsilon, **options):
    with ledger.spend(ac.PureDP(epsilon), **options) as transaction:
        return transaction.entry_id


@pytest.fixture(params=["memory", "file"])
def ledger(request, tmp_path):
    path = tmp_path / "ledger.db" if request.param == "file" else None
    return ac.Ledger(path, cap=Budget(1.0, 1e-6), dataset_id="patients")


# -- sums ---------------------------------------------------------------------------------------
@given(st.lists(st.floats(0, 1e300), max_size=40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_running_sums_are_those_of_fsum_in_any_order(values, random):
    """Adding is exact, so that the order is indifferent and what was added can be taken away."""
    total = ExactSum()
    shuffled = list(values)
    random.shuffle(shuffled)
    for value in shuffled:
        total.add(value)
    assert total.value() == math.fsum(values)
    for value in values[1:]:
        total.add(value, sign=-1)
    assert total.value() == (values[0] if values else 0.0)


def test_running_sums_at_the_ends_of_the_scale():
    total = ExactSum()
    for value in (5e-324, 1.7e308, 1.7e308):
        total.add(value)
    assert total.value() == math.inf
    total.add(1.7e308, sign=-1)
    total.add(1.7e308, sign=-1)
    assert total.value() == 5e-324
    three = SpentSum()
    three.add(Spent(math.inf, 0.5, math.inf))
    three.add(Spent(1.0, 0.25, 2.0))
    assert three.value() == Spent(math.inf, 0.75, math.inf)
    three.add(Spent(math.inf, 0.5, math.inf), sign=-1)
    assert three.value() == Spent(1.0, 0.25, 2.0)


# -- both caps are checked ----------------------------------------------------------------------
def test_a_charge_must_fit_under_every_cap_that_applies(ledger):
    ledger.set_cap(Budget(0.6, 1e-6), purpose="training")
    ledger.set_cap(Budget(0.7, 1e-6), analyst="ana")  # 0.6 + 0.7 > 1: both may be promised
    charge(ledger, 0.5, purpose="training", analyst="ana")
    head = ledger.head()
    with pytest.raises(BudgetExceededError, match="cap of purpose 'training'") as caught:
        charge(ledger, 0.2, purpose="training", analyst="ben")
    assert caught.value.remaining.epsilon == pytest.approx(0.1)
    with pytest.raises(BudgetExceededError, match="cap of analyst 'ana'"):
        charge(ledger, 0.3, purpose="report", analyst="ana")
    assert ledger.head() == head
    charge(ledger, 0.4, purpose="report", analyst="ben")
    with pytest.raises(BudgetExceededError, match=r"^this release needs"):
        charge(ledger, 0.11, purpose="report", analyst="ben")  # the data set's cap
    assert ledger.remaining().epsilon == pytest.approx(0.1)
    assert ledger.remaining(purpose="training", analyst="ben").epsilon == pytest.approx(0.1)
    assert ledger.remaining(analyst="ana").epsilon == pytest.approx(0.1)
    ledger.verify()


def test_caps_in_force_say_what_is_used(ledger):
    ledger.set_cap(Budget(0.6, 1e-7), purpose="training", reason="agreed in spring")
    charge(ledger, 0.25, purpose="training", analyst="ana")
    whole, part = ledger.caps()
    assert (whole.scope, whole.name, whole.cap, whole.row) == ("dataset", "", Budget(1.0, 1e-6), 1)
    assert whole.remaining.epsilon == 0.75
    assert (part.scope, part.name, part.reason) == ("purpose", "training", "agreed in spring")
    assert part.spent == Budget(0.25, 0.0)
    assert part.remaining == Budget(0.35, 1e-7)
    json.dumps(part.to_dict(), allow_nan=False)


def test_earlier_charges_count_against_a_new_cap_and_voids_do_not(ledger):
    charge(ledger, 0.5, purpose="training")
    with ledger.spend(ac.PureDP(0.3), purpose="training") as transaction:
        transaction.void(touched_data=False)
    made = ledger.set_cap(Budget(0.4, 0.0), purpose="training")
    assert made.spent.epsilon == 0.5
    assert made.remaining.epsilon == 0.0
    with pytest.raises(BudgetExceededError, match="training"):
        charge(ledger, 1e-6, purpose="training")
    charge(ledger, 0.5, purpose="other")


def test_the_star_stands_for_each_without_a_cap_of_its_own(ledger):
    ledger.set_cap(Budget(0.2, 0.0), analyst="*")
    ledger.set_cap(Budget(0.5, 0.0), analyst="ana", allow_raise=True, reason="leads the study")
    charge(ledger, 0.5, analyst="ana")
    charge(ledger, 0.2, analyst="ben")
    charge(ledger, 0.2, analyst="cem")
    for who in ("ana", "ben", "cem"):
        with pytest.raises(BudgetExceededError, match=who):
            charge(ledger, 0.01, analyst=who)
    assert [cap.spent for cap in ledger.caps() if cap.name == "*"] == [None]


def test_a_charge_without_a_name_cannot_go_around_a_cap_by_name(ledger):
    charge(ledger, 0.1)
    ledger.set_cap(Budget(0.2, 0.0), analyst="ana")
    head = ledger.head()
    with pytest.raises(InvalidParameterError, match="names no analyst"):
        charge(ledger, 0.1)
    assert ledger.head() == head
    ledger.set_cap(None, analyst="ana", allow_raise=True, reason="left")
    charge(ledger, 0.1)
    ledger.set_cap(Budget(0.2, 0.0), purpose="model")
    with pytest.raises(InvalidParameterError, match="names no purpose"):
        charge(ledger, 0.1)


def test_an_object_opened_for_an_analyst_spends_for_them(tmp_path):
    path = tmp_path / "ledger.db"
    owner = ac.Ledger(path, cap=Budget(1.0))
    owner.set_cap(Budget(0.3), analyst="ana")
    for ana in (ac.Ledger(path, analyst="ana"), ac.Ledger.open(path, analyst="ana"),
                pickle.loads(pickle.dumps(ac.Ledger(path, analyst="ana")))):  # fmt: skip
        charge(ana, 0.1)
    with pytest.raises(BudgetExceededError, match="analyst 'ana'"):
        charge(ana, 0.1)
    assert [entry.analyst for entry in owner.entries()] == ["ana"] * 3


# -- changes ------------------------------------------------------------------------------------
def test_lowering_below_what_is_spent_leaves_nothing(ledger):
    charge(ledger, 0.5)
    made = ledger.set_cap(Budget(0.3, 1e-6))
    assert made.remaining == Budget(0.0, 1e-6)
    assert ledger.cap == Budget(0.3, 1e-6)
    assert ledger.remaining().epsilon == 0.0
    with pytest.raises(BudgetExceededError):
        charge(ledger, 1e-9)
    assert ledger.spent().epsilon == 0.5


@pytest.mark.parametrize(
    ("cap", "scope"),
    [
        (Budget(1.1, 1e-6), {}),
        (Budget(0.5, 1e-5), {}),  # a smaller epsilon does not pay for a larger delta
        (None, {}),
        (Budget(0.5, 0.0), {"purpose": "training"}),
        (None, {"purpose": "training"}),
        (Budget(0.3, 0.0), {"analyst": "ben"}),  # more than each analyst has
        (None, {"analyst": "*"}),
    ],
)
def test_raising_is_an_act_of_its_own_with_a_reason(ledger, cap, scope):
    ledger.set_cap(Budget(0.4, 0.0), purpose="training")
    ledger.set_cap(Budget(0.2, 0.0), analyst="*")
    head = ledger.head()
    with pytest.raises(PrivacyError, match="allow_raise=True"):
        ledger.set_cap(cap, **scope)
    with pytest.raises(InvalidParameterError, match="reason"):
        ledger.set_cap(cap, **scope, allow_raise=True, reason="  ")
    assert ledger.head() == head
    ledger.set_cap(cap, **scope, allow_raise=True, reason="board of 3 May")
    change = ledger.export()["cap_changes"][-1]
    assert change["raised"] is True
    assert change["reason"] == "board of 3 May"
    assert change["row"] == head[0] + 1
    assert ledger.verify()[0] == head[0] + 1


def test_a_raise_is_an_assumption_of_the_total(ledger):
    charge(ledger, 0.5)
    ledger.set_cap(Budget(0.8, 1e-6))
    assert not any("raised" in sentence for sentence in ledger.spent().assumptions)
    ledger.set_cap(Budget(2.0, 1e-6), allow_raise=True, reason="new consent")
    charge(ledger, 1.5)
    said = [sentence for sentence in ledger.spent().assumptions if "raised" in sentence]
    assert len(said) == 1
    assert "last in row 5" in said[0]
    assert ledger.spent(non_adaptive=True).assumptions.count(said[0]) == 1


def test_an_unchanged_cap_is_no_row(ledger):
    head = ledger.head()
    ledger.set_cap(Budget(1.0, 1e-6))
    assert ledger.set_cap(None, purpose="never had one") is None
    assert ledger.head() == head


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"cap": 1.0}, InvalidTypeError),
        ({"cap": Budget(math.inf)}, InvalidBudgetError),
        ({"cap": Budget(0.5), "purpose": ""}, InvalidTypeError),
        ({"cap": Budget(0.5), "purpose": "a", "analyst": "b"}, InvalidParameterError),
        ({"cap": Budget(0.5), "reason": 3}, InvalidTypeError),
        ({"cap": Budget(2.0), "allow_raise": 1, "reason": "r"}, InvalidTypeError),
    ],
)
def test_bad_changes_write_nothing(ledger, arguments, error):
    head = ledger.head()
    with pytest.raises(error):
        ledger.set_cap(**arguments)
    assert ledger.head() == head


@pytest.mark.parametrize("kind", ["zcdp", "gdp", "rdp"])
def test_sub_caps_in_other_currencies(tmp_path, kind):
    order = 60.0 if kind == "rdp" else None
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(2.0, 1e-5), filter=kind, order=order)
    ledger.set_cap(Budget(0.5, 1e-5), purpose="small")
    with pytest.raises(InvalidBudgetError, match="needs a delta"):
        ledger.set_cap(Budget(0.5), purpose="pure")
    accepted = []

    def spend_until_refused():
        for _ in range(200):
            with ledger.spend(ac.Gaussian(60.0), purpose="small"):
                accepted.append(1)

    with pytest.raises(BudgetExceededError, match="cap of purpose 'small'"):
        spend_until_refused()
    count = len(accepted)
    total = ac.guarantee(ac.SelfComposed(ac.Gaussian(60.0), count), delta=1e-5)
    assert 0.3 < total.epsilon <= 0.5
    with ledger.spend(ac.Gaussian(60.0), purpose="large"):
        pass
    assert ac.Ledger.open(tmp_path / "l.db").remaining(purpose="small").epsilon < 0.5
    ledger.verify()


def test_a_sub_cap_under_which_nothing_fits_at_the_order_is_refused():
    ledger = ac.Ledger(cap=Budget(2.0, 1e-5), filter="rdp", order=12.0)
    with pytest.raises(InvalidBudgetError, match="order 12"):
        ledger.set_cap(Budget(0.5, 1e-5), purpose="small")
    ledger.set_cap(Budget(0.0, 1e-5))
    assert ledger.remaining().epsilon == 0.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["spend", "cap"]),
            st.sampled_from(["", "a", "b"]),
            st.sampled_from([0.05, 0.1, 0.2, 0.35, 0.5, 1.0]),
        ),
        max_size=25,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_history_agrees_with_a_plain_model(steps):
    """Against sums over a list, whatever the order of charges and changes."""
    ledger, caps = ac.Ledger(cap=Budget(1.0)), {"": 1.0}
    spent: list[tuple[str, float]] = []
    for action, name, amount in steps:
        if action == "cap":
            try:
                ledger.set_cap(Budget(amount), purpose=name or None)
                assert name not in caps or amount <= caps[name] + 1e-12
                caps[name] = amount
            except PrivacyError:
                assert amount > caps[name]
            continue
        fits = all(
            sum(e for n, e in spent if scope in ("", n)) + amount <= caps[scope] + 1e-9
            for scope in {"", name} & set(caps)
        )
        try:
            charge(ledger, amount, purpose=name)
            assert fits
            spent.append((name, amount))
        except BudgetExceededError:
            assert not fits
        except InvalidParameterError:
            assert not name
            assert len(caps) > 1
    assert ledger.spent().epsilon == pytest.approx(sum(e for _, e in spent))
    ledger.verify()


def test_two_objects_on_one_file_see_each_others_changes(tmp_path):
    path = tmp_path / "ledger.db"
    mine = ac.Ledger(path, cap=Budget(1.0))
    other = ac.Ledger.open(path)
    charge(mine, 0.3, purpose="a")
    other.set_cap(Budget(0.4), purpose="a")
    with pytest.raises(BudgetExceededError, match="cap of purpose 'a'"):
        charge(mine, 0.2, purpose="a")
    other.set_cap(Budget(0.35))
    assert mine.cap == Budget(0.35)
    with pytest.raises(BudgetExceededError):
        charge(mine, 0.1, purpose="b")
    assert ac.Ledger(path, cap=Budget(0.35)).cap == Budget(0.35)
    with pytest.raises(LedgerError, match="set_cap"):
        ac.Ledger(path, cap=Budget(1.0))


def test_threads_stop_exactly_at_a_sub_cap(tmp_path):
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0))
    ledger.set_cap(Budget(0.5), purpose="a")
    accepted = []

    def work():
        for _ in range(8):
            try:
                charge(ledger, 0.025, purpose="a")
                accepted.append(1)
            except BudgetExceededError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == len(ledger) == 20
    assert ledger.remaining(purpose="a").epsilon == pytest.approx(0.0, abs=1e-12)
    assert ledger.remaining().epsilon == pytest.approx(0.5)


# -- rows that lie ------------------------------------------------------------------------------
def rows_of(ledger, kind):
    return [row.body for row in ledger._log.rows() if row.kind == kind]


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("reserved", {"total": [0.1, 0.0, 0.0]}, "running total"),
        ("reserved", {"total": None}, "running total"),
        ("reserved", {"epsilon": -0.2}, "less than nothing"),
        ("reserved", {"epsilon": "nan"}, "less than nothing"),
        ("cap", {"raised": True}, "misstates the cap"),
        ("cap", {"before": {"epsilon": 9.0, "delta": 0.0}}, "misstates the cap"),
        ("cap", {"after": {"epsilon": 5.0, "delta": 0.0}}, "misstates the cap"),
        ("cap", {"scope": "everything"}, "names no scope"),
        ("released", {"ref": 1}, "not an open charge"),
        ("void", {"ref": 2}, "not an open charge"),
    ],
)
def test_a_row_that_does_not_follow_is_found_though_its_hash_is_right(
    tmp_path, kind, change, said
):
    """Whoever writes rows with right hashes still has to get the sums right."""
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0, 1e-6))
    charge(ledger, 0.25, purpose="a")
    ledger.set_cap(Budget(0.5, 1e-6), reason="r")
    body = {
        "reserved": rows_of(ledger, "reserved")[0] | {"total": [0.5, 0.0, 0.0]},
        "cap": rows_of(ledger, "cap")[0]
        | {"before": {"epsilon": 0.5, "delta": 1e-6}, "after": {"epsilon": 0.4, "delta": 1e-6}},
        "released": {}, "void": {},
    }[kind] | change  # fmt: skip
    row = ledger._log.append(kind, body).id
    assert ledger._log.verify()[0] == row, "the chain itself is intact"
    for act in (ledger.verify, ledger.spent, lambda: charge(ledger, 0.01, purpose="a"),
                ac.Ledger.open(tmp_path / "l.db").remaining):  # fmt: skip
        with pytest.raises(LogIntegrityError, match=rf"row {row} of .*{said}") as caught:
            act()
        assert caught.value.exit_code == 4


def test_the_true_rows_of_that_test_are_accepted(tmp_path):
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0, 1e-6))
    charge(ledger, 0.25, purpose="a")
    body = rows_of(ledger, "reserved")[0] | {"total": [0.5, 0.0, 0.0]}
    ledger._log.append("reserved", body)
    ledger.verify()
    assert ledger.spent().epsilon == 0.5


def test_an_unknown_kind_of_row_stops_everything(tmp_path):
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0))
    ledger._log.append("amendment", {"x": 1})
    for act in (ledger.verify, ledger.spent, lambda: charge(ledger, 0.1)):
        with pytest.raises(PrivfairError, match="Install a newer privfair") as caught:
            act()
        assert caught.value.exit_code == 4


# -- files of the first version -----------------------------------------------------------------
def test_a_file_of_the_first_version_is_read_and_spent_on(tmp_path, monkeypatch):
    from privfair.core import log as core_log

    monkeypatch.setattr(core_log, "SCHEMA", 1)
    old = ac.Ledger(tmp_path / "old.db", cap=Budget(1.0))
    body = {
        "event": ac.PureDP(0.25).to_dict(), "purpose": "p", "label": "", "neighboring": "zero_out",
        "null_ignored": False, "numerics": "exact", "seeded": False, "epsilon": 0.25,
        "delta": 0.0, "loss": 0.0, "version": "0.0",
    }  # fmt: skip
    number = old._log.append("reserved", body).id
    old._log.append("released", {"ref": number})
    monkeypatch.undo()
    ledger = ac.Ledger.open(tmp_path / "old.db")
    assert ledger.spent().epsilon == 0.25
    charge(ledger, 0.5)
    assert ledger.remaining().epsilon == pytest.approx(0.25)
    ledger.verify()
    with pytest.raises(LedgerError, match="earlier version"):
        ledger.set_cap(Budget(0.8))
