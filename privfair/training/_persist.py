"""Saving and loading fitted estimators: weights and JSON, never code, never records.

A saved estimator holds the released quantities only: parameters of the module, the encoder, the
plan, the guarantee. It holds no training row, no index of a batch, no optimiser state, no seed
of the noise, no ledger.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privfair.core._format import json_number
from privfair.core.exceptions import (
    DataIntegrityError,
    InvalidParameterError,
    OutputTargetError,
    SchemaVersionError,
    UnsafeFileError,
)
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.training._clip_rules import CLIPPINGS
from privfair.training._encoding import Encoding
from privfair.training._models import linear_layers
from privfair.training._plan import StatisticPlan, TrainingPlan

__all__ = ["FORMAT", "SavedEstimatorMixin"]

FORMAT = "privfair-estimator"
_VERSION = 1
_TENSORS, _TEXT = "model.safetensors", "model.json"
_MAX_TEXT = 64 << 20
_NOT_SAVED = ("ledger", "module", "fairness_penalty", "noise_random_state")


class SavedEstimatorMixin:
    """``save`` and ``load``, and the same state for pickle, copy and skops."""

    _saved_attributes: ClassVar[tuple[str, ...]] = (
        "n_features_in_",
        "noise_multiplier_",
        "n_steps_",
        "sample_rate_",
        "ledger_entry_id_",
    )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file or a folder.

        Parameters
        ----------
        path : path-like
            With the suffix ``.safetensors`` one file holds everything; otherwise a folder of
            that name gets ``model.safetensors`` and ``model.json``.

        Raises
        ------
        OutputTargetError
            If the parent folder is absent.

        Notes
        -----
        The bytes are the same for the same fitted estimator. A custom ``module`` is saved by its
        weights only; pass the module again to :meth:`load`.
        """
        from safetensors.numpy import save as to_bytes
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "module_")
        target = Path(path)
        if not target.parent.is_dir():
            raise OutputTargetError(f"the folder of {target} does not exist; make it first.")
        document, arrays = _document(self), _arrays(self)
        if target.suffix == ".safetensors":
            if target.is_dir():
                raise OutputTargetError(f"{target} is a folder; name a file, or drop the suffix.")
            _write(target, to_bytes(arrays, metadata={"privfair": _text(document)}))
            return
        if target.is_file():
            raise OutputTargetError(f"{target} is a file; name a folder or a .safetensors file.")
        target.mkdir(exist_ok=True)
        tensors = to_bytes(arrays)
        document["sha256"] = hashlib.sha256(tensors).hexdigest()
        _write(target / _TENSORS, tensors)
        _write(target / _TEXT, _text(document).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, module: nn.Module | None = None) -> Self:
        """Read an estimator that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            File or folder.
        module : torch.nn.Module or None, default=None
            The module whose weights were saved, if a custom one was trained.

        Raises
        ------
        UnsafeFileError
            If the file is a pickle or no such file of ours. Nothing in it is ever executed.
        DataIntegrityError
            If weights and description do not belong together.
        SchemaVersionError
            If a newer version of privfair wrote it.
        """
        document, arrays = _read(Path(path))
        if document["class"] != cls.__name__:
            raise InvalidParameterError(
                f"the file holds a {document['class']}; load it with {document['class']}.load."
            )
        made = cls.__new__(cls)
        _restore(made, document, arrays, module)
        return made

    def __getstate__(self) -> dict[str, Any]:
        extras = {n: getattr(self, n) for n in _NOT_SAVED if hasattr(self, n)}
        trained = getattr(self, "module_", None)
        if trained is not None and extras.get("module") is not None:
            extras["module"] = trained
        return {
            "document": _text(_document(self)),
            "arrays": _arrays(self),
            "extras": {n: v for n, v in extras.items() if v is not None},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        extras = dict(state["extras"])
        document = json.loads(state["document"])
        _restore(self, document, state["arrays"], extras.get("module"))
        for name, value in extras.items():
            setattr(self, name, value)


# -- to text and arrays --------------------------------------------------------------------
def _text(document: dict[str, Any]) -> str:
    # Keys stay in order: that of a schema's columns is the order of the encoded columns.
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def _arrays(estimator: Any) -> dict[str, NDArray[Any]]:
    if not hasattr(estimator, "module_"):
        return {}
    state = estimator.module_.state_dict()
    return {f"module.{n}": np.ascontiguousarray(t.cpu().numpy()) for n, t in sorted(state.items())}


def _document(estimator: Any) -> dict[str, Any]:
    import privfair

    out: dict[str, Any] = {
        "format": FORMAT,
        "schema": _VERSION,
        "class": type(estimator).__name__,
        "privfair": privfair.__version__,
        "parameters": {
            name: _encode(value)
            for name, value in sorted(estimator.get_params(deep=False).items())
            if name not in _NOT_SAVED
        },
    }
    if hasattr(estimator, "module_"):
        out["fitted"] = _fitted(estimator)
    return out


def _fitted(estimator: Any) -> dict[str, Any]:
    plan = estimator.plan_
    out = {name: _encode(getattr(estimator, name)) for name in estimator._saved_attributes}
    if hasattr(estimator, "feature_names_in_"):
        out["feature_names_in_"] = [str(n) for n in estimator.feature_names_in_]
    if hasattr(estimator, "classes_"):
        out["classes_"] = _encode(estimator.classes_)
    out["layers"] = None if estimator.module is not None else _sizes(estimator.module_)
    if hasattr(estimator, "activation"):
        out["activation"] = estimator.activation
    out["plan"] = {
        "n_public": plan.n_public,
        "expected_batch_size": plan.expected_batch_size,
        "steps": plan.steps,
        "max_grad_norm": plan.max_grad_norm,
        "noise_multiplier": plan.noise_multiplier,
        "relation": plan.relation,
        "statistic": plan.statistic and [plan.statistic.noise_multiplier, plan.statistic.every],
    }
    out["encoding"] = estimator.encoding_.to_dict()
    out["privacy"] = estimator.privacy_.to_dict()
    return out


def _sizes(module: nn.Module) -> list[int]:
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return [linear[0].in_features, *(part.out_features for part in linear)]


def _encode(value: Any) -> Any:
    if isinstance(value, Schema):
        return {"__schema__": value.to_dict()}
    if isinstance(value, tuple(CLIPPINGS.values())):
        return {
            "__clipping__": type(value).__name__,
            **{name: _encode(part) for name, part in vars(value).items()},
        }
    if isinstance(value, dict):
        return {"__mapping__": [[_encode(k), _encode(v)] for k, v in value.items()]}
    if isinstance(value, Categorical | Numeric):
        return {"__column__": Schema({"c": value}).to_dict()}
    if isinstance(value, np.ndarray):
        return {"__array__": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    return None  # generators and other objects are not part of what was learnt


# -- from text and arrays ------------------------------------------------------------------
def _decode(value: Any) -> Any:
    if isinstance(value, dict) and "__schema__" in value:
        return Schema.from_dict(value["__schema__"])
    if isinstance(value, dict) and "__clipping__" in value:
        fields = {n: _decode(part) for n, part in value.items() if n != "__clipping__"}
        return CLIPPINGS[value["__clipping__"]](**fields)
    if isinstance(value, dict) and "__mapping__" in value:
        return {_decode(k): _decode(v) for k, v in value["__mapping__"]}
    if isinstance(value, dict) and "__column__" in value:
        return Schema.from_dict(value["__column__"])["c"]
    if isinstance(value, dict) and "__array__" in value:
        return np.array(value["__array__"], dtype=np.dtype(value["dtype"]))
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return math.inf if value == "inf" else value


def _restore(
    made: Any, document: dict[str, Any], arrays: dict[str, Any], module: nn.Module | None
) -> None:
    parameters = {name: _decode(value) for name, value in document["parameters"].items()}
    for name in made._get_param_names():
        setattr(made, name, parameters.get(name))
    fitted = document.get("fitted")
    if fitted is None:
        return
    for name in made._saved_attributes:
        setattr(made, name, _decode(fitted[name]))
    if "feature_names_in_" in fitted:
        made.feature_names_in_ = np.array(fitted["feature_names_in_"], dtype=object)
    if "classes_" in fitted:
        made.classes_ = _decode(fitted["classes_"])
    plan = dict(fitted["plan"])
    if plan["statistic"] is not None:
        plan["statistic"] = StatisticPlan(*plan["statistic"])
    made.plan_ = TrainingPlan(**plan)
    made.encoding_ = Encoding.from_dict(fitted["encoding"])
    made.privacy_ = _guarantee(fitted["privacy"])
    made.events_ = made.privacy_.events
    made.module_ = _module(fitted["layers"], arrays, module, fitted.get("activation", "tanh"))
    made.module = module


def _module(
    layers: list[int] | None,
    arrays: dict[str, Any],
    module: nn.Module | None,
    activation: str = "tanh",
) -> nn.Module:
    if layers is None and module is None:
        raise InvalidParameterError(
            "a custom module was trained and its code is not in the file: pass the module, "
            "load(path, module=...)."
        )
    import copy

    made = linear_layers(layers, activation) if layers is not None else copy.deepcopy(module)
    assert made is not None
    state = {n.removeprefix("module."): torch.from_numpy(np.array(a)) for n, a in arrays.items()}
    try:
        made.load_state_dict(state)
    except RuntimeError as error:
        raise DataIntegrityError(
            "the weights in the file do not fit the module; the file or the module is another one."
        ) from error
    return made.eval().requires_grad_(False)


def _guarantee(data: dict[str, Any]) -> PrivacyGuarantee:
    from privfair.accounting.events import event_from_dict

    fields = {k: v for k, v in data.items() if k not in ("certified", "events")}
    for name in ("epsilon", "lower", "order"):
        fields[name] = math.inf if fields[name] == "inf" else fields[name]
    return PrivacyGuarantee(
        **fields, events=tuple(event_from_dict(event) for event in data["events"])
    )


# -- files ---------------------------------------------------------------------------------
def _write(path: Path, data: bytes) -> None:
    """Write to a temporary file and rename, so that a reader never sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    tensors = path / _TENSORS if path.is_dir() else path
    if not tensors.is_file():
        raise FileNotFoundError(f"no saved estimator at {path}.")
    data = tensors.read_bytes()
    arrays, metadata = _tensors(data, tensors)
    if path.is_dir():
        text_path = path / _TEXT
        if not text_path.is_file():
            raise DataIntegrityError(f"{text_path} is absent: the folder holds half an estimator.")
        if text_path.stat().st_size > _MAX_TEXT:
            raise UnsafeFileError(f"{text_path} is larger than any description of ours.")
        text = text_path.read_text(encoding="utf-8")
    else:
        text = metadata.get("privfair", "")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"{path} was not written by privfair.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UnsafeFileError(f"{path} was not written by privfair.")
    if int(document["schema"]) > _VERSION:
        raise SchemaVersionError(
            f"{path} has version {document['schema']}; this privfair reads up to {_VERSION}. "
            "Install a newer one."
        )
    if path.is_dir() and document.get("sha256") != hashlib.sha256(data).hexdigest():
        raise DataIntegrityError(f"{tensors} is not the file that {_TEXT} describes.")
    return document, arrays


def _tensors(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors.numpy import load as from_bytes

    try:
        size = int.from_bytes(data[:8], "little")
        if size > _MAX_TEXT:
            raise ValueError("header too large")
        header = json.loads(data[8 : 8 + size])
        return from_bytes(data), dict(header.get("__metadata__", {}))
    except Exception as error:  # the library's own error class derives from Exception alone
        # Asked only now: the length of a sound header may begin with a pickle's first byte.
        if data[:1] == b"\x80" or data[:2] == b"PK":
            raise UnsafeFileError(
                f"{path} is a pickle or a zip of one. Loading it would execute code from it; "
                "privfair reads its own safetensors files only."
            ) from error
        raise UnsafeFileError(f"{path} is no safetensors file.") from error
