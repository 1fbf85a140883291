"""What the numbers say and what they do not: sentences for reports."""

from __future__ import annotations

from typing import Any

from privfair.fairness.pid._analysis import Analysis
from privfair.fairness.pid._data import PIDTable

__all__ = ["NAMES", "inequalities", "statements"]

NAMES = {
    "unique": "unique",
    "redundant": "redundant",
    "masked": "masked",
    "global_disparity": "global",
    "local_disparity": "local",
    "unique_client": "unique to the client",
    "coinformation": "global - local",
}
DEFINITION = (
    "Parts are those of the BROJA definition (Bertschinger et al. 2014), target: the sensitive "
    "attribute; other definitions of such a decomposition give other parts. The global and the "
    "local disparity do not depend on it."
)
NOT_CAUSAL = (
    "Nothing here is causal. The unique part is not the model's fault: it says only that the "
    "client does not carry the same information."
)


def inequalities(values: dict[str, Any]) -> dict[str, bool]:
    """Return the facts that hold for every table, checked on these parts (to 1e-9 bits)."""
    u, r, m = (values[name] for name in ("unique", "redundant", "masked"))
    seen, local, alone = (
        values[name] for name in ("global_disparity", "local_disparity", "unique_client")
    )
    slack = 1e-9
    return {
        "G = U + R": abs(seen - u - r) <= slack,
        "L = U + M": abs(local - u - m) <= slack,
        "G - L = R - M": abs(values["coinformation"] - (r - m)) <= slack,
        "U <= min(G, L)": u <= min(seen, local) + slack,
        "R <= min(G, I(Z;S))": r <= min(seen, r + alone) + slack,
        "M <= min(L, I(Z;S|Yhat))": m <= min(local, m + alone) + slack,
    }


def statements(analysis: Analysis, table: PIDTable, *, ci: str | None) -> list[str]:
    """Return the sentences of a report, for these data."""
    values = analysis.values
    client = values["redundant"] + values["unique_client"]
    given = values["masked"] + values["unique_client"]
    said = [DEFINITION, NOT_CAUSAL]
    said.append(
        "The same decisions in every client (L = 0) do not make the whole fair: G = R is then "
        f"what the clients' make-up carries, at most I(Z;S) = {client:.4f} bits here."
    )
    said.append(
        "A fair whole (G = 0) does not make every client fair: L = M is then what cancels "
        f"between clients, at most I(Z;S|Yhat) = {given:.4f} bits here."
    )
    said.append(
        "U = 0 says that the decision is a garbled copy of what the client tells about the "
        "attribute; it does not say that there is no disparity."
    )
    said.append(
        "An information bounds the gap of rates from above, loosely where it is small; the gaps "
        "themselves stand beside it."
    )
    if table.edges is not None:
        said.append(
            "Decisions are scores in bins. Binning can only lower G, L and U (with two groups "
            "also R); M may move either way."
        )
    if table.strata != ("all",):
        said.append(
            "Within the strata of the label: every part is the mean over the strata, which is "
            "not the decomposition of the pair (decision, label)."
        )
    if len(table.features) > 1:
        said.append(
            "Several sensitive columns are crossed into one attribute; its parts do not add up "
            "from those of the columns alone, which are listed too."
        )
    if analysis.bias is not None and analysis.privacy is None:
        said.append(_bias_text(analysis))
    if table.smoothing:
        said.append(
            f"{table.smoothing:g} rows were added to each of the {table.counts.size} cells before "
            "the parts were computed, here, in intervals and in permutations alike; this draws "
            "all parts towards 0. Tables by client and G-tests are of the rows themselves."
        )
    if any(analysis.boundary.values()) and analysis.intervals is not None:
        zero = [NAMES[name] for name, flag in analysis.boundary.items() if flag]
        said.append(
            f"Possibly zero: {', '.join(zero)}. There the usual interval is not valid (neither "
            "normal nor bootstrap); the bound given is one-sided."
        )
    if ci == "bootstrap":
        said.append("The percentile bootstrap is not valid where a part is zero.")
    if table.merged:
        said.append(f"Small clients merged into one: {table.merged}.")
    if table.excluded:
        said.append(f"Rows outside the declared categories, left out: {table.excluded}.")
    silent = sum(1 for reason in analysis.clients.silent if reason)
    if silent:
        said.append(
            f"Clients with one group or one decision only: {silent}. They add nothing to the "
            "local disparity and are listed."
        )
    if not analysis.converged:
        said.append(
            f"The optimisation is certified to {analysis.gap:.1e} bits only, above the tolerance."
        )
    if analysis.privacy is not None:
        said.extend(_private(analysis))
    return said


def _bias_text(analysis: Analysis) -> str:
    assert analysis.bias is not None
    if analysis.bias["unique"] != analysis.bias["unique"]:
        return (
            "Plug-in values are biased upwards; G and L are corrected to first order. The unique "
            "part of a table of this size is not corrected."
        )
    return "Plug-in values are biased; beside them stand values corrected to first order."


def _private(analysis: Analysis) -> list[str]:
    release = analysis.release
    assert analysis.privacy is not None
    return [
        f"Computed from one table released under differential privacy ({release.noise.kind} "
        f"noise of scale {release.noise.scale:.3g} in each of {release.counts.size} cells, "
        f"epsilon = {analysis.privacy.epsilon:.4g}). Intervals cover sampling and noise.",
        "Noise looks like dependence: parts of the released table are biased, mostly upwards, "
        f"by the noise of {100 * release.noise_share:.1f} % of the rows; the bias is estimated "
        "by releasing simulated samples of the released table.",
    ]
