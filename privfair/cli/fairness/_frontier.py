"""``frontier``: the best accuracy at each disparity, as a bound and within reach of a score."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import (
    ExitCode,
    clean,
    epsilon_option,
    example,
    finish,
    note,
    output,
)
from privfair.cli.fairness._counts import Counts, counted, released
from privfair.cli.fairness._plot import PLOT, check_plot, save
from privfair.cli.fairness._table import LEDGER, column_options, declared, enter_raw, read_rows

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["frontier"]

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
@epsilon_option(default=None, help="Release one table under this epsilon; all is made of it.")
@click.option("--groups", multiple=True, metavar="COLUMN=A,B,...",
              help="Public groups of an attribute, for --epsilon: sex=f,m.")  # fmt: skip
@click.option("--clients", default=None, metavar="A,B,...",
              help="All clients, as public knowledge, for --epsilon.")  # fmt: skip
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
    if given["prediction"] is None and given["threshold"] is None:
        raise click.UsageError("Give --prediction, or --score with --threshold.")
    _check_public(given)
    public = None if given["epsilon"] is None else declared(given)
    rows = read_rows(given)
    if public is None:
        table = counted(rows)
        enter_raw(given["ledger_path"], rows.name, "raw accuracy-fairness frontier")
    else:
        table = released(rows, given, *public)
    data = _solve(table, given)
    output(data, lambda console: _draw(console, data))
    if plot is not None:
        save(plot, lambda ax: _figure(ax, data))
        note(f"figure: {plot}")
    lost = sum(p["rule"] is None or p["oracle"] is None for p in data["points"])
    if lost:
        note(f"{lost} points have no answer that passes its checks.")
        finish(ExitCode.NOT_CONVERGED)


def _check_public(given: dict[str, Any]) -> None:
    if given["epsilon"] is None:
        for name in ("groups", "clients"):
            if given[name]:
                raise click.UsageError(f"--{name} is for --epsilon; leave it out.")
    elif given["client"] is not None and given["clients"] is None:
        raise click.UsageError("--epsilon needs --clients A,B,...: which occur is private.")
    elif given["client"] is None and given["clients"] is not None:
        raise click.UsageError("--clients lists those of --client; give it.")


def _solve(table: Counts, given: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from privfair.core.exceptions import PrivfairWarning, SolverError
    from privfair.fairness.aglfop import FairnessBound, aglfop, fair_rule
    from privfair.fairness.pid import pid_from_joint

    p, groups = table.p, table.groups
    which = "local" if given["local"] else "global"
    labels = p.sum(axis=3)
    parts = pid_from_joint(np.moveaxis(labels, 1, 2))
    top = float(getattr(parts, f"{which}_disparity"))
    model = _model(table, which)
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
    found = {
        "kind": "frontier", "unit": "bits", "bounded": which, "criterion": given["criterion"],
        "access": given["access"], "rows": table.n, "groups": groups,
        "n_clients": len(table.clients), "label_information": top, "points": points,
        "given": model,
    }  # fmt: skip
    if table.release is not None:
        found |= {"privacy": table.release.privacy.to_dict(),
                  "noise_share": table.release.noise_share}  # fmt: skip
    return found


def _point(eps: float, oracle: Any, rule: Any, p: Any, groups: list[str]) -> dict[str, Any]:
    import numpy as np

    entry: dict[str, Any] = {
        "eps": eps,
        "oracle": None if oracle is None else oracle.to_dict(),
        "rule": None,
    }
    if rule is not None:
        mass = p.sum(axis=(1, 2, 3))
        hits = np.einsum("zsyr,zsry->z", p, rule.rule) / np.where(mass > 0, mass, 1.0)
        seen = zip(groups, hits, mass, strict=True)  # a declared group may have no rows
        entry["rule"] = {
            "accuracy": rule.accuracy, "prices": dict(rule.prices), "gap": rule.proven_gap,
            "achieved": dict(rule.achieved), "gaps": dict(rule.gaps), "status": rule.status,
            "errors": {g: float(1 - h) for g, h, m in seen if m > 0},
        }  # fmt: skip
    return entry


def _model(table: Counts, which: str) -> dict[str, Any]:
    """Place the decisions as they are; they were not chosen on the table."""
    import numpy as np

    from privfair.fairness.pid import pid_from_joint

    rule = np.eye(2)[table.decided]
    wide = np.einsum("zsyr,rk->zks", table.p, rule)
    found: dict[str, Any] = {
        "accuracy": float((table.p * rule.T).sum()),
        "disparity": float(getattr(pid_from_joint(wide), f"{which}_disparity")),
    }
    if table.release is not None:
        # Linear in the noisy counts, so that the repair that a distribution needs, and its bias,
        # are left out; less a constant near the accuracy, which keeps the noise low.
        off = rule.T - found["accuracy"]
        shift = float((table.release.counts * off).sum()) / table.n
        variance = max(0.0, float((table.p * off**2).sum()) - shift**2) / table.n
        size = table.p[:, :, 0, 0].size
        variance += table.release.noise.variance * size * float((off**2).sum()) / table.n**2
        value, half = found["accuracy"] + shift, 1.959964 * math.sqrt(variance)
        found |= {"accuracy": min(1.0, max(0.0, value)),
                  "accuracy_low": max(0.0, value - half),
                  "accuracy_high": min(1.0, value + half)}  # fmt: skip
    return found


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
    if "privacy" in data:
        given = data["given"]
        console.print(
            f"All of it is made of one table released at epsilon {data['privacy']['epsilon']:g}, "
            f"and carries its noise: the cells' noise adds up to {data['noise_share']:.1%} of the "
            "rows. Accuracy of the decisions given, sampling and noise: "
            f"{given['accuracy_low']:.4f} to {given['accuracy_high']:.4f} (95 %)."
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
