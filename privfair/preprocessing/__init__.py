"""From tables to numbers without a silent look at the data."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__, {"_cuts": ["with_exact_cuts"], "_encoder": ["PrivateTableEncoder"]}
)
