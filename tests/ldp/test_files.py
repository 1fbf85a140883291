"""Files of reports: what a cut costs, and equal sums however they are added up."""

from __future__ import annotations

import builtins
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import (
    DataIntegrityError,
    DataVerificationWarning,
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
)
from privfair.ldp import (
    GRR,
    HR,
    OLH,
    RSFD,
    SMP,
    SS,
    Aggregator,
    Collection,
    CollectionColumn,
    aggregate_files,
    randomize,
    randomize_rows,
    read_reports,
    write_reports,
)
from privfair.ldp._collection import append_frames
from privfair.ldp._reports import Reports

PROTOCOL = SS(9, 1.0)


def device(protocol, seed: int, n: int = 1):
    if isinstance(protocol, SMP | RSFD):
        rows = np.column_stack([np.arange(n) % k for k in protocol.sizes])
        return randomize_rows(protocol, rows, noise_random_state=seed)
    return randomize(protocol, np.arange(n) % protocol.k, noise_random_state=seed)


@pytest.mark.parametrize("protocol", [GRR(9, 1.0), OLH(9, 1.0), PROTOCOL, SMP([4, 9], 1.0)])
def test_a_cut_file_loses_the_cut_report_only(protocol, tmp_path) -> None:
    """Ten devices append one report each; the file is cut anywhere, and appended to again."""
    path = tmp_path / "a.rpt"
    ends = [0]
    for seed in range(10):
        ends.append(ends[-1] + write_reports(path, device(protocol, seed)))
    data = path.read_bytes()
    assert ends[-1] == len(data)
    for cut in range(1, len(data), 7):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        file = read_reports(path, protocol)
        if cut in ends:
            assert sum(len(batch) for batch in file) == whole and file.lost_reports == 0
            continue
        with pytest.warns(DataVerificationWarning, match="at least 1 reports in 1 damaged"):
            assert sum(len(batch) for batch in file) == whole
        assert (file.lost_frames, file.lost_reports) == (1, 1)
        assert file.lost_bytes == cut - ends[whole]
        write_reports(path, device(protocol, 99))
        with pytest.warns(DataVerificationWarning):
            assert sum(len(batch) for batch in file) == whole + 1
        assert file.lost_reports == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_byte_costs_one_frame(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("r") / "a.rpt"
    for seed in range(6):
        write_reports(path, device(PROTOCOL, seed, 3))
    intact = path.read_bytes()
    at = data.draw(st.integers(0, len(intact) - 1))
    path.write_bytes(
        intact[:at] + bytes([intact[at] ^ data.draw(st.integers(1, 255))]) + intact[at + 1 :]
    )
    file = read_reports(path, PROTOCOL)
    with pytest.warns(DataVerificationWarning):
        assert sum(len(batch) for batch in file) == 15
    assert 1 <= file.lost_reports <= 3 and file.lost_frames == 1 and len(file.problems) == 1


def test_reports_of_another_protocol_are_an_error_and_no_loss(tmp_path) -> None:
    path = tmp_path / "a.rpt"
    write_reports(path, device(SS(9, 2.0), 0))
    with pytest.raises(DataIntegrityError, match="parameters"):
        list(read_reports(path, PROTOCOL))


def test_impossible_reports_with_a_right_checksum_are_a_loss(tmp_path) -> None:
    import zlib

    path = tmp_path / "a.rpt"
    good = device(GRR(9, 1.0), 0)
    bad = bytearray(good.to_bytes())
    bad[28] = 200  # no value of the domain
    bad[-4:] = zlib.crc32(bytes(bad[:-4])).to_bytes(4, "little")
    write_reports(path, good)
    frame = path.read_bytes()
    path.write_bytes(frame[:16] + bytes(bad) + frame)
    file = read_reports(path, GRR(9, 1.0))
    with pytest.warns(DataVerificationWarning):
        assert sum(len(batch) for batch in file) == 1
    assert "200" not in file.problems[0]


@pytest.mark.parametrize("kind", ["reports", "collection"])
def test_claims_of_length_that_overlap_cost_no_square(kind, tmp_path, monkeypatch) -> None:
    """A file of heads, each of which claims all that follows, from a client that nobody trusts."""
    path, pieces, heads = tmp_path / "a.rpt", [], 4000
    for i in range(heads):
        rest = (heads - i - 1) * 16
        if kind == "reports":
            head = struct.pack("<4sII", b"PFLF", 1, max(rest, 5))
            pieces.append(head + struct.pack("<I", zlib.crc32(head)))
        else:
            pieces.append(struct.pack("<4sBBHQ", b"PFCF", 1, 0, 0, max(rest - 4, 0)))
    tail = b"".join(pieces) + b"-" * 16
    column = CollectionColumn("a", tuple(range(4)), GRR(4, 1.0))
    if kind == "collection":
        append_frames(path, Collection((column,)), [])
    else:
        write_reports(path, randomize(GRR(4, 1.0), [0, 1]))
    path.write_bytes(path.read_bytes() + tail)
    seen, crc32 = [0], zlib.crc32

    def counted(data, *start):
        seen[0] += len(data)
        return crc32(data, *start)

    monkeypatch.setattr(zlib, "crc32", counted)
    with pytest.warns(DataVerificationWarning):
        found = aggregate_files([path], GRR(4, 1.0))
    assert found.n_reports == (2 if kind == "reports" else 0) and found.damaged
    assert seen[0] < 80 * path.stat().st_size


def test_a_frame_that_holds_no_reports_is_a_loss(tmp_path) -> None:
    path = tmp_path / "a.rpt"
    write_reports(path, randomize(GRR(4, 1.0), [0, 1]))
    body = b"nonsense"
    body += struct.pack("<I", zlib.crc32(body))
    head = struct.pack("<4sII", b"PFLF", 1, len(body))
    path.write_bytes(path.read_bytes() + head + struct.pack("<I", zlib.crc32(head)) + body)
    write_reports(path, randomize(GRR(4, 1.0), [2]))
    with pytest.warns(DataVerificationWarning):
        found = aggregate_files([path], GRR(4, 1.0))
    assert (found.n_reports, found.lost_reports) == (3, 1)


def test_one_batch_without_a_frame_is_read_too(tmp_path) -> None:
    path = tmp_path / "a.rpt"
    path.write_bytes(device(PROTOCOL, 0, 5).to_bytes())
    assert [len(batch) for batch in read_reports(path, PROTOCOL)] == [5]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(DataVerificationWarning):
        assert list(read_reports(path, PROTOCOL)) == []
    path.write_bytes(b"")
    assert list(read_reports(path, PROTOCOL)) == []


def folder_of(tmp_path, protocol, files: int = 9):
    paths = []
    for seed in range(files):
        paths.append(tmp_path / f"{seed}.rpt")
        write_reports(paths[-1], device(protocol, seed, 40 + seed), per_frame=16)
    return paths


@pytest.mark.parametrize("protocol", [HR(9, 1.0), OLH(9, 1.0), SMP([4, 9], 1.0), RSFD([4, 9], 1)])
def test_files_add_up_to_one_pass(protocol, tmp_path) -> None:
    paths = folder_of(tmp_path, protocol)
    found = aggregate_files(paths, protocol)
    whole = type(found.aggregator)(protocol)
    for seed in range(9):
        whole.partial_fit(device(protocol, seed, 40 + seed))
    assert found.aggregator == whole
    assert (found.n_files, found.n_reports, found.lost_reports) == (9, 9 * 40 + 36, 0)
    assert aggregate_files(paths[::-1], protocol).aggregator.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("protocol", [OLH(9, 1.0), SMP([4, 9], 1.0)])
def test_dask_gives_the_same_bits(protocol, scheduler, tmp_path) -> None:
    pytest.importorskip("dask", reason="Dask is not installed: pip install 'privfair[dask]'")
    paths = folder_of(tmp_path, protocol, 19)
    here = aggregate_files(paths, protocol)
    there = aggregate_files(paths, protocol, engine="dask", scheduler=scheduler)
    assert there.aggregator.to_bytes() == here.aggregator.to_bytes()
    assert (there.n_files, there.n_reports) == (here.n_files, here.n_reports)


@pytest.mark.filterwarnings("ignore::privfair.core.exceptions.DataVerificationWarning")
@pytest.mark.parametrize("engine", ["serial", "dask"])
def test_losses_are_counted_over_files(engine, tmp_path) -> None:
    if engine == "dask":
        pytest.importorskip("dask", reason="Dask is not installed: pip install 'privfair[dask]'")
    paths = folder_of(tmp_path, PROTOCOL, 3)
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    options = {"scheduler": "synchronous"} if engine == "dask" else {}
    found = aggregate_files(paths, PROTOCOL, engine=engine, **options)
    assert found.lost_reports == 41 - 32
    assert list(found.damaged) == [str(paths[1])]
    assert found.n_reports == found.aggregator.n_reports_ == 40 + 32 + 42


def test_without_dask_the_error_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "dask":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(MissingDependencyError, match=r"privfair\[dask\]"):
        aggregate_files(folder_of(tmp_path, PROTOCOL, 1), PROTOCOL, engine="dask")


def test_bad_input(tmp_path) -> None:
    with pytest.raises(InvalidParameterError):
        aggregate_files([], PROTOCOL)
    with pytest.raises(InvalidParameterError):
        aggregate_files([tmp_path / "a"], PROTOCOL, engine="spark")
    with pytest.raises(InvalidTypeError):
        read_reports(tmp_path / "a", "GRR")
    with pytest.raises(InvalidTypeError):
        write_reports(tmp_path / "a", b"PFLR")
    with pytest.raises(InvalidParameterError):
        write_reports(tmp_path / "a", device(PROTOCOL, 0), per_frame=0)
    assert isinstance(device(PROTOCOL, 0), Reports) and Aggregator(PROTOCOL).n_reports_ == 0
