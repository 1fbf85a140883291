"""The ledgers that ``ledger=None`` stands for."""

from __future__ import annotations

import multiprocessing
import os
import threading

from privfair.accounting.ledger import Ledger
from privfair.core.exceptions import LedgerError

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

    Raises
    ------
    LedgerError
        In a worker process: its charges would be lost with it, and the total that its parent
        states would be too small.

    Examples
    --------
    >>> default_ledger("a") is default_ledger("a")
    True
    """
    if _in_worker():
        raise LedgerError(
            "ledger=None stands for a ledger in this process's memory, and this is a worker "
            "process: its charges would be lost, and the total under-counted. Give the estimator "
            "a ledger in a file, which all processes share, before it goes into the search: "
            "estimator.set_params(ledger=privfair.Ledger('spent.db')). Or use n_jobs=1."
        )
    key = (os.getpid(), dataset_id, unit, neighboring)
    with _DEFAULT_LOCK:
        if key not in _DEFAULT:
            _DEFAULT[key] = Ledger(dataset_id=dataset_id, unit=unit, neighboring=neighboring)
        return _DEFAULT[key]


def _in_worker() -> bool:
    """Whether another process started this one to work for it (multiprocessing, loky)."""
    return (
        multiprocessing.parent_process() is not None
        or multiprocessing.current_process().name != "MainProcess"
    )
