"""A fitted rule on disk: JSON, of which nothing is ever executed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from privfair.core._format import json_number
from privfair.core.exceptions import (
    InvalidParameterError,
    OutputTargetError,
    SchemaVersionError,
    UnsafeFileError,
)
from privfair.core.privacy import Budget, PrivacyGuarantee
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._rule import FairRule
from privfair.fairness.aglfop._scores import ScoreBins

__all__ = ["read", "write"]

_FORMAT = "privfair.AGLFOPPostProcessor"
_VERSION = 1
_MOST_BYTES = 1 << 28
_PLAIN = (
    "criterion", "eps_global", "eps_local", "gap_global", "gap_local", "access", "prefit", "cv",
    "unseen_client", "margin",
    "labels",
)  # fmt: skip


def write(path: str | os.PathLike[str], model: Any) -> None:
    """Write the rule and what it needs to decide, in one step."""
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise OutputTargetError(
            f"{target} is a folder, or lies in one that does not exist. Give a file's name."
        )
    bins: ScoreBins = model._score_bins
    named = getattr(model, "feature_names_in_", None)
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "parameters": {n: getattr(model, n) for n in _PLAIN},
        "random_state": model.random_state if isinstance(model.random_state, int) else None,
        "budget": None if model.privacy is None else model.privacy.to_dict(),
        "method": bins.method,
        "edges": None if bins.edges is None else bins.edges.tolist(),
        "classes": _labels(model.classes_.tolist(), "classes"),
        "groups": [list(group) for group in model.groups_],
        "clients": _labels(list(model.clients_), "clients"),
        "bounds": [
            {**vars(b), "eps_client": sorted((b.eps_client or {}).items())} for b in model._bounds
        ],
        "positive": model._positive,
        "result": model.result_.to_dict(),
        "pooled_rule": model.pooled_rule_.tolist(),
        "margin": model.margin_,
        "label_precision": json_number(model.label_precision_),
        "n_fit": model.n_fit_,
        "private": model.private_,
        "privacy": model.privacy_.to_dict(),
        "n_features_in": getattr(model, "n_features_in_", None),
        "feature_names_in": None if named is None else [str(name) for name in named],
    }
    text = json.dumps(data, sort_keys=True, allow_nan=False, indent=1, ensure_ascii=False)
    draft = target.with_name(target.name + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, target)


def _labels(values: list[Any], name: str) -> list[Any]:
    plain = [v.item() if hasattr(v, "item") else v for v in values]
    if not all(isinstance(v, str | int | float | bool) for v in plain):
        raise InvalidParameterError(
            f"{name} hold values that JSON does not (dates, perhaps). Convert them to text or "
            "numbers before the fit."
        )
    return plain


def read(path: str | os.PathLike[str], cls: Any, estimator: Any) -> Any:
    """Return a fitted post-processor."""
    data = _checked(Path(path), cls)
    found = dict(data["result"])
    found["rule"] = np.array(found["rule"], dtype=float)
    found["prices"] = {n: math.inf if v == "inf" else v for n, v in found["prices"].items()}
    result = FairRule(**found)
    classes = np.array(data["classes"])
    mine = getattr(estimator, "classes_", None)
    if mine is None or np.asarray(mine).tolist() != classes.tolist():
        raise InvalidParameterError(
            "estimator is not fitted, or has other classes than the one under the saved rule."
        )
    budget = data["budget"]
    made = cls(
        estimator,
        **data["parameters"],
        random_state=data["random_state"],
        privacy=None if budget is None else Budget(float(budget["epsilon"]), budget["delta"]),
        groups=[tuple(group) for group in data["groups"]],
        clients=list(data["clients"]),
        bins=data["edges"],
    )
    bounds = tuple(
        FairnessBound(**{**b, "eps_client": dict(b["eps_client"]) or None}) for b in data["bounds"]
    )
    named = [
        replace(
            b, eps_client={made.clients[c]: e for c, e in (b.eps_client or {}).items()} or None
        )
        for b in bounds
    ]
    made.eps_client, made.extra_bounds = named[0].eps_client, tuple(named[1:])
    if isinstance(mine, np.ndarray):
        classes = mine
    edges = None if data["edges"] is None else np.array(data["edges"], dtype=float)
    made.estimator_ = estimator
    made._score_bins = ScoreBins(data["method"], edges, classes)
    made._bounds, made._positive = bounds, int(data["positive"])
    made.classes_, made.result_, made.rule_ = classes, result, result.rule
    made.groups_ = tuple(tuple(group) for group in data["groups"])
    made.clients_ = tuple(data["clients"])
    made.pooled_rule_ = np.array(data["pooled_rule"], dtype=float)
    made.accuracy_, made.accuracy_bound_ = result.accuracy, 1.0 - result.lower
    prefix = made.criterion + ":" if len(bounds) > 1 else ""
    made.prices_, made.price_degenerate_ = result.prices, result.price_degenerate
    made.price_global_ = result.prices.get(prefix + "global", 0.0)
    made.price_local_ = result.prices.get(prefix + "local", 0.0)
    made.status_, made.achieved_, made.gaps_ = result.status, result.achieved, result.gaps
    made.achieved_global_ = result.achieved[prefix + "global"]
    made.achieved_local_ = result.achieved[prefix + "local"]
    made.margin_, made.n_fit_ = data["margin"], int(data["n_fit"])
    made.label_precision_ = float(data["label_precision"])
    made.private_, made.privacy_ = bool(data["private"]), _guarantee(data["privacy"])
    made.release_ = made._table = None
    if data["n_features_in"] is not None:
        made.n_features_in_ = int(data["n_features_in"])
    if data["feature_names_in"] is not None:
        made.feature_names_in_ = np.array(data["feature_names_in"], dtype=object)
    return made


def _checked(source: Path, cls: Any) -> dict[str, Any]:
    problem = f"{source} is not a file that {cls.__name__}.save wrote"
    if source.stat().st_size > _MOST_BYTES:
        raise UnsafeFileError(f"{problem}: it is larger than {_MOST_BYTES} bytes.")
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"{problem}: it is no JSON text. Nothing was executed.") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise UnsafeFileError(f"{problem}: its format is another one.")
    if data.get("version") != _VERSION:
        raise SchemaVersionError(
            f"{source} was saved in version {data.get('version')!r} of its format, and this "
            f"package reads version {_VERSION}. Use a newer privfair."
        )
    return data


def _guarantee(data: dict[str, Any]) -> PrivacyGuarantee:
    from privfair.accounting import event_from_dict

    fields = {k: v for k, v in data.items() if k not in ("certified", "events")}
    for name in ("epsilon", "lower", "order"):
        fields[name] = math.inf if fields[name] == "inf" else fields[name]
    return PrivacyGuarantee(
        **fields, events=tuple(event_from_dict(event) for event in data["events"])
    )
