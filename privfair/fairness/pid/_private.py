"""The decomposition of a table that was released under differential privacy.

Everything here but :func:`release_rows` is post-processing: it reads the noisy counts and nothing
else, and its intervals cover sampling and noise together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import NullReference
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    PrivacyError,
    SchemaError,
)
from privfair.core.statistics import null_reference
from privfair.fairness._contingency import ContingencyRelease
from privfair.fairness._release import ledger_per_record, release_contingency
from privfair.fairness.metrics._resample import Streams
from privfair.fairness.pid._analysis import Analysis, Settings, plain_parts, solve
from privfair.fairness.pid._codes import check_public, check_settings, check_size
from privfair.fairness.pid._data import EVERYTHING, SEVERAL, PIDTable, encode, sum_groups
from privfair.fairness.pid._gaps import by_client
from privfair.fairness.pid._tests import BLOCK
from privfair.fairness.pid._uncertainty import (
    PARTS,
    SIGNED,
    Parts,
    consistent_parts,
    part_values,
)

__all__ = ["AXES", "analyse_release", "release_rows", "table_of_release"]

Floats = NDArray[np.float64]

AXES = ("y", "z", "yhat", "s")
PURPOSE = "fairness: decomposition over clients"
_STANDARD_ERRORS = 2.0


def release_rows(
    y_pred: Any,
    *,
    sensitive_features: Any,
    client: Any,
    privacy: Any,
    y_true: Any = None,
    sample_weight: Any = None,
    bins: Any = None,
    condition: str | None = None,
    groups: Any = None,
    clients: Any = None,
    labels: Any = None,
    min_cell: int = 10,
    allow_small: bool = False,
    merge_clients_below: int | None = None,
    smoothing: float = 0.0,
    ledger: Any = None,
    noise_random_state: int | None = None,
    **declared: Any,
) -> tuple[ContingencyRelease, PIDTable]:
    """Release the table of rows, once; charged to the ledger before the noise is drawn.

    One row enters one cell. The neighbouring relation is the ledger's; without a ledger it is
    ``zero_out``. Every declared cell is released, also an empty one, and no rule about the
    table's shape looks at the rows. ``min_cell`` is not applied, for it would read exact counts.
    """
    check_settings(bins, condition, min_cell, allow_small, merge_clients_below, y_true)
    check_public(bins, groups, clients, labels, condition, merge_clients_below, smoothing)
    if sample_weight is not None:
        raise PrivacyError(
            "sample_weight under privacy= is not supported: one record's weight has no public "
            "bound here, so that no noise would cover it. Leave the weights out."
        )
    book = ledger_per_record(ledger)
    relation = getattr(book, "neighboring", "zero_out")
    found = encode(
        y_pred,
        sensitive_features=sensitive_features,
        client=client,
        y_true=y_true,
        bins=bins,
        condition=condition,
        groups=groups,
        clients=clients,
        labels=labels,
        public_only=True,
        empty=relation == "add_remove",  # no rows is a private fact there
        **declared,
    )
    if len(found.labels[1]) < 2:
        raise InvalidParameterError(
            "groups must declare at least two groups: with one there is nothing to decompose."
        )
    if not bool(found.inside.all()):
        raise SchemaError(
            "some rows have a group, decision, label or client outside the declared ones. "
            "Declare every value that could occur (decisions are 0 and 1, or scores between, if "
            "they are not declared); nothing was charged."
        )
    z_labels = tuple(SEVERAL.join(group) for group in found.labels[1])
    named = (found.labels[0], z_labels, *found.labels[2:])
    kept = range(0 if condition else 1, 4)
    check_size(tuple(len(values) for values in named))
    release = release_contingency(
        {AXES[i]: np.asarray(found.codes[i]) for i in kept},
        {AXES[i]: list(range(len(named[i]))) for i in kept},
        privacy=privacy,
        neighboring=relation,
        ledger=book,
        purpose=PURPOSE,
        noise_random_state=noise_random_state,
    )
    release = replace(release, categories=tuple(named[i] for i in kept))
    table = table_of_release(release, groups=found.labels[1], features=found.features)
    return release, replace(table, edges=found.edges)


def table_of_release(
    release: ContingencyRelease, *, groups: Any = None, features: tuple[str, ...] = ("z",)
) -> PIDTable:
    """Return a released table with axes z, yhat, s and perhaps y as the table to decompose.

    Its sums are the repaired distribution times the number of rows; its counts are noisy and
    may be negative.
    """
    order = _order(release)
    sums = _oriented(release.probabilities() * release.n, release)
    counts = _oriented(release.counts.astype(float), release).astype(np.int64)
    values = [release.categories[i] for i in order]
    strata = tuple(values.pop(0)) if len(order) == 4 else EVERYTHING
    z = tuple((str(value),) for value in values[0]) if groups is None else tuple(groups)
    return PIDTable(counts, sums, sums, z, features, tuple(values[1]), tuple(values[2]), strata)


def _order(release: ContingencyRelease) -> list[int]:
    if not isinstance(release, ContingencyRelease):
        raise InvalidTypeError(
            f"release must be a ContingencyRelease, got {type(release).__name__}. Rows go to fit."
        )
    wanted = [name for name in AXES if name != "y" or "y" in release.axes]
    if sorted(release.axes) != sorted(wanted):
        raise InvalidParameterError(
            "a released table for this decomposition has the axes 'z', 'yhat' and 's', and 'y' "
            f"to condition on; got {release.axes}."
        )
    return [release.axes.index(name) for name in wanted]


def _oriented(tables: Floats, release: ContingencyRelease) -> Floats:
    """Return tables (..., *release.shape) as (..., n_strata, |Z|, m, K)."""
    order = _order(release)
    lead = tables.ndim - len(order)
    turned = np.transpose(tables, [*range(lead), *(lead + i for i in order)])
    return turned if len(order) == 4 else np.expand_dims(turned, axis=lead)


def analyse_release(
    release: ContingencyRelease,
    table: PIDTable,
    settings: Settings,
    *,
    position: int | None = None,
) -> Analysis:
    """Return the parts of a released table; intervals cover sampling and noise.

    The parts of the repaired table are biased: noise looks like dependence, and the projection
    on distributions drops small cells. The parametric bootstrap (a sample from the repaired
    table, fresh noise, the same repair) shows the size of this, and the interval is moved by
    it. A part below two standard errors gets a one-sided bound. ``position`` is for one
    sensitive column alone, the others summed out of the released table.
    """
    regroup = None
    if position is not None:
        regroup = table.regrouping(position)
        table = table.attribute(position)
    result = solve(table, settings)
    values = plain_parts(table, result)
    streams = Streams(settings.random_state)
    size = settings.n_resamples if settings.ci is not None else 0
    se = intervals = bias = corrected = None
    boundary: dict[str, bool] = dict.fromkeys(PARTS, True)
    how = ""
    if size >= 2:
        joint = release.probabilities()
        drawn = _replicates(release, joint, size, streams.get("noise"), settings, regroup)
        se = {name: float(np.std(drawn[name], ddof=1)) for name in PARTS}
        bias = {name: float(drawn[name].mean()) - values[name] for name in PARTS}
        corrected = _corrected(values, bias) if settings.bias_correction else None
        centre = corrected or values
        intervals, boundary = {}, {}
        degrees = _degrees(table)
        for name in PARTS:
            intervals[name], boundary[name] = _interval(
                drawn[name], values[name], centre[name], bias[name], degrees[name], settings, name
            )
        # The client's curve, lifted by noise, hides at most this much of the unique part.
        hidden = max(bias["redundant"] + bias["unique_client"] + bias["unique"], 0.0)
        low, high = intervals["unique"]
        intervals["unique"] = low, high + hidden
        how = f"parametric bootstrap of {size} released tables, through sampling and noise"
    return Analysis(
        values=values,
        corrected=corrected,
        bias=bias,
        se=se,
        intervals=intervals,
        boundary=boundary,
        nulls=_nulls(release, table, settings, values, size, streams)
        if regroup is None
        else dict.fromkeys(PARTS),
        clients=by_client(table.sums),
        tests=None,
        gap=float((table.shares * result.certificate_gap).sum()),
        converged=bool(result.converged.all()),
        method="+".join(sorted(set(np.atleast_1d(result.method).tolist()))),
        interval_method=how,
        confidence=settings.confidence,
        n=release.n,
        privacy=release.privacy,
        release=release,
    )


def _replicates(
    release: ContingencyRelease,
    joint: Floats,
    size: int,
    rng: np.random.Generator,
    settings: Settings,
    regroup: NDArray[np.int64] | None = None,
) -> Parts:
    """Return the parts of tables released from samples of ``joint``."""
    out = {name: np.empty(size) for name in PARTS}
    step = max(1, BLOCK // release.counts.size)
    p = joint.reshape(-1) / joint.sum()
    device = settings.where()
    for first in range(0, size, step):
        block = min(step, size - first)
        drawn = rng.multinomial(release.n, p, size=block).reshape(block, *release.shape)
        noisy = drawn + release.noise.simulate(drawn.shape, rng)
        repaired = _oriented(release.repaired(noisy), release)
        if regroup is not None:
            repaired = sum_groups(repaired, regroup)
        for name, values in part_values(repaired, device).items():
            out[name][first : first + block] = values
    return out


def _corrected(values: Parts, bias: Parts) -> Parts:
    """Return the parts less the bias that sampling, noise and repair have; never negative."""
    moved = {name: values[name] - bias[name] for name in PARTS}
    return consistent_parts(
        moved["unique"],
        moved["global_disparity"],
        moved["local_disparity"],
        moved["redundant"] + moved["unique_client"],
    )


def _degrees(table: PIDTable) -> dict[str, int]:
    """Return how many independent contrasts each part is a sum of squares of, near zero."""
    strata, groups, decisions, clients = table.counts.shape
    overall = strata * (groups - 1) * (decisions - 1)
    return {
        "unique": overall,
        "redundant": min(overall, strata * (groups - 1) * (clients - 1)),
        "masked": overall * clients,
        "global_disparity": overall,
        "local_disparity": overall * clients,
        "unique_client": strata * (groups - 1) * (clients - 1),
        "coinformation": overall * clients,
    }


def _interval(
    drawn: Floats,
    value: float,
    centre: float,
    bias: float,
    degrees: int,
    settings: Settings,
    name: str,
) -> tuple[tuple[float, float], bool]:
    signed, confidence = name in SIGNED, settings.confidence
    boundary = not signed and centre <= _STANDARD_ERRORS * float(np.std(drawn, ddof=1))
    tail = (1 - confidence) if boundary else (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], method="weibull")
    # Each replicate is off twice: as the value is, and once more by its own noise. Near zero a
    # part is a sum of squares of d contrasts. The bound on a single one, (|x| + z sd)^2, is right
    # as it stands, for there the bias is part of the spread; with more of them it is a shift.
    shift = bias * (1 - 1 / max(degrees, 1)) if boundary else 2 * bias
    low, high = float(low) - shift, float(high) - shift
    if not signed:
        low, high = max(low, 0.0), max(high, 0.0)
    if boundary:
        low = 0.0
    return (min(low, value), max(high, value)), boundary


def _nulls(
    release: ContingencyRelease,
    table: PIDTable,
    settings: Settings,
    values: Parts,
    size: int,
    streams: Streams,
) -> dict[str, NullReference | None]:
    """Return what a released table would show without disparity, overall and within clients."""
    nulls: dict[str, NullReference | None] = dict.fromkeys(PARTS)
    if size < 1:
        return nulls
    sums = table.sums / table.sums.sum()
    by_group = sums.sum(axis=2, keepdims=True)
    within = by_group.sum(axis=1, keepdims=True)
    local = by_group * _share(sums.sum(axis=1, keepdims=True), within)
    overall = by_group * _share(
        sums.sum(axis=(1, 3), keepdims=True), sums.sum(axis=(1, 2, 3), keepdims=True)
    )
    for joint, purpose, names in (
        (overall, "null overall", ("global_disparity", "redundant")),
        (local, "null within clients", ("local_disparity", "unique", "masked")),
    ):
        turned = np.moveaxis(joint if "y" in release.axes else joint[0],
                             range(len(release.axes)), np.array(_order(release)))  # fmt: skip
        drawn = _replicates(release, turned, size, streams.get(purpose), settings)
        for name in names:
            nulls[name] = null_reference(values[name], drawn[name])
    return nulls


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
