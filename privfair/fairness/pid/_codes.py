"""Settings of the decomposition, and columns as positions in lists of labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    ProbabilityRangeError,
)
from privfair.core.frames import as_vector, missing_mask

__all__ = [
    "bin_edges",
    "check_public",
    "check_settings",
    "check_size",
    "check_unsmoothed",
    "complete",
    "decision_codes",
    "value_codes",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

THRESHOLD = 0.5
MAX_DECISIONS = 256
MAX_CELLS = 1 << 25


# --- settings -------------------------------------------------------------------------------


def check_settings(
    bins: Any,
    condition: Any,
    min_cell: Any,
    allow_small: Any,
    merge_clients_below: Any,
    y_true: Any,
    smoothing: Any = 0.0,
) -> None:
    """Refuse settings that could not be meant, before any row is read."""
    check.non_negative(smoothing=smoothing)
    check.one_of((None, "y"), condition=condition)
    check.non_negative_int(min_cell=min_cell)
    check.boolean(allow_small=allow_small)
    if merge_clients_below is not None:
        check.positive_int(merge_clients_below=merge_clients_below)
    if condition == "y" and y_true is None:
        raise InvalidParameterError(
            "y_true is None, but condition='y' splits the rows by their label. Pass y_true=..., "
            "or condition=None for the decomposition of the decisions alone."
        )
    if bins is not None:
        bin_edges(bins)


def bin_edges(bins: Any) -> int | tuple[float, ...]:
    """Return a number of bins, or declared edges."""
    if isinstance(bins, bool | str):
        raise InvalidTypeError(f"bins must be a whole number or edges, got {bins!r}.")
    if np.ndim(bins) == 0:
        count = check.positive_int(bins=bins)
        if not 2 <= count <= MAX_DECISIONS:
            raise InvalidParameterError(
                f"bins must be between 2 and {MAX_DECISIONS}, got {count}."
            )
        return count
    try:
        edges = np.asarray(bins, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise InvalidTypeError("bins must be a whole number, or edges that are numbers.") from None
    if edges.size == 0 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise InvalidParameterError(
            f"bins must be finite, strictly increasing edges, got {edges.tolist()}."
        )
    return tuple(edges.tolist())


def check_size(shape: tuple[int, ...]) -> int:
    """Return the number of cells, refusing a table that would not fit."""
    size = math.prod(shape)
    if size > MAX_CELLS:
        raise DataError(
            f"the table would have {size} cells, more than {MAX_CELLS}. Use coarser groups or "
            "decisions, or merge small clients with merge_clients_below=..."
        )
    return size


def check_unsmoothed(smoothing: Any) -> None:
    """Refuse pseudo-counts for a released table."""
    if check.non_negative(smoothing=smoothing) > 0:
        raise InvalidParameterError(
            f"smoothing={smoothing!r} on a table released under differential privacy is not "
            "supported: its bias and its intervals come from repeated releases of the table as it "
            "is, and pseudo-counts would make them wrong. Leave smoothing at 0; noisy cells are "
            "projected on the distributions instead."
        )


def check_public(
    bins: Any, groups: Any, clients: Any, labels: Any, condition: Any, merge: Any, smoothing: Any
) -> None:
    """Refuse what would make the shape of a released table depend on the data, or its use."""
    check_unsmoothed(smoothing)
    missing = [
        name
        for name, value, needed in (
            ("groups", groups, True),
            ("clients", clients, True),
            ("labels", labels, condition == "y"),
        )
        if needed and value is None
    ]
    if missing:
        listed = " and ".join(f"{name}=[...]" for name in missing)
        raise InvalidParameterError(
            f"{listed} must be given under privacy=: which values occur in the data is private, "
            "and every declared cell is released, also an empty one."
        )
    if bins is not None and isinstance(bin_edges(bins), int):
        raise InvalidParameterError(
            "bins as a number reads its edges from the data, which is not private. Under "
            "privacy= pass the edges: bins=[0.2, 0.4, 0.6, 0.8]."
        )
    if merge is not None:
        raise InvalidParameterError(
            "merge_clients_below looks at exact client sizes, which are private under privacy=. "
            "Declare the merged clients yourself."
        )


# --- codes ----------------------------------------------------------------------------------


def value_codes(values: Any, declared: Any, name: str) -> tuple[Ints, tuple[Any, ...]]:
    """Number the values of one column; -1 is outside the declared ones."""
    import pandas as pd

    column = as_vector(values, name=name)
    complete(column, name, public=declared is not None)
    if declared is not None:
        known = _declared(declared, name)
        codes = pd.Index(list(known), dtype=object).get_indexer(pd.Index(column, dtype=object))
        return codes.astype(np.int64), known
    if column.dtype.kind == "f" and not np.equal(column, np.floor(column)).all():
        raise LabelError(
            f"{name} holds numbers with a fractional part, which name nothing. Pass one "
            "identifier per row."
        )
    if column.dtype.kind == "O":
        codes, found = pd.factorize(column)
        order = sorted(range(len(found)), key=lambda i: _order(found[i]))
        rank = np.empty(len(found), dtype=np.int64)
        rank[order] = np.arange(len(found))
        return rank[codes], tuple(_plain(found[i]) for i in order)
    levels, codes = np.unique(column, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), tuple(_plain(v) for v in levels.tolist())


def complete(column: NDArray[Any], name: str, *, public: bool = False) -> None:
    """Refuse missing values and numbers that name nothing; no sizes with ``public``."""
    gone = int(missing_mask(column).sum())
    if gone:
        how_many = "missing values" if public else f"{gone} missing values of {column.size}"
        raise LabelError(
            f"{name} has {how_many}. Drop these rows, or give them a value of their own."
        )
    if column.dtype.kind == "c":
        raise LabelError(f"{name} must hold classes or real numbers, got complex ones.")
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        raise LabelError(f"{name} must be finite in every row, got inf.")


def _order(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _declared(values: Any, name: str) -> tuple[Any, ...]:
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise InvalidTypeError(f"the declared values of {name} must be a list.")
    known = tuple(np.asarray(list(values), dtype=object).tolist())
    if any(isinstance(value, list) for value in known):
        raise InvalidTypeError(f"the declared values of {name} must be a flat list.")
    if missing_mask(np.asarray(known, dtype=object)).any():
        raise InvalidParameterError(
            f"the declared values of {name} hold a missing value, which no row can have."
        )
    if not known or len(set(known)) != len(known):
        raise InvalidParameterError(
            f"the declared values of {name} must name at least one value, each one once."
        )
    return known


def decision_codes(
    y_pred: Any, bins: Any, decisions: Any, public_only: bool
) -> tuple[Ints, tuple[Any, ...], tuple[float, ...] | None]:
    column = as_vector(y_pred, name="y_pred")
    complete(column, "y_pred", public=public_only)
    numeric = column.dtype.kind in "fiub"
    if decisions is not None:
        if bins is not None:
            raise InvalidParameterError(
                "give bins (for scores) or decisions (for classes), not both."
            )
        codes, known = value_codes(column, decisions, "y_pred")
        return codes, known, None
    if bins is not None:
        if not numeric:
            raise InvalidTypeError("bins apply to scores, and y_pred does not hold numbers.")
        return _binned(column.astype(float), bins)
    if public_only:
        if not numeric:
            raise InvalidParameterError(
                "decisions=[...] must be given under privacy= where decisions are text: which "
                "ones occur in the data is private."
            )
        # Classes 0 and 1, or scores; what is neither has no declared decision.
        inside = (column >= 0) & (column <= 1)
        return np.where(inside, column >= THRESHOLD, -1).astype(np.int64), (0, 1), None
    if column.dtype.kind == "f" and not np.equal(column, np.floor(column)).all():
        if column.min() < 0 or column.max() > 1:
            raise ProbabilityRangeError(
                "y_pred holds scores outside [0, 1], for which 0.5 is no threshold. Pass "
                "decisions, or bins=10 to decompose the scores themselves."
            )
        return (column >= THRESHOLD).astype(np.int64), (0, 1), (THRESHOLD,)
    codes, known = value_codes(column, None, "y_pred")
    if len(known) > MAX_DECISIONS:
        raise LabelError(
            f"y_pred holds {len(known)} different values, more than {MAX_DECISIONS}: scores "
            "perhaps. Pass bins=10, or edges."
        )
    return codes, known, None


def _binned(scores: Floats, bins: Any) -> tuple[Ints, tuple[Any, ...], tuple[float, ...]]:
    """Return the bin of every score; a bin holds its lower edge, so that ties stay together."""
    wanted = bin_edges(bins)
    if isinstance(wanted, int):
        levels = np.arange(1, wanted) / wanted
        cuts = np.unique(np.quantile(scores, levels, method="inverted_cdf"))
        edges = tuple(cuts[cuts > scores.min()].tolist())
    else:
        edges = wanted
    codes = np.searchsorted(np.asarray(edges, dtype=float), scores, side="right")
    texts = [f"{edge:.4g}" for edge in edges]
    if len(set(texts)) < len(texts):
        texts = [repr(edge) for edge in edges]
    if not edges:
        return codes.astype(np.int64), ("any score",), edges
    names = [f"< {texts[0]}"]
    names += [f"{a} to < {b}" for a, b in zip(texts[:-1], texts[1:], strict=True)]
    return codes.astype(np.int64), (*names, f">= {texts[-1]}"), edges
