"""One table in, everything that is known about its parts out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import NullReference
from privfair.core.exceptions import InvalidParameterError
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.randomness import check_random_state
from privfair.core.statistics import null_reference
from privfair.fairness.metrics._resample import Streams
from privfair.fairness.pid._data import PIDTable
from privfair.fairness.pid._errors import QUICK, replicates, second_order_errors
from privfair.fairness.pid._gaps import ClientDisparities, by_client, information_of
from privfair.fairness.pid._joint import PIDResult, decompose
from privfair.fairness.pid._tests import GTest, g_test, permuted_clients, permuted_groups
from privfair.fairness.pid._uncertainty import (
    PARTS,
    SIGNED,
    Parts,
    bootstrap_parts,
    corrected_parts,
    corrections,
    hidden_unique,
    influences,
    joint_and_shares,
    normal_interval,
    part_values,
    shifted_percentiles,
    standard_errors,
    subsample_bound,
    subsampled_parts,
)

__all__ = ["INTERVALS", "Analysis", "Settings", "analyse", "p_value_of", "plain_parts"]

Floats = NDArray[np.float64]

INTERVALS = ("influence", "bootstrap", None)
GLOBAL_NULL = ("global_disparity", "redundant")
LOCAL_NULL = ("local_disparity", "unique", "masked")
_DUST = 1e-12
_STANDARD_ERRORS = 2.0
_FEW = 100


@dataclass(frozen=True)
class Settings:
    """What :class:`PIDDisparity` and the metrics ask for, checked."""

    ci: str | None = "influence"
    confidence: float = 0.95
    n_resamples: int = 1000
    bias_correction: bool = True
    by_client: bool = False
    random_state: Any = None
    device: str | None = None
    tol: float = 1e-7

    def __post_init__(self) -> None:
        check.one_of(INTERVALS, ci=self.ci)
        check.confidence(confidence=self.confidence)
        check.non_negative_int(n_resamples=self.n_resamples)
        check.boolean(bias_correction=self.bias_correction)
        check.boolean(stratify_by_client=self.by_client)
        check.positive(tol=self.tol)
        check_random_state(self.random_state)
        self.where()  # before any data are read, or anything is paid for
        if self.ci == "bootstrap" and self.n_resamples < 2:
            raise InvalidParameterError(
                f"n_resamples must be at least 2 with ci='bootstrap', got {self.n_resamples}."
            )

    def where(self) -> Any:
        """Return the torch device asked for, or None for numpy."""
        if self.device is None:
            return None
        from privfair.core.device import resolve_device

        return resolve_device(self.device)


@dataclass(frozen=True, eq=False)
class Analysis:
    """The parts of a table with everything around them.

    Attributes
    ----------
    values : dict of str to float
        Plug-in parts in bits.
    corrected : dict or None
        The parts less their first-order bias; None with pseudo-counts, which have another.
    bias : dict or None
        That bias; NaN where it was not computed.
    se : dict or None
        Standard errors in bits.
    intervals : dict of str to (float, float) or None
    boundary : dict of str to bool
        Whether the interval is one-sided because the part may be zero: below two standard
        errors, or without a normal law there.
    nulls : dict of str to NullReference or None
        What the part would be without disparity.
    clients : ClientDisparities
    tests : GTest or None
    gap : float
        Certificate of the optimisation, in bits.
    converged : bool
    method : str
        How the optimum was found.
    interval_method : str
    privacy : PrivacyGuarantee or None
    release : ContingencyRelease or None
        The released table, in private mode.
    """

    values: Parts
    corrected: Parts | None
    bias: Parts | None
    se: Parts | None
    intervals: dict[str, tuple[float, float]] | None
    boundary: dict[str, bool]
    nulls: dict[str, NullReference | None]
    clients: ClientDisparities
    tests: GTest | None
    gap: float
    converged: bool
    method: str
    interval_method: str
    confidence: float
    n: int
    privacy: PrivacyGuarantee | None = None
    release: Any = field(default=None, repr=False)


def solve(table: PIDTable, settings: Settings) -> PIDResult:
    """Return the decomposition of every stratum."""
    return decompose(table.joint(), tol=settings.tol, device=settings.where())


def plain_parts(table: PIDTable, result: PIDResult) -> Parts:
    """Return the plug-in parts in bits, the mean over the strata."""
    return {name: float((table.shares * getattr(result, name)).sum()) for name in PARTS}


def analyse(table: PIDTable, settings: Settings) -> Analysis:
    """Return the parts of a table of exact counts, with intervals and tests."""
    result = solve(table, settings)
    rows = influences(table, result)
    values = plain_parts(table, result)
    bias = corrected = None
    if settings.bias_correction and not table.smoothing:
        bias = corrections(table, result, rows)
        corrected = corrected_parts(values, bias)
    centre = corrected or values
    se, reach, boundary = _errors(table, settings, result, rows, centre)
    intervals, how = _intervals(table, settings, values, centre, reach, boundary)
    boundary = boundary if bool(result.converged.all()) else dict.fromkeys(boundary, True)
    nulls = _nulls(table, settings, values)
    permuted = (p_value_of(nulls["global_disparity"]), p_value_of(nulls["local_disparity"]))
    if table.smoothing:  # these are of another statistic than the G-test's, which is of the rows
        permuted = (math.nan, math.nan)
    methods = sorted(set(np.atleast_1d(result.method).tolist()))
    return Analysis(
        values=values,
        corrected=corrected,
        bias=bias,
        se=se,
        intervals=intervals,
        boundary=boundary,
        nulls=nulls,
        clients=by_client(table.sums),
        tests=g_test(table, permuted),
        gap=float((table.shares * result.certificate_gap).sum()),
        converged=bool(result.converged.all()),
        method="+".join(methods),
        interval_method=how,
        confidence=settings.confidence,
        n=table.n,
    )


def _errors(
    table: PIDTable,
    settings: Settings,
    result: PIDResult,
    rows: dict[str, Floats],
    centre: Parts,
) -> tuple[Parts, Parts, dict[str, bool]]:
    """Return standard errors, those of intervals, and which parts may be zero.

    An interval lies about the corrected value, which varies more than the plug-in value whose
    standard error this is; so that it takes the larger of both orders.
    """
    se = reach = standard_errors(table, result, rows, by_client=settings.by_client)
    without = dict.fromkeys(PARTS, False)
    size = replicates(table, settings.n_resamples)
    if size:
        se, without = second_order_errors(
            table,
            result,
            rows,
            size,
            Streams(settings.random_state).get("standard errors"),
            by_client=settings.by_client,
            device=settings.where(),
        )
        reach = {name: max(se[name], reach[name]) for name in PARTS}
    boundary = {
        name: name not in SIGNED
        and (without[name] or centre[name] <= max(_STANDARD_ERRORS * reach[name], _DUST))
        for name in PARTS
    }
    return se, reach, boundary


# --- intervals ------------------------------------------------------------------------------


def _intervals(
    table: PIDTable,
    settings: Settings,
    values: Parts,
    centre: Parts,
    reach: Parts,
    boundary: dict[str, bool],
) -> tuple[dict[str, tuple[float, float]] | None, str]:
    """Return the intervals, one-sided at the boundary, and how they were made."""
    if settings.ci is None:
        return None, ""
    streams = Streams(settings.random_state)
    intervals, how = {}, "influence function"
    device = settings.where()
    if settings.ci == "bootstrap":
        how = f"percentile bootstrap of {settings.n_resamples} tables"
        how += ", by client" if settings.by_client else ""
        drawn = bootstrap_parts(
            table,
            settings.n_resamples,
            streams.get("bootstrap"),
            by_client=settings.by_client,
            device=device,
        )
    draws: Parts = {}
    share = 0.0
    if any(boundary.values()) and settings.n_resamples >= 2:
        size = settings.n_resamples if _quick(table) else min(settings.n_resamples, _FEW)
        draws, share = subsampled_parts(table, size, streams.get("subsample"), device=device)
    for name in PARTS:
        signed = name in SIGNED
        if boundary[name]:
            # Over many clients a subsample's client says so much more than the sample's that no
            # unique part is left in it, and its spread above the value is none.
            _, high = normal_interval(centre[name], reach[name], settings.confidence)
            if draws:
                bound = subsample_bound(
                    draws[name], values[name], centre[name], share, settings.confidence
                )
                high = max(high, bound)
            low = 0.0
        elif settings.ci == "bootstrap":
            low, high = shifted_percentiles(
                drawn[name], values[name], centre[name], settings.confidence, signed=signed
            )
        else:
            low, high = normal_interval(
                centre[name], reach[name], settings.confidence, signed=signed
            )
        if name == "unique":
            high += hidden_unique(table, values[name], centre[name])
        # The plug-in value is reported too, and a reader expects it within the interval.
        intervals[name] = (min(low, values[name]), max(high, values[name]))
    if any(boundary.values()):
        how += "; one-sided bound by subsampling where a part may be zero"
    return intervals, how


def _quick(table: PIDTable) -> bool:
    """Return whether thousands of tables like this one are solved in seconds."""
    _, groups, decisions, clients = table.counts.shape
    return groups == 2 or groups * (decisions + clients) <= QUICK


def p_value_of(null: NullReference | None) -> float:
    """Return the p-value, NaN where nothing was permuted."""
    return math.nan if null is None else null.p_value


# --- without disparity ----------------------------------------------------------------------


def _nulls(table: PIDTable, settings: Settings, values: Parts) -> dict[str, NullReference | None]:
    """Return what each part would be if groups were assigned by chance.

    Overall for the global disparity and the redundant part, within clients for the others. Of
    large tables of more than two groups only the two disparities, which need no optimisation.
    """
    nulls: dict[str, NullReference | None] = dict.fromkeys(PARTS)
    size = settings.n_resamples
    if not size:
        return nulls
    streams = Streams(settings.random_state)
    solvable = _quick(table)
    by_group = table.sums.sum(axis=2)  # (strata, groups, clients)
    found: dict[str, list[Floats]] = {name: [] for name in (*GLOBAL_NULL, *LOCAL_NULL)}
    for tables in permuted_groups(table, size, streams.get("permute groups")):
        if solvable and table.rows is None:
            # Only the two margins matter; any joint with both of them has the same parts.
            z = np.maximum(by_group.sum(axis=-1, keepdims=True), 1e-300)
            joint = tables[..., None] * (by_group / z)[None, :, :, None, :]
            parts = part_values(joint, settings.where(), table.pseudo)
            for name in GLOBAL_NULL:
                found[name].append(parts[name])
        else:
            pseudo = table.pseudo * table.counts.shape[-1]
            found["global_disparity"].append(_global(tables, pseudo))
    for tables in permuted_clients(table, size, streams.get("permute within clients")):
        if solvable:
            parts = part_values(tables, settings.where(), table.pseudo)
            for name in LOCAL_NULL:
                found[name].append(parts[name])
        else:
            found["local_disparity"].append(_local(tables, table.pseudo))
    for name, blocks in found.items():
        if blocks:
            nulls[name] = null_reference(values[name], np.concatenate(blocks))
    return nulls


def _global(tables: Floats, pseudo: float) -> Floats:
    joint, shares = joint_and_shares(tables[..., None], pseudo)
    return np.asarray((shares * information_of(joint[..., 0])).sum(axis=-1))


def _local(tables: Floats, pseudo: float) -> Floats:
    joint, shares = joint_and_shares(tables, pseudo)
    clients = np.moveaxis(joint, -1, -3)
    each = (clients.sum(axis=(-2, -1)) * information_of(clients)).sum(axis=-1)
    return np.asarray((shares * each).sum(axis=-1))
