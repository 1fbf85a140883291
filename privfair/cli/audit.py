"""``privfair audit``: measure decisions or models, write one report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from privfair.cli._audit_export import FORMATS, check_export, export
from privfair.cli._common import (
    ExitCode,
    FiniteFloat,
    WholeNumber,
    clean,
    delta_option,
    epsilon_option,
    example,
    finish,
    note,
    output,
    state,
)

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.report import AuditConfig, AuditResult

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)


class _Runs(click.IntRange):
    """0, or at least 2: with one run, privacy cannot be told from luck."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        found = int(super().convert(value, param, ctx))
        if found == 1:
            self.fail("1 run cannot tell privacy from luck; give 0 or at least 2.", param, ctx)
        return found


@click.group()
def command() -> None:
    """Audit decisions or models: group metrics with intervals, certified privacy, one report.

    The report is an HTML page (--html), JSON (--json-file) and terminal text. The global option
    --json prints the JSON on standard output instead of the text.
    """


# -- options that several commands share ------------------------------------------------------
def _settings(function: F) -> F:
    """Add the options that become an AuditConfig."""
    options = [
        click.option(
            "--confidence", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=0.95,
            show_default=True, help="Level of all intervals.",
        ),
        click.option(
            "--n-resamples", type=WholeNumber(100), default=2000, show_default=True,
            help="Bootstrap replicates and permutations.",
        ),
        click.option(
            "--min-count", type=WholeNumber(0), default=30, show_default=True,
            help="Groups with fewer rows are marked as small samples.",
        ),
        click.option(
            "--min-cell", type=WholeNumber(2), default=None,
            help="Suppress groups with a count below this, and what would reveal them.",
        ),
        click.option(
            "--dp-report", type=FiniteFloat(0, low_open=True), default=None, metavar="EPSILON",
            help="Make the report of tables released under this epsilon.",
        ),
        click.option(
            "--intersections", type=click.IntRange(0, 3), default=None,
            help="How many attributes are crossed.  [default: 3]",
        ),
        click.option("--title", default=None, help="Title of the report."),
        click.option(
            "--fail-on", "fail_on", multiple=True, metavar="CONDITION",
            help="Exit with 6 if met: 'fairness.dpd.sex.low > 0.1', a finding's id, 'attention' "
            "or 'critical'. May be repeated.",
        ),
        click.option("--full", is_flag=True, help="Print all sections, not only the summary."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _files(function: F) -> F:
    """Add the options that name output files."""
    function = click.option(
        "--json-file", "json_file", type=_PATH, default=None, help="Write the JSON here."
    )(function)
    return click.option("--html", type=_PATH, default=None, help="Write the page here.")(function)


def _config(given: dict[str, Any], **more: Any) -> AuditConfig:
    from privfair.report import AuditConfig

    names = ("confidence", "n_resamples", "min_count", "min_cell", "dp_report", "title")
    fields = {name: given[name] for name in names if given.get(name) is not None}
    if given.get("intersections") is not None:
        fields["intersections"] = given["intersections"]
    line = " ".join(_quoted(clean(a)) for a in sys.argv[1:])
    return AuditConfig(**{**fields, "command": f"privfair {line}", **more})


def _quoted(argument: str) -> str:
    import shlex

    # A path may name a person or a machine: only the file's name is reported.
    head, sep, tail = argument.partition("=")
    value = tail if sep and head.startswith("--") else argument
    if ("/" in value or "\\" in value) and not value.startswith("-"):
        value = value.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return shlex.quote(f"{head}={value}" if sep and head.startswith("--") else value)


def _check_clock() -> None:
    """Let a wrong SOURCE_DATE_EPOCH end the command before any work."""
    from privfair.report import creation_date

    creation_date()


def _seed() -> int:
    return state().seed or 0


# -- results ----------------------------------------------------------------------------------
def _conclude(
    result: AuditResult,
    *,
    html: Path | None,
    json_file: Path | None,
    fail_on: tuple[Any, ...],
    full: bool,
    more: list[str] | None = None,
    printed: str | None = None,
) -> None:
    """Write the files, print the result, end with the exit code.

    `printed` goes to standard output as it is, in place of the result.
    """
    from privfair.cli._audit_files import write_text

    written = []
    if html is not None:
        write_text(html, result.to_html())
        written.append(f"report: {html}")
    if json_file is not None:
        write_text(json_file, result.to_json())
        written.append(f"JSON:   {json_file}")
    written += more or []
    outcomes = [condition.check(result) for condition in fail_on]

    def human(console: Console) -> None:
        from privfair.report import print_text

        encoding = (console.encoding or "utf-8").lower()
        print_text(result, console, full=full, ascii_only=not encoding.startswith("utf"))
        console.print()
        for line in written:
            console.print(clean(line), soft_wrap=True)

    if printed is not None:
        click.echo(printed, nl=False)
    else:
        data = result.to_dict() if state().json else {}
        output({"_notice": result.notice, **data}, human)
    if state().json or printed is not None:
        for line in written:
            note(line)
    for section in result.failed:
        note(f"section {section.title!r} could not be built: {section.reason}")
    met = [o for o in outcomes if o.met]
    for outcome in met:
        click.echo(f"fail-on: {clean(outcome.text)}", err=True)
    codes = [result.exit_code, ExitCode.FAIL_ON if met else ExitCode.OK]
    if any(codes):
        finish(*codes)


def _conditions(texts: tuple[str, ...]) -> tuple[Any, ...]:
    from privfair.report import parse_condition

    return tuple(parse_condition(text) for text in texts)


def _check_ledger(path: Path | None) -> None:
    from privfair.cli._audit_files import check_target

    if path is not None:
        check_target(path, "--ledger")


def _targets(html: Path | None, json_file: Path | None) -> None:
    from privfair.cli._audit_files import check_target

    if html is not None:
        check_target(html, "--html")
    if json_file is not None:
        check_target(json_file, "--json-file")
    if html is not None and html == json_file:
        raise click.UsageError("--html and --json-file name the same file.")


def _folder(folder: Path, name: str) -> tuple[Path, Path]:
    from privfair.cli._audit_files import check_target
    from privfair.core.exceptions import OutputTargetError

    if folder.exists() and not folder.is_dir():
        raise OutputTargetError(f"--output {folder} is a file; give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return (
        check_target(folder / f"{name}.html", "--output"),
        check_target(folder / f"{name}.json", "--output"),
    )


def _ledger_note(ledger: Any) -> list[str]:
    return [] if ledger.path is None else [f"ledger: {ledger.path}"]


# -- adult ------------------------------------------------------------------------------------
@command.command()
@click.option(
    "--output", type=_PATH, default=Path("reports"), show_default=True,
    help="Folder of adult.html and adult.json; made if absent.",
)  # fmt: skip
@click.option(
    "--ledger", "ledger_path", type=_PATH, default=None,
    help="File that the training's charges are added to; the audited rows have "
    "<name>-audited beside it. In memory by default.",
)  # fmt: skip
@epsilon_option(default=1.0, show_default=True, help="Budget of the private twin.")
@delta_option(default=None, help="By default the largest power of ten <= 1 / (10 rows).")
@click.option("--no-dp", is_flag=True, help="Audit the baseline alone.")
@click.option(
    "--attacks/--no-attacks", default=True, show_default=True,
    help="Attack the private twin's training with canaries; reads no row.",
)  # fmt: skip
@click.option(
    "--runs", type=_Runs(0, 100), default=5, show_default=True,
    help="Fits at each of several epsilons and without privacy, to see whom privacy costs what; "
    "each is charged. 0 leaves this out.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["test", "train"]), default="test", show_default=True,
    help="Which rows are audited; both models are trained on the training rows.",
)  # fmt: skip
@click.option(
    "--allow-raw-training-rows", is_flag=True,
    help="Allow --split train although it voids the certificate.",
)  # fmt: skip
@click.option("--data-home", type=_PATH, default=None, help="Folder with the data files.")
@_settings
@example("privfair audit adult --no-dp --n-resamples 200")
def adult(
    output: Path,
    ledger_path: Path | None,
    epsilon: float,
    delta: float | None,
    no_dp: bool,
    attacks: bool,
    runs: int,
    split: str,
    allow_raw_training_rows: bool,
    data_home: Path | None,
    fail_on: tuple[str, ...],
    full: bool,
    **settings: Any,
) -> None:
    """Train a baseline and its private twin on Adult, and audit both.

    LogisticRegression and DPClassifier on the official training rows (public schema), audited on
    the official test rows by sex and race; then attacks on the private twin, and the same model at
    several epsilons, to see whom privacy costs what. Without the real files the embedded
    synthetic edition is used, and every output says so in its first line.
    """
    from privfair.cli._audit_models import adult_models, audit_ledgers
    from privfair.datasets import fetch_adult
    from privfair.report import audit, dataset_info

    conditions = _conditions(fail_on)
    _check_clock()
    if split == "train" and not (no_dp or allow_raw_training_rows):
        _refuse_training_rows()
    html, json_file = _folder(output, "adult")
    _check_ledger(ledger_path)
    options: dict[str, Any] = {"data_home": data_home, "fallback": "embedded"}
    train = fetch_adult(split="train", **options)
    rows = train if split == "train" else fetch_adult(split="test", **options)
    config = _config(
        settings,
        title=settings.get("title") or "Audit of Adult: income above $50,000",
        allow_raw_training_rows=allow_raw_training_rows,
        public_groups=_public(train, list(rows.sensitive.columns), settings),
        dataset=dataset_info(
            rows,
            rows="training" if split == "train" else "held_out",
            split=f"official {split} split" if not train.embedded else f"{split} split",
        ),
    )
    name = "adult (embedded)" if train.embedded else "adult"
    spent, audited = audit_ledgers(ledger_path, name)
    if not no_dp:
        note(f"training the private twin at epsilon {epsilon:g} ...")
    models = adult_models(
        train, epsilon=epsilon, delta=delta, seed=_seed(), ledger=spent, with_dp=not no_dp
    )
    attacked, sweep = _studies(models, train, no_dp, attacks, runs, split, config, spent)
    result = audit(
        models, rows.data, rows.target, sensitive_features=rows.sensitive, ledger=audited,
        attacks=attacked, sweep=sweep, config=config, random_state=_seed(),
    )  # fmt: skip
    _conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full,
        more=_ledger_note(spent) + _ledger_note(audited),
    )  # fmt: skip


def _studies(
    models: dict[str, Any],
    train: Any,
    no_dp: bool,
    attacks: bool,
    runs: int,
    split: str,
    config: Any,
    ledger: Any,
) -> tuple[Any, Any]:
    """Return attacks on the private twin, and the sweep, as far as they were asked for."""
    from privfair.cli._audit_studies import attacks_on, sweep_of

    if no_dp:
        return None, None
    name, twin = list(models.items())[-1]
    found = None
    if attacks:
        note("attacking its training with canaries ...")
        found = {name: attacks_on(twin, train.schema, seed=_seed())}
    if not runs:
        return found, None
    if config.dp_report is not None or split == "train" or ledger.cap is not None:
        note(
            "no fits at several epsilons: they need held-out rows, a raw report and a ledger "
            "without a cap."
        )
        return found, None
    note(f"training {runs} times at each of several epsilons and without privacy ...")
    return found, sweep_of(twin, train, runs=runs, seed=_seed())


def _refuse_training_rows() -> None:
    """Stop before anything is trained or spent."""
    from privfair.core.exceptions import PrivacyError

    raise PrivacyError(
        "--split train shows raw counts of the rows that train the private twin, whose "
        "certificate promises that nothing else about them becomes known. Audit the test rows, "
        "or pass --allow-raw-training-rows: the report then shows the certificate as void."
    )


# -- compas -----------------------------------------------------------------------------------
@command.command()
@click.option(
    "--output", type=_PATH, default=Path("reports"), show_default=True,
    help="Folder of compas.html and compas.json; made if absent.",
)  # fmt: skip
@click.option(
    "--version", type=click.Choice(["propublica", "filtered", "corrected"]),
    default="propublica", show_default=True, help="Which rows of ProPublica's file.",
)  # fmt: skip
@click.option(
    "--threshold", type=click.IntRange(1, 9), default=4, show_default=True,
    help="Decile scores above this count as a decision of high risk.",
)  # fmt: skip
@click.option(
    "--race", "races", multiple=True, metavar="NAME",
    help="Only these races; may be repeated. Left-out groups are named in the report.",
)  # fmt: skip
@click.option(
    "--ledger", "ledger_path", type=_PATH, default=None,
    help="File that the audit of these rows is entered into. In memory by default.",
)  # fmt: skip
@click.option("--data-home", type=_PATH, default=None, help="Folder with the data files.")
@_settings
@example("privfair audit compas --n-resamples 200")
def compas(
    output: Path,
    version: str,
    threshold: int,
    races: tuple[str, ...],
    ledger_path: Path | None,
    data_home: Path | None,
    fail_on: tuple[str, ...],
    full: bool,
    **settings: Any,
) -> None:
    """Audit the COMPAS decile score as a given decision, by race and sex.

    The score only orders people, so that no calibration is computed. Without the real file the
    embedded synthetic edition is used (version "filtered"), and every output says so first.
    """
    from dataclasses import replace

    from privfair.accounting import Ledger
    from privfair.datasets import fetch_compas
    from privfair.report import Predictions, audit, dataset_info

    conditions = _conditions(fail_on)
    _check_clock()
    html, json_file = _folder(output, "compas")
    _check_ledger(ledger_path)
    data = fetch_compas(version=version, data_home=data_home, fallback="embedded")
    frame, sensitive, target = data.data, data.sensitive[["race", "sex"]], data.target
    split = "all rows"
    if races:
        _known_races(races, list(data.schema["race"].values))
    if races and settings.get("dp_report") is not None:
        # How many rows are of these races is private: rows of others stay, in no group.
        split = f"all rows; races compared: {', '.join(races)}"
    elif races:
        keep = sensitive["race"].isin(races)
        gone = sensitive["race"][~keep].value_counts().sort_index()
        split = "left out: " + ", ".join(f"{name} ({n} rows)" for name, n in gone.items())
        frame, sensitive, target = frame[keep], sensitive[keep], target[keep]
    score = frame["decile_score"].to_numpy()
    info = dataset_info(data, rows="held_out", split="all rows")
    config = _config(
        settings,
        title=settings.get("title") or f"Audit of COMPAS: decile score above {threshold}",
        public_groups=_public(data, ["race", "sex"], settings, race=races),
        dataset=replace(info, split=split),
    )
    decisions = Predictions(
        (score > threshold).astype(int), score, probability=False,
        name=f"COMPAS, decile > {threshold}",
    )  # fmt: skip
    name = "compas (embedded)" if data.embedded else f"compas {data.version}"
    ledger = Ledger(ledger_path, dataset_id=f"{name} audited rows")
    result = audit(
        decisions, frame.drop(columns=["decile_score", "score_text"], errors="ignore"), target,
        sensitive_features=sensitive, ledger=ledger, config=config, random_state=_seed(),
    )  # fmt: skip
    _conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full,
        more=_ledger_note(ledger),
    )  # fmt: skip


def _public(data: Any, names: list[str], settings: dict[str, Any], **only: Any) -> dict[str, Any]:
    """Return the groups that the public schema declares, for a report under privacy."""
    if settings.get("dp_report") is None:
        return {}
    return {name: list(only.get(name) or data.schema[name].values) for name in names}


def _known_races(given: tuple[str, ...], known: list[str]) -> None:
    for name in given:
        if name not in known:
            raise click.BadParameter(
                f"{name!r} is none of {', '.join(known)}.", param_hint="--race"
            )


# -- run --------------------------------------------------------------------------------------
@command.command()
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
@click.option("--ledger", "ledger_path", type=_PATH, default=None,
              help="File that the audit of these rows is entered into.")  # fmt: skip
@_files
@_settings
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

    conditions = _conditions(fail_on)
    _check_clock()
    _targets(html, json_file)
    _check_ledger(given["ledger_path"])
    cuts = dict(_cut(text) for text in given["bins"])
    groups = dict(_group(text) for text in given["groups"])
    _check_run(given)
    frame = read_predictions(given["predictions"], given["kind"])
    label, sensitive = given["label"], list(dict.fromkeys(given["sensitive"]))
    wanted = [*given["prediction"], *given["score"], *sensitive, *cuts]
    wanted += [label] if label else []
    features = [c for c in given["features"] if c != "all"]
    require_columns(frame, wanted + features)
    if "all" in given["features"]:
        features = [c for c in frame.columns if c not in wanted or c in sensitive]
    name = given["name"] or ("standard input" if given["predictions"] == "-"
                             else Path(given["predictions"]).name)  # fmt: skip
    pooled = _pooled(frame, given)
    config = _config(
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
        sensitive_features=frame[sensitive], ledger=ledger, config=config, random_state=_seed(),
    )  # fmt: skip
    _conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full,
        more=_ledger_note(ledger) + [f"caveat: {text}" for text in pooled],
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
    for role in ("label", "prediction", "score"):
        named = given[role] if isinstance(given[role], tuple) else (given[role],)
        both = next((name for name in named if name in given["sensitive"]), None)
        if both is not None:
            raise click.UsageError(
                f"--{role} and --sensitive name the same column, {both!r}. Groups made of the "
                f"{role} differ in it by definition; give the column that holds the attribute."
            )
    if len(set(decisions)) != len(decisions) or len(set(scores)) != len(scores):
        raise click.UsageError("The same column was given twice as --prediction or --score.")


def _cut(text: str) -> tuple[str, list[float]]:
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


def _group(text: str) -> tuple[str, list[str]]:
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
        positive = positive_class(values, given["pos_label"], given["label"])
        labels = (values == positive).astype(int)
    models = {
        score: Predictions(
            (frame[score] >= given["threshold"]).to_numpy().astype(int), frame[score].to_numpy(),
            probability,
        )
        for score in given["score"]
    }  # fmt: skip
    return models, labels


# -- report and diff --------------------------------------------------------------------------
@command.command()
@click.argument("audit_json", metavar="JSON", type=_PATH)
@_files
@click.option("--format", "kind", type=click.Choice(FORMATS), default=None,
              help="Another form: annotations, a model card, all tables.")  # fmt: skip
@click.option("--output", "target", type=_PATH, default=None,
              help="File for --format; by default standard output.")  # fmt: skip
@click.option("--pdf", type=_PATH, default=None,
              help="Write the page as PDF here; needs `pip install 'privfair[pdf]'`.")  # fmt: skip
@click.option("--full", is_flag=True, help="Print all sections, not only the summary.")
@click.option("--fail-on", "fail_on", multiple=True, metavar="CONDITION",
              help="Exit with 6 if met; see `privfair audit run`.")  # fmt: skip
@example(
    "privfair audit compas --n-resamples 200 --output audits",
    "privfair audit report audits/compas.json --html audits/again.html",
    "privfair audit report audits/compas.json --format model-card --output audits/card.md",
)
def report(
    audit_json: Path,
    html: Path | None,
    json_file: Path | None,
    kind: str | None,
    target: Path | None,
    pdf: Path | None,
    full: bool,
    fail_on: tuple[str, ...],
) -> None:
    """Render the JSON of an audit again: in another form, or against conditions."""
    from privfair.cli._audit_files import read_text
    from privfair.report import from_json

    conditions = _conditions(fail_on)
    _targets(html, json_file)
    check_export(kind, target, pdf)
    result = from_json(read_text(audit_json))
    printed, written = export(result, audit_json, kind, target, pdf)
    _conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full, more=written,
        printed=printed,
    )  # fmt: skip


@command.command()
@click.argument("old", type=_PATH)
@click.argument("new", type=_PATH)
@click.option("--all", "everything", is_flag=True, help="List every change, however small.")
@example(
    "privfair audit compas --n-resamples 200 --output audits",
    "privfair audit diff audits/compas.json audits/compas.json",
)
def diff(old: Path, new: Path, everything: bool) -> None:
    """Compare two audits finding by finding.

    Findings whose intervals have no point in common come first.
    """
    from privfair.cli._audit_files import read_text
    from privfair.report import diff as compare
    from privfair.report import from_json

    found = compare(from_json(read_text(old)), from_json(read_text(new)))
    shown = found.changed if everything else found.changed[:30]

    def human(console: Console) -> None:
        from privfair.report import print_diff

        encoding = (console.encoding or "utf-8").lower()
        print_diff(found, shown, console, ascii_only=not encoding.startswith("utf"))

    output(found.to_dict(), human)
