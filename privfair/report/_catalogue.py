"""The strings of the report, by language; English is complete, others may fall back to it."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from privfair.core.exceptions import InvalidParameterError, ReportError

if TYPE_CHECKING:
    from privfair.report._model import AuditResult

__all__ = ["Catalogue", "banner_key", "catalogue", "languages"]


class Catalogue:
    """Texts by key: ``catalogue("en")("ui.contents")``.

    Examples
    --------
    >>> t = catalogue("en")
    >>> t("ui.interval", level="95")
    '95 % interval'
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = {**_read("en"), **_read(language)}

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text with its values filled in."""
        text = self._texts.get(key)
        if not isinstance(text, str):
            raise ReportError(f"the catalogue {self.language!r} has no text {key!r}.")
        return text.format(**values) if values else text

    def get(self, key: str, default: str = "") -> str:
        """Return a text, or the default where there is none."""
        text = self._texts.get(key, default)
        return text if isinstance(text, str) else default

    def items(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        found = self._texts.get(key)
        if not isinstance(found, list):
            raise ReportError(f"the catalogue {self.language!r} has no list {key!r}.")
        return tuple(str(item) for item in found)

    def keys(self) -> list[str]:
        """Return all keys."""
        return sorted(self._texts)


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            out.update(_flatten(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = " ".join(value.split()) if isinstance(value, str) else value
    return out


@cache
def _read(language: str) -> dict[str, Any]:
    text = files("privfair.report").joinpath("catalogue", f"{language}.toml").read_text("utf-8")
    return _flatten(tomllib.loads(text))


def languages() -> list[str]:
    """Return the languages that have a catalogue."""
    folder = files("privfair.report").joinpath("catalogue")
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))


@cache
def catalogue(language: str = "en") -> Catalogue:
    """Return the catalogue of a language."""
    if language not in languages():
        raise InvalidParameterError(
            f"language must be one of {', '.join(languages())}; got {language!r}."
        )
    return Catalogue(language)


def banner_key(result: AuditResult) -> str:
    """Return the key of the words that say what protects whom, as it is in this report."""
    if result.release.get("kind") in {"dp", "local"}:
        return f"banner.{result.release['kind']}"
    if any(t.id == "embedded-certificate" for s in result.sections for t in s.tables):
        return "banner.raw_embedded"
    if any(m.privacy is not None for m in result.models):
        return "banner.raw"
    return "banner.raw_uncertified"
