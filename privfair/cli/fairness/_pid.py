"""``pid``: where a disparity over clients comes from, raw or from one private release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from privfair.cli._common import (
    ExitCode,
    epsilon_option,
    example,
    finish,
    note,
    output,
    state,
    terminal_width,
)
from privfair.cli.fairness._plot import PLOT, check_plot, save
from privfair.cli.fairness._table import (
    LEDGER,
    Rows,
    column_options,
    declared,
    enter_raw,
    read_rows,
    statistics_options,
)

__all__ = ["pid"]

_TABLE = r"printf 'yhat,sex,site\n1,f,a\n0,m,a\n1,f,a\n0,m,a\n0,f,b\n1,m,b\n0,f,b\n1,m,b\n' | "


@click.command()
@column_options(label=False, client=True, score=True)
@click.option("--label", default=None, metavar="COLUMN",
              help="Recorded outcome, for --condition y.")  # fmt: skip
@click.option("--condition", type=click.Choice(["y"]), default=None,
              help="Split at equal outcome (equalized odds); needs --label.")  # fmt: skip
@click.option("--score-bins", type=click.IntRange(2, 256), default=None,
              help="Split --score in bins of equal frequency, not at a threshold.")  # fmt: skip
@click.option("--merge-clients-below", type=click.IntRange(1), default=None, metavar="ROWS",
              help="Put clients with fewer rows together into one.")  # fmt: skip
@epsilon_option(default=None, help="Release one table under this epsilon; all is made of it.")
@click.option("--groups", multiple=True, metavar="COLUMN=A,B,...",
              help="Public groups of an attribute, for --epsilon: sex=f,m.")  # fmt: skip
@click.option("--clients", default=None, metavar="A,B,...",
              help="All clients, as public knowledge, for --epsilon.")  # fmt: skip
@LEDGER
@statistics_options
@PLOT
@example(_TABLE + "privfair fairness pid --predictions - --prediction yhat --sensitive sex "
         "--client site")  # fmt: skip
def pid(plot: Path | None, **given: Any) -> None:
    """Split a disparity over clients into unique, redundant and masked, in bits.

    Unique: in the decision itself. Redundant: carried by who is in which client, and seen over
    all of them only. Masked: opposite in different clients, and seen within them only.
    """
    check_plot(plot)
    _check(given)
    from privfair.cli._audit_files import check_target

    if given["ledger_path"] is not None:
        check_target(given["ledger_path"], "--ledger")
    groups, clients = _public(given)
    rows = read_rows(given)
    fit = _fit(rows, given, groups, clients)
    data = fit.to_dict()
    output(data, _wrapped(str(fit.report("text"))))
    if plot is not None:
        save(plot, fit.plot, size=(8.0, 1.6 + 1.0 * max(1, len(given["sensitive"]))))
        note(f"figure: {plot}")
    if not data["converged"]:
        note("the optimisation is not certified to its tolerance; the parts are marked.")
        finish(ExitCode.NOT_CONVERGED)


def _wrapped(text: str) -> str:
    """Break the sentences below the tables; a table's line stays whole."""
    import textwrap

    width = terminal_width()
    out = []
    for line in text.split("\n"):
        sentence = line.startswith("- ")
        out += textwrap.wrap(line, width, subsequent_indent="  ") if sentence else [line]
    return "\n".join(out)


def _check(given: dict[str, Any]) -> None:
    if given["client"] is None:
        raise click.UsageError(
            "Give --client COLUMN: the hospital, branch or site of each row. Over one client "
            "there is nothing to split; `privfair audit run` shows the disparity itself."
        )
    if given["score_bins"] is not None and given["score"] is None:
        raise click.UsageError("--score-bins splits --score; give it.")
    if given["score_bins"] is not None and given["threshold"] is not None:
        raise click.UsageError(
            "--score-bins and --threshold are two ways to cut --score; give one."
        )
    if given["score"] is not None and given["prediction"] is not None:
        raise click.UsageError("Give --prediction, or --score to decompose scores.")
    if (given["condition"] is None) != (given["label"] is None):
        raise click.UsageError(
            "--condition y and --label go together: the disparity is split among rows of equal "
            "outcome."
        )
    if given["epsilon"] is None:
        for name in ("groups", "clients"):
            if given[name]:
                raise click.UsageError(f"--{name} is for --epsilon; leave it out.")
        return
    if given["score_bins"] is not None:
        raise click.UsageError(
            "--score-bins reads its edges from the rows, which is not private; give --threshold."
        )
    if given["merge_clients_below"] is not None:
        raise click.UsageError(
            "--merge-clients-below looks at exact sizes, which are private under --epsilon; "
            "merge clients in --clients yourself."
        )
    if given["clients"] is None:
        raise click.UsageError("--epsilon needs --clients A,B,...: which occur is private.")


def _public(given: dict[str, Any]) -> tuple[Any, Any]:
    """Return the declared groups, cuts among them, and the declared clients."""
    if given["epsilon"] is None:
        return None, None
    groups, clients = declared(given)
    return (next(iter(groups.values())) if len(groups) == 1 else groups), clients


def _fit(rows: Rows, given: dict[str, Any], groups: Any, clients: Any) -> Any:
    from privfair.accounting import Ledger
    from privfair.core.privacy import Budget
    from privfair.fairness.pid import PIDDisparity

    scores = given["score_bins"] is not None
    y = rows.score if scores else rows.decisions
    if y is None:
        y = rows.score  # probabilities, cut at one half
    settings: dict[str, Any] = {
        "bins": given["score_bins"],
        "confidence": given["confidence"],
        "n_resamples": given["n_resamples"],
        "merge_clients_below": given["merge_clients_below"],
        "missing_group": given["missing_group"],
        "random_state": state().seed or 0,
        "condition": given["condition"],
    }
    client = rows.client.astype(str) if clients is not None else rows.client
    if given["epsilon"] is None:
        enter_raw(given["ledger_path"], rows.name, "raw disparity decomposition")
    else:
        ledger = Ledger(given["ledger_path"], dataset_id=f"{rows.name} audited rows")
        settings |= {
            "groups": groups, "clients": clients, "privacy": Budget(given["epsilon"]),
            "ledger": ledger,
        }  # fmt: skip
        if rows.decisions is not None:
            settings["decisions"] = [0, 1]
        if rows.labels is not None:
            settings["labels"] = [0, 1]
    return PIDDisparity(**settings).fit(
        y, sensitive_features=rows.sensitive, client=client, y_true=rows.labels
    )
