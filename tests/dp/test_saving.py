"""Saved estimators: whole, deterministic, without records, without code."""

from __future__ import annotations

import copy
import json
import pickle
import struct

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from torch import nn

from privfair.accounting import Ledger
from privfair.core import Categorical, Numeric, Schema
from privfair.core.exceptions import (
    DataIntegrityError,
    InvalidParameterError,
    OutputTargetError,
    SchemaVersionError,
    UnsafeFileError,
)
from privfair.dp import DPClassifier

from .test_classifier import SCHEMA, table

CANARY_NUMBER, CANARY_TEXT = 1234567.8901, "canary-7f3a91"


def fitted(**kwargs):
    X, y = table(500)
    return DPClassifier(**{"schema": SCHEMA, "epochs": 2, "ledger": Ledger(), **kwargs}).fit(X, y)


CASES = {
    "public schema": {},
    "learnt schema": {"schema": None, "epsilon": 5.0},
    "hidden layers": {"hidden_layer_sizes": (6, 4)},
    "three classes": {"classes": ["yes", "no", "maybe"]},
    "non-private": {"epsilon": float("inf"), "random_state": 3},
    "seeded": {"noise_random_state": 5, "random_state": np.random.default_rng(0)},
}


def same(one, other):
    X, _ = table(300, seed=9)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert other.classes_.dtype == one.classes_.dtype
    assert other.privacy_ == one.privacy_
    assert other.privacy_.to_dict() == one.privacy_.to_dict()
    assert other.plan_ == one.plan_ and other.events_ == one.events_
    assert other.feature_names_in_.tolist() == one.feature_names_in_.tolist()
    assert (other.noise_multiplier_, other.n_steps_) == (one.noise_multiplier_, one.n_steps_)
    assert other.get_params()["schema"] == one.get_params()["schema"]
    assert other.get_params()["hidden_layer_sizes"] == one.get_params()["hidden_layer_sizes"]


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
@pytest.mark.parametrize("case", CASES)
def test_round_trip_through_files(case, name, tmp_path):
    clf = fitted(**CASES[case])
    clf.save(tmp_path / name)
    again = DPClassifier.load(tmp_path / name)
    same(clf, again)
    assert again.ledger is None and again.noise_random_state is None


@pytest.mark.parametrize("case", CASES)
def test_round_trip_through_skops_pickle_and_copy(case, tmp_path):
    clf = fitted(**{**CASES[case], "ledger": None})
    skops.io.dump(clf, tmp_path / "model.skops")
    unknown = skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    assert set(unknown) <= {
        "privfair.dp._classifier.DPClassifier",
        "numpy.random._generator.Generator", "numpy.random._pcg64.PCG64",
    }  # fmt: skip
    same(clf, skops.io.load(tmp_path / "model.skops", trusted=unknown))
    same(clf, pickle.loads(pickle.dumps(clf)))
    same(clf, copy.deepcopy(clf))


@pytest.mark.parametrize("schema", ["public", "learnt"])
def test_columns_keep_their_order(schema, tmp_path):
    """Columns and categories in no alphabetical order, on more rows."""
    X, y = table(1_000)
    X = X.rename(columns={"a": "z", "b": "m", "kind": "c"})[["z", "c", "m"]]
    public = Schema({"z": Numeric(-4, 4), "c": Categorical(["z", "x", "y"]), "m": Numeric(-3, 4)})
    clf = DPClassifier(schema=public if schema == "public" else None, epochs=2, epsilon=5.0)
    clf.fit(X, y).save(tmp_path / "model")
    for again in (DPClassifier.load(tmp_path / "model"), pickle.loads(pickle.dumps(clf))):
        assert again.encoding_.feature_names == clf.encoding_.feature_names
        np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
        assert list(again.encoding_.encoder.schema_) == ["z", "c", "m"]
        assert again.schema == clf.schema  # equal schemas have their columns in one order


def test_an_unfitted_estimator_can_be_copied():
    clf = DPClassifier(epsilon=2.0, schema=SCHEMA, hidden_layer_sizes=(3,))
    again = pickle.loads(pickle.dumps(clf))
    assert again.get_params() == clf.get_params()
    assert not hasattr(again, "module_")


def test_a_refit_after_loading_is_an_ordinary_fit(tmp_path):
    X, y = table(400)
    fitted().save(tmp_path / "model")
    again = DPClassifier.load(tmp_path / "model").set_params(ledger=Ledger())
    assert again.fit(X, y).privacy_.certified


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_the_bytes_are_the_same_every_time(name, tmp_path):
    clf = fitted()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        clf.save(tmp_path / folder / name)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def canary_table(n=500):
    """A table with one record that no one else resembles."""
    X, y = table(n)
    X = X.assign(money=1.0)
    X.loc[7, "money"] = CANARY_NUMBER
    X.loc[7, "kind"] = CANARY_TEXT
    return X, y


def spellings(value):
    """Bytes under which a number could appear in a file."""
    scaled = np.float32(value)
    return [
        struct.pack("<d", value), struct.pack("<f", scaled), struct.pack(">d", value),
        repr(value).encode(), f"{value:.6f}".encode(), str(scaled).encode(),
    ]  # fmt: skip


@pytest.mark.parametrize("schema", ["public", "learnt"])
def test_no_training_record_is_in_a_saved_estimator(schema, tmp_path):
    X, y = canary_table()
    public = Schema(
        {**SCHEMA, "kind": Categorical(["x", "y", "z"], other="other"), "money": Numeric(0, 10)}
    )
    clf = DPClassifier(
        schema=public if schema == "public" else None, epochs=2, epsilon=2.0, ledger=Ledger()
    )
    clf.fit(X, y, sensitive_features=X["kind"], sample_weight=np.where(X.index == 7, 3.14159, 1))
    clf.save(tmp_path / "model")
    clf.save(tmp_path / "one.safetensors")
    skops.io.dump(clf.set_params(ledger=None), tmp_path / "model.skops")
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(clf))
    for file in (p for p in tmp_path.rglob("*") if p.is_file()):
        data = file.read_bytes()
        assert CANARY_TEXT.encode() not in data, file
        for value in (CANARY_NUMBER, 3.14159, float(X.loc[3, "a"]), float(X.loc[9, "b"])):
            for text in spellings(value):
                assert text not in data, (file, value)


def test_the_scan_for_records_would_find_one(tmp_path):
    """Without privacy the exact bounds are kept, and the scan must see them."""
    X, y = canary_table()
    clf = DPClassifier(epsilon=float("inf"), epochs=1).fit(X, y)
    clf.save(tmp_path / "model")
    data = (tmp_path / "model" / "model.json").read_bytes()
    assert CANARY_TEXT.encode() in data and repr(CANARY_NUMBER).encode() in data


def test_no_seed_of_the_noise_is_saved(tmp_path):
    clf = fitted(noise_random_state=987654321)
    clf.save(tmp_path / "model")
    assert b"987654321" not in (tmp_path / "model" / "model.json").read_bytes()
    assert DPClassifier.load(tmp_path / "model").privacy_.seeded


def test_custom_modules_need_the_module_again(tmp_path):
    make = lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 1))  # noqa: E731
    clf = fitted(module=make())
    clf.save(tmp_path / "model")
    with pytest.raises(InvalidParameterError, match="pass the module"):
        DPClassifier.load(tmp_path / "model")
    same(clf, DPClassifier.load(tmp_path / "model", module=make()))
    same(clf, pickle.loads(pickle.dumps(clf)))
    with pytest.raises(DataIntegrityError, match="do not fit"):
        DPClassifier.load(tmp_path / "model", module=nn.Linear(5, 1))


# -- hostile and damaged files -------------------------------------------------------------
class Exploit:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in the file was executed')",))


def test_pickles_are_refused_and_never_run(tmp_path):
    for name, data in (("a", pickle.dumps(Exploit())), ("b", pickle.dumps(Exploit(), protocol=0))):
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        with pytest.raises(UnsafeFileError):
            DPClassifier.load(tmp_path / f"{name}.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "c.safetensors")
    with pytest.raises(UnsafeFileError, match="pickle"):
        DPClassifier.load(tmp_path / "c.safetensors")


@pytest.mark.parametrize("size", [0, 5, 8, 100, -1])
def test_truncated_files_are_refused(size, tmp_path):
    path = tmp_path / "model.safetensors"
    fitted().save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UnsafeFileError):
        DPClassifier.load(path)


def test_a_huge_header_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(UnsafeFileError):
        DPClassifier.load(path)


def test_weights_and_description_must_belong_together(tmp_path):
    fitted().save(tmp_path / "one")
    fitted().save(tmp_path / "two")
    (tmp_path / "one" / "model.safetensors").write_bytes(
        (tmp_path / "two" / "model.safetensors").read_bytes()
    )
    with pytest.raises(DataIntegrityError, match="describes"):
        DPClassifier.load(tmp_path / "one")
    (tmp_path / "two" / "model.json").unlink()
    with pytest.raises(DataIntegrityError, match="half"):
        DPClassifier.load(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "other"}, UnsafeFileError),
        ({"schema": 99}, SchemaVersionError),
        ({"class": "DPRegressor"}, InvalidParameterError),
    ],
)
def test_other_and_newer_files_are_refused(change, error, tmp_path):
    fitted().save(tmp_path / "model")
    text = tmp_path / "model" / "model.json"
    text.write_text(json.dumps({**json.loads(text.read_text()), **change}))
    with pytest.raises(error):
        DPClassifier.load(tmp_path / "model")


def test_paths(tmp_path):
    clf = fitted()
    with pytest.raises(OutputTargetError, match="does not exist"):
        clf.save(tmp_path / "absent" / "model")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputTargetError, match="is a file"):
        clf.save(tmp_path / "file")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputTargetError, match="is a folder"):
        clf.save(tmp_path / "folder.safetensors")
    with pytest.raises(FileNotFoundError):
        DPClassifier.load(tmp_path / "nothing")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # no temporary file


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    from pathlib import Path

    path = tmp_path / "model.safetensors"
    clf = fitted()
    clf.save(path)
    before = path.read_bytes()

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        fitted().save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_frames_that_were_saved_with_are_read_back_by_name(tmp_path):
    clf = fitted()
    clf.save(tmp_path / "model")
    again = DPClassifier.load(tmp_path / "model")
    X, _ = table(50)
    with pytest.raises(ValueError, match="feature names"):
        again.predict(pd.DataFrame(X).rename(columns={"a": "q"}))


def test_a_header_whose_length_begins_like_a_pickle_is_no_pickle(tmp_path):
    """One sound file in 32 has a header length whose lowest byte is 0x80."""
    clf = fitted()
    for width in range(300):
        clf.verbose = 10**width
        clf.save(tmp_path / "model.safetensors")
        if (tmp_path / "model.safetensors").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header had such a length")
    same(clf, DPClassifier.load(tmp_path / "model.safetensors"))
