"""Build the embedded differentially private synthetic editions of Adult and COMPAS.

Three steps, of which only the first touches real rows and spends budget:

    python datasets/build_embedded.py measure adult    # once, ever: real entropy, ledger first
    python datasets/build_embedded.py sample adult     # post-processing of the stored counts
    python datasets/build_embedded.py utility adult    # compares with the real data, for the card

`measure` refuses to run while a measurement, a ledger or an embedded file of that edition
exists, and refuses any seed: whoever knows a seed can subtract the noise. Running it twice and
keeping the nicer result would spend the budget twice. `sample` may be run again: it reads
nothing but the stored counts.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from privfair.core.exceptions import InvalidParameterError, OutputTargetError
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.datasets._schemas import (
    COUNTRIES,
    EDUCATION_LEVELS,
    adult_schema,
    compas_schema,
)
from privfair.synthesis._coding import decode, domain_sizes, encode
from privfair.synthesis._one_way import Measurement, OneWayModel, fit, measure, plan, sample

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent
RELEASES = ROOT / "releases"
EMBEDDED = ROOT.parent / "privfair" / "datasets" / "embedded"
SAMPLING_SEED = 20260101  # public: drawing rows from released counts is post-processing
EPSILON = 1.0
NAMED_COUNTRIES = ("United-States", "Mexico", "missing")
WARNING = "Synthetic rows. Not for decisions about people, nor for findings about the real data."


@dataclass(frozen=True)
class Edition:
    """What is released of one data set; everything here is public and fixed beforehand."""

    name: str
    label: str
    root: tuple[str, ...]
    schema: Schema
    total_epsilon: float
    total_delta: float
    source_rows: str

    @property
    def delta(self) -> Fraction:
        """A third of the total delta."""
        return Fraction(str(self.total_delta)) / 3


def adult_edition() -> Edition:
    """Return the plan for Adult: training rows, root (income, sex)."""
    full = adult_schema(True)
    columns: dict[str, Any] = {"income": Categorical((0, 1)), "sex": full["sex"]}
    columns |= {n: c for n, c in full.items() if n not in {"sex", "education"}}
    columns["native-country"] = Categorical(NAMED_COUNTRIES, other="other")
    return Edition(
        "adult", "income", ("income", "sex"), Schema(columns), 3.0, 1e-6,
        "the 32,561 rows of the official training file (the number is public)",
    )  # fmt: skip


def compas_edition() -> Edition:
    """Return the plan for COMPAS: training part of the filtered rows, root (label, race)."""
    full = compas_schema()
    columns: dict[str, Any] = {"two_year_recid": Categorical((0, 1)), "race": full["race"]}
    columns |= {n: c for n, c in full.items() if n not in {"race", "age_cat", "score_text"}}
    columns["c_charge_degree"] = Categorical(("F", "M"))
    # Coarser than the loader's schema: a cell of a table with twelve root states and some four
    # thousand rows must hold enough of them. The last value stands for all larger ones.
    columns["age"] = Numeric(18, 80, bins=(22, 25, 28, 31, 35, 40, 46, 55, 65))
    columns["priors_count"] = Numeric(0, 38, bins=(1, 2, 3, 4, 6, 9, 13, 20))
    for name in ("juv_fel_count", "juv_misd_count", "juv_other_count"):
        columns[name] = Numeric(0, 4, bins=(1, 2))
    return Edition(
        "compas", "two_year_recid", ("two_year_recid", "race"), Schema(columns), 3.0, 1e-5,
        "the rows of the filtered version whose number hashes into the training part (about "
        "70 % of 6,172)",
    )  # fmt: skip


EDITIONS = {"adult": adult_edition, "compas": compas_edition}


def real_rows(name: str, data_home: str | None) -> pd.DataFrame:
    """Return the real rows that a release may use, and no others."""
    from privfair.datasets import fetch_adult, fetch_compas

    if name == "adult":
        bunch = fetch_adult(data_home=data_home, split="train", download="never")
    else:
        bunch = fetch_compas(
            data_home=data_home, version="filtered", split="train", download="never"
        )
    return bunch.data.assign(**{bunch.target_name: bunch.target})


def to_codes(edition: Edition, rows: pd.DataFrame) -> dict[str, Any]:
    """Return integer codes under the edition's public schema."""
    from privfair.core.frames import as_table

    return encode(as_table(rows[edition.schema.names]), edition.schema)


def _date() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).date().isoformat()
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _refuse_existing(edition: Edition, releases: Path, embedded: Path) -> None:
    there = [
        path
        for path in (
            releases / f"{edition.name}-1.json",
            releases / f"{edition.name}.ledger.db",
            embedded / f"{edition.name}.csv.gz",
            embedded / f"{edition.name}.json",
        )
        if path.exists()
    ]
    if there:
        raise OutputTargetError(
            f"this edition exists already ({', '.join(map(str, there))}). A second measurement "
            "would spend its budget again; run `sample` to rebuild the rows from the stored "
            "counts instead."
        )


def measure_edition(
    edition: Edition,
    rows: pd.DataFrame,
    *,
    releases: Path,
    embedded: Path,
    noise_random_state: int | None = None,
) -> Path:
    """Spend the budget of one release, once, and store the noisy counts with their ledger."""
    if noise_random_state is not None:
        raise InvalidParameterError(
            "noise_random_state is refused: a release with a recorded seed is not private, since "
            "anyone can draw the noise again and subtract it."
        )
    _refuse_existing(edition, releases, embedded)
    from privfair.accounting import Ledger
    from privfair.core.privacy import Budget

    releases.mkdir(parents=True, exist_ok=True)
    delta = float(edition.delta)
    if Fraction(delta) > edition.delta:
        delta = float(np.nextafter(delta, 0.0))
    what = plan(domain_sizes(edition.schema), edition.root, epsilon=EPSILON, delta=delta)
    codes = to_codes(edition, rows)
    ledger = Ledger(
        releases / f"{edition.name}.ledger.db",
        cap=Budget(edition.total_epsilon, edition.total_delta),
        dataset_id=f"{edition.name}-embedded",
        unit="record",
        neighboring="add_remove",
        filter="zcdp",
    )
    measured = measure(
        codes, what, ledger=ledger, purpose=f"{edition.name} edition 1: one-way marginals"
    )
    if measured.seeded:
        raise InvalidParameterError("the noise was seeded; nothing is released.")
    promise = what.guarantee(delta)
    record = {
        "schema": 1,
        "name": edition.name,
        "edition": 1,
        "date": _date(),
        "guarantee": promise.to_dict(),
        "rho": what.rho,
        "budget": {
            "total": {"epsilon": edition.total_epsilon, "delta": edition.total_delta},
            "spent": {"epsilon": EPSILON, "delta": delta},
        },
        "ledger": ledger.export(),
        "domain": edition.schema.to_dict(),
        "measurement": measured.to_dict(),
    }
    path = releases / f"{edition.name}-1.json"
    _write(path, json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")
    return path


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def adult_rows(codes: dict[str, Any], edition: Edition, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows with the columns of the real Adult."""
    import pandas as pd

    columns = decode(codes, edition.schema, rng)
    country = columns["native-country"]
    elsewhere = np.array([c for c in COUNTRIES if c not in NAMED_COUNTRIES], dtype=object)
    other = country == "other"
    country[other] = elsewhere[rng.integers(len(elsewhere), size=int(other.sum()))]
    levels = np.array(EDUCATION_LEVELS, dtype=object)
    columns["education"] = levels[columns["education-num"] - 1]
    names = [*adult_schema(True).names, "income"]
    return pd.DataFrame({name: columns[name] for name in names})


def compas_rows(codes: dict[str, Any], edition: Edition, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows with the columns of the real COMPAS."""
    import pandas as pd

    columns = decode(codes, edition.schema, rng)
    age, decile = columns["age"], columns["decile_score"]
    columns["age_cat"] = np.select(
        [age < 25, age <= 45], ["Less than 25", "25 - 45"], "Greater than 45"
    )
    columns["score_text"] = np.select([decile <= 4, decile <= 7], ["Low", "Medium"], "High")
    names = [*compas_schema().names, "two_year_recid"]
    return pd.DataFrame({name: columns[name] for name in names})


def pack(frame: pd.DataFrame) -> bytes:
    """Return a gzip CSV whose bytes depend on the rows only."""
    text = frame.to_csv(index=False, lineterminator="\n").encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as out:
        out.write(text)
    return buffer.getvalue()


def sample_edition(edition: Edition, *, releases: Path, embedded: Path) -> Path:
    """Draw the rows from the stored counts and write the embedded files."""
    record = json.loads((releases / f"{edition.name}-1.json").read_text("utf-8"))
    measured = Measurement.from_dict(record["measurement"])
    if measured.seeded:
        raise InvalidParameterError("the stored measurement was seeded; nothing is released.")
    model = fit(measured)
    rng = np.random.default_rng(SAMPLING_SEED)
    codes = sample(model, random_state=rng)
    make = adult_rows if edition.name == "adult" else compas_rows
    frame = make(codes, edition, rng)
    # Rows are in random order, so that the first two thirds are a random two thirds.
    frame["split"] = np.where(np.arange(len(frame)) < round(2 * len(frame) / 3), "train", "test")
    packed = pack(frame)
    _write(embedded / f"{edition.name}.csv.gz", packed)
    certificate = make_certificate(edition, record, model, frame, packed)
    path = embedded / f"{edition.name}.json"
    _write(path, json.dumps(certificate, indent=1, sort_keys=True).encode() + b"\n")
    return path


def make_certificate(
    edition: Edition,
    record: dict[str, Any],
    model: OneWayModel,
    frame: pd.DataFrame,
    packed: bytes,
) -> dict[str, Any]:
    """Return the JSON card that ships with the rows."""
    measurement = record["measurement"]
    keep = ("name", "edition", "date", "guarantee", "rho", "budget", "ledger")
    return {
        "schema": 1,
        **{key: record[key] for key in keep},
        "method": "one-way marginals given a root; exact discrete Gaussian; systematic sampling",
        "source_rows": edition.source_rows,
        "root": measurement["root_columns"],
        "features": measurement["feature_columns"],
        "sigma": measurement["sigma"],
        "domain": record["domain"],
        "n_rows_noisy": model.n_rows,
        "rows": len(frame),
        "compressed": dict(model.compressed),
        "pooled": dict(model.pooled),
        "sampling_seed": SAMPLING_SEED,
        "sha256": hashlib.sha256(packed).hexdigest(),
        "warning": WARNING,
    }


def main(argv: list[str] | None = None) -> int:
    """Run one step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["measure", "sample", "utility"])
    parser.add_argument("name", choices=sorted(EDITIONS))
    parser.add_argument("--data-home", default=None, help="folder of the real files")
    parser.add_argument("--releases", type=Path, default=RELEASES)
    parser.add_argument("--embedded", type=Path, default=EMBEDDED)
    parser.add_argument("--noise-random-state", type=int, default=None, help="always refused")
    options = parser.parse_args(argv)
    edition = EDITIONS[options.name]()
    if options.noise_random_state is not None and options.step != "measure":
        parser.error("--noise-random-state is refused")
    if options.step == "measure":
        if options.noise_random_state is None:
            _refuse_existing(edition, options.releases, options.embedded)
            rows = real_rows(options.name, options.data_home)
        else:
            rows = None
        path = measure_edition(
            edition, rows, releases=options.releases, embedded=options.embedded,
            noise_random_state=options.noise_random_state,
        )  # fmt: skip
    elif options.step == "sample":
        path = sample_edition(edition, releases=options.releases, embedded=options.embedded)
    else:
        from measure_utility import write_utility  # beside this script

        path = write_utility(
            edition.name,
            data_home=options.data_home,
            embedded=options.embedded,
            releases=options.releases,
            card=ROOT / "cards" / f"{edition.name}.md",
        )
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
