"""Ready-made rules for Adult, and a refusal where a data set has no such column."""

from __future__ import annotations

from collections.abc import Mapping

from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.fairness.sep._composite import CompositeSES
from privfair.fairness.sep._effort import EffortRule
from privfair.fairness.sep._rules import SESRule

__all__ = ["effort_preset", "ses_preset"]

SES_PRESETS = ("adult_capital_gain", "adult_education", "adult_composite")


def _refuse(name: str) -> None:
    if name.lower().startswith("compas"):
        raise DataError(
            f"there is no preset {name!r}: COMPAS has no column of socio-economic status or of "
            "effort. Prior arrests, charges or age are no such thing, and a stand-in would say "
            "something about them. Join a column of your own and write SESRule(column, '<', t)."
        )


def ses_preset(
    name: str, *, prestige: Mapping[str, float] | None = None
) -> SESRule | CompositeSES:
    """Return a ready-made rule of who is underprivileged in Adult.

    Parameters
    ----------
    name : {"adult_capital_gain", "adult_education", "adult_composite"}
        ``capital-gain < 1``; ``education-num < 10`` (at most high school); the mean mid-rank of
        education-num, capital-gain and occupational prestige below its median.
    prestige : mapping or None
        Prestige of every occupation, for ``"adult_composite"``; the caller answers for it.

    Returns
    -------
    SESRule or CompositeSES

    Raises
    ------
    DataError
        A data set without such a column (COMPAS).

    Notes
    -----
    The choice of attributes and thresholds is ours: those of Roy et al. (2025) could not be
    verified. Capital gain is 0 in 92 % of the rows, so that "underprivileged" is nearly everybody
    and SEP nearly demographic parity; ``adult_education`` carries more.

    Examples
    --------
    >>> str(ses_preset("adult_education"))
    'education-num < 10'
    """
    _refuse(name)
    if name == "adult_capital_gain":
        return SESRule("capital-gain", "<", 1)
    if name == "adult_education":
        return SESRule("education-num", "<", 10)
    if name == "adult_composite":
        if prestige is None:
            raise InvalidParameterError(
                "adult_composite needs prestige={occupation: number}: no ranking of occupations "
                "is shipped as a fact. Give one, with its source."
            )
        return CompositeSES(
            ["education-num", "capital-gain", "occupation"], tables={"occupation": prestige}
        )
    raise InvalidParameterError(
        f"name must be one of {', '.join(map(repr, SES_PRESETS))}; got {name!r}."
    )


def effort_preset(name: str) -> EffortRule:
    """Return the ready-made rule of who shows effort in Adult: 40 weekly hours or more.

    Parameters
    ----------
    name : {"adult_hours"}

    Returns
    -------
    EffortRule

    Raises
    ------
    DataError
        A data set without such a column (COMPAS).

    Examples
    --------
    >>> str(effort_preset("adult_hours"))
    'hours-per-week >= 40'
    """
    _refuse(name)
    if name != "adult_hours":
        raise InvalidParameterError(f"name must be 'adult_hours'; got {name!r}.")
    return EffortRule("hours-per-week", 40)
