"""Differentially private synthetic data."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {})
