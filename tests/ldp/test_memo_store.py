"""The client that keeps its memos: what it spends, what it saves, and what it refuses to open."""

from __future__ import annotations

import copy
import json
import pickle
import struct
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import (
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
    OutputTargetError,
    PrivacyError,
)
from privfair.ldp import (
    GRR,
    LGRR,
    LOLOHA,
    LOSUE,
    LOUE,
    LSUE,
    Aggregator,
    DBitFlipPM,
    LongitudinalClient,
    LongitudinalPopulation,
    StoreReceipt,
)

PROTOCOLS = (
    LGRR(6, 2.0, 1.0), LOSUE(11, 2.0, 1.0), LSUE(6, 2.0, 1.0), LOUE(6, 2.0, 1.0),
    LOLOHA(40, 2.0, 1.0), DBitFlipPM(20, 2.0, 5), LGRR(300, 2.0, 1.0),
)  # fmt: skip


def memos(client: LongitudinalClient) -> dict:
    return {
        (name, key): row.tobytes()
        for name, drawer in client._book.drawers.items()
        for key, row in drawer.memos.items()
    }


# -- memos and their cost -------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_a_value_has_one_memo_for_life(protocol) -> None:
    client = LongitudinalClient(protocol)
    reports = client.privatize([3] * 50)
    assert len(reports) == 50 and client.epsilon_spent() == 2.0
    before = memos(client)
    client.privatize(3)
    assert memos(client) == before
    client.privatize(np.arange(6))
    assert 2.0 <= client.epsilon_spent() <= 2.0 * min(6, protocol.max_memos)
    assert client.epsilon_spent() == 2.0 * client.n_memos_
    assert before.items() <= memos(client).items()
    server = Aggregator(protocol).partial_fit(reports.to_bytes())
    assert server.n_reports_ == 50


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_every_value_in_turn_spends_all_memos_and_no_more(protocol) -> None:
    client = LongitudinalClient(protocol)
    for _ in range(2):
        client.privatize(np.arange(protocol.k))
    if not isinstance(protocol, LOLOHA):  # whose hash may leave a bucket out
        assert client.n_memos_ == protocol.max_memos
    assert client.epsilon_spent() <= 2.0 * protocol.max_memos


def test_reports_of_one_client_come_from_its_memo() -> None:
    """20,000 reports agree with the memo with p2: binomial, 1e-6. They do not average out."""
    protocol = LGRR(5, 2.0, 1.0)
    client = LongitudinalClient(protocol, noise_random_state=1)
    codes = client.privatize([2] * 20_000).payload["code"]
    (row,) = memos(client).values()
    agree = int((codes == row[0]).sum())
    assert stats.binomtest(agree, 20_000, float(protocol.instantaneous[0])).pvalue > 1e-6


def test_averaging_finds_the_memo_and_not_the_value() -> None:
    """The majority of 400 reports of a user is the value with p1: 3,000 users, binomial, 1e-6."""
    protocol, n = LGRR(4, 1.0, 0.8), 3_000
    users = LongitudinalPopulation(protocol, n, noise_random_state=2)
    values = np.arange(n) % 4
    counts = np.zeros((n, 4), dtype=int)
    for _ in range(400):
        counts[np.arange(n), users.privatize(values).payload["code"]] += 1
    right = int((counts.argmax(axis=1) == values).sum())
    assert (counts.argmax(axis=1) == users._memos).mean() > 0.999
    assert stats.binomtest(right, n, float(protocol.permanent[0])).pvalue > 1e-6


def test_several_attributes_are_kept_apart() -> None:
    client = LongitudinalClient({"age": LGRR(5, 2.0, 1.0), "job": LOLOHA(9, 1.0, 0.5, 2)})
    client.privatize([1, 1], "age")
    client.privatize([1, 2, 3], "job")
    assert client.epsilon_spent("age") == 2.0
    assert client.epsilon_spent() == client.epsilon_spent("age") + client.epsilon_spent("job")
    for wrong in (None, "name"):
        with pytest.raises(InvalidParameterError, match="attribute"):
            client.privatize(1, wrong)


def test_bad_values_cost_nothing_and_are_not_quoted() -> None:
    client = LongitudinalClient(LGRR(4, 2.0, 1.0))
    for values, error in (([77], InvalidParameterError), ([0.5], InvalidTypeError)):
        with pytest.raises(error) as caught:
            client.privatize(values)
        assert "77" not in str(caught.value)
    assert len(client.privatize(np.zeros(0, dtype=int))) == 0
    assert client.epsilon_spent() == 0.0
    for protocols in (GRR(4, 1.0), {"a": 3}, {1: LGRR(4, 2.0, 1.0)}):
        with pytest.raises(InvalidTypeError):
            LongitudinalClient(protocols)
    with pytest.raises(InvalidParameterError):
        LongitudinalClient({})
    with pytest.raises(InvalidTypeError, match="receipt"):
        LongitudinalClient(LGRR(4, 2.0, 1.0), receipt={})


def test_copies_that_would_draw_other_memos_are_refused() -> None:
    client = LongitudinalClient(LGRR(4, 2.0, 1.0))
    client.privatize(1)
    with pytest.raises(TypeError):
        copy.deepcopy(client)
    with pytest.raises(TypeError):
        pickle.dumps(client)
    client._stream._drop()  # what a fork does in the child
    client.privatize(1)  # from the memo that both have
    with pytest.raises(PrivacyError, match="fork"):
        client.privatize(2)
    assert client.epsilon_spent() == 2.0


def test_seeded_memos_stay_marked() -> None:
    protocol = LGRR(4, 2.0, 1.0)
    seeded = LongitudinalClient(protocol, noise_random_state=0)
    seeded.privatize(1)
    assert LongitudinalClient.from_bytes(seeded.to_bytes(), protocol).seeded_
    secret = LongitudinalClient(protocol)
    again = LongitudinalClient.from_bytes(secret.to_bytes(), protocol, noise_random_state=0)
    again.privatize(1)
    assert not secret.seeded_ and again.seeded_


# -- bytes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_bytes_round_trip(protocol) -> None:
    client = LongitudinalClient(protocol)
    client.privatize([0, 4, 5, 4])
    back = LongitudinalClient.from_bytes(client.to_bytes(), protocol, receipt=client.receipt())
    assert memos(back) == memos(client) and back.to_bytes() == client.to_bytes()
    assert back.epsilon_spent() == client.epsilon_spent()
    assert back.receipt() == client.receipt()
    one, two = (c.privatize(4).payload for c in (client, back))
    for name in ("seed", "buckets"):
        if name in one:
            assert (one[name] == two[name]).all()


@pytest.mark.parametrize("protocol", PROTOCOLS[:6], ids=repr)
def test_every_changed_or_missing_byte_is_noticed(protocol) -> None:
    client = LongitudinalClient(protocol)
    client.privatize([0, 3])
    data = client.to_bytes()
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 0x01
        with pytest.raises(DataIntegrityError):
            LongitudinalClient.from_bytes(bytes(wrong), protocol)
        with pytest.raises(DataIntegrityError):
            LongitudinalClient.from_bytes(data[:at], protocol)


def framed(document: object) -> bytes:
    """Return a store with a right frame and digest around any contents."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    body = struct.pack("<4sHHI", b"PFLM", 1, 0, len(text)) + text
    return body + blake2b(body, digest_size=16).digest()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PROTOCOLS[:6]), JSON, st.integers(0, 12))
def test_fuzzed_stores_give_only_the_one_error(protocol, value, place) -> None:
    """Any contents, and right contents with one entry replaced."""
    client = LongitudinalClient(protocol, noise_random_state=0)
    client.privatize([0, 3])
    document = json.loads(client.to_bytes()[12:-16])
    places = [
        (document, key) for key in document
    ] + [(document["attributes"][""], key) for key in document["attributes"][""]] + [
        (document["attributes"][""]["memos"], key)
        for key in document["attributes"][""]["memos"]
    ]  # fmt: skip
    holder, key = places[place % len(places)]
    holder[key] = value
    for wrong in (framed(document), framed(value), framed(repr(value).encode())):
        try:
            back = LongitudinalClient.from_bytes(wrong, protocol)
        except DataIntegrityError:
            continue
        back.privatize([0, 3])  # the replaced entry happened to be in order


@pytest.mark.parametrize("key", ["-1", "6", "01", "x", "1.0"])
def test_memos_of_no_value_are_refused(key: str) -> None:
    protocol = LGRR(6, 2.0, 1.0)
    client = LongitudinalClient(protocol)
    document = json.loads(client.to_bytes()[12:-16])
    document["attributes"][""]["memos"] = {key: "00"}
    with pytest.raises(DataIntegrityError):
        LongitudinalClient.from_bytes(framed(document), protocol)
    for memo in ("06", "0000", ""):
        document["attributes"][""]["memos"] = {"1": memo}
        with pytest.raises(DataIntegrityError):
            LongitudinalClient.from_bytes(framed(document), protocol)


@pytest.mark.parametrize(
    "other",
    [
        LOLOHA(41, 2.0, 1.0), LOLOHA(40, 2.1, 1.0), LOLOHA(40, 2.0, 1.1), LOLOHA(40, 2.0, 1.0, 3),
        LOLOHA(40, 2.0, 1.0, 4, variant="published"), LGRR(40, 2.0, 1.0),
    ],
    ids=repr,
)  # fmt: skip
def test_stores_of_other_parameters_are_refused(other, tmp_path) -> None:
    protocol = LOLOHA(40, 2.0, 1.0)
    client = LongitudinalClient(protocol, path=tmp_path / "memos")
    client.privatize(1)
    with pytest.raises(DataIntegrityError, match="other parameters"):
        LongitudinalClient.from_bytes(client.to_bytes(), other)
    with pytest.raises(DataIntegrityError, match="other parameters"):
        LongitudinalClient(other, path=tmp_path / "memos")
    new = LongitudinalClient(other, path=tmp_path / "memos", reset=True)
    assert new.resets_ == 1 and new.epsilon_spent() == 2.0
    new.privatize(1)
    assert new.epsilon_spent() == 2.0 + other.eps_perm


def test_attributes_may_be_added_and_not_dropped() -> None:
    age, job = LOLOHA(40, 2.0, 1.0), LGRR(5, 1.0, 0.5)
    client = LongitudinalClient({"age": age})
    client.privatize(3)
    both = LongitudinalClient.from_bytes(client.to_bytes(), {"age": age, "job": job})
    both.privatize(1, "job")
    assert both.epsilon_spent() == 3.0
    with pytest.raises(DataIntegrityError, match="attributes"):
        LongitudinalClient.from_bytes(both.to_bytes(), {"age": age})


def test_receipts() -> None:
    receipt = StoreReceipt("ab" * 16, 3, 1, {"": 2.0})
    assert StoreReceipt.from_dict(json.loads(json.dumps(receipt.to_dict()))) == receipt
    good = receipt.to_dict()
    for wrong in (
        {}, {**good, "store_id": "zz"}, {**good, "generation": -1}, {**good, "resets": True},
        {**good, "spent": {"": -1.0}}, {**good, "spent": 3}, {**good, "generation": "3"},
    ):  # fmt: skip
        with pytest.raises(DataIntegrityError):
            StoreReceipt.from_dict(wrong)


# -- files ----------------------------------------------------------------------------------------
@pytest.fixture
def path(tmp_path):
    return tmp_path / "memos"


PROTOCOL = LGRR(6, 2.0, 1.0)


def marker(path):
    return path.with_name("memos.receipt")


def test_a_file_keeps_everything(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize([1, 2])
    for file in (path, marker(path)):
        assert file.stat().st_mode & 0o077 == 0
    back = LongitudinalClient.load(path, PROTOCOL)
    assert memos(back) == memos(client) and back.resets_ == 0
    back.privatize(3)
    assert memos(LongitudinalClient(PROTOCOL, path=path)) == memos(back)
    assert not list(path.parent.glob("*.new"))


def test_a_memo_is_on_disk_before_its_report(path, monkeypatch) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)

    def fails(*args):
        assert LongitudinalClient.load(path, PROTOCOL).n_memos_ == 1
        raise RuntimeError("power cut")

    monkeypatch.setattr(LGRR, "_draw_reports", fails)
    with pytest.raises(RuntimeError):
        client.privatize(1)
    assert LongitudinalClient.load(path, PROTOCOL).epsilon_spent() == 2.0


def test_without_the_write_there_is_no_report_and_no_memo(path, monkeypatch) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)

    def full(data):
        raise OSError("disk full")

    monkeypatch.setattr(client._file, "write", full)
    with pytest.raises(OSError, match="full"):
        client.privatize(1)
    assert client.n_memos_ == 0 and LongitudinalClient.load(path, PROTOCOL).n_memos_ == 0


def test_a_crash_between_store_and_marker_is_in_order(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    old = marker(path).read_bytes()
    client.privatize(1)
    marker(path).write_bytes(old)
    assert LongitudinalClient.load(path, PROTOCOL).n_memos_ == 1


def test_a_lost_store_is_noticed_and_its_memos_stay_paid(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize([1, 2])
    path.unlink()
    with pytest.raises(DataIntegrityError, match="disappeared"):
        client.privatize(3)
    with pytest.raises(DataIntegrityError, match="lost"):
        LongitudinalClient(PROTOCOL, path=path)
    with pytest.raises(DataIntegrityError, match="no memo store"):
        LongitudinalClient.load(path, PROTOCOL)
    new = LongitudinalClient(PROTOCOL, path=path, reset=True)
    assert (new.resets_, new.n_memos_, new.epsilon_spent()) == (1, 0, 4.0)
    new.privatize(1)
    assert new.epsilon_spent() == 6.0
    back = LongitudinalClient.load(path, PROTOCOL)
    assert (back.resets_, back.epsilon_spent()) == (1, 6.0)
    path.unlink()
    again = LongitudinalClient(PROTOCOL, path=path, reset=True)
    assert (again.resets_, again.epsilon_spent()) == (2, 6.0)


def test_a_receipt_elsewhere_shows_the_loss_of_both(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize([1, 2, 3])
    receipt = client.receipt()
    path.unlink()
    marker(path).unlink()
    with pytest.raises(DataIntegrityError, match="lost"):
        LongitudinalClient(PROTOCOL, path=path, receipt=receipt)
    with pytest.raises(DataIntegrityError, match="lost"):
        LongitudinalClient(PROTOCOL, receipt=receipt)
    new = LongitudinalClient(PROTOCOL, path=path, receipt=receipt, reset=True)
    assert (new.resets_, new.epsilon_spent()) == (1, 6.0)


def test_a_foreign_store_is_refused(path, tmp_path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(1)
    other = LongitudinalClient(PROTOCOL, path=tmp_path / "other")
    other.privatize([1, 2])
    path.write_bytes((tmp_path / "other").read_bytes())
    for call in (
        lambda: LongitudinalClient(PROTOCOL, path=path),
        lambda: client.privatize(4),
        lambda: LongitudinalClient.from_bytes(
            other.to_bytes(), PROTOCOL, receipt=client.receipt()
        ),
    ):
        with pytest.raises(DataIntegrityError, match="foreign"):
            call()
    new = LongitudinalClient(PROTOCOL, path=path, reset=True)
    assert (new.resets_, new.epsilon_spent()) == (1, 2.0)
    aside = path.with_name("memos.before-reset-1")
    back = LongitudinalClient(PROTOCOL, path=aside, receipt=other.receipt())
    assert memos(back) == memos(other)


def test_an_old_copy_is_refused(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(1)
    old = path.read_bytes()
    client.privatize(2)
    path.write_bytes(old)
    with pytest.raises(DataIntegrityError, match="old copy"):
        LongitudinalClient(PROTOCOL, path=path)
    with pytest.raises(DataIntegrityError, match="old copy"):
        client.privatize(3)
    with pytest.raises(DataIntegrityError, match="old copy"):
        LongitudinalClient.from_bytes(old, PROTOCOL, receipt=client.receipt())
    assert LongitudinalClient(PROTOCOL, path=path, reset=True).epsilon_spent() == 4.0


def test_a_damaged_store_or_marker_is_refused(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(1)
    whole, receipt = path.read_bytes(), client.receipt()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataIntegrityError):
        LongitudinalClient(PROTOCOL, path=path)
    note = marker(path).read_bytes()
    for damage in (b"{", b"[]", b"\xff", b"{}"):
        marker(path).write_bytes(damage)
        with pytest.raises(DataIntegrityError):
            LongitudinalClient(PROTOCOL, path=path)
        with pytest.raises(DataIntegrityError, match="unknown"):
            LongitudinalClient(PROTOCOL, path=path, reset=True)
    new = LongitudinalClient(PROTOCOL, path=path, reset=True, receipt=receipt)
    assert (new.resets_, new.epsilon_spent()) == (1, 2.0)
    path.write_bytes(whole[:-3])
    marker(path).write_bytes(note)
    assert LongitudinalClient(PROTOCOL, path=path, reset=True).resets_ == 1


def test_a_needless_reset_is_refused(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(1)
    for call in (
        lambda: LongitudinalClient(PROTOCOL, path=path, reset=True),
        lambda: LongitudinalClient(PROTOCOL, reset=True),
    ):
        with pytest.raises(InvalidParameterError, match="reset"):
            call()
    assert LongitudinalClient.load(path, PROTOCOL).epsilon_spent() == 2.0


@pytest.mark.parametrize("protocol", [PROTOCOL, LOLOHA(6, 2.0, 1.0), DBitFlipPM(6, 2.0, 2)])
def test_two_processes_draw_one_memo_per_value(protocol, path) -> None:
    one, two = (LongitudinalClient(protocol, path=path) for _ in "ab")
    one.privatize([0, 1])
    two.privatize([1, 2, 3])
    one.privatize([2, 3])
    assert memos(one) == memos(two) == memos(LongitudinalClient(protocol, path=path))


def test_an_attribute_added_by_two_processes_has_one_seed(path) -> None:
    age = LGRR(5, 2.0, 1.0)
    LongitudinalClient({"age": age}, path=path)
    both = {"age": age, "job": LOLOHA(40, 2.0, 1.0)}
    one, two = (LongitudinalClient(both, path=path) for _ in "ab")
    seeds = {int(c.privatize(7, "job").payload["seed"][0]) for c in (one, two)}
    assert len(seeds) == 1


def test_saving_never_overwrites_memos(path) -> None:
    client = LongitudinalClient(PROTOCOL)
    client.privatize(1)
    client.save(path)
    client.save(path)
    back = LongitudinalClient.load(path, PROTOCOL)
    back.privatize([2, 3])
    with pytest.raises(DataIntegrityError, match="newer"):
        client.save(path)
    with pytest.raises(DataIntegrityError, match="another store"):
        LongitudinalClient(PROTOCOL).save(path)
    assert memos(LongitudinalClient.load(path, PROTOCOL)) == memos(back)
    with pytest.raises(OutputTargetError):
        LongitudinalClient(PROTOCOL, path=path.parent / "none" / "memos")


def test_two_continuations_of_one_store_are_not_saved_over_each_other(path) -> None:
    start = LongitudinalClient(PROTOCOL)
    start.privatize(0)
    one, two, three = (LongitudinalClient.from_bytes(start.to_bytes(), PROTOCOL) for _ in "abc")
    one.privatize(1)
    two.privatize(2)
    three.privatize([2, 3])
    three.privatize(4)  # a later generation than the other one's
    one.save(path)
    for other in (two, three):
        with pytest.raises(DataIntegrityError, match="two continuations"):
            other.save(path)
    assert memos(LongitudinalClient.load(path, PROTOCOL)) == memos(one)


def test_a_store_replaced_by_another_continuation_is_refused(path, tmp_path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(0)
    other = LongitudinalClient.from_bytes(path.read_bytes(), PROTOCOL)
    client.privatize(1)
    other.privatize(2)
    other.privatize(3)
    path.write_bytes(other.to_bytes())
    with pytest.raises(DataIntegrityError, match="two continuations"):
        client.privatize(4)


def test_a_store_without_its_marker_may_be_old(path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(1)
    old = path.read_bytes()
    client.privatize(2)
    path.write_bytes(old)
    marker(path).unlink()
    with pytest.raises(DataIntegrityError, match="no marker"):
        LongitudinalClient(PROTOCOL, path=path)
    with pytest.raises(DataIntegrityError, match="old copy"):
        LongitudinalClient(PROTOCOL, path=path, receipt=client.receipt())
    path.write_bytes(client.to_bytes())
    whole = LongitudinalClient(PROTOCOL, path=path, receipt=client.receipt())
    assert memos(whole) == memos(client) and marker(path).exists()


def test_a_link_to_a_store_is_the_same_store(path, tmp_path) -> None:
    client = LongitudinalClient(PROTOCOL, path=path)
    client.privatize(1)
    link = tmp_path / "link"
    link.symlink_to(path)
    second = LongitudinalClient(PROTOCOL, path=link)
    second.privatize(2)
    client.privatize(3)
    assert link.is_symlink() and client.epsilon_spent() == 6.0
