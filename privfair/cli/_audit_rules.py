"""Rules of status and effort as they are written on the command line."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["parsed_rules", "rule_columns"]

_RULE = re.compile(r"^\s*(?P<column>.+?)\s*(?P<op><=|>=|<|>)\s*(?P<number>[^<>=]+?)\s*$")
_PRESETS = ("adult_capital_gain", "adult_education")
_EFFORT_PRESETS = ("adult_hours",)


def _parts(text: str, option: str, example: str) -> tuple[str, str, float]:
    import math

    found = _RULE.match(text)
    try:
        number = float(found["number"]) if found else math.nan
    except ValueError:
        number = math.nan
    if found is None or not math.isfinite(number):
        raise click.BadParameter(
            f"{text!r} is not a rule such as {example!r}: a column, one of <, <=, >, >=, and a "
            "number.",
            param_hint=option,
        )
    return found["column"], found["op"], number


def parsed_rules(ses: tuple[str, ...], effort: str | None) -> tuple[dict[str, Any] | None, Any]:
    """Return the rules by name, and the rule of effort; None where none was given."""
    if not ses:
        if effort is not None:
            raise click.UsageError(
                "--effort needs --ses: effort is compared between people of low and of "
                "high status."
            )
        return None, None
    from privfair.fairness.sep import EffortRule, SESRule, effort_preset, ses_preset

    rules: dict[str, Any] = {}
    for text in ses:
        if text in _PRESETS:
            rules[text.removeprefix("adult_")] = ses_preset(text)
            continue
        column, op, number = _parts(text, "--ses", "education-num < 10")
        rules[f"{column} {op} {number:g}"] = SESRule(column, op, number)
    if effort is None:
        return rules, None
    if effort in _EFFORT_PRESETS:
        return rules, effort_preset(effort)
    column, op, number = _parts(effort, "--effort", "hours-per-week >= 40")
    if op != ">=":
        raise click.BadParameter(
            f"{effort!r}: effort is a number at or above a threshold; write >=.",
            param_hint="--effort",
        )
    return rules, EffortRule(column, number)


def rule_columns(ses: dict[str, Any] | None, effort: Any) -> list[str]:
    """Return the columns that the rules read, each once."""
    names = [name for rule in (ses or {}).values() for name in rule.columns]
    if effort is not None:
        names.append(effort.column)
    return list(dict.fromkeys(names))
