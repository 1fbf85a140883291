"""From matplotlib's SVG to an inline one: themed, uniquely named, labelled, and checked.

The drawing uses marker colours that mean "ink", "grid" or "series 3"; here they become CSS
variables, so that one figure serves a light page, a dark page and paper.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from privfair.core.exceptions import ReportError

__all__ = ["ROLES", "check_svg", "finish_svg", "series_colour"]

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
N_SERIES = 8
ROLES = {"ink": "#010101", "muted": "#010102", "grid": "#010103", "surface": "#010104"}
_FALLBACK = {"ink": "#1b2430", "muted": "#56616e", "grid": "#dfe4ea", "surface": "#ffffff"}
_SERIES_FALLBACK = (
    "#0b62a8", "#b8470c", "#0f7355", "#7d3f98", "#806000", "#177082", "#ad2f5b", "#4d5763",
)  # fmt: skip
ELEMENTS = {
    "svg", "g", "path", "defs", "text", "tspan", "use", "clipPath", "rect", "line", "circle",
    "polygon", "title", "desc",
}  # fmt: skip
ATTRIBUTES = {
    "class", "clip-path", "d", "height", "href", "id", "points", "r", "role", "style",
    "transform", "viewBox", "width", "x", "x1", "x2", "y", "y1", "y2", "cx", "cy",
    "aria-labelledby", "aria-describedby", "aria-hidden", "focusable", "xmlns",
}  # fmt: skip


def series_colour(k: int) -> str:
    """Return the marker colour of series ``k``."""
    return f"#0102{k % N_SERIES:02x}"


def _variables() -> dict[str, str]:
    out = {code: f"var(--f-{role},{_FALLBACK[role]})" for role, code in ROLES.items()}
    for k, fallback in enumerate(_SERIES_FALLBACK):
        out[series_colour(k)] = f"var(--s{k},{fallback})"
    return out


_VARIABLES = _variables()
_LONG = re.compile(r"-?\d+\.\d{3,}(?!\d*e)")
_GEOMETRY = ("d", "x", "y", "x1", "y1", "x2", "y2", "width", "height", "transform", "points")
_FONT = re.compile(r"font:\s*((?:\w+\s+)*?)(\d+(?:\.\d+)?)px[^;]*")


def _font(match: re.Match[str]) -> str:
    words = match.group(1).split()
    weight = next((w for w in words if w.isdigit() or w == "bold"), "")
    return f"font-size:{match.group(2)}px" + (f";font-weight:{weight}" if weight else "")


def _style(style: str) -> str:
    style = _FONT.sub(_font, style)
    for code, variable in _VARIABLES.items():
        style = style.replace(code, variable)
    return re.sub(r";\s+", ";", style).replace(": ", ":").strip()


def _short(text: str) -> str:
    """Round coordinates to a hundredth of a pixel."""
    return _LONG.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), text)


def _drop(root: ET.Element, names: set[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.split("}")[-1] in names:
                parent.remove(child)


def _rename(root: ET.Element, prefix: str) -> None:
    """Keep only identifiers that something refers to, and make them unique in the page."""
    used: set[str] = set()
    for element in root.iter():
        href = element.attrib.pop(f"{{{XLINK}}}href", None)
        if href is not None:
            element.set("href", href)
        for value in element.attrib.values():
            used.update(re.findall(r"url\(#([^)]+)\)", value))
        if element.get("href", "").startswith("#"):
            used.add(element.attrib["href"][1:])
    names = {name: f"{prefix}-{k}" for k, name in enumerate(sorted(used))}
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in names:
            element.set("id", names[name])
        for key, value in list(element.attrib.items()):
            if key == "href" and value.startswith("#"):
                element.set(key, "#" + names[value[1:]])
            elif "url(#" in value:
                swap = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names[m.group(1)]})", value)
                element.set(key, swap)


def finish_svg(raw: str, *, name: str, title: str, description: str) -> str:
    """Return an SVG element for inlining, with a title and a description.

    Parameters
    ----------
    raw : str
        What matplotlib wrote.
    name : str
        Prefix of all identifiers; unique in the page.
    title, description : str
        For those who do not see the figure.
    """
    ET.register_namespace("", SVG)
    root = ET.fromstring(raw)
    _drop(root, {"metadata", "style"})
    _rename(root, name)
    box = root.get("viewBox", "0 0 100 100")
    width = float(box.split()[2])
    root.attrib.clear()
    for element in root.iter():
        if "style" in element.attrib:
            element.set("style", _style(element.attrib["style"]))
        for key in _GEOMETRY:
            if key in element.attrib:
                element.set(key, _short(" ".join(element.attrib[key].split())))
        if element.text is not None and not element.text.strip():
            element.text = None
        element.tail = None
    root.set("viewBox", box)
    root.set("class", "plot")
    root.set("style", f"--w:{width:g}px")
    root.set("role", "img")
    root.set("focusable", "false")
    root.set("aria-labelledby", f"{name}-t {name}-d")
    for k, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag[0]}"})
        child.text = text
        root.insert(k, child)
    out = ET.tostring(root, encoding="unicode")
    check_svg(out)
    return out


def check_svg(text: str) -> None:
    """Refuse an SVG that could run code or fetch anything.

    Raises
    ------
    ReportError
        If it has an element or attribute outside a short list, an event handler, a reference
        to anything but itself, or is not well formed.
    """
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise ReportError(f"a figure is not well-formed SVG: {error}.") from None
    for element in root.iter():
        tag = str(element.tag)
        local = tag.split("}")[-1]
        if tag != f"{{{SVG}}}{local}" or local not in ELEMENTS:
            raise ReportError(f"a figure holds the element {local!r}, which is not allowed.")
        for key, value in element.attrib.items():
            if key not in ATTRIBUTES:
                raise ReportError(f"a figure holds the attribute {key!r}, which is not allowed.")
            if key == "href" and not value.startswith("#"):
                raise ReportError("a figure refers to something outside itself.")
            urls = re.findall(r"url\(\s*['\"]?(.)", value)
            active = re.search(r"javascript:|expression\(|@import", value)
            if active or any(c != "#" for c in urls):
                raise ReportError("a figure refers to something outside itself.")
