"""``privfair audit adult`` and ``compas``: the data sets that everybody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from privfair.cli._audit_options import (
    PATH,
    audit_config,
    check_clock,
    random_seed,
    settings_options,
)
from privfair.cli._audit_output import (
    check_ledger,
    conclude,
    ledger_note,
    output_folder,
    parsed_conditions,
)
from privfair.cli._common import delta_option, epsilon_option, example, note

__all__ = ["adult", "compas"]


class _Runs(click.IntRange):
    """0, or at least 2: with one run, privacy cannot be told from luck."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        found = int(super().convert(value, param, ctx))
        if found == 1:
            self.fail("1 run cannot tell privacy from luck; give 0 or at least 2.", param, ctx)
        return found


@click.command()
@click.option(
    "--output", type=PATH, default=Path("reports"), show_default=True,
    help="Folder of adult.html and adult.json; made if absent.",
)  # fmt: skip
@click.option(
    "--ledger", "ledger_path", type=PATH, default=None,
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
@click.option(
    "--client", default="workclass", show_default=True, metavar="COLUMN",
    help="Public column that stands in for the clients of a federation; 'none' for none.",
)  # fmt: skip
@click.option(
    "--status/--no-status", default=True, show_default=True,
    help="Socio-economic parity by education and capital gain, among those who work full time.",
)  # fmt: skip
@click.option("--data-home", type=PATH, default=None, help="Folder with the data files.")
@settings_options
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
    client: str,
    status: bool,
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

    conditions = parsed_conditions(fail_on)
    check_clock()
    if split == "train" and not (no_dp or allow_raw_training_rows):
        _refuse_training_rows()
    html, json_file = output_folder(output, "adult")
    check_ledger(ledger_path)
    options: dict[str, Any] = {"data_home": data_home, "fallback": "embedded"}
    train = fetch_adult(split="train", **options)
    rows = train if split == "train" else fetch_adult(split="test", **options)
    chosen = None if client == "none" else _column(rows, client, "--client")
    config = audit_config(
        settings,
        title=settings.get("title") or "Audit of Adult: income above $50,000",
        allow_raw_training_rows=allow_raw_training_rows,
        client_note=_stand_in(client),
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
        train, epsilon=epsilon, delta=delta, seed=random_seed(), ledger=spent, with_dp=not no_dp
    )
    attacked, sweep = _studies(models, train, no_dp, attacks, runs, split, config, spent)
    result = audit(
        models, rows.data, rows.target, sensitive_features=rows.sensitive, client=chosen,
        ses=["adult_education", "adult_capital_gain"] if status else None,
        effort="adult_hours" if status else None, ledger=audited, attacks=attacked, sweep=sweep,
        config=config, random_state=random_seed(),
    )  # fmt: skip
    conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full,
        more=ledger_note(spent) + ledger_note(audited),
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
        found = {name: attacks_on(twin, train.schema, seed=random_seed())}
    if not runs:
        return found, None
    if config.dp_report is not None or split == "train" or ledger.cap is not None:
        note(
            "no fits at several epsilons: they need held-out rows, a raw report and a ledger "
            "without a cap."
        )
        return found, None
    note(f"training {runs} times at each of several epsilons and without privacy ...")
    return found, sweep_of(twin, train, runs=runs, seed=random_seed())


def _column(rows: Any, name: str, option: str) -> Any:
    """Return a column of the features, or say which there are."""
    if name not in rows.data.columns:
        import difflib

        near = difflib.get_close_matches(name, list(rows.data.columns), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise click.BadParameter(
            f"{name!r} is none of {', '.join(rows.data.columns)}.{hint}", param_hint=option
        )
    return rows.data[name]


def _stand_in(client: str) -> str | None:
    if client == "none":
        return None
    return (
        f"These data have no clients. The public column {client} stands in for them, as an "
        "illustration: nobody trains a model per value of it."
    )


def _refuse_training_rows() -> None:
    """Stop before anything is trained or spent."""
    from privfair.core.exceptions import PrivacyError

    raise PrivacyError(
        "--split train shows raw counts of the rows that train the private twin, whose "
        "certificate promises that nothing else about them becomes known. Audit the test rows, "
        "or pass --allow-raw-training-rows: the report then shows the certificate as void."
    )


@click.command()
@click.option(
    "--output", type=PATH, default=Path("reports"), show_default=True,
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
    "--ledger", "ledger_path", type=PATH, default=None,
    help="File that the audit of these rows is entered into. In memory by default.",
)  # fmt: skip
@click.option(
    "--client", default=None, metavar="COLUMN",
    help="Public column that stands in for the clients of a federation.",
)  # fmt: skip
@click.option("--data-home", type=PATH, default=None, help="Folder with the data files.")
@settings_options
@example("privfair audit compas --n-resamples 200")
def compas(
    output: Path,
    version: str,
    threshold: int,
    races: tuple[str, ...],
    ledger_path: Path | None,
    client: str | None,
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

    conditions = parsed_conditions(fail_on)
    check_clock()
    html, json_file = output_folder(output, "compas")
    check_ledger(ledger_path)
    data = fetch_compas(version=version, data_home=data_home, fallback="embedded")
    if client is not None:
        _column(data, client, "--client")
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
    config = audit_config(
        settings,
        title=settings.get("title") or f"Audit of COMPAS: decile score above {threshold}",
        public_groups=_public(data, ["race", "sex"], settings, race=races),
        client_note=None if client is None else _stand_in(client),
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
        sensitive_features=sensitive, client=None if client is None else frame[client],
        ledger=ledger, config=config, random_state=random_seed(),
    )  # fmt: skip
    conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full,
        more=ledger_note(ledger),
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
