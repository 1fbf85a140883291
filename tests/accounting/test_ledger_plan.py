"""A plan: declared in one row, priced jointly, drawn from in any order, never left."""

import contextlib
import itertools
import json
import math
import os
import pickle
import signal
import threading
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr
from scipy.stats import norm

from privfair import accounting as ac
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidParameterError,
    LogIntegrityError,
    PrivacyError,
)

STEP = ac.PoissonSampled(0.03, ac.Gaussian(4.0))
TRAINING = ac.SelfComposed(STEP, 500)
QUERY = ac.Gaussian(30.0)
CAP = Budget(2.0, 1e-6)


def draw(ledger, event, **options):
    with ledger.spend(event, **options) as transaction:
        return transaction.entry_id


@pytest.fixture(params=["memory", "file"])
def ledger(request, tmp_path):
    path = tmp_path / "ledger.db" if request.param == "file" else None
    return ac.Ledger(path, cap=CAP, mode="plan", dataset_id="patients")


# -- the price ----------------------------------------------------------------------------------
def test_a_plan_of_gaussians_has_its_exact_price():
    """Against the closed form of Balle and Wang (2018) for one Gaussian of the joint scale."""
    ledger = ac.Ledger(cap=Budget(3.0, 1e-6), mode="plan")
    plan = ledger.plan([ac.SelfComposed(QUERY, 10), ac.Gaussian(15.0)], purpose="study")
    mu = math.sqrt(10 / 30**2 + 1 / 15**2)
    lost = norm.cdf(mu / 2 - plan.epsilon / mu) - math.exp(
        plan.epsilon + log_ndtr(-mu / 2 - plan.epsilon / mu)
    )
    assert lost == pytest.approx(1e-6, rel=1e-6)
    assert plan.delta == 1e-6
    assert ledger.remaining().epsilon == pytest.approx(3.0 - plan.epsilon)


def test_a_plan_is_cheaper_than_its_events_one_by_one(ledger):
    plan = ledger.plan([TRAINING, ac.SelfComposed(QUERY, 20)])
    joint = ac.guarantee([TRAINING, ac.SelfComposed(QUERY, 20)], delta=1e-6)
    assert plan.epsilon == pytest.approx(joint.epsilon, rel=1e-12)
    assert plan.accountant == joint.accountant
    apart = ac.Ledger()
    for event in [TRAINING] + [QUERY] * 20:
        draw(apart, event, delta=1e-6 / 21)
    assert plan.epsilon < 0.7 * apart.spent().epsilon
    spent = ledger.spent()
    assert (spent.epsilon, spent.delta) == (plan.epsilon, 1e-6)
    assert spent.epsilon == joint.epsilon
    assert ledger.spent(1e-7).epsilon > plan.epsilon
    assert any("declared in row 2" in sentence and "21 of them" not in sentence
               for sentence in spent.assumptions)  # fmt: skip


def test_a_plan_above_the_cap_is_refused_and_nothing_is_declared(ledger):
    head = ledger.head()
    with pytest.raises(BudgetExceededError, match="nothing was spent"):
        ledger.plan(ac.SelfComposed(QUERY, 5000))
    with pytest.raises(BudgetExceededError, match="no privacy guarantee"):
        ledger.plan([QUERY, ac.NonPrivate()])
    with pytest.raises(InvalidParameterError, match="at least one"):
        ledger.plan(ac.SelfComposed(QUERY, 0))
    assert ledger.head() == head
    assert ledger.declared is None
    assert ledger.spent().epsilon == 0


def test_without_a_cap_and_with_a_pure_one():
    free = ac.Ledger(mode="plan")
    assert free.plan([ac.PureDP(0.5), ac.PureDP(0.25)]).epsilon == pytest.approx(0.75)
    other = ac.Ledger(mode="plan")
    assert other.plan(QUERY).delta == 1e-6
    pure = ac.Ledger(cap=Budget(1.0), mode="plan")
    assert pure.plan([ac.Laplace(4.0)] * 4).epsilon == pytest.approx(1.0)
    raw = ac.Ledger(mode="plan")
    raw.plan([ac.NonPrivate(), QUERY])
    raw.record_non_private(purpose="raw report")
    assert raw.spent().unsafe == ("non_private",)


# -- draws --------------------------------------------------------------------------------------
def test_draws_come_from_the_plan_and_cost_nothing_more(ledger):
    plan = ledger.plan([TRAINING, ac.SelfComposed(QUERY, 3)], purpose="study")
    draw(ledger, QUERY, purpose="first look", delta=1e-7)
    draw(ledger, TRAINING, purpose="model", numerics="hardened")
    draw(ledger, [QUERY, QUERY], purpose="the rest", seeded=True)
    assert ledger.spent().epsilon == plan.epsilon
    assert ledger.declared.left == ()
    assert [entry.state for entry in ledger.entries()] == ["released"] * 3
    assert {entry.epsilon for entry in ledger.entries()} == {None}
    assert ledger.spent().numerics == "idealized"
    assert ledger.spent().seeded
    assert ledger.spent().events == plan.events
    with pytest.raises(BudgetExceededError, match="Left in the plan: nothing"):
        draw(ledger, QUERY)
    ledger.verify()
    json.dumps(ledger.export(), allow_nan=False)


def test_a_repeated_event_may_be_drawn_in_parts(ledger):
    ledger.plan(TRAINING)
    draw(ledger, ac.SelfComposed(STEP, 200))
    draw(ledger, STEP)
    assert ledger.declared.left == ((STEP, 299),)
    with pytest.raises(BudgetExceededError, match="300 of PoissonSampled"):
        draw(ledger, ac.SelfComposed(STEP, 300))
    draw(ledger, ac.SelfComposed(STEP, 299))


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (ac.Gaussian(29.0), {}),
        (ac.Gaussian(31.0), {}),  # more noise, and still not what was declared
        (ac.PureDP(1e-6), {}),
        (ac.PoissonSampled(0.03, QUERY), {}),
        ([QUERY, QUERY, QUERY], {}),
        (QUERY, {"neighboring": "add_remove", "null_ignored": True}),
        (ac.NonPrivate(), {}),
    ],
)
def test_what_was_not_declared_is_refused(ledger, event, options):
    ledger.plan([QUERY, QUERY])
    head = ledger.head()
    with (
        pytest.raises(
            BudgetExceededError, match=r"plan in row 2 .*Nothing was released"
        ) as caught,
        ledger.spend(event, **options),
    ):
        pytest.fail("the body must not run")
    assert caught.value.exit_code == 5
    assert ledger.head() == head


def test_what_is_sampled_together_is_not_taken_apart(ledger):
    both = ac.PoissonSampled(0.1, ac.Composed([ac.Gaussian(8.0), ac.Gaussian(9.0)]))
    ledger.plan(both)
    with pytest.raises(BudgetExceededError):
        draw(ledger, ac.PoissonSampled(0.1, ac.Gaussian(8.0)))
    draw(ledger, both)


def test_unused_parts_and_failed_bodies_stay_spent(ledger):
    plan = ledger.plan([QUERY, QUERY])
    with pytest.raises(RuntimeError), ledger.spend(QUERY):
        raise RuntimeError
    assert ledger.declared.left == ((QUERY, 1),)
    with ledger.spend(QUERY) as transaction:
        transaction.void(touched_data=False)
    assert ledger.declared.left == ((QUERY, 1),)
    assert ledger.spent().epsilon == plan.epsilon
    draw(ledger, QUERY)
    with pytest.raises(BudgetExceededError):
        draw(ledger, QUERY)
    ledger.verify()


def test_declared_once_and_before_anything(ledger):
    with pytest.raises(PrivacyError, match="no plan yet"):
        draw(ledger, QUERY)
    ledger.plan(QUERY)
    with pytest.raises(PrivacyError, match="has a plan, in row 2"):
        ledger.plan(QUERY)
    with pytest.raises(PrivacyError, match="mode='filter'"):
        ac.Ledger().plan(QUERY)
    with pytest.raises(PrivacyError, match="mode='plan'"):
        ledger.set_cap(Budget(0.5, 1e-7), purpose="query")


def test_a_cap_lowered_below_the_price_stops_the_draws(ledger):
    plan = ledger.plan([QUERY, QUERY])
    draw(ledger, QUERY)
    ledger.set_cap(Budget(plan.epsilon / 2, 1e-6))
    with pytest.raises(BudgetExceededError):
        draw(ledger, QUERY)
    assert ledger.remaining().epsilon == 0.0


@given(st.lists(st.integers(0, 3), max_size=14), st.lists(st.integers(0, 3), max_size=14))
@settings(max_examples=50, deadline=None)
def test_draws_agree_with_a_bag(planned, drawn):
    kinds = [ac.Gaussian(30.0), ac.PureDP(0.01), STEP, ac.Laplace(50.0)]
    ledger, bag = ac.Ledger(mode="plan"), Counter(planned)
    if not planned:
        return
    ledger.plan([kinds[i] for i in planned], delta=1e-6)
    for i in drawn:
        if bag[i]:
            draw(ledger, kinds[i])
            bag[i] -= 1
        else:
            with pytest.raises(BudgetExceededError):
                draw(ledger, kinds[i])
    assert dict(ledger.declared.left) == {kinds[i]: n for i, n in bag.items() if n}
    ledger.verify()


# -- several writers, kills ---------------------------------------------------------------------
def test_the_plan_is_in_the_file(tmp_path):
    path = tmp_path / "ledger.db"
    mine = ac.Ledger(path, cap=CAP, mode="plan")
    mine.plan([QUERY] * 3)
    other = ac.Ledger(path, mode="plan")
    draw(other, QUERY)
    draw(pickle.loads(pickle.dumps(mine)), QUERY)
    assert mine.declared.left == ((QUERY, 1),)
    with pytest.raises(Exception, match="mode='plan'"):
        ac.Ledger(path)


def test_threads_draw_each_part_once(tmp_path):
    ledger = ac.Ledger(tmp_path / "ledger.db", cap=CAP, mode="plan")
    ledger.plan([QUERY] * 12)
    drawn = []

    def work():
        for _ in range(6):
            with contextlib.suppress(BudgetExceededError):
                drawn.append(draw(ledger, QUERY))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == len(set(drawn)) == 12
    ledger.verify()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_loses_no_draw(tmp_path):
    """Killed inside the body: the part is gone, and the next process sees it gone."""
    path = tmp_path / "ledger.db"
    ledger = ac.Ledger(path, cap=CAP, mode="plan")
    ledger.plan([QUERY] * 5)
    for kills in range(1, 4):
        pid = os.fork()
        if pid == 0:
            try:
                with ac.Ledger.open(path).spend(QUERY):
                    os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert ac.Ledger.open(path).declared.left == ((QUERY, 5 - kills),)
    assert [entry.state for entry in ledger.entries()] == ["reserved"] * 3
    ledger.verify()


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("plan", {}, "second plan"),
        ("reserved", {"event": ac.Gaussian(5.0).to_dict()}, "its plan does not hold"),
        ("reserved", {"plan": 7}, "was not declared"),
    ],
)
def test_rows_that_leave_the_plan_are_found(tmp_path, kind, change, said):
    ledger = ac.Ledger(tmp_path / "l.db", cap=CAP, mode="plan")
    ledger.plan([QUERY] * 2)
    draw(ledger, QUERY)
    body = next(row.body for row in ledger._log.rows() if row.kind == kind) | change
    if kind == "plan":
        body["total"] = [2 * body["epsilon"], 2 * body["delta"], 0.0]
    row = ledger._log.append(kind, body).id
    with pytest.raises(LogIntegrityError, match=rf"row {row} .*{said}"):
        ac.Ledger.open(tmp_path / "l.db").verify()


def test_an_estimator_draws_from_a_plan():
    from privfair.dp import DPClassifier

    X = np.random.default_rng(0).random((300, 2))
    y = (X[:, 0] > 0.5).astype(int)
    options = {"epsilon": 1.0, "schema": "as_is", "epochs": 1, "batch_size": 60}
    events = DPClassifier(**options, ledger=ac.Ledger()).fit(X, y).privacy_.events
    ledger = ac.Ledger(cap=Budget(2.0, 1e-4), mode="plan")
    ledger.plan([*events, *events])
    for _ in range(2):
        DPClassifier(**options, ledger=ledger).fit(X, y)
    with pytest.raises(BudgetExceededError, match="plan in row 2"):
        DPClassifier(**options, ledger=ledger).fit(X, y)
    assert ledger.spent().epsilon < 2.0


# -- why any order is allowed -------------------------------------------------------------------
def test_an_order_that_depends_on_outputs_reveals_no_more_than_the_plan():
    """Brute force: every strategy of which randomised response to ask next, in fractions.

    Three randomised responses of different truth probabilities on one bit. Whatever rule picks
    the next one from the answers so far, the hockey-stick divergence of the transcript is that
    of asking all three at once.
    """
    truth = [Fraction(2, 3), Fraction(3, 4), Fraction(9, 10)]

    def answer(i, bit, said):
        return truth[i] if said == bit else 1 - truth[i]

    def transcripts(first, second, bit):
        """Law of questions and answers when ``first`` and then ``second[answer]`` is asked."""
        law = {}
        for a, b, c in itertools.product((0, 1), repeat=3):
            rest = [i for i in range(3) if i != first]
            nxt = rest[second[a]]
            last = next(i for i in rest if i != nxt)
            p = answer(first, bit, a) * answer(nxt, bit, b) * answer(last, bit, c)
            law[(first, a, nxt, b, last, c)] = p
        return law

    def divergence(P, Q, factor):
        return sum(max(Fraction(0), P[k] - factor * Q[k]) for k in P)

    def at_once(bit):
        return {
            said: math.prod(answer(i, bit, said[i]) for i in range(3))
            for said in itertools.product((0, 1), repeat=3)
        }

    seen = 0
    for first, *second in itertools.product(range(3), (0, 1), (0, 1)):
        P, Q = (transcripts(first, second, bit) for bit in (1, 0))
        assert sum(P.values()) == sum(Q.values()) == 1
        for factor in (Fraction(1), Fraction(3, 2), Fraction(4), Fraction(20), Fraction(54)):
            assert divergence(P, Q, factor) == divergence(at_once(1), at_once(0), factor)
            seen += 1
    assert seen == 60
