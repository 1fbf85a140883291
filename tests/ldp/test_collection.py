"""Collections, their files, and the mean of binned numbers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from privfair.core.exceptions import (
    DataError,
    DataIntegrityError,
    DataNotAvailableError,
    DataVerificationWarning,
    InvalidParameterError,
    InvalidTypeError,
    OutputTargetError,
    SchemaVersionError,
)
from privfair.ldp import (
    GRR,
    OLH,
    OUE,
    SS,
    Aggregator,
    Collection,
    CollectionColumn,
    aggregate_files,
    binned_mean,
    randomize,
    read_reports,
)
from privfair.ldp._collection import BATCH, STATE, Frame, append_frames, frames, make_protocol

ANSWERS = Collection((CollectionColumn("answer", ("yes", "no", "other"), GRR(3, 1.0)),))


def batch(n: int, collection: Collection = ANSWERS, seed: int = 0) -> Frame:
    protocol = collection.columns[0].protocol
    reports = randomize(protocol, np.arange(n) % protocol.k, noise_random_state=seed)
    return Frame(BATCH, 0, reports.to_bytes())


def read(path: Path) -> tuple[Collection, list[Frame], list[str]]:
    collection, pieces = frames(path, lambda _, rest: list(rest))
    return (
        collection,
        [p for p in pieces if isinstance(p, Frame)],
        [p for p in pieces if isinstance(p, str)],
    )


@pytest.mark.parametrize(
    "column",
    [
        CollectionColumn("a", (1, 2, 3), OUE(3, 0.1)),
        CollectionColumn("b", ("x", "y"), OLH(2, 3.0, g=7)),
        CollectionColumn("c", ("x", "y", "ü"), SS(3, 1.0, omega=2)),
        CollectionColumn("d", ("low", "high"), GRR(2, 1 / 3), (float("-inf"), 0.1, float("inf"))),
    ],
    ids=lambda c: c.protocol.name,
)
def test_a_description_survives_to_the_bit(column: CollectionColumn) -> None:
    whole = Collection((column,))
    again = Collection.from_bytes(whole.to_bytes())
    assert again == whole
    assert again.columns[0].protocol.fingerprint() == column.protocol.fingerprint()
    assert again.columns[0].edges == column.edges


def test_epsilon_of_all_columns_together() -> None:
    columns = (
        CollectionColumn("a", (0, 1), GRR(2, 1.0)), CollectionColumn("b", (0, 1), GRR(2, 0.5)),
    )  # fmt: skip
    assert Collection(columns, "smp").epsilon == 1.0
    assert Collection(columns, "spl").epsilon == 1.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: CollectionColumn("a", (0, 1), GRR(3, 1.0)),
        lambda: CollectionColumn("a", (0, 0), GRR(2, 1.0)),
        lambda: CollectionColumn("a", (0, 0.5), GRR(2, 1.0)),
        lambda: CollectionColumn("a", (0, 1), GRR(2, 1.0), (0.0, 1.0)),
        lambda: CollectionColumn("a", (0, 1), GRR(2, 1.0), (0.0, 2.0, 1.0)),
        lambda: Collection(()),
        lambda: Collection(ANSWERS.columns * 2),
        lambda: Collection(ANSWERS.columns, "both"),
        lambda: make_protocol("HRR", 3, 1.0),
        lambda: make_protocol("GRR", 3, 1.0, g=2),
    ],
)
def test_what_is_no_collection_is_refused(make) -> None:
    with pytest.raises(InvalidParameterError):
        make()


def test_a_column_needs_a_protocol() -> None:
    with pytest.raises(InvalidTypeError, match="protocol"):
        CollectionColumn("a", (0, 1), "GRR")  # type: ignore[arg-type]


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_description(data: bytes) -> None:
    with pytest.raises(ValueError):
        Collection.from_bytes(data)


@settings(max_examples=200)
@given(st.data())
def test_a_changed_description_is_another_one_or_an_error(data: st.DataObject) -> None:
    body = bytearray(ANSWERS.to_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DataIntegrityError, SchemaVersionError):
        assert Collection.from_bytes(bytes(body)) != ANSWERS


def test_a_newer_description_says_so() -> None:
    newer = ANSWERS.to_bytes().replace(b'"format":1', b'"format":2')
    with pytest.raises(SchemaVersionError, match="version"):
        Collection.from_bytes(newer)


def test_appending_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.rpt"
    append_frames(path, ANSWERS, [batch(5), batch(6)])
    append_frames(path, ANSWERS, [batch(7)])
    collection, found, lost = read(path)
    assert collection == ANSWERS
    assert lost == []
    assert [f.payload for f in found] == [batch(n).payload for n in (5, 6, 7)]


def test_a_file_of_another_collection_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.rpt"
    append_frames(path, ANSWERS, [batch(5)])
    before = path.read_bytes()
    other = Collection((CollectionColumn("answer", ("yes", "no", "other"), GRR(3, 2.0)),))
    with pytest.raises(OutputTargetError, match="another collection"):
        append_frames(path, other, [batch(5)])
    assert path.read_bytes() == before


def test_a_cut_costs_the_cut_piece_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.rpt"
    append_frames(path, ANSWERS, [batch(10, seed=s) for s in range(6)])
    data = path.read_bytes()
    whole = [f.payload for f in read(path)[1]]
    head = data.index(whole[0])
    ends = [data.index(payload) + len(payload) + 4 for payload in whole]
    for size in range(head, len(data) + 1):
        path.write_bytes(data[:size])
        _, found, lost = read(path)
        assert len(found) == sum(end <= size for end in ends)
        assert [f.payload for f in found] == whole[: len(found)]
        assert len(lost) == (0 if size in ends else 1)


def test_appending_after_a_cut_loses_the_cut_piece_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.rpt"
    append_frames(path, ANSWERS, [batch(10)])
    path.write_bytes(path.read_bytes()[:-3])
    append_frames(path, ANSWERS, [batch(11), batch(12)])
    _, found, lost = read(path)
    assert [f.payload for f in found] == [batch(11).payload, batch(12).payload]
    assert len(lost) == 1
    assert "a batch of 10 reports" in lost[0]


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_a_flipped_byte_costs_one_piece_or_the_file(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.rpt"
    made = [batch(10, seed=s) for s in range(4)]
    append_frames(path, ANSWERS, made, replace=True)
    body = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(body))
    try:
        collection, found, lost = read(path)
    except ValueError:
        first = body.index(made[0].payload[:8]) if made[0].payload[:8] in body else len(body)
        assert at < first  # only a damaged description costs the file
        return
    assert collection == ANSWERS
    kept = [f.payload for f in found]
    assert kept == [f.payload for f in made if f.payload in kept]
    assert len(kept) >= 3
    assert len(kept) + len(lost) == 4


def test_what_is_no_file_of_reports_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.rpt"
    with pytest.raises(DataNotAvailableError, match="does not exist"):
        read(path)
    with pytest.raises(DataIntegrityError, match="directory"):
        read(tmp_path)
    for content in (b"", b"PFCF", b"hello, world" * 9, b"PFCF" + bytes(99)):
        path.write_bytes(content)
        with pytest.raises(DataIntegrityError):
            read(path)


def test_two_collections_in_one_file_end_at_the_second(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    other = Collection((CollectionColumn("other", ("yes", "no", "x"), GRR(3, 1.0)),))
    append_frames(one, ANSWERS, [batch(5)])
    append_frames(two, other, [batch(6)])
    one.write_bytes(one.read_bytes() + two.read_bytes())
    _, found, lost = read(one)
    assert len(found) == 1
    assert lost == ["what follows belongs to another collection and was left out"]


def test_files_of_the_command_line_are_read_by_the_library_too(tmp_path: Path) -> None:
    path = tmp_path / "a.rpt"
    append_frames(path, ANSWERS, [batch(10), batch(20, seed=1), batch(30, seed=2)])
    found = aggregate_files([path], GRR(3, 1.0))
    assert (found.n_reports, found.lost_reports) == (60, 0)
    direct = Aggregator(GRR(3, 1.0))
    for n, seed in ((10, 0), (20, 1), (30, 2)):
        direct.partial_fit(batch(n, seed=seed).payload)
    assert found.aggregator == direct
    with pytest.raises(DataIntegrityError, match="another collection"):
        aggregate_files([path], GRR(3, 2.0))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(DataVerificationWarning, match="30 reports are intact"):
        assert sum(len(one) for one in read_reports(path, GRR(3, 1.0))) == 30
    append_frames(path, ANSWERS, [Frame(STATE, 0, direct.to_bytes())], replace=True)
    with pytest.raises(DataIntegrityError, match="sums"):
        list(read_reports(path, GRR(3, 1.0)))


# -- the mean of binned numbers ---------------------------------------------------------------
def estimate(counts: list[int], epsilon: float = 2.0, seed: int = 0):
    k = len(counts)
    protocol = GRR(k, epsilon)
    values = np.repeat(np.arange(k), counts)
    sums = Aggregator(protocol).partial_fit(randomize(protocol, values, noise_random_state=seed))
    return sums.estimate(simultaneous=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_of_the_mean_are_those_of_a_linear_program(seed: int) -> None:
    found = estimate([300, 500, 100, 100], seed=seed)
    edges = np.array([-3.0, 0.0, 1.0, 10.0, 11.0])
    mean = binned_mean(found, edges)
    box = list(zip(np.clip(found.ci_low, 0, 1), np.clip(found.ci_high, 0, 1), strict=True))
    sums = {"A_eq": np.ones((1, 4)), "b_eq": [1.0], "bounds": box}
    assert mean.low == pytest.approx(linprog(edges[:-1], **sums).fun, abs=1e-9)
    assert mean.high == pytest.approx(-linprog(-edges[1:], **sums).fun, abs=1e-9)
    assert mean.low <= mean.value <= mean.high


def test_the_bounds_hold_wherever_the_numbers_lie() -> None:
    edges = np.array([0.0, 20.0, 40.0, 100.0])
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        numbers = rng.choice([0.0, 39.9, 99.9], size=600, p=[0.2, 0.7, 0.1])
        places = np.searchsorted(edges[1:-1], numbers, side="right")
        mean = binned_mean(estimate(np.bincount(places, minlength=3).tolist(), seed=seed), edges)
        missed += not mean.low <= numbers.mean() <= mean.high
    # Promised are 95 %; the chance of more than 20 misses in 200 is then below 1 %.
    assert missed <= 20


def test_a_mean_without_bounds_is_refused_or_not_estimable() -> None:
    found = estimate([50, 50])
    with pytest.raises(InvalidTypeError, match="FrequencyEstimate"):
        binned_mean([0.5, 0.5], [0, 1, 2])  # type: ignore[arg-type]
    for edges in ([0, 1], [0, 1, 1], [0, 1, float("inf")]):
        with pytest.raises(InvalidParameterError, match="edges"):
            binned_mean(found, edges)
    raw = Aggregator(GRR(2, 1.0)).partial_fit(randomize(GRR(2, 1.0), [0, 1]))
    with pytest.raises(InvalidParameterError, match="simultaneous"):
        binned_mean(raw.estimate(), [0, 1, 2])
    with pytest.raises(DataError):
        Aggregator(GRR(2, 1.0)).estimate(simultaneous=True)
    from dataclasses import replace

    apart = replace(found, ci_low=np.array([0.7, 0.7]), ci_high=np.array([0.8, 0.8]))
    mean = binned_mean(apart, [0, 1, 2])
    assert mean.status == "not_estimable"
    assert np.isnan(mean.low)
