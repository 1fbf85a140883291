"""Events as one would write them by hand: ``640 * PoissonSampled(0.03, Gaussian(3.1))``."""

from __future__ import annotations

import ast
import difflib
import math
from dataclasses import MISSING, fields
from typing import Any

from privfair.core.exceptions import InvalidParameterError, PrivfairError, UnsupportedEventError

__all__ = ["parse_expression"]

_LONGEST = 10_000
_DEEPEST = 50


def parse_expression(text: str) -> Any:
    """Return the event that a line describes; nothing in it is ever executed.

    Parameters
    ----------
    text : str
        Names of events with their numbers in parentheses, by position or by name; a whole number
        times an event repeats it; lists are in square brackets.

    Returns
    -------
    AccountedEvent

    Raises
    ------
    InvalidParameterError
        The line is not of this form, or a value is out of its range.
    UnsupportedEventError
        A name is not that of an event.

    Examples
    --------
    >>> parse_expression("2 * PoissonSampled(0.1, Gaussian(sigma=1.5))")
    ... # doctest: +NORMALIZE_WHITESPACE
    SelfComposed(event=PoissonSampled(q=0.1, event=Gaussian(sigma=1.5)), count=2)
    """
    from privfair.accounting import AccountedEvent

    if len(text) > _LONGEST or _depth(text) > _DEEPEST:
        raise InvalidParameterError(
            f"an event has more than {_LONGEST:,} characters or {_DEEPEST} nested parentheses. "
            "Write it as JSON, or in parts."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _not_understood() from None
    value = _value(tree.body, 0)
    if not isinstance(value, AccountedEvent):
        raise _not_understood()
    return value


def _depth(text: str) -> int:
    deepest = depth = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _not_understood() -> InvalidParameterError:
    return InvalidParameterError(
        "an event written as text has the form Gaussian(2.0), PoissonSampled(0.01, Gaussian(1.1)) "
        "or 100 * Laplace(b=5); see `privfair accountant compose --help`."
    )


def _value(node: ast.AST, depth: int) -> Any:
    from privfair.accounting import AccountedEvent, SelfComposed

    if depth > 2 * _DEEPEST:
        raise _not_understood()
    match node:
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_value(item, depth + 1) for item in items)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, two = _value(left, depth + 1), _value(right, depth + 1)
            if isinstance(one, AccountedEvent):
                one, two = two, one
            if not isinstance(two, AccountedEvent) or isinstance(one, AccountedEvent | tuple):
                raise _not_understood()
            return SelfComposed(two, one)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _event(name, args, keywords, depth)
    raise _not_understood()


def _event(name: str, args: list[ast.expr], keywords: list[ast.keyword], depth: int) -> Any:
    from privfair.accounting import events as ev

    kinds = {
        kind: cls
        for kind in ev.__all__
        if isinstance(cls := getattr(ev, kind), type) and cls is not ev.AccountedEvent
    }
    if name not in kinds:
        near = difflib.get_close_matches(name[:100], kinds, n=1)
        hint = f" Did you mean {near[0]}?" if near else f" Known are {', '.join(sorted(kinds))}."
        raise UnsupportedEventError(f"there is no event {name[:40]!r}.{hint}")
    cls = kinds[name]
    wanted = [item.name for item in fields(cls)]
    needed = [
        item.name
        for item in fields(cls)
        if item.default is MISSING and item.default_factory is MISSING
    ]
    form = f"{name}({', '.join(wanted)})"
    if len(args) > len(wanted):
        raise InvalidParameterError(f"{len(args)} values are too many for {form}.")
    found = {key: _value(arg, depth + 1) for key, arg in zip(wanted, args, strict=False)}
    for keyword in keywords:
        if keyword.arg not in wanted or keyword.arg in found:
            raise InvalidParameterError(
                f"{name} was given a field twice, or an unknown one; its form is {form}."
            )
        found[keyword.arg] = _value(keyword.value, depth + 1)
    if missing := [key for key in needed if key not in found]:
        raise InvalidParameterError(f"{form} needs {missing[0]}.")
    try:
        return cls(**found)
    except PrivfairError:
        raise
    except (TypeError, ValueError, OverflowError):
        raise InvalidParameterError(f"{form} was given a value of the wrong kind.") from None
