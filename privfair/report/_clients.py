"""Which client (hospital, branch, site) each audited row belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import DataError
from privfair.core.frames import as_table, missing_mask
from privfair.report._clean import clean_label, unique_labels
from privfair.report._config import AuditConfig

__all__ = ["OTHER", "Clients", "read_clients"]

OTHER = "other (small clients)"
MAX_NAMED = 20


@dataclass(frozen=True, eq=False)
class Clients:
    """The client of each row.

    Attributes
    ----------
    name : str
        Name of the column.
    labels : tuple of str
    codes : ndarray of int
        Index into ``labels`` for each row.
    pooled : tuple of str
        Clients that were merged into one, being small.
    other : str
        Name of that one, which no other client has.
    """

    name: str
    labels: tuple[str, ...]
    codes: NDArray[np.int64]
    pooled: tuple[str, ...] = ()
    other: str = OTHER

    @property
    def several(self) -> bool:
        """Whether there is anything to split over."""
        return len(self.labels) > 1

    def values(self) -> NDArray[Any]:
        """Return the label of each row."""
        return np.array(self.labels, dtype=object)[self.codes]

    def pooling(self, limit: int) -> str:
        """Say which clients were merged; nothing if none were."""
        if not self.pooled:
            return ""
        named = ", ".join(self.pooled[:MAX_NAMED])
        more = len(self.pooled) - MAX_NAMED
        return (
            f"Clients with fewer than {limit} rows are one client, '{self.other}': {named}"
            + (f" and {more} more" if more > 0 else "")
            + "."
        )


def read_clients(client: Any, config: AuditConfig) -> Clients | None:
    """Return the clients, small ones merged, or None where no column was given."""
    if client is None:
        return None
    table = as_table(client, name="client", prefix="client")
    if len(table.columns) != 1:
        raise DataError(
            f"client must be one column, got {len(table.columns)}: it says which hospital, branch "
            "or site a row comes from. Join several columns into one."
        )
    raw = table.columns[0]
    named = isinstance(client, Mapping) or getattr(client, "name", None) or hasattr(
        client, "columns"
    )  # fmt: skip
    values = table.column(raw)
    gone = missing_mask(values)
    if gone.any() and config.missing_group is None:
        raise DataError(
            f"client has {int(gone.sum())} missing values of {gone.size}. Each row comes from "
            "some client; pass missing_group='missing' (on the command line --missing-group) to "
            "count them as a client of their own."
        )
    text = [
        config.missing_group if lost else _text(v)
        for v, lost in zip(values.tolist(), gone.tolist(), strict=True)
    ]
    found, codes, counts = np.unique(
        np.array(text, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    if len(found) == len(text) and len(text) > 1:
        raise DataError(
            f"client has a distinct value in each of the {len(text)} rows: it identifies rows. "
            "Give the column that says where a row comes from."
        )
    labels = unique_labels(found.tolist(), 40)
    names = [labels[v] for v in found.tolist()]
    limit = config.merge_clients_below
    small = [k for k in range(len(names)) if counts[k] < limit]
    if len(small) < 2:  # one small client alone has nothing to be merged with
        small = []
    kept = [k for k in range(len(names)) if k not in set(small)]
    other = OTHER
    while other in names:  # a client may be called so
        other += "*"
    shown = [names[k] for k in kept] + ([other] if small else [])
    place = np.full(len(names), len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    return Clients(
        clean_label(raw) if named else "client",
        tuple(shown),
        place[codes.ravel()],
        tuple(names[k] for k in small),
        other,
    )


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
