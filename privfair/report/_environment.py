"""What the numbers were made with: versions, platform, revision."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from privfair.core.exceptions import InvalidParameterError

__all__ = ["creation_date", "environment"]

_PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-learn", "statsmodels", "torch", "dp-accounting", "opacus",
    "fairlearn", "matplotlib", "jinja2",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return versions and platform; nothing that names a person, a host or a folder."""
    import privfair

    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    return {
        "privfair": privfair.__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "byteorder": sys.byteorder,
        "source_date_epoch": os.environ.get("SOURCE_DATE_EPOCH", ""),
        "packages": packages,
    }


def creation_date() -> str:
    """Return the date of a report; SOURCE_DATE_EPOCH replaces the clock.

    Raises
    ------
    InvalidParameterError
        SOURCE_DATE_EPOCH is set and is no number of seconds. To be called before anything is
        read or entered into a ledger.

    Examples
    --------
    >>> len(creation_date()) >= 10
    True
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    digits = epoch.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 11):
        raise InvalidParameterError(
            f"SOURCE_DATE_EPOCH must be a whole number of seconds since 1970, got {epoch[:40]!r}. "
            "It replaces the clock in the report's date; correct or unset the variable."
        )
    return datetime.fromtimestamp(int(digits), UTC).strftime("%Y-%m-%d")
