"""Private selection: the exact law, the claim on every small pair of neighbours, the inputs."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy import stats

from privfair.accounting import Ledger, guarantee
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, LengthMismatchError
from privfair.core.randomness import secret_stream
from privfair.mechanisms import ExponentialMechanism, PermuteAndFlip, _choice
from privfair.mechanisms._choice import choose, flips
from privfair.mechanisms._sampling import BitSource
from tests.helpers_dp_tester import refuted

mp.dps = 40
BOTH = pytest.mark.parametrize("kind", [ExponentialMechanism, PermuteAndFlip])


# -- the laws, written down independently of the code ------------------------------------------
def weights(mechanism, scores):
    """exp(-rate gap) in 40 digits; the rate and the gaps are the ones that the draw is given."""
    rate = mechanism._rate
    gaps = mechanism._prepare(np.asarray(scores)).tolist()
    return [mp.exp(-mpf(rate.numerator) * g / rate.denominator) for g in gaps]


def exponential_law(w):
    return [x / mp.fsum(w) for x in w]


def permute_and_flip_law(w):
    """All orders, coin by coin, as in the paper."""
    law = [mpf(0)] * len(w)
    orders = list(itertools.permutations(range(len(w))))
    for order in orders:
        alive = mpf(1)
        for i in order:
            law[i] += alive * w[i] / len(orders)
            alive *= 1 - w[i]
    return law


def noisy_max_law(w):
    """The largest score plus exponential noise: w_i times the integral of prod(1 - t w_j)."""
    law = []
    for i, own in enumerate(w):
        poly = [mpf(1)]
        for j, other in enumerate(w):
            if j != i:
                poly = [
                    (poly[k] if k < len(poly) else 0) - (other * poly[k - 1] if k else 0)
                    for k in range(len(poly) + 1)
                ]
        law.append(own * mp.fsum(c / (k + 1) for k, c in enumerate(poly)))
    return law


LAW = {ExponentialMechanism: exponential_law, PermuteAndFlip: permute_and_flip_law}


def law_of(mechanism, scores):
    return LAW[type(mechanism)](weights(mechanism, scores))


@pytest.mark.parametrize("gaps", [[0], [0, 0, 3], [0, 1, 2, 5], [4, 0, 1, 1]])
def test_permute_and_flip_is_noisy_max_with_exponential_noise(gaps):
    w = [mp.exp(-mpf(g) / 3) for g in gaps]
    first, second = permute_and_flip_law(w), noisy_max_law(w)
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) < mpf(10) ** -35
    assert abs(mp.fsum(first) - 1) < mpf(10) ** -35


# -- the code's law, by enumeration of all of its decisions ------------------------------------
class _Place(BitSource):
    """A source whose one integer is prescribed."""

    def __init__(self, place):
        super().__init__(lambda n: pytest.fail("no bits are expected"))
        self.place, self.total = place, None

    def below(self, n):
        self.total = n
        return self.place


@pytest.mark.parametrize("gaps", [[0, 1, 2, 5], [3, 0, 0, 40], [0, 0, 0, 0], [7, 0, 1, 2]])
@pytest.mark.parametrize("rate", [Fraction(1, 3), Fraction(7, 5)])
def test_choice_by_enumeration(gaps, rate, monkeypatch):
    # With weights of 2^4 all proposals can be listed. The acceptance is replaced by its exact
    # probability; the comparison behind it has a test of its own.
    monkeypatch.setattr(_choice, "_TOP", 4)
    accepted = []

    def record(energy, upper, source):
        p = 2**4 * mp.exp(-mpf(energy.numerator) / energy.denominator) / upper
        assert 0 < p <= 1
        accepted.append(p)
        return True

    monkeypatch.setattr(_choice, "_below_ratio", record)
    law, place, total = [mpf(0)] * len(gaps), 0, 1
    while place < total:
        source = _Place(place)
        law[choose(np.array(gaps), rate, source)] += accepted.pop()
        total, place = source.total, place + 1
    w = [mp.exp(-mpf(g) * rate.numerator / rate.denominator) for g in gaps]
    for found, exact in zip(law, w, strict=True):
        assert abs(found / mp.fsum(law) - exact / mp.fsum(w)) < mpf(10) ** -30


def test_the_comparison_with_an_exponential_is_exact():
    # U < exp(-x) for a uniform U of 64 and more bits, at the words next to the exact value.
    for x in (Fraction(1, 7), Fraction(5, 2), Fraction(30), Fraction(44)):
        edge = int(mp.floor(mp.exp(-mpf(x.numerator) / x.denominator) * mpf(2) ** 64))

        def answer(word, rest, energy=x):
            source = BitSource(lambda n: np.full(n, rest, dtype=np.uint64))
            return _choice._settle(energy, 1, 0, source, word, 64)

        assert answer(edge - 1, 2**64 - 1)
        assert not answer(edge + 1, 0)
        # The edge itself is decided by the next 64 bits.
        following = int(
            mp.floor((mp.exp(-mpf(x.numerator) / x.denominator) * mpf(2) ** 64 - edge) * 2**64)
        )
        assert answer(edge, following - 1)
        assert not answer(edge, following + 1)
    assert _choice._settle(Fraction(0), 1, 0, BitSource(lambda n: 1 / 0), 2**64 - 1, 64)


@pytest.mark.parametrize("energy", [Fraction(0), Fraction(1, 3), Fraction(2), Fraction(43)])
def test_coins_agree_with_the_exact_comparison_near_the_edge(energy):
    edge = int(mp.floor(mp.exp(-mpf(energy.numerator) / energy.denominator) * mpf(2) ** 64))
    words = [w for w in (0, 1, edge - 2, edge - 1, edge + 1, edge + 2) if 0 <= w < 2**64]
    words += [min(2**64 - 1, edge + 2**k) for k in range(2, 62, 5)]
    words += [max(0, edge - 2**k) for k in range(2, 62, 5)]
    fed = [np.array(words, dtype=np.uint64)]
    source = BitSource(lambda n: fed.pop() if fed else np.zeros(n, dtype=np.uint64))
    heads = flips(np.full(len(words), energy.numerator), Fraction(1, energy.denominator), source)
    for word, head in zip(words, heads.tolist(), strict=True):
        if word != edge:
            assert head == (word < edge), word - edge


def test_the_best_candidate_always_shows_heads():
    # Without it nothing might be chosen; the largest word is the hardest case.
    source = BitSource(lambda n: np.full(n, 2**64 - 1, dtype=np.uint64))
    assert flips(np.array([0, 0, 5]), Fraction(3), source).tolist() == [True, True, False]


def test_permute_and_flip_by_enumeration(monkeypatch):
    # All outcomes of the coins, and of the integer that picks among the heads.
    mechanism = PermuteAndFlip(4, 1.3, granularity=1.0)
    scores = [3, 0, 2, 2]
    w = weights(mechanism, scores)
    law = [mpf(0)] * 4
    for outcome in itertools.product([False, True], repeat=4):
        p = mp.fprod(x if head else 1 - x for x, head in zip(w, outcome, strict=True))
        if p == 0:
            continue
        monkeypatch.setattr("privfair.mechanisms._select.flips", lambda *_, o=outcome: np.array(o))
        for place in range(sum(outcome)):
            chosen = mechanism._position(mechanism._prepare(np.array(scores)), _Place(place))
            law[chosen] += p / sum(outcome)
    for found, exact in zip(law, permute_and_flip_law(w), strict=True):
        assert abs(found - exact) < mpf(10) ** -30


@pytest.mark.statistical
@BOTH
@pytest.mark.parametrize("monotonic", [False, True])
def test_release_has_the_exact_law(kind, monotonic):
    # H0: the law above. n = 20,000, alpha = 1e-6. Power: a rate that is 25 % off is refused
    # (noncentrality above 90).
    scores = np.array([4.0, 3.5, 0.0, 2.25, 3.5])
    mechanism = kind(5, 1.2, monotonic=monotonic, granularity=0.25, noise_random_state=4)
    gaps = mechanism._prepare(scores)
    source = BitSource(mechanism._stream.uint64)
    observed = np.bincount([mechanism._position(gaps, source) for _ in range(20_000)], minlength=5)

    def p_value(stretch):
        w = [x**stretch for x in weights(mechanism, scores)]
        law = np.array([float(p) for p in LAW[kind](w)])
        return stats.chisquare(observed, law * 20_000).pvalue

    assert p_value(1) > 1e-6
    assert p_value(1.25) < 1e-6


@pytest.mark.statistical
def test_very_many_candidates_have_the_exact_law():
    # H0: P(score class) as computed; 60 draws each, alpha = 1e-6. The top class holds 3 of 2^17.
    scores = np.zeros(2**17)
    scores[[5, 99_999, 2**17 - 1]] = 20.0
    for kind in (ExponentialMechanism, PermuteAndFlip):
        mechanism = kind(2**17, 1.0, granularity=1.0, noise_random_state=1)
        assert mechanism._rate == Fraction(1, 2)
        gaps = mechanism._prepare(scores)
        source = BitSource(mechanism._stream.uint64)
        n = 60
        hits = sum(mechanism._position(gaps, source) in {5, 99_999, 2**17 - 1} for _ in range(n))
        if kind is ExponentialMechanism:
            share = 3 / (3 + (2**17 - 3) * math.exp(-10))
            wrong = 3 / (3 + (2**17 - 3) * math.exp(-8))
        else:  # heads of the others: binomial, about 6; 3 of them and the best are taken evenly
            k = np.arange(60)
            pmf = stats.binom.pmf(k, 2**17 - 3, math.exp(-10))
            share, wrong = float((pmf * 3 / (3 + k)).sum()), 3 / (3 + 47)
        assert stats.binomtest(hits, n, share).pvalue > 1e-6
        assert stats.binomtest(hits, n, wrong).pvalue < 1e-3


# -- the claim, on all pairs of neighbours of a small domain -----------------------------------
def pairs(mechanism, top, size):
    """All pairs of score vectors in 0..top that one record may move into one another."""
    moves = [-1, 0, 1]
    for scores in itertools.product(range(top + 1), repeat=size):
        for move in itertools.product(moves, repeat=size):
            if mechanism.monotonic and len(set(move) - {0}) > 1:
                continue
            yield scores, tuple(a + b for a, b in zip(scores, move, strict=True))


@BOTH
@pytest.mark.parametrize("monotonic", [False, True])
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_ratio_on_all_neighbours(kind, monotonic, epsilon):
    mechanism = kind(3, epsilon, monotonic=monotonic, granularity=1.0)
    claimed = guarantee(mechanism.cost(), delta=0.0).epsilon
    laws = {}

    def law(scores):
        key = tuple(max(scores) - s for s in scores)  # the law sees gaps only
        if key not in laws:
            laws[key] = law_of(mechanism, scores)
        return laws[key]

    worst, widest = mpf(0), mpf(0)
    for scores, other in pairs(mechanism, 3, 3):
        losses = [mp.log(a / b) for a, b in zip(law(scores), law(other), strict=True)]
        worst = max(worst, *(abs(x) for x in losses))
        widest = max(widest, max(losses) - min(losses))
    assert worst <= mp.log(1 + mpf(10) ** -12) + claimed
    assert worst > 0.7 * epsilon  # the claim is not idle
    if kind is ExponentialMechanism:
        assert widest <= epsilon * (1 + mpf(10) ** -12)  # the range that the event promises
    else:
        assert widest > 1.2 * epsilon  # which is why permute-and-flip promises none


@BOTH
def test_real_scores_pay_for_the_grid(kind):
    # Sensitivity 0.3 on a grid of 0.25 is two steps. All pairs of scores of twelfths.
    mechanism = kind(2, 1.0, sensitivity=0.3, granularity=0.25)
    assert mechanism.sensitivity == 0.5
    worst = mpf(0)
    points = [k / 20 for k in range(16)]
    for a, b in itertools.product(points, repeat=2):
        for da, db in itertools.product([-0.3, -0.2, 0.0, 0.1, 0.3], repeat=2):
            first, second = law_of(mechanism, [a, b]), law_of(mechanism, [a + da, b + db])
            worst = max(worst, *(abs(mp.log(x / y)) for x, y in zip(first, second, strict=True)))
    assert 0.7 < worst <= 1 + mpf(10) ** -12


@settings(max_examples=150, deadline=None)
@given(
    scores=st.lists(st.floats(-1e9, 1e9) | st.integers(-(2**62), 2**62), min_size=1, max_size=8),
    moves=st.lists(st.fractions(-1, 1, max_denominator=64), min_size=8, max_size=8),
    power=st.integers(-8, 3),
)
def test_rounded_scores_stay_within_the_sensitivity(scores, moves, power):
    whole = all(isinstance(s, int) for s in scores)
    sensitivity, size = Fraction(3), len(scores)
    mechanism = ExponentialMechanism(size, 1.0, sensitivity=sensitivity, granularity=2.0**power)
    first = np.array(scores, dtype=np.int64 if whole else np.float64)
    shift = np.array([int(3 * m) if whole else float(3 * m) for m in moves[:size]])
    second = (first + shift).astype(first.dtype)
    moved = [
        abs(Fraction(a) - Fraction(b))
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    if max(moved) > sensitivity:  # float addition went further than asked
        return
    from privfair.mechanisms._grid import grid_steps

    low, high = (grid_steps(x, mechanism.granularity, down=True) for x in (first, second))
    most = Fraction(mechanism.sensitivity) / Fraction(mechanism.granularity)
    assert max(abs(int(a) - int(b)) for a, b in zip(low, high, strict=True)) <= most
    for a, b, x, y in zip(low, high, first.tolist(), second.tolist(), strict=True):
        assert (x >= y) <= (a >= b)  # what is monotonic stays monotonic


@pytest.mark.parametrize("epsilon", [0.1, 1 / 3, 7.7])
@pytest.mark.parametrize("neighboring", ["zero_out", "add_remove", "replace_one"])
@BOTH
def test_the_price_of_a_budget_is_the_budget(kind, epsilon, neighboring):
    mechanism = kind(4, epsilon, neighboring=neighboring, monotonic=True)
    price = guarantee(mechanism.cost(), delta=0.0, neighboring=neighboring).epsilon
    assert 0.999 * epsilon <= price <= epsilon * (1 + 1e-12)
    assert mechanism.cost(3).count == 3


def test_many_choices_are_cheaper_by_the_exponential_mechanism():
    many = {
        kind: guarantee(kind(4, 0.1).cost(200), delta=1e-6).epsilon
        for kind in (ExponentialMechanism, PermuteAndFlip)
    }
    assert many[ExponentialMechanism] < 0.7 * many[PermuteAndFlip]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=4), st.floats(0.1, 5))
def test_permute_and_flip_is_never_worse(scores, epsilon):
    # McKenna, Sheldon 2020, theorem 2: at every epsilon the expected score is at least as good.
    expected = {
        kind: mp.fsum(
            p * s
            for p, s in zip(
                law_of(kind(len(scores), epsilon, granularity=1.0), scores), scores, strict=True
            )
        )
        for kind in LAW
    }
    assert expected[PermuteAndFlip] >= expected[ExponentialMechanism] - mpf(10) ** -30


@pytest.mark.statistical
@BOTH
def test_the_claim_is_not_refuted_and_a_fourfold_rate_is(kind):
    # alpha = 1e-6, n = 10,000 each. Power: four times the rate moves the best by a loss of 2.
    def draw(rate):
        mechanism = kind(2, 1.0, granularity=1.0, noise_random_state=7)
        mechanism._rate *= rate
        source = BitSource(mechanism._stream.uint64)

        def many(scores, n):
            gaps = mechanism._prepare(np.array(scores))
            return [mechanism._position(gaps, source) for _ in range(n)]

        return many

    assert not refuted(draw(1), [0, 1], [1, 0], 1.0, n=10_000)
    assert refuted(draw(4), [0, 1], [1, 0], 1.0, n=10_000)


# -- use ----------------------------------------------------------------------------------
@BOTH
def test_what_is_chosen(kind):
    assert kind(["a", "b", "c"], 200.0).release([0, 9, 3]) == "b"
    assert kind(3, 200.0).release(np.array([0.0, 1.0, 9.0], dtype=np.float32)) == 2
    assert kind(np.array([10, 20]), 200.0).release([1, 0]) == 10
    assert kind(1, 1.0).release([np.nan]) == 0
    assert kind(3, 50.0).release([np.nan, -np.inf, 0.0]) == 2
    assert kind(2, 50.0).release([np.inf, 0.0]) == 0
    assert kind(2, 50.0).release(np.array([True, False])) == 0
    assert kind(2, 1e308).release([0.0, 1.0]) == 1
    huge = np.array([2**63, 2**64 - 1], dtype=np.uint64)
    assert kind(2, 1.0).release(huge) in (0, 1)
    tied = {kind(3, 1.0).release([5, 5, 5]) for _ in range(200)}
    assert tied == {0, 1, 2}


@BOTH
def test_integer_scores_beyond_two_to_the_53_are_not_seen_as_floats(kind):
    mechanism = kind(2, 1.0, granularity=1.0)
    gaps = [mechanism._prepare(np.array([2**53 + 2, 2**53 + k])).tolist() for k in (2, 3)]
    assert gaps == [[0, 0], [1, 0]]


@BOTH
@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"candidates": 0}, InvalidParameterError),
        ({"candidates": []}, InvalidParameterError),
        ({"candidates": "abc"}, InvalidTypeError),
        ({"candidates": True}, InvalidTypeError),
        ({"candidates": 2**20 + 2}, InvalidParameterError),
        ({"epsilon": 0}, InvalidParameterError),
        ({"epsilon": math.inf}, InvalidParameterError),
        ({"epsilon": True}, InvalidTypeError),
        ({"sensitivity": 0.0}, InvalidParameterError),
        ({"sensitivity": math.nan}, InvalidParameterError),
        ({"granularity": 0.3}, InvalidParameterError),
        ({"monotonic": 1}, InvalidTypeError),
        ({"neighboring": "both"}, InvalidParameterError),
    ],
)
def test_bad_parameters(kind, kwargs, error):
    with pytest.raises(error):
        kind(**{"candidates": 3, "epsilon": 1.0, **kwargs})


@BOTH
@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ([1.0, 2.0], LengthMismatchError),
        ([[1.0, 2.0, 3.0]], LengthMismatchError),
        (["a", "b", "c"], InvalidTypeError),
        ([1j, 2, 3], InvalidTypeError),
        ([2**70, 0, 0], InvalidTypeError),
    ],
)
def test_bad_scores_charge_nothing(kind, scores, error):
    ledger = Ledger()
    with pytest.raises(error):
        kind(3, 1.0).release(scores, ledger=ledger)
    assert not list(ledger.entries())


@BOTH
def test_selection_is_charged_before_the_draw(kind, monkeypatch):
    from privfair.testing import check_mechanism

    check_mechanism(kind(3, 0.5), [1.0, 2.0, 3.0], neighbors=([1, 0, 0], [0, 1, 0]), n=1000)


def test_repeated_secret_choices_differ():
    mechanism = ExponentialMechanism(10**6, 1e-6)
    scores = np.zeros(10**6)
    gaps, source = mechanism._prepare(scores), BitSource(secret_stream().uint64)
    assert len({mechanism._position(gaps, source) for _ in range(20)}) > 15
