"""The build of the embedded editions, end to end on look-alike data, into a temporary folder."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from privfair.core.exceptions import DataIntegrityError, InvalidParameterError, OutputTargetError
from privfair.core.frames import as_table
from privfair.datasets import _embedded, make_adult_like, make_compas_like

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    folder = ROOT / "datasets"
    if not (folder / "build_embedded.py").exists():
        pytest.skip("the build script is not part of an installed package")
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location(
            "build_embedded", folder / "build_embedded.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["build_embedded"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(folder))


def rows_of(name: str, n: int, seed: int = 1) -> Any:
    bunch = (make_adult_like if name == "adult" else make_compas_like)(n, random_state=seed)
    return bunch.data.assign(**{bunch.target_name: bunch.target})


@pytest.fixture(scope="module")
def released(build: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, n in (("adult", 8_000), ("compas", 4_000)):
        folder = tmp_path_factory.mktemp(name)
        edition = build.EDITIONS[name]()
        places = {"releases": folder / "releases", "embedded": folder / "embedded"}
        build.measure_edition(edition, rows_of(name, n), **places)
        build.sample_edition(edition, **places)
        out[name] = (edition, n, places)
    return out


@pytest.fixture
def installed(released: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The loaders read the editions just built."""
    folders = {name: places["embedded"] for name, (_, _, places) in released.items()}

    def resource(name: str) -> bytes:
        return (folders[name.split(".")[0]] / name).read_bytes()

    monkeypatch.setattr(_embedded, "_resource", resource)
    _embedded._verified_csv.cache_clear()
    yield released
    _embedded._verified_csv.cache_clear()


@pytest.mark.parametrize("name", ["adult", "compas"])
def test_plan_of_the_release(build: ModuleType, name: str) -> None:
    edition = build.EDITIONS[name]()
    assert edition.root == {
        "adult": ("income", "sex"), "compas": ("two_year_recid", "race"),
    }[name]  # fmt: skip
    assert (edition.total_epsilon, edition.total_delta) == {
        "adult": (3.0, 1e-6), "compas": (3.0, 1e-5),
    }[name]  # fmt: skip
    assert edition.delta * 3 == build.Fraction(str(edition.total_delta))
    assert build.EPSILON == 1.0
    features = [c for c in edition.schema.names if c not in edition.root]
    assert len(features) == {"adult": 11, "compas": 8}[name]
    assert not {"name", "first", "last", "dob", "id", "fnlwgt"} & set(edition.schema.names)


@pytest.mark.parametrize("name", ["adult", "compas"])
def test_certificate(released: dict[str, Any], name: str) -> None:
    edition, n, places = released[name]
    card = json.loads((places["embedded"] / f"{name}.json").read_text())
    promise = card["guarantee"]
    assert promise["certified"]
    assert 0.99 < promise["epsilon"] <= 1.0
    assert 0.999 * edition.total_delta / 3 < promise["delta"] <= edition.total_delta / 3
    assert (promise["unit"], promise["neighboring"]) == ("record", "add_remove")
    assert (promise["numerics"], promise["seeded"], promise["accountant"]) == (
        "exact", False, "zcdp",
    )  # fmt: skip
    sigma = card["sigma"][0] / card["sigma"][1]
    assert card["rho"] == pytest.approx((len(card["features"]) + 1) / (2 * sigma**2))
    assert card["rows"] == round(card["n_rows_noisy"])
    # 8 standard deviations of the released number of rows
    assert abs(card["n_rows_noisy"] - n) < 8 * sigma * np.sqrt(24)
    (entry,) = card["ledger"]["entries"]
    assert entry["state"] == "released"
    assert entry["event"] == promise["events"][0]
    assert card["ledger"]["cap"] == {
        "epsilon": edition.total_epsilon, "delta": edition.total_delta,
    }  # fmt: skip
    packed = (places["embedded"] / f"{name}.csv.gz").read_bytes()
    assert card["sha256"] == hashlib.sha256(packed).hexdigest()
    assert len(packed) < 1_000_000
    assert "not for decisions about people" in card["warning"].lower()


@pytest.mark.parametrize("name", ["adult", "compas"])
def test_a_second_measurement_is_refused(
    build: ModuleType, released: dict[str, Any], name: str
) -> None:
    edition, n, places = released[name]
    stored = {p: p.read_bytes() for folder in places.values() for p in folder.iterdir()}
    with pytest.raises(OutputTargetError, match="exists already"):
        build.measure_edition(edition, rows_of(name, n), **places)
    assert {p: p.read_bytes() for p in stored} == stored


@pytest.mark.parametrize("left", ["adult-1.json", "adult.ledger.db"])
def test_what_a_crash_leaves_is_refused_too(build: ModuleType, tmp_path: Path, left: str) -> None:
    """A ledger without counts is a release that was paid for and lost: never measured again."""
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / left).write_text("x")
    with pytest.raises(OutputTargetError):
        build.measure_edition(
            build.EDITIONS["adult"](), rows_of("adult", 50),
            releases=tmp_path / "releases", embedded=tmp_path / "embedded",
        )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_is_refused(
    build: ModuleType, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*args: Any) -> None:
        raise AssertionError("real rows were read")

    monkeypatch.setattr(build, "real_rows", touched)
    places = {"releases": tmp_path / "releases", "embedded": tmp_path / "embedded"}
    with pytest.raises(InvalidParameterError, match="noise_random_state"):
        build.measure_edition(
            build.EDITIONS["adult"](), rows_of("adult", 50), noise_random_state=seed, **places
        )
    options = [f"--{key}={value}" for key, value in places.items()]
    with pytest.raises(InvalidParameterError, match="noise_random_state"):
        build.main(["measure", "adult", f"--noise-random-state={seed}", *options])
    assert not list(tmp_path.rglob("*.*"))


def test_two_releases_differ(build: ModuleType, tmp_path: Path) -> None:
    """The noise is not repeatable: the same rows give other counts."""
    counts = []
    for k in range(2):
        places = {"releases": tmp_path / f"r{k}", "embedded": tmp_path / f"e{k}"}
        path = build.measure_edition(build.EDITIONS["compas"](), rows_of("compas", 500), **places)
        counts.append(json.loads(path.read_text())["measurement"]["features"])
    assert counts[0] != counts[1]


def test_sampling_is_post_processing(
    build: ModuleType, released: dict[str, Any], tmp_path: Path
) -> None:
    """It reads nothing but the stored counts and gives the same bytes again."""
    for name, (edition, _, places) in released.items():
        build.sample_edition(edition, releases=places["releases"], embedded=tmp_path)
        for ending in ("csv.gz", "json"):
            again = (tmp_path / f"{name}.{ending}").read_bytes()
            assert again == (places["embedded"] / f"{name}.{ending}").read_bytes()


def test_loaded_adult(installed: dict[str, Any], build: ModuleType) -> None:
    like = make_adult_like(100, random_state=0)
    adult = _embedded.load_adult(split="all", missing="category", as_frame=True)
    assert adult.DESCR.splitlines()[0].startswith("EMBEDDED DP SYNTHETIC DATA")
    assert adult.embedded
    assert adult.privacy["guarantee"]["epsilon"] <= 1.0
    assert "embedded" in repr(adult)
    assert list(adult.data.columns) == list(like.data.columns)
    assert (adult.data.dtypes == like.data.dtypes).all()
    assert adult.target.dtype == like.target.dtype
    assert adult.sample_weight.eq(1).all()
    adult.schema.validate(as_table(adult.data))
    pairs = adult.data[["education", "education-num"]].drop_duplicates()
    assert pairs["education"].is_unique
    assert pairs["education-num"].is_unique
    sizes = adult.split.value_counts()
    assert sizes["train"] == round(2 * len(adult.data) / 3)
    parts = [
        _embedded.load_adult(split=s, missing="category", as_frame=True) for s in ("train", "test")
    ]
    assert sum(len(p.data) for p in parts) == len(adult.data)
    whole = _embedded.load_adult(split="all", missing="drop", as_frame=True)
    assert not (whole.data == "missing").any().any()
    assert 0 < len(whole.data) < len(adult.data)
    plain = _embedded.load_adult(split="all", missing="category", as_frame=False)
    assert isinstance(plain.data, np.ndarray)
    assert any("synthetic" in caveat for caveat in adult.caveats)


def test_base_rates_survive(installed: dict[str, Any]) -> None:
    """Income by sex within 8 standard deviations of the noise and the allocation."""
    made = _embedded.load_adult(split="all", missing="category", as_frame=True)
    like = make_adult_like(8_000, random_state=1)
    for sex in ("Female", "Male"):
        a = made.target[made.sensitive["sex"] == sex].mean()
        b = like.target[like.sensitive["sex"] == sex].mean()
        assert abs(a - b) < 8 * 17 / 2_600 + 0.01


def test_loaded_compas(installed: dict[str, Any]) -> None:
    like = make_compas_like(100, random_state=0)
    compas = _embedded.load_compas(split="all", as_frame=True)
    assert compas.version == "filtered"
    assert compas.embedded
    assert compas.DESCR.splitlines()[0].startswith("EMBEDDED DP SYNTHETIC DATA")
    assert list(compas.data.columns) == list(like.data.columns)
    assert (compas.data.dtypes == like.data.dtypes).all()
    assert compas.score.between(1, 10).all()
    assert ((compas.score > 4) == (compas.decision == 1)).all()
    assert ((compas.data["score_text"] == "Low") == (compas.score <= 4)).all()
    young = compas.data["age_cat"] == "Less than 25"
    assert (young == (compas.data["age"] < 25)).all()
    compas.schema.validate(as_table(compas.data))


def test_fallback_uses_the_edition(installed: dict[str, Any], tmp_path: Path) -> None:
    from privfair.datasets import fetch_adult, fetch_compas

    adult = fetch_adult(data_home=tmp_path, split="test", fallback="embedded")
    compas = fetch_compas(data_home=tmp_path, fallback="embedded")
    assert adult.embedded
    assert compas.embedded
    assert compas.version == "filtered"


def test_an_altered_edition_is_refused(
    installed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _embedded._resource

    def altered(name: str) -> bytes:
        data = real(name)
        if name.endswith(".csv.gz"):
            return gzip.compress(gzip.decompress(data).replace(b"Female", b"Male", 1), mtime=0)
        return data

    monkeypatch.setattr(_embedded, "_resource", altered)
    _embedded._verified_csv.cache_clear()
    with pytest.raises(DataIntegrityError, match="certificate states"):
        _embedded.load_adult(split="all", missing="category", as_frame=True)
    monkeypatch.setattr(_embedded, "_resource", lambda name: b"{}")
    with pytest.raises(DataIntegrityError, match="unknown schema"):
        _embedded.certificate("adult")


def test_utility_table(
    installed: dict[str, Any], build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.insert(0, str(ROOT / "datasets"))
    try:
        import measure_utility as utility
    finally:
        sys.path.remove(str(ROOT / "datasets"))
    for name, make in (("adult", make_adult_like), ("compas", make_compas_like)):
        edition = build.EDITIONS[name]()
        train, test = (make(1_500, random_state=k) for k in (1, 2))
        made = make(1_500, random_state=3)
        result = utility.compare(edition, train, test, made)
        text = utility.table(result)
        assert 0.5 < result["trained_on_embedded"]["auc"] < 1
        assert 0 < result["distance"]["one_way_mean"] < 0.1
        same = utility.compare(edition, train, test, train)
        assert same["distance"]["two_way_max"] == 0
        assert same["trained_on_real"] == same["trained_on_embedded"]
        assert "| real |" in text
        assert ("decile_score" in text) is (name == "compas")
        card = (ROOT / "datasets" / "cards" / f"{name}.md").read_text()
        assert card.count(utility.START) == card.count(utility.END) == 1


def test_an_installation_without_the_editions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Real files absent, embedded files absent: a clear error, never other data."""
    from privfair.core.exceptions import DataNotAvailableError
    from privfair.datasets import fetch_adult, fetch_compas

    monkeypatch.setattr(_embedded, "files", lambda package: tmp_path)
    _embedded._verified_csv.cache_clear()
    assert not _embedded.has_embedded("adult")
    for fetch in (fetch_adult, fetch_compas):
        with pytest.raises(DataNotAvailableError, match="no embedded file"):
            fetch(data_home=tmp_path, fallback="embedded")


# -- what is shipped ------------------------------------------------------------------------
RELEASES = ROOT / "datasets" / "releases"


@pytest.mark.parametrize("name", ["embedded-adult", "embedded-compas"])
def test_shipped_edition_is_whole(name: str) -> None:
    name = name.removeprefix("embedded-")
    card = _embedded.certificate(name)
    promise = card["guarantee"]
    assert promise["certified"]
    assert promise["epsilon"] <= 1.0
    assert promise["delta"] <= {"adult": 1e-6, "compas": 1e-5}[name] / 3
    assert not promise["seeded"]
    load = {"adult": _embedded.load_adult, "compas": _embedded.load_compas}[name]
    options = {"missing": "category"} if name == "adult" else {}
    bunch = load(split="all", as_frame=True, **options)
    assert len(bunch.data) == card["rows"]
    assert set(bunch.split) == {"train", "test"}
    bunch.schema.validate(as_table(bunch.data))


@pytest.mark.parametrize("name", ["embedded-adult", "embedded-compas"])
def test_shipped_ledger_holds_the_release_and_nothing_else(name: str, tmp_path: Path) -> None:
    """One charge, the plan's; the chain is whole; its head is the one that the card prints."""
    import shutil

    from privfair.accounting import Ledger

    name = name.removeprefix("embedded-")
    if not RELEASES.is_dir():
        pytest.skip("the folder of releases is not part of an installed package")
    record = json.loads((RELEASES / f"{name}-1.json").read_text())
    assert record["ledger"] == _embedded.certificate(name)["ledger"]
    copy = tmp_path / "ledger.db"
    shutil.copyfile(RELEASES / f"{name}.ledger.db", copy)
    ledger = Ledger.open(copy)
    assert list(ledger.verify()) == record["ledger"]["head"]
    (entry,) = ledger.entries()
    assert (entry.state, entry.seeded, entry.numerics) == ("released", False, "exact")
    measured = build_measurement(record)
    assert entry.event == measured.plan.event()
    assert measured.plan.guarantee(record["guarantee"]["delta"]).epsilon <= 1.0
    assert not measured.seeded


def build_measurement(record: dict[str, Any]) -> Any:
    from privfair.synthesis._one_way import Measurement

    return Measurement.from_dict(record["measurement"])


@pytest.mark.golden
@pytest.mark.parametrize("name", ["embedded-adult", "embedded-compas"])
def test_shipped_rows_follow_from_the_stored_counts(
    build: ModuleType, name: str, tmp_path: Path
) -> None:
    """Provenance: the counts in datasets/releases; numpy's generator with the public seed."""
    name = name.removeprefix("embedded-")
    build.sample_edition(build.EDITIONS[name](), releases=RELEASES, embedded=tmp_path)
    shipped = ROOT / "privfair" / "datasets" / "embedded"
    for ending in ("csv.gz", "json"):
        read = gzip.decompress if ending == "csv.gz" else bytes
        made = read((tmp_path / f"{name}.{ending}").read_bytes())
        kept = read((shipped / f"{name}.{ending}").read_bytes())
        if ending == "json":  # the packed bytes may differ between versions of zlib
            made, kept = (
                {k: v for k, v in json.loads(data).items() if k != "sha256"}
                for data in (made, kept)
            )
        assert made == kept


@pytest.mark.golden
@pytest.mark.usefixtures("real_data_dir")
@pytest.mark.parametrize("name", ["real-adult", "real-compas"])
def test_shipped_base_rates_are_near_the_real_ones(name: str) -> None:
    """The finding that the root keeps: label rate by group, within 2 points."""
    from privfair.datasets import fetch_adult, fetch_compas

    if name == "real-adult":
        real = fetch_adult(split="train")
        made = _embedded.load_adult(split="all", missing="category", as_frame=True)
        column, groups = "sex", ("Female", "Male")
    else:
        real = fetch_compas(version="filtered", split="train")
        made = _embedded.load_compas(split="all", as_frame=True)
        column, groups = "race", ("African-American", "Caucasian")
    for group in groups:
        rates = [b.target[b.sensitive[column] == group].mean() for b in (real, made)]
        assert abs(rates[0] - rates[1]) < 0.02


def test_the_wheel_stays_small() -> None:
    folder = ROOT / "privfair" / "datasets" / "embedded"
    assert sum(p.stat().st_size for p in folder.iterdir() if p.is_file()) < 2_000_000
