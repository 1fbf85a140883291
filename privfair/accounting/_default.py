"""The ledgers that ``ledger=None`` stands for."""

from __future__ import annotations

import os
import threading

from privfair.accounting.ledger import Ledger

__all__ = ["default_ledger"]

_DEFAULT: dict[tuple[int, str, str, str], Ledger] = {}
_DEFAULT_LOCK = threading.Lock()


def default_ledger(
    dataset_id: str = "default", *, unit: str = "record", neighboring: str = "zero_out"
) -> Ledger:
    """Return the ledger that ``ledger=None`` stands for.

    Parameters
    ----------
    dataset_id : str, default="default"
        Name of the data set.
    unit : {"record", "user", "client"}, default="record"
        Whose data.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.

    Returns
    -------
    Ledger
        One per process and data set, in memory, without a cap.

    Examples
    --------
    >>> default_ledger("a") is default_ledger("a")
    True
    """
    key = (os.getpid(), dataset_id, unit, neighboring)
    with _DEFAULT_LOCK:
        if key not in _DEFAULT:
            _DEFAULT[key] = Ledger(dataset_id=dataset_id, unit=unit, neighboring=neighboring)
        return _DEFAULT[key]
