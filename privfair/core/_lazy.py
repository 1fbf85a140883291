"""Lazy attribute loading for package ``__init__`` modules (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(
    package: str,
    names: Mapping[str, Iterable[str]],
    *,
    extra: Iterable[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a lazily loaded package.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    names : mapping of str to iterable of str
        Submodule (relative to the package) to the public names that it defines.
    extra : iterable of str, default=()
        Names that the package defines eagerly and that belong to ``__all__`` as well.

    Returns
    -------
    getattr_, dir_, all_ : tuple
        To be bound to ``__getattr__``, ``__dir__`` and ``__all__``.
    """
    home = {name: module for module, members in names.items() for name in members}
    public = sorted({*home, *extra})

    def __getattr__(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*public, *vars(sys.modules[package])})

    return __getattr__, __dir__, public
