"""Forecasters on disk: arrays and JSON in one safetensors file, of which nothing is executed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privfair.core.exceptions import OutputTargetError, SchemaVersionError, UnsafeFileError
from privfair.core.privacy import PrivacyGuarantee
from privfair.dp.forecasting._models import SIMPLE, make_simple
from privfair.dp.forecasting._train import Scale
from privfair.dp.forecasting._windows import Series

__all__ = ["read", "write"]

_FORMAT = "privfair.DPForecaster"
_VERSION = 1
_NOT_SAVED = ("ledger", "noise_random_state", "random_state")


def write(path: str | os.PathLike[str], estimator: Any) -> None:
    """Write a fitted forecaster."""
    from safetensors.numpy import save

    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise OutputTargetError(
            f"{target} is a folder, or lies in one that does not exist. Give a file's name."
        )
    params = {n: v for n, v in estimator.get_params().items() if n not in _NOT_SAVED}
    params["calendar"] = list(params["calendar"])
    if params["value_range"] is not None:
        params["value_range"] = np.asarray(params["value_range"], dtype=float).tolist()
    arrays = {name: np.ascontiguousarray(a) for name, a in estimator.model_.arrays().items()}
    if estimator._last is not None:
        arrays["released"] = estimator._last.values
        if estimator._last.times is not None:
            arrays["times"] = estimator._last.times.astype(np.int64)
    cell = getattr(getattr(estimator.model_, "module", None), "forward_cell", None)
    note = {
        "format": _FORMAT,
        "version": _VERSION,
        "parameters": params,
        "n_features_in": int(estimator.n_features_in_),
        "interval": estimator._interval,
        "n_inputs": None if cell is None else cell.ih.in_features,
        "clip": bool(cell is not None and estimator.model_.scale.clip),
        "privacy": estimator.privacy_.to_dict(),
    }
    data = save(arrays or {"empty": np.zeros(1)}, metadata={"privfair": json.dumps(note)})
    draft = target.with_name(target.name + ".part")
    draft.write_bytes(data)
    os.replace(draft, target)


def read(path: str | os.PathLike[str], cls: Any) -> Any:
    """Return the forecaster in a file."""
    from safetensors import SafetensorError, safe_open

    source = Path(path)
    problem = f"{source} is not a file that DPForecaster.save wrote. Nothing was executed."
    try:
        with safe_open(source, framework="numpy") as file:
            note = json.loads((file.metadata() or {}).get("privfair", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise UnsafeFileError(problem) from error
    if not isinstance(note, dict) or note.get("format") != _FORMAT:
        raise UnsafeFileError(problem)
    if note.get("version") != _VERSION:
        raise SchemaVersionError(f"{source} has version {note.get('version')!r}, not {_VERSION}.")
    made = cls(**note["parameters"])
    made._check()
    made.n_features_in_, made._interval = int(note["n_features_in"]), note["interval"]
    made.privacy_ = _guarantee(note["privacy"])
    if made.model in SIMPLE:
        made.model_ = make_simple(made.model, 0)
        for name in made.model_.arrays():
            setattr(made.model_, name, arrays[name])
    else:
        scale = Scale(arrays["low"], arrays["high"], bool(note["clip"]))
        made.model_ = made._network(int(note["n_inputs"]) - made.n_features_in_, scale, None)
        made.model_.device = torch.device("cpu")
        made.model_.module.load_state_dict(
            {n[7:]: torch.from_numpy(a) for n, a in arrays.items() if n.startswith("module.")}
        )
        made.model_.module.requires_grad_(False)
    made._last = None
    if "released" in arrays:
        times = arrays.get("times")
        made.released_ = arrays["released"]
        made._last = Series(
            arrays["released"], None if times is None else times.astype("datetime64[s]"), None
        )
    return made


def _guarantee(data: dict[str, Any]) -> PrivacyGuarantee:
    from privfair.accounting.events import event_from_dict

    return PrivacyGuarantee(
        math.inf if data["epsilon"] == "inf" else float(data["epsilon"]),
        data["delta"],
        unit=data["unit"],
        neighboring=data["neighboring"],
        accountant=data["accountant"],
        events=tuple(event_from_dict(event) for event in data["events"]),
        assumptions=tuple(data["assumptions"]),
        numerics=data["numerics"],
        seeded=data["seeded"],
        unsafe=tuple(data["unsafe"]),
        order=data["order"],
        details=dict(data["details"]),
    )
