"""Fitted estimators of this room on disk: JSON, of which nothing is ever executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from privfair.core._format import json_number
from privfair.core.exceptions import OutputTargetError, SchemaVersionError, UnsafeFileError
from privfair.core.schema import Schema
from privfair.ldp._columns import Columns

__all__ = ["read", "write"]

_VERSION = 1
_MOST_BYTES = 1 << 28
_NOT_SAVED = ("schema", "ledger", "noise_random_state")


def write(path: str | os.PathLike[str], estimator: Any, more: dict[str, Any]) -> None:
    """Write an estimator with its public domains, in one step."""
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise OutputTargetError(
            f"{target} is a folder, or lies in one that does not exist. Give a file's name."
        )
    named = getattr(estimator, "feature_names_in_", None)
    params = {
        name: json_number(value) if isinstance(value, float) else value
        for name, value in estimator.get_params(deep=False).items()
        if name not in _NOT_SAVED
    }
    data = {
        "format": f"privfair.{type(estimator).__name__}",
        "version": _VERSION,
        "parameters": params,
        # A list of pairs: the order of the columns must survive writers that sort keys.
        "schema": [[name, entry] for name, entry in estimator.schema_.to_dict().items()],
        "uniform": bool(estimator._uniform),
        "seeded": bool(estimator._seeded),
        "n_features_in": int(estimator.n_features_in_),
        "feature_names_in": None if named is None else [str(name) for name in named],
        **more,
    }
    text = json.dumps(data, sort_keys=True, allow_nan=False, indent=1, ensure_ascii=False)
    draft = target.with_name(target.name + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, target)


def read(path: str | os.PathLike[str], cls: Any) -> tuple[Any, Columns, bool, dict[str, Any]]:
    """Return an unfitted estimator, its domains, whether it was seeded, and the rest."""
    source = Path(path)
    problem = f"{source} is not a file that {cls.__name__}.save wrote"
    if source.stat().st_size > _MOST_BYTES:
        raise UnsafeFileError(f"{problem}: it is larger than {_MOST_BYTES} bytes.")
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"{problem}: it is no JSON text. Nothing was executed.") from error
    if not isinstance(data, dict) or data.get("format") != f"privfair.{cls.__name__}":
        raise UnsafeFileError(f"{problem}: its format is another one.")
    if data.get("version") != _VERSION:
        raise SchemaVersionError(
            f"{source} was saved in version {data.get('version')!r} of its format, and this "
            f"package reads version {_VERSION}. Use a newer privfair."
        )
    schema = Schema.from_dict(dict(data["schema"]))
    params = {
        name: float("inf") if value == "inf" else value
        for name, value in data["parameters"].items()
    }
    made = cls(schema=schema, **params)
    made.n_features_in_ = int(data["n_features_in"])
    if data["feature_names_in"] is not None:
        made.feature_names_in_ = np.array(data["feature_names_in"], dtype=object)
    return made, Columns(schema, bool(data["uniform"])), bool(data["seeded"]), data
