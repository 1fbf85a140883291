"""What the numbers were made with: versions, platform, revision."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["environment"]

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
