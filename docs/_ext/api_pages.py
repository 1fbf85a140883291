"""Write one page per room of the API reference, from the room's ``__all__``."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

from privfair.core import Metric

ROOMS = (
    "core", "core.exceptions", "core.statistics", "accounting", "mechanisms", "datasets",
    "preprocessing", "training", "ldp", "dp", "synthesis", "fairness", "fairness.metrics",
    "auditing", "report", "testing",
)  # fmt: skip


def _heading(text: str, mark: str) -> list[str]:
    return [text, mark * len(text), ""]


def _table(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    listed = [f"   {name}" for name in names]
    return [*_heading(title, "-"), ".. autosummary::", "   :toctree: objects", "", *listed, ""]


def _metric(name: str, item: Any) -> list[str]:
    """Describe a metric from what it says about itself."""
    low, high = item.range
    facts = {
        "Definition": f"``{item.definition}``" if item.definition else "",
        "Range": f"{low:g} to {high:g}",
        "Best value": "none" if item.optimum is None else f"{item.optimum:g}",
        "Needs": ", ".join(f"``{need}``" for need in sorted(item.requires)),
        "References": "; ".join(item.references),
    }
    listed = [f":{key}: {value}" for key, value in facts.items() if value]
    return [*_heading(name, "~"), *listed, ""]


def _page(name: str, module: ModuleType, documented: dict[int, str]) -> str:
    groups: dict[str, list[str]] = {"Classes": [], "Functions": [], "Objects": []}
    constants, elsewhere, metrics = [], [], []
    for public in sorted(module.__all__):
        item = getattr(module, public)
        if inspect.ismodule(item) or public.startswith("__"):
            continue
        if inspect.isclass(item) or inspect.isroutine(item):
            first = documented.setdefault(id(item), f"{name}.{public}")
            if first != f"{name}.{public}":
                elsewhere.append(f"``{public}``: :obj:`{first}`")
                continue
        if inspect.isclass(item):
            groups["Classes"].append(public)
        elif inspect.isroutine(item):
            groups["Functions"].append(public)
        elif isinstance(item, Metric):
            metrics += _metric(public, item)
        elif callable(item):
            groups["Objects"].append(public)
        else:
            constants.append(public)
    lines = [*_heading(name, "="), f".. automodule:: {name}", "   :no-members:", ""]
    lines += [f".. currentmodule:: {name}", ""]
    for title, names in groups.items():
        lines += _table(title, names)
    if metrics:
        lines += [*_heading("Metrics", "-"), *metrics]
    if constants:
        lines += [*_heading("Constants", "-"), ", ".join(f"``{c}``" for c in constants), ""]
    if elsewhere:
        lines += [*_heading("Also here", "-"), ", ".join(elsewhere), ""]
    return "\n".join(lines)


def write_pages(app: Sphinx, config: object) -> None:
    """Write the pages where they changed, and the list of them."""
    folder = Path(app.srcdir) / "api" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    pages: dict[str, str] = {}
    documented: dict[int, str] = {}
    for room in ROOMS:
        name = f"privfair.{room}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:
                continue  # not in this edition
            raise
        if getattr(module, "__all__", None):
            pages[f"{name}.rst"] = _page(name, module, documented)
    for old in folder.glob("privfair.*.rst"):
        if old.name not in pages:
            old.unlink()
    for file, text in pages.items():
        path = folder / file
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before Sphinx looks for sources."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
