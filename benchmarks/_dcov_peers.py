"""dcor 0.7 for the distance covariance benchmark: absent, and the comparison is skipped.

``pip install dcor==0.7 array-api-compat`` beside this package (numba 0.68 and llvmlite come with
it). It is never a dependency of this package.
"""

from __future__ import annotations

import importlib
from typing import Any

PEER_VERSION = "0.7"


def load_dcor() -> tuple[Any, str]:
    """Return (module, why not): one of the two says something."""
    try:
        module = importlib.import_module("dcor")
    except ImportError as error:
        return None, f"dcor {PEER_VERSION} is not installed ({error}); its rows are skipped"
    return module, ""
