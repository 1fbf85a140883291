"""Tensor in, tensor out; torch is never imported for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from privfair.core.events import LedgerLike
from privfair.core.mechanism import Mechanism

__all__ = ["TensorMechanism", "is_tensor"]


def is_tensor(value: Any) -> bool:
    """Whether the value is a torch tensor; a parameter of a model is one."""
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(value).mro())


class TensorMechanism(Mechanism):
    """A mechanism that answers a tensor with a tensor on the same device.

    The value is read on the CPU, the noise is drawn there in integers as for an array, and the
    answer goes back: float64 for numbers on a grid, int64 for integers, whatever the dtype of the
    value. So the numerical class is the same on every device. A device without float64 gets its
    answer on the CPU. Answers that are not numbers (names, dictionaries) stay what they are.
    """

    def release(self, value: Any, *, ledger: LedgerLike | None = None, purpose: str = "") -> Any:
        """Return a private version of ``value``, charged to ``ledger`` before the draw.

        Parameters
        ----------
        value : object
            What the mechanism's class describes, or the same as a torch tensor.
        ledger : Ledger or None, default=None
            Charged first; its refusal leaves the data untouched.
        purpose : str, default=""
            Written to the ledger; must not hold data.
        """
        if not is_tensor(value):
            return super().release(value, ledger=ledger, purpose=purpose)
        from privfair.mechanisms._torch import answer, as_numpy

        found = super().release(as_numpy(value), ledger=ledger, purpose=purpose)
        if isinstance(found, int | float | np.number | np.ndarray):
            return answer(found, value.device)
        return found
