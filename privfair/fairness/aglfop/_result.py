"""The answer to one question: how accurate can any decision be under these bounds."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core._format import json_number, json_safe

__all__ = ["AGLFOPResult", "overlap_coupling"]

Array = NDArray[np.float64]


def overlap_coupling(p: Array, m: Array) -> Array:
    """Return the joint of labels and decisions with the largest overlap.

    Parameters
    ----------
    p, m : ndarray of shape (..., n_labels)
        Masses of labels and of decisions, with equal sums over the last axis.

    Returns
    -------
    ndarray of shape (..., n_labels, n_labels)
        Entry (y, k): the diagonal is min(p, m), the rest an outer product of what p has too much
        and what m has too much.
    """
    kept = np.minimum(p, m)
    deficit, surplus = p - kept, m - kept
    moved = deficit.sum(axis=-1)[..., None, None]
    rest = deficit[..., :, None] * surplus[..., None, :]
    joint = np.divide(rest, moved, out=np.zeros_like(rest), where=moved > 0)
    diagonal = np.arange(p.shape[-1])
    joint[..., diagonal, diagonal] += kept
    return joint


@dataclass(frozen=True, eq=False)
class AGLFOPResult:
    """Best accuracy under bounds on global and local disparity, with its proof.

    Attributes
    ----------
    error : float
        Smallest error found, in [0, 1]; attained by ``joint``.
    accuracy : float
        ``1 - error``.
    error_lower : float
        Proven lower bound of the error, from the dual potentials; no answer is better.
    gap : float
        ``error - error_lower``.
    joint : ndarray of shape (n_z, n_s, n_labels)
        Optimal masses m(z, s, decision). Optimal masses are not unique; error and prices are.
    p : ndarray of shape (n_z, n_s, n_labels)
        The masses of the labels that the answer is about.
    eps_global, eps_local : float or None
        The bounds.
    global_disparity, local_disparity : float
        I(Z; decision) and I(Z; decision | S) at ``joint``.
    price_global, price_local : float
        -d(error) / d(eps): accuracy that one more unit of disparity buys. 0 for a bound that is
        not there or not reached, ``inf`` at a bound of exactly 0 that costs something.
    price_degenerate : bool
        Both bounds bind and pull the same way (identical clients, say), so that only a
        combination of the two prices is determined.
    status : str
        "solved" (proven gap at most 1e-6), "reduced_accuracy" (proven gap at most 5e-3; rare),
        "labels_feasible" (the labels themselves keep
        the bounds; nothing was solved) or "one_group".
    n_iter : int
        Iterations of the solver.
    unit : {"bits", "nats"}
        Of bounds and disparities; prices are per this unit.
    bound_only : bool
        True: an oracle knows the labels. The accuracy bounds what any classifier can reach on
        these data, and need not be reachable.
    price_client : dict
        Prices of bounds on single clients, where there are any.
    """

    error: float
    error_lower: float
    joint: Array = field(repr=False)
    p: Array = field(repr=False)
    eps_global: float | None
    eps_local: float | None
    global_disparity: float
    local_disparity: float
    price_global: float
    price_local: float
    price_degenerate: bool
    status: str
    n_iter: int
    unit: str = "bits"
    bound_only: bool = True
    price_client: dict[Any, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Accuracy, ``1 - error``."""
        return 1.0 - self.error

    @property
    def gap(self) -> float:
        """Distance of the answer to its proven bound."""
        return self.error - self.error_lower

    def relabelling(self) -> Array:
        """Return the optimal joint of label and decision, Q(z, s, y, decision).

        Returns
        -------
        ndarray of shape (n_z, n_s, n_labels, n_labels)
        """
        return overlap_coupling(self.p, self.joint)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as strict JSON data, without the tables."""
        numbers = (
            "error", "accuracy", "error_lower", "gap", "eps_global", "eps_local",
            "global_disparity", "local_disparity", "price_global", "price_local",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in numbers}
        out: dict[str, Any] = {
            name: None if value is None else json_number(value) for name, value in values.items()
        }
        out |= {
            "price_degenerate": self.price_degenerate,
            "status": self.status,
            "n_iter": self.n_iter,
            "unit": self.unit,
            "bound_only": self.bound_only,
        }
        return json_safe(out)

    def _repr_html_(self) -> str:
        bound = " (bound, not achievable)" if self.bound_only else ""
        rows = [
            ("accuracy" + bound, f"{self.accuracy:.4f}"),
            ("proven gap", f"{self.gap:.1e}"),
            ("global disparity", self._disparity(self.global_disparity, self.eps_global)),
            ("local disparity", self._disparity(self.local_disparity, self.eps_local)),
            (f"price of one {self.unit[:-1]}, global", f"{self.price_global:.4g}"),
            (f"price of one {self.unit[:-1]}, local", f"{self.price_local:.4g}"),
            ("status", self.status),
        ]
        cells = "".join(
            f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(v)}</td></tr>'
            for k, v in rows
        )
        return f"<table><caption>Best accuracy under disparity bounds</caption>{cells}</table>"

    def _disparity(self, value: float, bound: float | None) -> str:
        limit = "no bound" if bound is None else f"at most {bound:.4g}"
        return f"{value:.4g} {self.unit} ({limit})"
