"""The table encoder under the name by which users of private estimators look for it."""

from privfair.preprocessing import PrivateTableEncoder

__all__ = ["PrivateTableEncoder"]
