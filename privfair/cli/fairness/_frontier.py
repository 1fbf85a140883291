"""``frontier``: the best accuracy at each disparity, as a bound and within reach of a score."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import ExitCode, clean, example, finish, note, output
from privfair.cli.fairness._plot import PLOT, check_plot, save
from privfair.cli.fairness._table import LEDGER, Rows, column_options, enter_raw, read_rows

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["frontier"]

BINS = 10
LEAST = 1e-5  # bits; below this a bound cannot be told from none of the information at all
_ACCESS = ("aware", "client_blind", "group_blind", "blind")
_CRITERIA = ("demographic_parity", "equalized_odds", "equal_opportunity")
_TABLE = r"printf 'y,yhat,sex\n1,1,f\n0,0,f\n0,1,f\n0,0,f\n1,1,m\n1,1,m\n1,0,m\n0,0,m\n' | "


@click.command()
@column_options(label=True, client=True, score=True)
@click.option("--criterion", type=click.Choice(_CRITERIA), default="demographic_parity",
              show_default=True, help="What the information is about, of the rules.")  # fmt: skip
@click.option("--access", type=click.Choice(_ACCESS), default="blind", show_default=True,
              help="What a rule sees beside the score.")  # fmt: skip
@click.option("--local", is_flag=True,
              help="Bound the information within clients, not over all rows.")  # fmt: skip
@click.option("--points", type=click.IntRange(2, 200), default=9, show_default=True,
              help="Bounds from 0 to the information in the labels or decisions.")  # fmt: skip
@LEDGER
@PLOT
@example(_TABLE + "privfair fairness frontier --predictions - --label y --prediction yhat "
         "--sensitive sex --points 3")  # fmt: skip
def frontier(plot: Path | None, **given: Any) -> None:
    """Show the best accuracy at each bound on the information about the group, in bits.

    The bound holds for whatever is decided about these rows, and knows the labels: no classifier
    need reach it. The other curve is the best randomised rule on the decision and score given.
    """
    from privfair.cli._audit_files import check_target

    check_plot(plot)
    if given["local"] and given["client"] is None:
        raise click.UsageError("--local bounds what happens within clients; give --client COLUMN.")
    if given["access"] in {"aware", "group_blind"} and given["client"] is None:
        given["access"] = {"aware": "client_blind", "group_blind": "blind"}[given["access"]]
    if given["ledger_path"] is not None:
        check_target(given["ledger_path"], "--ledger")
    rows = read_rows(given)
    if rows.decisions is None:
        raise click.UsageError("Give --prediction, or --score with --threshold.")
    enter_raw(given["ledger_path"], rows.name, "raw accuracy-fairness frontier")
    data = _solve(rows, given)
    output(data, lambda console: _draw(console, data))
    if plot is not None:
        save(plot, lambda ax: _figure(ax, data))
        note(f"figure: {plot}")
    lost = sum(p["rule"] is None or p["oracle"] is None for p in data["points"])
    if lost:
        note(f"{lost} points have no answer that passes its checks.")
        finish(ExitCode.NOT_CONVERGED)


def _grouped(rows: Rows) -> tuple[Any, list[str]]:
    """Return the group of each row, attributes crossed, and the names of the groups."""
    import numpy as np
    import pandas as pd

    found = [pd.factorize(column.astype(str), sort=True) for _, column in rows.sensitive.items()]
    shape = [len(names) for _, names in found]
    seen, z = np.unique(np.ravel_multi_index([c for c, _ in found], shape), return_inverse=True)
    places = zip(*np.unravel_index(seen, shape), strict=True)
    groups = [" x ".join(str(found[j][1][k]) for j, k in enumerate(place)) for place in places]
    return z.ravel(), groups


def _table(rows: Rows, given: dict[str, Any]) -> tuple[Any, list[str], list[str]]:
    """Return p(group, client, label, response), and the names of groups and clients."""
    import numpy as np
    import pandas as pd

    from privfair.core.exceptions import SensitiveFeatureError, SingleGroupError

    frame = rows.sensitive
    for name in frame.columns:
        if frame[name].dtype.kind == "f" and frame[name].nunique() > 12:
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} is a quantity; declare its cuts: --bin {name}=A,B."
            )
    z, groups = _grouped(rows)
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
    # A response refines the decision, so that the decisions as they are are one of the rules.
    r = pd.factorize(2 * bins + rows.decisions, sort=True)[0]
    shape = (len(groups), len(clients), 2, int(r.max()) + 1)
    code = np.ravel_multi_index((z, s, rows.labels, r), shape)
    counts = np.bincount(code, minlength=math.prod(shape)).reshape(shape)
    return counts / counts.sum(), groups, clients


def _solve(rows: Rows, given: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from privfair.core.exceptions import PrivfairWarning, SolverError
    from privfair.fairness.aglfop import FairnessBound, aglfop, fair_rule
    from privfair.fairness.pid import pid_from_joint

    p, groups, clients = _table(rows, given)
    which = "local" if given["local"] else "global"
    labels = p.sum(axis=3)
    parts = pid_from_joint(np.moveaxis(labels, 1, 2))
    top = float(getattr(parts, f"{which}_disparity"))
    model = _model(rows, p, groups, which)
    points = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivfairWarning)
        for k in range(given["points"]):
            # the decisions given may carry more than the labels do
            eps = max(top, model["disparity"]) * (k / (given["points"] - 1)) ** 2
            limits: dict[str, Any] = {f"eps_{which}": 0.0 if eps < LEAST else eps}
            oracle = rule = None
            try:
                oracle = aglfop(labels, **limits)
            except SolverError as error:
                note(f"bound at {eps:.4g} bits: {error}")
            try:
                bound = FairnessBound(given["criterion"], **limits)
                rule = fair_rule(p, bound, access=given["access"])
            except SolverError as error:
                note(f"rule at {eps:.4g} bits: {error}")
            points.append(_point(eps, oracle, rule, p, groups))
    return {
        "kind": "frontier", "unit": "bits", "bounded": which, "criterion": given["criterion"],
        "access": given["access"], "rows": len(rows.frame), "groups": groups,
        "n_clients": len(clients), "label_information": top, "points": points, "given": model,
    }  # fmt: skip


def _point(eps: float, oracle: Any, rule: Any, p: Any, groups: list[str]) -> dict[str, Any]:
    import numpy as np

    entry: dict[str, Any] = {
        "eps": eps,
        "oracle": None if oracle is None else oracle.to_dict(),
        "rule": None,
    }
    if rule is not None:
        mass = p.sum(axis=(1, 2, 3))
        hits = np.einsum("zsyr,zsry->z", p, rule.rule) / mass
        entry["rule"] = {
            "accuracy": rule.accuracy, "prices": dict(rule.prices), "gap": rule.proven_gap,
            "achieved": dict(rule.achieved), "gaps": dict(rule.gaps), "status": rule.status,
            "errors": {g: float(1 - h) for g, h in zip(groups, hits, strict=True)},
        }  # fmt: skip
    return entry


def _model(rows: Rows, p: Any, groups: list[str], which: str) -> dict[str, Any]:
    """Place the decisions as they are."""
    import numpy as np

    from privfair.fairness.pid import pid_from_joint

    wide = _decided(rows, p)
    parts = pid_from_joint(wide)
    return {
        "accuracy": float(np.mean(rows.decisions == rows.labels)),
        "disparity": float(getattr(parts, f"{which}_disparity")),
    }


def _decided(rows: Rows, p: Any) -> Any:
    import numpy as np
    import pandas as pd

    z = _grouped(rows)[0]
    s = np.zeros(len(z), dtype=int)
    if rows.client is not None:
        s = pd.factorize(rows.client.astype(str), sort=True)[0]
    shape = (int(z.max()) + 1, 2, int(s.max()) + 1)
    code = np.ravel_multi_index((z, rows.decisions, s), shape)
    counts = np.bincount(code, minlength=math.prod(shape)).reshape(shape)
    return counts / counts.sum()


def _draw(console: Console, data: dict[str, Any]) -> None:
    from rich.table import Table

    kind = "over all rows" if data["bounded"] == "global" else "within clients, on average"
    console.print(
        f"{data['rows']} rows, {len(data['groups'])} groups: the labels carry "
        f"{data['label_information']:.4f} bits {kind}; the decisions given "
        f"{data['given']['disparity']:.4f}, at accuracy {data['given']['accuracy']:.4f}."
    )
    table = Table(box=None, pad_edge=False)
    for head in ("at most, bits", "bound", "price", "rule", "price", "largest error",
                 "proven to"):  # fmt: skip
        table.add_column(head, justify="right")
    for point in data["points"]:
        oracle, rule = point["oracle"], point["rule"]
        worst, gaps = "-", [q["gap"] for q in (oracle, rule) if q is not None]
        if rule is not None:
            name, error = max(rule["errors"].items(), key=lambda item: item[1])
            worst = f"{error:.3f} ({clean(name)})"
        table.add_row(
            f"{point['eps']:.5f}",
            "-" if oracle is None else f"{oracle['accuracy']:.4f}",
            "-" if oracle is None else _price(oracle[f"price_{data['bounded']}"]),
            "-" if rule is None else f"{rule['accuracy']:.4f}",
            "-" if rule is None else _price(_price_of(rule, data["bounded"])), worst,
            f"{max(gaps):.1e}" if gaps else "-",
        )  # fmt: skip
    console.print(table)
    console.print(
        "The bound knows the labels: no classifier need reach it. The rule "
        f"({data['access']}) is found on these rows. Prices: slope of accuracy per 0.01 bit."
    )


def _price_of(rule: dict[str, Any], which: str) -> float:
    return float(next((v for name, v in rule["prices"].items() if name.endswith(which)), 0.0))


def _price(value: Any) -> str:
    number = math.inf if value in (None, "inf") else float(value)
    return f"{number / 100:.4f}" if math.isfinite(number) else "no limit"


def _figure(ax: Any, data: dict[str, Any]) -> None:
    for key, label, style in (("oracle", "bound, not achievable", "--s"),
                              ("rule", f"best rule, {data['access']}", "-o")):  # fmt: skip
        at = [(p["eps"], p[key]["accuracy"]) for p in data["points"] if p[key] is not None]
        ax.plot([x for x, _ in at], [y for _, y in at], style, label=label)
    given = data["given"]
    ax.plot([given["disparity"]], [given["accuracy"]], "D", color="black", label="as given")
    ax.set(xlabel="information about the group, bits", ylabel="accuracy")
    ax.legend()
