"""Frequency estimators on disk: JSON, of which nothing is ever executed."""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from privfair.core.exceptions import OutputTargetError, SchemaVersionError, UnsafeFileError
from privfair.core.schema import Schema

__all__ = ["read", "write"]

FORMAT = "privfair.LDPFrequencyEstimator"
VERSION = 1
_MOST_BYTES = 1 << 28
_PARAMETERS = (
    "protocol", "epsilon", "strategy", "missing", "postprocess", "confidence", "simultaneous",
    "guarantee", "fake", "priors", "unit", "noise_random_state",
)  # fmt: skip


def write(path: str | os.PathLike[str], estimator: Any) -> None:
    """Write a fitted estimator, the same bytes for the same sums, in one step."""
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise OutputTargetError(
            f"{target} is a folder, or lies in one that does not exist. Give a file's name."
        )
    schema = Schema({domain.name: domain.column for domain in estimator._columns})
    named = getattr(estimator, "feature_names_in_", None)
    data = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": {name: _plain(getattr(estimator, name)) for name in _PARAMETERS},
        # A list of pairs: the order of the columns must survive.
        "schema": [[name, entry] for name, entry in schema.to_dict().items()],
        "features": None if named is None else [str(name) for name in named],
        "n_features": int(estimator.n_features_in_),
        "charges": int(estimator._charges),
        "sums": base64.b64encode(estimator.aggregator_.to_bytes()).decode("ascii"),
    }
    draft = target.with_name(target.name + ".part")
    draft.write_text(
        json.dumps(data, sort_keys=True, allow_nan=False, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    os.replace(draft, target)


def _plain(value: Any) -> Any:
    if hasattr(value, "items"):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return [_plain(v) for v in value] if not hasattr(value, "tolist") else value.tolist()
    return value


def read(path: str | os.PathLike[str], make: Any) -> Any:
    """Return the estimator that :func:`write` described."""
    source = Path(path)
    problem = f"{source} is not a file that LDPFrequencyEstimator.save wrote"
    if source.stat().st_size > _MOST_BYTES:
        raise UnsafeFileError(f"{problem}: it is larger than {_MOST_BYTES} bytes.")
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"{problem}: it is no JSON text. Nothing was executed.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UnsafeFileError(f"{problem}: its format is another one.")
    if data.get("version") != VERSION:
        raise SchemaVersionError(
            f"the estimator was saved in version {data.get('version')!r} of its format, and this "
            f"package reads version {VERSION}. Use a newer privfair."
        )
    try:
        parameters = {name: data["parameters"][name] for name in _PARAMETERS}
        schema = Schema.from_dict(dict(data["schema"]))
        sums = base64.b64decode(data["sums"], validate=True)
        charges, features, count = int(data["charges"]), data["features"], int(data["n_features"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise UnsafeFileError(f"{problem}: a part of it is missing or damaged.") from error
    made = make(schema=schema, **parameters)
    names = tuple(schema) if features is None else tuple(features)
    made._restore(sums, names, named=features is not None, charges=charges)
    made.n_features_in_ = count
    return made
