"""The table that these commands read, and the options that say what its columns are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from privfair.cli._common import FiniteFloat, WholeNumber, clean

__all__ = [
    "LEDGER",
    "RULES",
    "Rows",
    "column_options",
    "declared",
    "enter_raw",
    "read_rows",
    "statistics_options",
]

F = TypeVar("F", bound=Callable[..., Any])


def column_options(*, label: bool, client: bool, score: bool) -> Callable[[F], F]:
    """Add the options that name the file and its columns."""
    options = [
        click.option(
            "--predictions", required=True, metavar="FILE",
            help="CSV, Parquet or Arrow file with one row per decision; - for standard input.",
        ),
        click.option("--format", "kind", type=click.Choice(["csv", "tsv", "parquet", "arrow"]),
                     default=None, help="By default from the file itself."),
        click.option("--prediction", default=None, metavar="COLUMN", help="Decision."),
        *([click.option("--label", required=True, metavar="COLUMN", help="Recorded outcome.")]
          if label else []),
        *([click.option("--score", default=None, metavar="COLUMN",
                        help="Score of the positive class.")] if score else []),
        *([click.option("--threshold", type=FiniteFloat(), default=None,
                        help="Decide score >= this where no --prediction is given.")]
          if score else []),
        click.option("--sensitive", multiple=True, required=True, metavar="COLUMN",
                     help="Sensitive attribute; may be repeated."),
        *([click.option("--client", default=None, metavar="COLUMN",
                        help="Hospital, branch or site of each row.")] if client else []),
        click.option("--bin", "bins", multiple=True, metavar="COLUMN=A,B,...",
                     help="Declared cuts of a numeric attribute: age=25,45,65."),
        click.option("--pos-label", default=None, metavar="VALUE", help="The positive class."),
        click.option("--missing-group", is_flag=False, flag_value="missing", default=None,
                     metavar="[NAME]", help="Count missing values as a group of this name."),
    ]  # fmt: skip

    def attach(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return attach


def statistics_options(function: F) -> F:
    """Add the options of intervals and tests."""
    for option in (
        click.option("--n-resamples", type=WholeNumber(100), default=1000, show_default=True,
                     help="Resamples and permutations."),
        click.option(
            "--confidence", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=0.95,
            show_default=True, help="Level of all intervals.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


LEDGER = click.option(
    "--ledger", "ledger_path", type=click.Path(path_type=Path), default=None,
    help="File that the look at these rows is entered into.",
)  # fmt: skip
RULES = (
    click.option("--ses", multiple=True, required=True, metavar="RULE",
                 help="Who is underprivileged: 'education-num < 10'; may be repeated."),
    click.option("--effort", default=None, metavar="RULE",
                 help="Who shows effort: 'hours-per-week >= 40'."),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns of a table, checked.

    Attributes
    ----------
    frame : pandas.DataFrame
    decisions : ndarray of int or None
        1 where the decision is positive.
    labels : ndarray of int or None
    score : ndarray of float or None
    sensitive : pandas.DataFrame
        Groups as text, numeric attributes cut.
    client : pandas.Series or None
    name : str
    """

    frame: Any
    decisions: Any
    labels: Any
    score: Any
    sensitive: Any
    client: Any
    name: str


def read_rows(given: dict[str, Any], more: tuple[str, ...] = ()) -> Rows:
    """Read the table and return its columns; `more` are columns that must be there."""
    from privfair.cli._audit_files import read_predictions, require_columns
    from privfair.cli._audit_table import read_cut
    from privfair.core.exceptions import DataError

    cuts = dict(read_cut(text) for text in given["bins"])
    prediction, score, threshold = given["prediction"], given.get("score"), given.get("threshold")
    label, client = given.get("label"), given.get("client")
    _check(given, prediction, score, threshold, label, client, more)
    private = given.get("epsilon") is not None
    frame = read_predictions(given["predictions"], given["kind"], private=private)
    sensitive = list(dict.fromkeys(given["sensitive"]))
    wanted = [prediction, score, label, client, *sensitive, *cuts, *more]
    require_columns(frame, [name for name in wanted if name is not None])
    name = "standard input" if given["predictions"] == "-" else Path(given["predictions"]).name
    scores = None if score is None else _numbers(frame[score], score)
    positive = given["pos_label"]
    labels = None if label is None else _binary(frame[label], positive, label, private)
    if prediction is not None:
        decisions = _binary(frame[prediction], positive, prediction, private,
                            like=frame[label] if label else None)  # fmt: skip
    elif threshold is not None and scores is not None:
        decisions = (scores >= threshold).astype(int)
    else:
        decisions = None
    if len(frame) < 2:
        raise DataError("the table has one row only; nothing can be compared.")
    return Rows(
        frame, decisions, labels, scores, _groups(frame, sensitive, cuts, given),
        None if client is None else _client(frame[client], client, given),
        clean(name),
    )  # fmt: skip


def _check(
    given: dict[str, Any], prediction: Any, score: Any, threshold: Any, label: Any, client: Any,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    if prediction is None and score is None:
        what = "--prediction or --score" if "score" in given else "--prediction"
        raise click.UsageError(f"Give {what}.")
    if threshold is not None and (prediction is not None or score is None):
        raise click.UsageError("--threshold decides from --score; leave out --prediction.")
    for role, name in (("label", label), ("prediction", prediction), ("score", score),
                       ("client", client)):  # fmt: skip
        if name is not None and name in given["sensitive"]:
            raise click.UsageError(
                f"--{role} and --sensitive name the same column, {name!r}. Groups made of the "
                f"{role} differ in it by definition; give the column that holds the attribute."
            )
        if name is not None and role != "client" and name in more:
            raise click.UsageError(
                f"--ses or --effort reads {name!r}, which is the --{role}. A status made of the "
                f"{role} explains it by definition; give another column."
            )
    if client is not None and client in (label, prediction, score):
        raise click.UsageError(
            f"--client names {client!r}, which is the label or the decision itself."
        )


def _binary(column: Any, positive: Any, name: str, private: bool, like: Any = None) -> Any:
    """Return 1 where a column is of the positive class, by the rules of an audit."""
    from privfair.core.frames import as_vector
    from privfair.report import positive_class

    values = as_vector(column, name=name)
    home = values if like is None else as_vector(like, name="label")
    said = name if like is None else "the label"
    chosen = positive_class(home, positive, said, private=private)
    return (values == chosen).astype(int)


def _numbers(column: Any, name: str) -> Any:
    import numpy as np

    from privfair.core.exceptions import DataError

    values = column.to_numpy()
    if values.dtype.kind not in "fiub" or not np.isfinite(values.astype(float)).all():
        raise DataError(
            f"column {name!r} must hold a finite number in every row: it is the score. Drop rows "
            "without a score."
        )
    return values.astype(float)


def _gone(column: Any, given: dict[str, Any]) -> str:
    """Say how many values are missing; under --epsilon that is private."""
    if given.get("epsilon") is not None:
        return "missing values"
    return f"{int(column.isna().sum())} missing values of {len(column)}"


def _groups(frame: Any, names: list[str], cuts: dict[str, list[float]], given: Any) -> Any:
    """Return the attributes, numeric ones cut, missing values as a group where one is named."""
    import pandas as pd

    from privfair.core.exceptions import MissingSensitiveFeatureError
    from privfair.fairness import bin_sensitive

    missing = given["missing_group"]
    columns = {}
    for name in names:
        if missing is None and frame[name].isna().any():
            raise MissingSensitiveFeatureError(
                f"sensitive feature {name!r} has {_gone(frame[name], given)}. Dropping them would "
                "hide a group. Give --missing-group to count them as a group of their own."
            )
    for name in names:
        values = frame[name]
        if name in cuts:
            values = bin_sensitive(values.to_numpy(), cuts[name], name=name, missing_group=missing)
            columns[name] = pd.Series(values, index=frame.index, dtype=object)
        else:
            columns[name] = _text(values, missing) if values.isna().any() else values
    return pd.DataFrame(columns)


def _client(column: Any, name: str, given: dict[str, Any]) -> Any:
    from privfair.core.exceptions import DataError

    missing = given["missing_group"]
    if missing is None and column.isna().any():
        raise DataError(
            f"column {name!r} has {_gone(column, given)}. Each row comes from "
            "some client; give --missing-group to count them as a client of their own."
        )
    return _text(column, missing)


def _text(column: Any, missing: Any) -> Any:
    """Return text; whole numbers that a missing value made floats are whole again."""
    import pandas as pd

    def one(value: Any) -> str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    gone = column.isna().tolist()
    text = [missing if lost else one(v) for v, lost in zip(column.tolist(), gone, strict=True)]
    return pd.Series(text, index=column.index, name=column.name, dtype=object)


def declared(given: dict[str, Any]) -> tuple[dict[str, list[str]], list[str] | None]:
    """Return the public groups of each attribute, cuts among them, and the public clients."""
    from privfair.cli._audit_table import read_cut, read_public
    from privfair.fairness import bin_sensitive

    known = dict(read_public(text) for text in given["groups"])
    for text in given["bins"]:
        name, cuts = read_cut(text)
        middles = [(a + b) / 2 for a, b in zip(cuts, cuts[1:], strict=False)]
        known[name] = list(bin_sensitive([cuts[0] - 1, *middles, cuts[-1] + 1], cuts).tolist())
    wanted = list(dict.fromkeys(given["sensitive"]))
    for name in wanted:
        if name not in known:
            raise click.UsageError(
                f"--epsilon needs the groups of {name}, as public knowledge: --groups {name}=a,b."
            )
        if given["missing_group"] is not None:
            known[name] = [*known[name], given["missing_group"]]
    groups = {name: known[name] for name in wanted}
    if given["client"] is None:
        return groups, None
    clients = [part.strip() for part in given["clients"].split(",") if part.strip()]
    if len(clients) < 2:
        raise click.BadParameter("give at least two clients.", param_hint="--clients")
    return groups, clients


def enter_raw(path: Path | None, name: str, what: str) -> None:
    """Write a raw look at the rows into their ledger, where one is named."""
    if path is None:
        return
    from privfair.accounting import Ledger
    from privfair.accounting.events import NonPrivate

    with Ledger(path, dataset_id=f"{name} audited rows").spend(NonPrivate(), purpose=what):
        pass
