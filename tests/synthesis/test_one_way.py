"""The one-way step: what it charges, what it counts, what it makes of the noisy counts."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.accounting import Ledger, guarantee
from privfair.core.exceptions import (
    BudgetExceededError,
    DataError,
    InvalidBudgetError,
    InvalidParameterError,
    LengthMismatchError,
    SchemaError,
)
from privfair.core.frames import as_table
from privfair.core.privacy import Budget
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.synthesis._coding import bin_ranges, decode, domain_sizes, encode
from privfair.synthesis._one_way import (
    Measurement,
    Plan,
    allocate,
    exact_marginals,
    fit,
    measure,
    plan,
    project,
    sample,
)

SIZES = {"y": 2, "s": 3, "a": 4, "b": 5}
ROOT = ("y", "s")


def make_codes(n: int, seed: int = 0, sizes: dict[str, int] = SIZES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(size, size=n) for name, size in sizes.items()}


def simple_plan(sigma: Fraction | int = 2) -> Plan:
    return Plan(ROOT, ("a", "b"), SIZES, Fraction(sigma))


def ledger(**options: Any) -> Ledger:
    return Ledger(neighboring="add_remove", **options)


class Spy:
    """A ledger that notes when it is asked."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.options: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def spend(self, event: Any, **options: Any) -> Iterator[None]:
        self.events.append(event)
        self.options.append(options)
        yield


# -- the plan -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("epsilon", "delta", "rho"), [(1, 1e-5, 0.030557), (1, 1e-6, 0.024356), (3, 1e-6, 0.18507)]
)
@pytest.mark.golden
def test_rho_of_a_budget(epsilon: float, delta: float, rho: float) -> None:
    """Provenance: tight zCDP conversion (Canonne, Kamath, Steinke 2020) by a public library."""
    what = plan(SIZES, ROOT, epsilon=epsilon, delta=delta)
    assert what.rho <= rho * (1 + 1e-4)
    assert what.rho >= rho * (1 - 2e-3), "sigma is rounded up to 0.001 and no more"


def test_plan_is_the_least_noise_within_the_budget() -> None:
    what = plan(SIZES, ROOT, epsilon=1.0, delta=1e-6)
    assert what.guarantee(1e-6).epsilon <= 1.0
    less = Plan(ROOT, what.features, SIZES, what.sigma - Fraction(1, 1000))
    assert less.guarantee(1e-6).epsilon > 1.0
    assert what.n_marginals == 3
    assert what.rho == pytest.approx(3 / (2 * float(what.sigma) ** 2))
    promise = what.guarantee(1e-6)
    assert (promise.unit, promise.neighboring) == ("record", "add_remove")
    assert promise.numerics == "exact"
    assert promise.certified


def test_ledger_identity() -> None:
    """rho of the parts adds up to rho of the plan, and the event says the same."""
    what = plan(SIZES, ROOT, epsilon=1.0, delta=1e-6)
    event = what.event()
    assert event.count == what.n_marginals
    each = 1 / (2 * event.event.sigma**2)
    assert event.count * each == pytest.approx(what.rho, rel=1e-9)
    assert Fraction(event.event.sigma) <= what.sigma, "the event never claims more noise"


@pytest.mark.parametrize("root", [(), ("y", "y"), ("nope",), tuple(SIZES)])
def test_bad_roots(root: tuple[str, ...]) -> None:
    with pytest.raises(InvalidParameterError, match="root"):
        plan(SIZES, root, epsilon=1.0, delta=1e-6)


def test_bad_budgets() -> None:
    for bad in ({"epsilon": 0.0, "delta": 1e-6}, {"epsilon": 1.0, "delta": 0.0}):
        with pytest.raises(InvalidBudgetError):
            plan(SIZES, ROOT, **bad)


# -- sensitivity and counting ---------------------------------------------------------------
@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(0, 2**31), st.data())
def test_one_record_changes_each_histogram_by_one_in_one_cell(
    n: int, seed: int, data: st.DataObject
) -> None:
    codes = make_codes(n, seed)
    extra = {name: data.draw(st.integers(0, size - 1)) for name, size in SIZES.items()}
    at = data.draw(st.integers(0, n))
    more = {name: np.insert(values, at, extra[name]) for name, values in codes.items()}
    before = exact_marginals(codes, simple_plan())
    after = exact_marginals(more, simple_plan())
    pairs = [(before[0], after[0]), *((before[1][k], after[1][k]) for k in before[1])]
    assert len(pairs) == simple_plan().n_marginals
    for old, new in pairs:
        change = new - old
        assert change.sum() == 1
        assert np.abs(change).sum() == 1


def test_marginals_are_the_counts() -> None:
    codes = make_codes(200)
    root, features = exact_marginals(codes, simple_plan())
    for y in range(2):
        for s in range(3):
            mask = (codes["y"] == y) & (codes["s"] == s)
            assert root[3 * y + s] == mask.sum()
            for k in range(5):
                assert features["b"][3 * y + s, k] == (mask & (codes["b"] == k)).sum()


# -- charging -----------------------------------------------------------------------------
def test_the_charge_comes_before_the_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    from privfair.synthesis import _one_way

    def touched(*args: Any) -> None:
        raise AssertionError("the data were counted")

    monkeypatch.setattr(_one_way, "exact_marginals", touched)
    what = plan(SIZES, ROOT, epsilon=2.0, delta=1e-6)
    small = ledger(cap=Budget(1.0, 1e-6), filter="zcdp")
    with pytest.raises(BudgetExceededError):
        measure(make_codes(10), what, ledger=small)
    assert len(small) == 0
    enough = ledger(cap=Budget(3.0, 1e-6), filter="zcdp")
    with pytest.raises(AssertionError, match="counted"):
        measure(make_codes(10), what, ledger=enough)
    assert [entry.state for entry in enough.entries()] == ["reserved"], "a crash stays spent"


def test_one_charge_of_the_whole_step() -> None:
    what = plan(SIZES, ROOT, epsilon=1.0, delta=1e-6)
    spent = ledger(cap=Budget(3.0, 1e-6), filter="zcdp")
    measured = measure(make_codes(50), what, ledger=spent, purpose="test")
    (entry,) = spent.entries()
    assert (entry.state, entry.purpose, entry.numerics) == ("released", "test", "exact")
    assert entry.event == what.event()
    assert not entry.seeded
    assert not measured.seeded
    assert guarantee(entry.event, delta=1e-6, neighboring="add_remove").epsilon <= 1.01
    assert spent.spent().epsilon <= 3.0  # read at the order that suits the cap


def test_bad_codes_spend_nothing() -> None:
    good = make_codes(10)
    for name, values, error in [
        ("a", np.full(10, 4), DataError), ("a", np.full(10, -1), DataError),
        ("a", np.zeros(10), DataError), ("a", np.zeros((10, 1), dtype=int), DataError),
        ("a", np.zeros(9, dtype=int), LengthMismatchError),
    ]:  # fmt: skip
        spy = Spy()
        with pytest.raises(error):
            measure({**good, name: values}, simple_plan(), ledger=spy)
        assert spy.events == []


def test_a_seed_marks_the_measurement() -> None:
    spy = Spy()
    one, two = (
        measure(make_codes(10), simple_plan(), ledger=spy, noise_random_state=7) for _ in range(2)
    )
    assert one.seeded
    assert one.to_dict() == two.to_dict()
    assert [options["seeded"] for options in spy.options] == [True, True]
    free = [measure(make_codes(10), simple_plan(), ledger=spy).to_dict() for _ in range(2)]
    assert free[0] != free[1]


# -- the noise, and an attack on it ---------------------------------------------------------
@pytest.mark.statistical
def test_noise_of_every_cell_is_the_discrete_gaussian() -> None:
    """Null: released - exact has the pmf ~ exp(-x^2 / 2 sigma^2); chi-square, alpha 1e-6.

    Some 60,000 cells; a scale 5 % off shifts the statistic by more than 25 of its standard
    deviations (power above 99.9 %).
    """
    sizes = {"y": 3, "a": 20_000}
    what = Plan(("y",), ("a",), sizes, Fraction(3))
    codes = make_codes(500, 1, sizes)
    measured = measure(codes, what, ledger=Spy(), noise_random_state=11)
    noise = (measured.features["a"] - exact_marginals(codes, what)[1]["a"]).ravel()
    support = np.arange(-9, 10)
    weights = np.exp(-(np.arange(-60, 61) ** 2) / 18.0)
    pmf = dict(zip(range(-60, 61), weights / weights.sum(), strict=True))
    inner = np.array([pmf[k] for k in support])
    observed = np.array([(noise == k).sum() for k in support])
    expected = inner * len(noise)

    def p_value(counts: Any) -> float:
        table = np.append(counts, len(noise) - counts.sum())
        return float(
            stats.chisquare(table, np.append(expected, len(noise) - expected.sum())).pvalue
        )

    assert p_value(observed) > 1e-6
    wrong = stats.norm(scale=3 * 0.95)
    shifted = np.diff(wrong.cdf(np.arange(-9, 11) - 0.5)) * len(noise)
    assert p_value(np.rint(shifted)) < 1e-12, "the test sees a scale that is 5 % too small"


@pytest.mark.statistical
@pytest.mark.parametrize(("factor", "caught"), [(1, False), (6, True)])
def test_attack_on_neighbours(factor: int, caught: bool) -> None:
    """A distinguisher's lower bound stays below the certificate, and exceeds it for 1/6 of it.

    2,500 runs for each of two neighbours; the threshold is fixed beforehand; Clopper-Pearson at
    alpha 5e-7 on either side, so that a false alarm has a probability of at most 1e-6. With a
    sixth of the noise the expected bound is about 2.7 against a certificate of 2.0.
    """
    what = plan(SIZES, ROOT, epsilon=2.0, delta=1e-5)
    promise = what.guarantee(1e-5).epsilon
    used = Plan(ROOT, what.features, SIZES, what.sigma / factor)
    small = make_codes(5, 3)
    extra = {"y": 1, "s": 2, "a": 3, "b": 4}
    large = {name: np.append(values, extra[name]) for name, values in small.items()}
    state = 5

    def score(codes: dict[str, Any], seed: int) -> int:
        got = measure(codes, used, ledger=Spy(), noise_random_state=seed)
        cells = got.root[state] + got.features["a"][state, 3] + got.features["b"][state, 4]
        return int(cells)

    base = exact_marginals(small, used)
    offset = base[0][state] + base[1]["a"][state, 3] + base[1]["b"][state, 4]
    runs = 2_500
    cut = offset + 2.33 * math.sqrt(3) * float(used.sigma)
    hits = sum(score(large, k) > cut for k in range(runs))
    alarms = sum(score(small, runs + k) > cut for k in range(runs))
    tpr = stats.beta.ppf(5e-7, hits, runs - hits + 1)
    fpr = stats.beta.ppf(1 - 5e-7, alarms + 1, runs - alarms)
    lower = math.log(max(tpr - 1e-5, 1e-12) / fpr)
    assert (lower > promise) is caught


# -- post-processing ------------------------------------------------------------------------
def noiseless(codes: dict[str, Any], what: Plan) -> Measurement:
    root, features = exact_marginals(codes, what)
    return Measurement(what, root, features)


def test_without_noise_the_model_is_the_data() -> None:
    codes = make_codes(4_000)
    what = simple_plan(Fraction(1, 1000))
    root, features = exact_marginals(codes, what)
    model = fit(noiseless(codes, what))
    assert model.n_rows == pytest.approx(4_000)
    assert model.root * 4_000 == pytest.approx(root)
    for name in ("a", "b"):
        expected = features[name] / features[name].sum(axis=1, keepdims=True)
        assert model.conditionals[name] == pytest.approx(expected, abs=1e-12)
    assert model.compressed == {}
    assert model.pooled == {}


def test_a_sample_of_the_noiseless_model_is_within_one_row_per_cell() -> None:
    codes = make_codes(4_000)
    what = simple_plan(Fraction(1, 1000))
    exact = exact_marginals(codes, what)
    rows = sample(fit(noiseless(codes, what)), random_state=0)
    again = exact_marginals(rows, what)
    assert np.abs(again[0] - exact[0]).max() <= 1
    for name in ("a", "b"):
        assert np.abs(again[1][name] - exact[1][name]).max() <= 2


def test_number_of_rows_is_the_weighted_mean_of_the_noisy_totals() -> None:
    what = simple_plan(3)
    measured = measure(make_codes(1_000), what, ledger=Spy(), noise_random_state=5)
    totals = [measured.root.sum(), measured.features["a"].sum(), measured.features["b"].sum()]
    variances = [6, 6 * 4, 6 * 5]  # cells, in units of sigma^2
    expected = np.average(totals, weights=1 / np.array(variances))
    assert fit(measured).n_rows == pytest.approx(expected)


@pytest.mark.statistical
def test_root_of_a_sample_lies_near_the_data() -> None:
    """Every root count within 6 sigma (false alarm below 1e-7 for six cells)."""
    codes = make_codes(3_000)
    what = plan(SIZES, ROOT, epsilon=1.0, delta=1e-6)
    measured = measure(codes, what, ledger=Spy(), noise_random_state=2)
    rows = sample(fit(measured), random_state=1)
    difference = exact_marginals(rows, what)[0] - exact_marginals(codes, what)[0]
    assert np.abs(difference).max() <= 6 * float(what.sigma) + 1


def test_rare_codes_share_a_bucket_evenly() -> None:
    what = Plan(("y",), ("a",), {"y": 2, "a": 4}, Fraction(10))
    counts = np.array([[500, 10, 4, 300], [400, 0, -6, 200]])
    model = fit(Measurement(what, counts.sum(axis=1), {"a": counts}))
    assert model.compressed == {"a": [1, 2]}
    laws = model.conditionals["a"]
    assert laws[:, 1] == pytest.approx(laws[:, 2])
    assert laws.sum(axis=1) == pytest.approx(1)
    assert laws[0, 1] == pytest.approx(7 / 814, rel=0.01)


def test_one_rare_code_stays_as_it_is() -> None:
    what = Plan(("y",), ("a",), {"y": 2, "a": 3}, Fraction(10))
    counts = np.array([[500, 10, 300], [400, 2, 200]])
    model = fit(Measurement(what, counts.sum(axis=1), {"a": counts}))
    assert model.compressed == {}


def test_small_root_states_take_the_law_of_their_label() -> None:
    what = simple_plan(10)
    root = np.array([900, 20, 800, 700, 600, 15])
    law = {name: np.full(SIZES[name], 1 / SIZES[name]) for name in ("a", "b")}
    counts = {name: np.rint(np.outer(root, law[name])).astype(int) for name in ("a", "b")}
    counts["a"][1] = [40, -30, 5, 5]  # noise would rule this state
    model = fit(Measurement(what, root, counts))
    assert model.pooled == {"a": [1, 5], "b": [1, 5]}
    expected = (counts["a"][0] + counts["a"][1] + counts["a"][2]).astype(float)
    assert model.conditionals["a"][1] == pytest.approx(expected / expected.sum(), abs=0.02)
    assert model.conditionals["a"][0] == pytest.approx(0.25, abs=1e-6)


def test_nothing_but_noise_gives_a_model_all_the_same() -> None:
    what = simple_plan(50)
    for seed in range(20):
        measured = measure(make_codes(1), what, ledger=Spy(), noise_random_state=seed)
        model = fit(measured)
        assert model.n_rows >= 1
        assert model.root.sum() == pytest.approx(1)
        assert all((laws >= 0).all() for laws in model.conditionals.values())
        rows = sample(model, 30, random_state=seed)
        assert all(len(values) == 30 for values in rows.values())


def test_post_processing_uses_the_released_counts_only() -> None:
    stored = measure(make_codes(300), simple_plan(), ledger=Spy())
    read = Measurement.from_dict(json.loads(json.dumps(stored.to_dict())))
    assert read.to_dict() == stored.to_dict()
    for one, two in zip(
        sample(fit(stored), random_state=1).values(),
        sample(fit(read), random_state=1).values(),
        strict=True,
    ):
        assert (one == two).all()
    with pytest.raises(DataError, match="do not fit"):
        Measurement.from_dict({**stored.to_dict(), "root": [1, 2]})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0.01, 1e6))
def test_projection(values: list[float], total: float) -> None:
    """The nearest point: sum and sign right, and no other point tried is nearer."""
    given_ = np.array(values)
    found = project(given_, total)
    scale = max(1.0, total, float(np.abs(given_).max()))
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(total, abs=1e-7 * scale)
    other = np.full(len(values), total / len(values))
    assert np.sum((found - given_) ** 2) <= np.sum((other - given_) ** 2) + 1e-6 * scale**2
    kept = found > 0
    shifts = (given_ - found)[kept]
    assert np.ptp(shifts) <= 1e-6 * scale, "all positive parts move by the same amount"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda p: sum(p) > 0.01),
    st.integers(0, 10_000),
    st.integers(0, 2**31),
)
def test_allocation(weights: list[float], n: int, seed: int) -> None:
    p = np.array(weights) / sum(weights)
    counts = allocate(np.array(weights), n, np.random.default_rng(seed))
    assert counts.sum() == n
    assert (counts >= 0).all()
    assert np.abs(counts - n * p).max() < 1 + 1e-6


def test_sample_is_shuffled_and_repeatable() -> None:
    model = fit(noiseless(make_codes(2_000), simple_plan(Fraction(1, 1000))))
    one, two = sample(model, random_state=4), sample(model, random_state=4)
    assert all((one[name] == two[name]).all() for name in SIZES)
    assert not (np.diff(one["y"]) >= 0).all()
    correlation = np.corrcoef(one["a"], one["b"])[0, 1]
    assert abs(correlation) < 0.15, "features are independent given the root"
    with pytest.raises(InvalidParameterError):
        sample(model, 0)


# -- coding ---------------------------------------------------------------------------------
SCHEMA = Schema(
    {
        "age": Numeric(17, 90, bins=[25, 45, 89.5]),
        "land": Categorical(["US", "MX"], other="other"),
        "flag": Categorical([0, 1]),
    }
)


def test_encode_and_decode() -> None:
    table = as_table(
        {"age": np.array([3, 24, 25, 90, 400]), "land": ["US", "MX", "FR", "US", "MX"],
         "flag": np.array([0, 1, 1, 0, 0])}
    )  # fmt: skip
    codes = encode(table, SCHEMA)
    assert codes["age"].tolist() == [0, 0, 1, 3, 3]
    assert codes["land"].tolist() == [0, 1, 2, 0, 1]
    assert codes["flag"].tolist() == [0, 1, 1, 0, 0]
    assert domain_sizes(SCHEMA) == {"age": 4, "land": 3, "flag": 2}
    assert bin_ranges(SCHEMA["age"]) == [(17, 24), (25, 44), (45, 89), (90, 90)]  # type: ignore[arg-type]
    back = decode(codes, SCHEMA, np.random.default_rng(0))
    assert encode(as_table(back), SCHEMA)["age"].tolist() == codes["age"].tolist()
    assert back["land"].tolist() == ["US", "MX", "other", "US", "MX"]


def test_coding_refuses_what_is_not_public() -> None:
    with pytest.raises(SchemaError, match="cut points"):
        domain_sizes(Schema({"x": Numeric(0, 1)}))
    with pytest.raises(SchemaError, match="outside its declared list") as caught:
        encode(as_table({"x": np.array(["secret", "a"])}), Schema({"x": Categorical(["a"])}))
    assert "secret" not in str(caught.value)
    with pytest.raises(SchemaError, match="no whole number"):
        bin_ranges(Numeric(0, 1, bins=[0.25, 0.5]))
