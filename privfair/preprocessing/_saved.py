"""Encoders on disk: JSON, of which nothing is ever executed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfair.core.exceptions import OutputTargetError, UnsafeFileError
from privfair.core.privacy import PrivacyGuarantee

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["guarantee_from", "read", "write"]

FORMAT = "privfair.PrivateTableEncoder"
_MOST_BYTES = 1 << 26


def write(path: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Write JSON, the same bytes for the same data, in one step."""
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise OutputTargetError(
            f"{target} is a folder, or lies in one that does not exist. Give a file's name."
        )
    text = json.dumps(
        {"format": FORMAT, **data}, sort_keys=True, allow_nan=False, indent=1, ensure_ascii=False
    )
    draft = target.with_name(target.name + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, target)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write` wrote."""
    source = Path(path)
    problem = f"{source} is not a file that PrivateTableEncoder.save wrote"
    if source.stat().st_size > _MOST_BYTES:
        raise UnsafeFileError(f"{problem}: it is larger than {_MOST_BYTES} bytes.")
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"{problem}: it is no JSON text. Nothing was executed.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UnsafeFileError(f"{problem}: its format is another one.")
    return data


def guarantee_from(data: Mapping[str, Any]) -> PrivacyGuarantee:
    """Return the guarantee that ``PrivacyGuarantee.to_dict`` described."""
    events: tuple[AccountedEvent, ...] = ()
    if data["events"]:
        from privfair.accounting.events import event_from_dict

        events = tuple(event_from_dict(event) for event in data["events"])
    return PrivacyGuarantee(
        math.inf if data["epsilon"] == "inf" else float(data["epsilon"]),
        data["delta"],
        unit=data["unit"],
        neighboring=data["neighboring"],
        accountant=data["accountant"],
        events=events,
        assumptions=tuple(data["assumptions"]),
        numerics=data["numerics"],
        seeded=data["seeded"],
        unsafe=tuple(data["unsafe"]),
    )
