"""The table of group, client, label and response that the frontier is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privfair.cli._common import clean
from privfair.cli.fairness._table import Rows

if TYPE_CHECKING:
    from privfair.fairness import ContingencyRelease

__all__ = ["Counts", "counted", "released"]

BINS = 10


@dataclass(frozen=True, eq=False)
class Counts:
    """A joint distribution of group, client, label and response.

    Attributes
    ----------
    p : ndarray of shape (n_groups, n_clients, 2, n_responses)
    groups, clients : list of str
    decided : ndarray of int of shape (n_responses,)
        The decision given with each response: a response refines it, so that the decisions as
        they are are one of the rules.
    n : int
    release : ContingencyRelease or None
    """

    p: Any
    groups: list[str]
    clients: list[str]
    decided: Any
    n: int
    release: ContingencyRelease | None = None


def counted(rows: Rows) -> Counts:
    """Count the rows as they are."""
    import numpy as np
    import pandas as pd

    from privfair.core.exceptions import SingleGroupError

    _no_quantity(rows)
    found = [pd.factorize(column.astype(str), sort=True) for _, column in rows.sensitive.items()]
    shape = [len(names) for _, names in found]
    seen, z = np.unique(np.ravel_multi_index([c for c, _ in found], shape), return_inverse=True)
    places = zip(*np.unravel_index(seen, shape), strict=True)
    groups = [" x ".join(str(found[j][1][k]) for j, k in enumerate(place)) for place in places]
    if len(groups) < 2:
        raise SingleGroupError(
            f"the rows are of one group only ({clean(groups[0])}), so that there is nothing to "
            "compare."
        )
    s, clients = np.zeros(len(z), dtype=int), ["all rows"]
    if rows.client is not None:
        s, names = pd.factorize(rows.client.astype(str), sort=True)
        clients = [str(name) for name in names]
    bins = np.zeros(len(z), dtype=int)
    if rows.score is not None:
        edges = np.unique(np.quantile(rows.score, np.arange(1, BINS) / BINS))
        bins = np.searchsorted(edges, rows.score, side="right")
    r, responses = pd.factorize(2 * bins + rows.decisions, sort=True)
    table = (len(groups), len(clients), 2, len(responses))
    code = np.ravel_multi_index((z.ravel(), s, rows.labels, r), table)
    counts = np.bincount(code, minlength=math.prod(table)).reshape(table)
    return Counts(counts / counts.sum(), groups, clients, responses % 2, len(z))


def released(
    rows: Rows, given: dict[str, Any], groups: dict[str, list[str]], clients: list[str] | None
) -> Counts:
    """Release the table of public groups, clients and responses; charged before its noise."""
    import itertools

    import numpy as np

    from privfair.accounting import Ledger
    from privfair.core.exceptions import DataError, SensitiveFeatureError
    from privfair.core.privacy import Budget
    from privfair.fairness import release_contingency

    parts = [
        _places(rows.sensitive[name], values, SensitiveFeatureError(
            f"sensitive feature {name!r} has groups that are not among the declared ones. Declare "
            "every group that could occur."))
        for name, values in groups.items()
    ]  # fmt: skip
    names = [" x ".join(values) for values in itertools.product(*groups.values())]
    z = np.ravel_multi_index(parts, [len(values) for values in groups.values()])
    s = np.zeros(len(z), dtype=int)
    if clients is not None:
        s = _places(rows.client, clients, DataError(
            "client has clients that are not among the declared ones. Declare every client that "
            "could occur."))  # fmt: skip
    r, decided = _responses(rows, given["threshold"])
    axes = {"z": z, "client": s, "y": rows.labels, "r": r}
    sizes = (len(names), 1 if clients is None else len(clients), 2, len(decided))
    release = release_contingency(
        axes,
        {name: list(range(size)) for name, size in zip(axes, sizes, strict=True)},
        privacy=Budget(given["epsilon"]),
        ledger=Ledger(given["ledger_path"], dataset_id=f"{rows.name} audited rows"),
        purpose="accuracy-fairness frontier: table",
    )
    return Counts(
        release.probabilities(), names, clients or ["all rows"], decided, release.n, release
    )


def _responses(rows: Rows, threshold: float | None) -> tuple[Any, Any]:
    """Return each row's response and the decision of each, by public edges on [0, 1]."""
    import numpy as np

    if rows.score is None:
        return rows.decisions, np.arange(2)
    edges = np.arange(1, BINS) / BINS
    if threshold is not None:  # the decision is a matter of the score
        edges = np.unique([*edges, threshold])
        bins = np.searchsorted(edges, rows.score, side="right")
        return bins, (np.concatenate([[-np.inf], edges]) >= threshold).astype(int)
    bins = np.searchsorted(edges, rows.score, side="right")
    return 2 * bins + rows.decisions, np.arange(2 * BINS) % 2


def _places(column: Any, values: list[str], error: Exception) -> Any:
    import numpy as np

    known = {value: i for i, value in enumerate(values)}
    found = np.array([known.get(str(v), -1) for v in column.tolist()], dtype=np.int64)
    if (found < 0).any():
        raise error
    return found


def _no_quantity(rows: Rows) -> None:
    from privfair.core.exceptions import SensitiveFeatureError

    frame = rows.sensitive
    for name in frame.columns:
        if frame[name].dtype.kind == "f" and frame[name].nunique() > 12:
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} is a quantity; declare its cuts: --bin {name}=A,B."
            )
