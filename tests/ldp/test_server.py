"""Reports, wire format, aggregation, post-processing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from privfair.core.exceptions import (
    DataError,
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.ldp import (
    BLH,
    GRR,
    HR,
    OLH,
    OUE,
    PGR,
    SS,
    SUE,
    Aggregator,
    Client,
    DBitFlipPM,
    LongitudinalPopulation,
    Reports,
    choose,
    concatenate,
    full_likelihood,
    postprocess,
    randomize,
)  # fmt: skip
from privfair.ldp._postprocess import POSTPROCESS

ALL = (GRR, SUE, OUE, BLH, OLH, SS, HR, PGR)


def sample(make, k: int = 13, n: int = 400, seed: int = 0) -> Reports:
    return randomize(make(k, 1.0), np.arange(n) % k, noise_random_state=seed)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("k", [2, 13, 300])
def test_wire_round_trip(make, k: int) -> None:
    reports = sample(make, k)
    back = Reports.from_bytes(reports.to_bytes(), reports.protocol)
    assert len(back) == len(reports)
    for name, array in reports.payload.items():
        assert back.payload[name].dtype == array.dtype
        assert (back.payload[name] == array).all()


def test_subsets_travel_in_the_shorter_form() -> None:
    wide, dense = sample(SS, 5000, 50), sample(SS, 40, 50)
    assert wide.protocol.omega_ * 2 > 625  # a list would be longer than the bitmap
    assert len(wide.to_bytes()) == 32 + 50 * 625
    few = randomize(SS(5000, 6.0), np.arange(50), noise_random_state=0)
    assert len(few.to_bytes()) == 32 + 50 * few.protocol.omega_ * 2
    assert len(dense.to_bytes()) == 32 + 50 * 5
    assert (Reports.from_bytes(few.to_bytes(), few.protocol).payload["bits"]
            == few.payload["bits"]).all()  # fmt: skip


@pytest.mark.parametrize("make", ALL)
def test_every_changed_or_missing_byte_is_noticed(make) -> None:
    data = sample(make, n=20).to_bytes()
    protocol = make(13, 1.0)
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 0x40
        with pytest.raises(ValueError):
            Reports.from_bytes(bytes(wrong), protocol)
        with pytest.raises(ValueError):
            Reports.from_bytes(data[:at], protocol)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ALL), st.binary(max_size=200), st.booleans())
def test_fuzzed_bytes_give_only_value_errors(make, noise: bytes, framed: bool) -> None:
    import zlib

    protocol = make(13, 1.0)
    data = noise
    if framed:  # a right header and checksum around wrong contents
        head = sample(make, n=7).to_bytes()[:28]
        data = head + noise
        data += zlib.crc32(data).to_bytes(4, "little")
    try:
        reports = Reports.from_bytes(data, protocol)
    except ValueError:
        return
    assert len(reports) == 7  # the contents happened to be reports
    Aggregator(protocol).partial_fit(reports)


def test_reports_of_other_parameters_are_refused() -> None:
    data = sample(GRR).to_bytes()
    for other in (GRR(13, 1.5), GRR(14, 1.0), OUE(13, 1.0), OLH(13, 1.0)):
        with pytest.raises(ValueError, match="parameters"):
            Reports.from_bytes(data, other)
        with pytest.raises(InvalidParameterError):
            Aggregator(other).partial_fit(sample(GRR))


def test_impossible_reports_are_refused() -> None:
    with pytest.raises(DataError):
        Reports(GRR(4, 1.0), {"code": np.array([4], dtype=np.uint8)})
    with pytest.raises(DataError):
        Reports(OUE(4, 1.0), {"bits": np.array([[0x10]], dtype=np.uint8)})
    with pytest.raises(DataError):
        Reports(SS(8, 1.0, 2), {"bits": np.array([[0x01]], dtype=np.uint8)})
    with pytest.raises(DataError):
        Reports(
            OLH(8, 1.0, 3), {"seed": np.zeros(1, np.uint64), "bucket": np.array([3], np.uint8)}
        )


# -- aggregation --------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ALL), st.lists(st.integers(0, 400), max_size=5))
def test_shards_add_up_to_one_pass(make, cuts: list[int]) -> None:
    reports = sample(make)
    whole = Aggregator(reports.protocol).partial_fit(reports)
    parts = Aggregator(reports.protocol)
    edges = [0, *sorted(cuts), len(reports)]
    shards = [reports[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    for shard in reversed(shards):
        one = Aggregator(reports.protocol).partial_fit(shard.to_bytes())
        parts = one + parts
    assert parts == whole
    assert (parts.counts_ == whole.counts_).all()
    assert concatenate(shards).to_bytes() == reports.to_bytes()


@pytest.mark.parametrize("make", ALL)
def test_state_round_trip(make) -> None:
    server = Aggregator(make(13, 1.0)).partial_fit(sample(make))
    data = server.to_bytes()
    assert Aggregator.from_bytes(data, server.protocol) == server
    for at in range(0, len(data), 3):
        wrong = bytearray(data)
        wrong[at] ^= 1
        with pytest.raises(ValueError):
            Aggregator.from_bytes(bytes(wrong), server.protocol)
    with pytest.raises(ValueError):
        Aggregator.from_bytes(data, make(13, 2.0))
    with pytest.raises(ValueError):
        Aggregator.from_bytes(data[:-1], server.protocol)


@pytest.mark.parametrize("make", [GRR, SS, HR, PGR])
def test_sums_that_no_reports_add_up_to_are_refused(make) -> None:
    server = Aggregator(make(13, 1.0)).partial_fit(sample(make))
    for change in (1, -1):
        other = Aggregator(make(13, 1.0)) + server
        other._tally[int(np.argmax(other._tally > 0))] += change
        assert other._tally.min() >= 0 and other._tally.max() <= other.n_reports_
        with pytest.raises(DataIntegrityError, match="number of reports"):
            Aggregator.from_bytes(other.to_bytes(), server.protocol)


def test_sums_of_buckets_fit_together() -> None:
    protocol = DBitFlipPM(9, 2.0, 3)
    users = LongitudinalPopulation(protocol, 40, noise_random_state=1)
    server = Aggregator(protocol).partial_fit(users.privatize(np.arange(40) % 9))
    assert Aggregator.from_bytes(server.to_bytes(), protocol) == server
    server._tally[0] = server._tally[9] + 1  # more bits set than were asked for
    server._tally[1] -= server._tally[1] > 0
    with pytest.raises(DataIntegrityError, match="number of reports"):
        Aggregator.from_bytes(server.to_bytes(), protocol)


def test_merging_other_protocols_is_refused() -> None:
    with pytest.raises(InvalidParameterError):
        Aggregator(GRR(4, 1.0)) + Aggregator(GRR(4, 2.0))
    with pytest.raises(InvalidTypeError):
        Aggregator(GRR(4, 1.0)).merge(3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no report"):
        Aggregator(GRR(4, 1.0)).estimate()
    with pytest.raises(InvalidParameterError):
        Aggregator(GRR(4, 1.0), values=["a"])


def test_a_device_counts_what_it_spends() -> None:
    client = Client(OUE(5, 0.5))
    client.privatize([0])
    client.privatize([1, 2])
    assert client.epsilon_spent() == 1.5
    with pytest.raises(InvalidParameterError):
        client.privatize([9])
    assert client.epsilon_spent() == 1.5


def test_secret_reports_differ_and_seeded_ones_repeat() -> None:
    protocol, values = GRR(100, 1.0), np.zeros(200, dtype=int)
    assert randomize(protocol, values).to_bytes() != randomize(protocol, values).to_bytes()
    one, two = (randomize(protocol, values, noise_random_state=3).to_bytes() for _ in "ab")
    assert one == two
    np.random.seed(0)  # noqa: NPY002 - the old global state must have no effect
    first = randomize(protocol, values).to_bytes()
    np.random.seed(0)  # noqa: NPY002
    assert randomize(protocol, values).to_bytes() != first


# -- estimates ----------------------------------------------------------------------------------
def test_simultaneous_intervals_are_wider_and_hold_together() -> None:
    server = Aggregator(OUE(13, 1.0)).partial_fit(sample(OUE))
    one, all_ = server.estimate(), server.estimate(simultaneous=True)
    assert ((all_.ci_high - all_.ci_low) > (one.ci_high - one.ci_low)).all()
    truth, held = 1 / 13, 0
    for seed in range(100):  # at 95 % together, fewer than 88 of 100 has probability 3e-3
        found = Aggregator(OUE(13, 1.0)).partial_fit(sample(OUE, n=1300, seed=seed))
        e = found.estimate(simultaneous=True)
        held += bool(((e.ci_low <= truth) & (truth <= e.ci_high)).all())
    assert held >= 88


def test_raw_estimates_are_always_kept() -> None:
    server = Aggregator(GRR(13, 0.3), values=list("abcdefghijklm")).partial_fit(
        randomize(GRR(13, 0.3), np.zeros(300, dtype=int), noise_random_state=1)
    )
    raw = server.estimate()
    for rule in (*POSTPROCESS, "ibu", "ibu_marginal"):
        found = server.estimate(rule)
        assert (found.frequencies_raw == raw.frequencies).all()
        assert (found.ci_low == raw.ci_low).all()
        assert found.postprocess == rule
    assert raw.to_frame()["value"].tolist() == list("abcdefghijklm")
    assert len(raw.to_estimates()) == 13
    assert "<table>" in raw._repr_html_()
    assert raw.plot().get_xlabel()
    import json

    json.dumps(raw.to_dict(), allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1.5), min_size=2, max_size=12))
def test_norm_sub_is_the_projection_on_the_simplex(raw: list[float]) -> None:
    x = np.array(raw)
    found = postprocess(x, "norm_sub")
    assert found.min() >= 0 and found.sum() == pytest.approx(1.0)
    # Optimality of a projection: (x - P x) (y - P x) <= 0 for every distribution y.
    for corner in np.eye(len(x)):
        assert (x - found) @ (corner - found) <= 1e-9


def test_the_other_rules() -> None:
    raw = np.array([0.7, 0.5, -0.2])
    assert postprocess(raw, "norm_mul") == pytest.approx([0.7 / 1.2, 0.5 / 1.2, 0])
    assert postprocess(raw, "norm") == pytest.approx(raw + 0)
    assert postprocess(raw, "norm_cut") == pytest.approx([0.7, 0.3, 0.0])
    assert postprocess(raw, "base_cut", std=0.3) == pytest.approx([0.7, 0.0, 0.0])
    assert postprocess(np.array([-1.0, -2.0]), "norm_mul") == pytest.approx([0.5, 0.5])
    with pytest.raises(InvalidParameterError, match="std"):
        postprocess(raw, "base_cut")
    with pytest.raises(InvalidParameterError):
        postprocess(raw, "other")
    with pytest.raises(DataError):
        postprocess([np.nan, 1.0], "norm")


def test_norm_mul_is_biased_where_norm_sub_is_not_as_much() -> None:
    """All users hold one of 100 values: the trap that an existing package falls into."""
    protocol = GRR(100, 1.0)
    found = {"norm_mul": [], "norm_sub": []}
    for seed in range(20):
        server = Aggregator(protocol).partial_fit(
            randomize(protocol, np.zeros(2000, dtype=int), noise_random_state=seed)
        )
        for rule, values in found.items():
            values.append(server.estimate(rule).frequencies[0])
    assert np.mean(found["norm_mul"]) == pytest.approx(0.163, abs=0.02)
    assert np.mean(found["norm_sub"]) > 0.5


@pytest.mark.parametrize("make", [GRR, HR, PGR])
def test_ibu_is_the_maximum_of_the_likelihood(make) -> None:
    """Against another optimiser over the simplex, and never decreasing on the way."""
    protocol = make(4, 1.0)
    values = np.repeat(np.arange(4), [500, 300, 150, 50])
    reports = randomize(protocol, values, noise_random_state=2)
    server = Aggregator(protocol).partial_fit(reports)
    found = server.estimate("ibu", tol=1e-10)
    outputs = list(protocol.outputs())
    matrix = np.array([[float(protocol.probability(o, v)) for v in range(4)] for o in outputs])
    counts = np.bincount(reports.payload["code"], minlength=len(outputs))

    def loss(z: np.ndarray) -> float:
        f = np.exp(z - z.max())
        return -float(counts @ np.log(matrix @ (f / f.sum())))

    other = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
    best = np.exp(other.x - other.x.max())
    assert found.frequencies == pytest.approx(best / best.sum(), abs=2e-4)
    assert found.details["converged"]


@pytest.mark.parametrize("make", [SUE, OUE, OLH, SS])
def test_full_likelihood_never_falls_and_beats_counts(make) -> None:
    protocol = make(6, 1.0)
    values = np.repeat(np.arange(6), [900, 400, 200, 100, 50, 350])
    truth = np.bincount(values) / len(values)
    errors = {"full": 0.0, "raw": 0.0}
    for seed in range(5):
        reports = randomize(protocol, values, noise_random_state=seed)
        found = full_likelihood(
            protocol.support_matrix(reports.payload), protocol.likelihood_ratio
        )
        steps = np.diff(found.log_likelihood)
        assert (steps >= -1e-6).all()
        assert found.frequencies.sum() == pytest.approx(1.0)
        raw = Aggregator(protocol).partial_fit(reports).estimate().frequencies
        errors["full"] += float(np.square(found.frequencies - truth).sum())
        errors["raw"] += float(np.square(raw - truth).sum())
    assert errors["full"] < 1.05 * errors["raw"]
    with pytest.raises(InvalidParameterError, match="ibu_marginal"):
        Aggregator(protocol).partial_fit(reports).estimate("ibu")


# -- choice -------------------------------------------------------------------------------------
def test_choice_and_its_table() -> None:
    small, large = choose(3, 2.0), choose(1024, 1.0)
    assert small.best.name in {"GRR", "SS"}
    assert large.best.name == "SS"
    table = large.table
    assert list(table["variance"]) == sorted(table["variance"])
    assert choose(1024, 1.0, max_report_bits=20).best.name == "PGR"
    cheap = choose(1024, 1.0, max_server_ops=2e6, n=1_000_000)
    assert cheap.best.name in {"PGR", "HR"}
    assert "operations" in cheap.table.loc["OUE", "excluded"]
    assert "<table>" in large._repr_html_()
    with pytest.raises(InvalidParameterError, match="GRR"):
        choose(1024, 1.0, max_report_bits=3)
    with pytest.raises(InvalidParameterError, match="needs n"):
        choose(4, 1.0, max_server_ops=10)


@pytest.mark.parametrize("make", ALL)
def test_the_choice_is_never_worse_than_any_candidate(make) -> None:
    for k in (2, 8, 100):
        for epsilon in (0.3, 1.0, 3.0):
            assert choose(k, epsilon).best.variance() <= make(k, epsilon).variance() * (1 + 1e-12)
