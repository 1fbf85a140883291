"""Saving and loading a fitted SEPClassifier: numbers and JSON, no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from privfair.core.exceptions import (
    InvalidParameterError,
    OutputTargetError,
    SchemaVersionError,
    UnsafeFileError,
)
from privfair.fairness.sep._composite import rule_from_dict
from privfair.fairness.sep._effort import EffortRule
from privfair.fairness.sep._network import Network
from privfair.fairness.sep._post import ThresholdMix
from privfair.fairness.sep._rules import Rule

__all__ = ["SavedSEPMixin"]

_FORMAT, _VERSION = "privfair-sep-classifier", 1
_MOST = 64 << 20
_TABLES = ("multipliers_", "violations_", "base_rates_", "gaps_")


class SavedSEPMixin:
    """``save`` and ``load`` of models that this package trained itself; state for skops."""

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {k: _plain(v) if k in _TABLES else v for k, v in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = {k: _table(v) if k in _TABLES else v for k, v in state.items()}
        super().__setstate__(made)  # type: ignore[misc]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to one file.

        It holds parameters, settings and exact training statistics. With randomised thresholds it
        also holds scores of some training rows, and with a rule by quantile the value of one.

        Parameters
        ----------
        path : path-like
            A file; its folder must exist.

        Raises
        ------
        OutputTargetError
            The folder is absent.
        InvalidParameterError
            The model holds an estimator of another package; save it with skops.
        """
        from safetensors.numpy import save as to_bytes
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "classes_")
        target = Path(path)
        if not target.parent.is_dir() or target.is_dir():
            raise OutputTargetError(f"{target} cannot be written; name a file in a folder.")
        if not hasattr(self, "network_"):
            raise InvalidParameterError(
                "the model holds estimators of another package, which this format does not "
                "describe. Save the whole object with skops.io.dump."
            )
        arrays = {
            "theta": np.ascontiguousarray(self.model_, dtype=np.float64),  # type: ignore[attr-defined]
            "mean": np.ascontiguousarray(self.network_.mean),
            "scale": np.ascontiguousarray(self.network_.scale),
        }
        text = json.dumps(_document(self), allow_nan=False)
        temporary = target.with_name(target.name + ".part")
        temporary.write_bytes(to_bytes(arrays, metadata={"privfair": text}))
        temporary.replace(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a classifier that :meth:`save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        SEPClassifier

        Raises
        ------
        UnsafeFileError
            It is no file of ours.
        SchemaVersionError
            A newer version of privfair wrote it.
        """
        from safetensors.numpy import load as from_bytes

        data = Path(path).read_bytes()
        try:
            size = int.from_bytes(data[:8], "little")
            if size > _MOST:
                raise ValueError("header too large")
            header = json.loads(data[8 : 8 + size])
            document = json.loads(header["__metadata__"]["privfair"])
            if document["format"] != _FORMAT:
                raise ValueError("another format")
            arrays = from_bytes(data)
        except Exception as error:  # the library's own error class derives from Exception alone
            raise UnsafeFileError(f"{path} was not written by SEPClassifier.save.") from error
        version = document.get("version")
        if not isinstance(version, int) or isinstance(version, bool):
            raise UnsafeFileError(f"{path} was not written by SEPClassifier.save.")
        if version > _VERSION:
            raise SchemaVersionError(
                f"{path} has version {version}; this privfair reads up to {_VERSION}. "
                "Install a newer one."
            )
        try:
            made = _restored(cls, document, arrays)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UnsafeFileError(
                f"{path} was changed or damaged: its parts do not fit together."
            ) from error
        return made


def _plain(table: Any) -> dict[str, Any]:
    """Return a series or frame as lists."""
    return {
        "columns": [str(c) for c in table.columns] if table.ndim == 2 else None,
        "names": [None if n is None else str(n) for n in table.index.names],
        "index": [list(i) if isinstance(i, tuple) else i for i in table.index.tolist()],
        "data": table.to_numpy().tolist(),
    }


def _table(plain: dict[str, Any]) -> Any:
    """Return the series or frame that :func:`_plain` wrote down."""
    import pandas as pd

    labels, names = plain["index"], plain["names"]
    if len(names) > 1:
        index = pd.MultiIndex.from_tuples([tuple(i) for i in labels], names=names)
    else:
        index = pd.Index(labels, name=names[0])
    if plain["columns"] is None:
        return pd.Series(plain["data"], index=index, dtype=float)
    frame = pd.DataFrame(plain["data"], columns=plain["columns"], index=index)
    return frame.astype({"n_target": "int64"})


def _document(model: Any) -> dict[str, Any]:
    import privfair

    tables = {name: _plain(getattr(model, name)) for name in _TABLES}
    mixes = model.mixes_
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "privfair": privfair.__version__,
        "parameters": {
            name: _encoded(value)
            for name, value in sorted(model.get_params(deep=False).items())
            if name not in ("estimator", "random_state")
        },
        "sizes": list(model.network_.sizes),
        "classes": model.classes_.tolist(),
        "threshold": model.threshold_,
        "mixes": None
        if mixes is None
        else [[k, [_finite(t) for t in m.thresholds], list(m.weights)] for k, m in mixes.items()],
        "rounds": model.n_rounds_,
        "iterations": model.n_iter_,
        "converged": model.converged_,
        "needs_attributes": model.needs_attributes_,
        "ses_rule": _encoded(model.ses_rule_),
        "effort_rule": _encoded(model.effort_rule_),
        "groups": [list(label) for label in model.groups_],
        "feature_names": [str(n) for n in getattr(model, "feature_names_in_", [])],
        "tables": tables,
    }


def _finite(value: float) -> float | str:
    return float(value) if np.isfinite(value) else str(value)


def _encoded(value: Any) -> Any:
    if isinstance(value, Rule):
        return {"ses": value.to_dict()}
    if isinstance(value, EffortRule):
        return {"effort": value.to_dict()}
    if isinstance(value, tuple | list | set):
        return [_encoded(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if "ses" in value:
            return rule_from_dict(value["ses"])
        return EffortRule.from_dict(value["effort"])
    return tuple(value) if isinstance(value, list) else value


def _restored(cls: Any, document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    made = cls(**{name: _decoded(v) for name, v in document["parameters"].items()})
    made.network_ = Network(tuple(document["sizes"]), arrays["mean"], arrays["scale"])
    made.model_ = arrays["theta"]
    network, width = made.network_, document["sizes"][0]
    if (
        made.model_.shape != (network.n_parameters,)
        or any(a.shape != (width,) for a in (network.mean, network.scale))
        or not all(np.isfinite(a).all() for a in arrays.values())
        or len(document["classes"]) != 2
    ):
        raise ValueError("the arrays do not fit the sizes, or are not finite")
    made.classes_ = np.array(document["classes"])
    made.threshold_ = float(document["threshold"])
    made.mixes_ = None
    if document["mixes"] is not None:
        made.mixes_ = {
            int(k): ThresholdMix(tuple(float(v) for v in t), tuple(w))
            for k, t, w in document["mixes"]
        }
    made.n_rounds_, made.converged_ = int(document["rounds"]), bool(document["converged"])
    made.n_iter_ = int(document["iterations"])
    made.needs_attributes_ = bool(document["needs_attributes"])
    made.ses_rule_ = _decoded(document["ses_rule"])
    made.effort_rule_ = _decoded(document["effort_rule"])
    made.groups_ = tuple(tuple(label) for label in document["groups"])
    made.n_features_in_ = len(made.network_.mean)
    if document["feature_names"]:
        made.feature_names_in_ = np.array(document["feature_names"], dtype=object)
    for name, table in document["tables"].items():
        setattr(made, name, _table(table))
    return made
