"""The options that several commands of ``privfair audit`` share, and what is made of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from privfair.cli._common import FiniteFloat, WholeNumber, clean, state

if TYPE_CHECKING:
    from privfair.report import AuditConfig

__all__ = [
    "PATH", "audit_config", "check_clock", "file_options", "random_seed", "settings_options",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def settings_options(function: F) -> F:
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


def file_options(function: F) -> F:
    """Add the options that name output files."""
    function = click.option(
        "--json-file", "json_file", type=PATH, default=None, help="Write the JSON here."
    )(function)
    return click.option("--html", type=PATH, default=None, help="Write the page here.")(function)


def audit_config(given: dict[str, Any], **more: Any) -> AuditConfig:
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


def check_clock() -> None:
    """Let a wrong SOURCE_DATE_EPOCH end the command before any work."""
    from privfair.report import creation_date

    creation_date()


def random_seed() -> int:
    return state().seed or 0
