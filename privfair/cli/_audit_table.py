"""``privfair audit run``: a table of decisions, whatever made them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._audit_options import (
    PATH,
    audit_config,
    check_clock,
    file_options,
    random_seed,
    settings_options,
)
from privfair.cli._audit_output import (
    check_ledger,
    check_targets,
    conclude,
    ledger_note,
    parsed_conditions,
)
from privfair.cli._audit_rules import parsed_rules, rule_columns
from privfair.cli._common import FiniteFloat, clean, example

if TYPE_CHECKING:
    from privfair.report import AuditConfig

__all__ = ["read_cut", "read_public", "run"]


@click.command()
@click.option(
    "--predictions", required=True, metavar="FILE",
    help="CSV, Parquet or Arrow file with one row per decision; - for standard input.",
)  # fmt: skip
@click.option("--format", "kind", type=click.Choice(["csv", "tsv", "parquet", "arrow"]),
              default=None, help="By default from the file itself.")  # fmt: skip
@click.option("--label", default=None, metavar="COLUMN",
              help="Recorded outcome; without it only selection rates are compared.")  # fmt: skip
@click.option("--prediction", multiple=True, metavar="COLUMN",
              help="Decision; repeat it to compare several models.")  # fmt: skip
@click.option("--score", multiple=True, metavar="COLUMN",
              help="Score of the positive class, one for each --prediction.")  # fmt: skip
@click.option("--score-kind", type=click.Choice(["probability", "rank"]), default="probability",
              show_default=True,
              help="Whether scores are probabilities or only order rows.")  # fmt: skip
@click.option("--threshold", type=FiniteFloat(), default=None,
              help="Decide score >= this where no --prediction is given.")  # fmt: skip
@click.option("--sensitive", multiple=True, required=True, metavar="COLUMN",
              help="Sensitive attribute; may be repeated.")  # fmt: skip
@click.option("--client", default=None, metavar="COLUMN",
              help="Hospital, branch or site of each row.")  # fmt: skip
@click.option("--ses", multiple=True, metavar="RULE",
              help="Who is underprivileged: 'education-num < 10'; may be repeated.")  # fmt: skip
@click.option("--effort", default=None, metavar="RULE",
              help="Who shows effort: 'hours-per-week >= 40'.")  # fmt: skip
@click.option("--bin", "bins", multiple=True, metavar="COLUMN=A,B,...",
              help="Declared cuts of a numeric attribute: age=25,45,65.")  # fmt: skip
@click.option("--groups", "groups", multiple=True, metavar="COLUMN=A,B,...",
              help="Public groups of an attribute, for --dp-report: sex=f,m.")  # fmt: skip
@click.option("--feature", "features", multiple=True, metavar="COLUMN",
              help="Column to check for missing values and proxies, or 'all'.")  # fmt: skip
@click.option("--pos-label", default=None, metavar="VALUE", help="The positive class.")
@click.option("--missing-group", is_flag=False, flag_value="missing", default=None,
              metavar="[NAME]", help="Count missing values as a group of this name.")  # fmt: skip
@click.option("--name", default=None, help="Name of the data in the report.")
@click.option("--ledger", "ledger_path", type=PATH, default=None,
              help="File that the audit of these rows is entered into.")  # fmt: skip
@file_options
@settings_options
@example(
    "printf 'y,yhat,sex\\n1,1,f\\n0,1,f\\n1,0,m\\n0,0,m\\n' | "
    "privfair audit run --predictions - --label y --prediction yhat --sensitive sex"
)
def run(html: Path | None, json_file: Path | None, fail_on: tuple[str, ...], full: bool,
        **given: Any) -> None:  # fmt: skip
    """Audit decisions in a table: one row per decision, any model, any origin."""
    from privfair.accounting import Ledger
    from privfair.cli._audit_files import read_predictions, require_columns
    from privfair.report import DatasetInfo, audit

    conditions = parsed_conditions(fail_on)
    check_clock()
    check_targets(html, json_file)
    check_ledger(given["ledger_path"])
    cuts = dict(read_cut(text) for text in given["bins"])
    groups = dict(read_public(text) for text in given["groups"])
    _check_run(given)
    private = given["dp_report"] is not None
    frame = read_predictions(given["predictions"], given["kind"], private=private)
    label, sensitive = given["label"], list(dict.fromkeys(given["sensitive"]))
    wanted = [*given["prediction"], *given["score"], *sensitive, *cuts]
    wanted += [name for name in (label, given["client"]) if name]
    ses, effort = parsed_rules(given["ses"], given["effort"])
    ruled = rule_columns(ses, effort)
    _check_rules(ruled, given)
    wanted += ruled
    features = [c for c in given["features"] if c != "all"]
    require_columns(frame, wanted + features)
    if "all" in given["features"]:
        features = [c for c in frame.columns if c not in wanted or c in sensitive]
    name = given["name"] or ("standard input" if given["predictions"] == "-"
                             else Path(given["predictions"]).name)  # fmt: skip
    pooled = _pooled(frame, given)
    config = audit_config(
        given,
        pos_label=given["pos_label"],
        cuts=cuts,
        public_groups=groups,
        missing_group=given["missing_group"],
        dataset=DatasetInfo(name=clean(name), rows="unknown", caveats=tuple(pooled)),
        title=given.get("title") or f"Audit of {clean(name)}",
    )
    ledger = Ledger(given["ledger_path"], dataset_id=f"{clean(name)} audited rows")
    models, labels = _given_models(frame, given)
    if given["threshold"] is not None:
        config = _with_numbers(config)
    result = audit(
        models, frame[features] if features else None, labels,
        sensitive_features=frame[sensitive],
        client=None if given["client"] is None else frame[given["client"]],
        ses=ses, effort=effort, ses_features=frame[ruled] if ses else None,
        effort_features=frame[ruled] if effort is not None else None,
        ledger=ledger, config=config, random_state=random_seed(),
    )  # fmt: skip
    conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full,
        more=ledger_note(ledger) + [f"caveat: {text}" for text in pooled],
    )  # fmt: skip


def _pooled(frame: Any, given: dict[str, Any]) -> list[str]:
    """Return a caveat for each column in which --pos-label stands against several classes."""
    positive, found = given["pos_label"], []
    if positive is None:
        return []
    hidden = given.get("dp_report") is not None or given.get("min_cell") is not None
    for name in dict.fromkeys([given["label"], *given["prediction"]]):
        if name is None:
            continue
        end = f"{clean(positive)!r} is positive, and"
        if hidden:  # which classes occur is not to be told of these rows
            found.append(f"Of column {clean(name)!r}, {end} every other value is negative.")
            continue
        others = [v for v in frame[name].dropna().unique() if not _same(v, positive)]
        if len(others) > 1:
            words = sorted(repr(clean(str(v))) for v in others)
            listed = ", ".join(words) if len(words) <= 10 else f"{len(words)} other values"
            found.append(
                f"Column {clean(name)!r} has {len(others) + 1} classes: {end} {listed} are pooled "
                "as negative. Differences among the pooled classes do not show in any number here."
            )
    return found


def _same(value: Any, text: str) -> bool:
    if str(value) == text:
        return True
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return False


def _with_numbers(config: AuditConfig) -> AuditConfig:
    from dataclasses import replace

    return replace(config, pos_label=None)


def _check_run(given: dict[str, Any]) -> None:
    decisions, scores, threshold = given["prediction"], given["score"], given["threshold"]
    if not decisions and (not scores or threshold is None):
        raise click.UsageError("Give --prediction, or --score together with --threshold.")
    if decisions and threshold is not None:
        raise click.UsageError("--threshold decides from --score; leave out --prediction.")
    if decisions and scores and len(scores) != len(decisions):
        raise click.UsageError(
            f"{len(decisions)} --prediction and {len(scores)} --score: give one score for each."
        )
    for role in ("label", "prediction", "score", "client"):
        named = given[role] if isinstance(given[role], tuple) else (given[role],)
        both = next((name for name in named if name in given["sensitive"]), None)
        if both is not None:
            raise click.UsageError(
                f"--{role} and --sensitive name the same column, {both!r}. Groups made of the "
                f"{role} differ in it by definition; give the column that holds the attribute."
            )
    if len(set(decisions)) != len(decisions) or len(set(scores)) != len(scores):
        raise click.UsageError("The same column was given twice as --prediction or --score.")


def _check_rules(columns: list[str], given: dict[str, Any]) -> None:
    for role in ("label", "prediction", "score"):
        named = given[role] if isinstance(given[role], tuple) else (given[role],)
        both = next((name for name in columns if name in named), None)
        if both is not None:
            raise click.UsageError(
                f"--ses or --effort reads {both!r}, which is the --{role}. A status made of the "
                f"{role} explains it by definition; give another column."
            )
    if given["client"] is not None and given["client"] in (given["label"], *given["prediction"]):
        raise click.UsageError(
            f"--client names {given['client']!r}, which is the label or the decision itself."
        )


def read_cut(text: str) -> tuple[str, list[float]]:
    name, sep, numbers = text.rpartition("=")
    try:
        cuts = [float(part) for part in numbers.split(",")]
    except ValueError:
        cuts = []
    if not sep or not name or not cuts:
        raise click.BadParameter(
            f"{text!r} is not COLUMN=A,B,... such as age=25,45,65.", param_hint="--bin"
        )
    return name, cuts


def read_public(text: str) -> tuple[str, list[str]]:
    name, sep, values = text.partition("=")
    labels = [value.strip() for value in values.split(",") if value.strip()]
    if not sep or not name or len(labels) < 2:
        raise click.BadParameter(
            f"{text!r} is not COLUMN=A,B,... with at least two groups.", param_hint="--groups"
        )
    return name, labels


def _given_models(frame: Any, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the models and the labels of a table of predictions."""
    from privfair.core.frames import as_vector
    from privfair.report import Predictions, positive_class

    labels = None if given["label"] is None else frame[given["label"]]
    probability = given["score_kind"] == "probability"
    if given["prediction"]:
        scores = given["score"] or [None] * len(given["prediction"])
        models = {
            decision: Predictions(
                frame[decision].to_numpy(), None if score is None else frame[score].to_numpy(),
                probability,
            )
            for decision, score in zip(given["prediction"], scores, strict=True)
        }  # fmt: skip
        return models, None if labels is None else labels.to_numpy()
    if labels is not None:
        values = as_vector(labels, name=given["label"])
        positive = positive_class(
            values, given["pos_label"], given["label"], private=given["dp_report"] is not None
        )
        labels = (values == positive).astype(int)
    models = {
        score: Predictions(
            (frame[score] >= given["threshold"]).to_numpy().astype(int), frame[score].to_numpy(),
            probability,
        )
        for score in given["score"]
    }  # fmt: skip
    return models, labels
