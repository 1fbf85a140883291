"""Every public name explains itself: parameters, and an example or a reference."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpydoc.docscrape import NumpyDocString

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(
    path.parent.name
    for path in (ROOT / "privfair").glob("*/__init__.py")
    if path.parent.name not in {"cli"}
)


def public() -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that privfair defines and offers."""
    seen = set()
    for room in ROOMS:
        module = importlib.import_module(f"privfair.{room}")
        for name in getattr(module, "__all__", []):
            item = getattr(module, name)
            if not (inspect.isclass(item) or inspect.isfunction(item)) or id(item) in seen:
                continue
            seen.add(id(item))
            yield f"{room}.{name}", item


ITEMS = dict(public())


def described(item: Any) -> set[str]:
    """Return the names that the docstring describes, parameters and attributes alike."""
    doc = NumpyDocString(inspect.getdoc(item) or "")
    names: set[str] = set()
    for section in ("Parameters", "Other Parameters", "Attributes"):
        for entry in doc[section]:
            names |= {name.strip().lstrip("*") for name in entry.name.split(",")}
    return names


def parameters(item: Any) -> list[str]:
    signature = inspect.signature(item)
    return [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        and not name.startswith("_")
    ]


def is_contract(item: Any) -> bool:
    """Protocols and abstract bases describe what others must provide, not how to call them."""
    return inspect.isclass(item) and (
        getattr(item, "_is_protocol", False) or inspect.isabstract(item)
    )


@pytest.mark.parametrize("name", ITEMS)
def test_a_public_name_says_what_it_is(name: str) -> None:
    doc = inspect.getdoc(ITEMS[name]) or ""
    summary = doc.split("\n\n")[0]
    assert 10 < len(summary) < 300, summary
    assert summary.rstrip().endswith((".", ":", "?")), summary


@pytest.mark.parametrize("name", ITEMS)
def test_every_parameter_is_described(name: str) -> None:
    item = ITEMS[name]
    if is_contract(item) or (inspect.isclass(item) and issubclass(item, Exception)):
        return
    # One argument whose meaning the summary carries needs no table.
    wanted = parameters(item)
    if len(wanted) > 1:
        assert not set(wanted) - described(item)


@pytest.mark.parametrize("name", ITEMS)
def test_no_parameter_is_described_that_does_not_exist(name: str) -> None:
    item = ITEMS[name]
    doc = NumpyDocString(inspect.getdoc(item) or "")
    if is_contract(item) or not doc["Parameters"]:
        return
    listed = {
        part.strip().lstrip("*") for entry in doc["Parameters"] for part in entry.name.split(",")
    }
    signature = inspect.signature(item)
    if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        assert not listed - set(signature.parameters)


@pytest.mark.parametrize("name", [n for n in ITEMS if inspect.isfunction(ITEMS[n])])
def test_a_public_function_has_an_example_or_a_reference(name: str) -> None:
    doc = inspect.getdoc(ITEMS[name]) or ""
    page = re.search(r"``(docs/[\w/-]+\.md)``", doc)
    assert re.search(r"^(Examples|References)\n-+$", doc, re.MULTILINE) or (
        page and (ROOT / page[1]).is_file()
    ), "an example, a reference, or a page of the documentation that shows it"
