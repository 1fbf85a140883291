"""What a rule sees of a classifier: score bins or predicted classes, and codes of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    PrivacyError,
)
from privfair.core.frames import as_vector, missing_mask

__all__ = [
    "ScoreBins",
    "client_codes",
    "client_list",
    "label_codes",
    "number_of_bins",
    "responses",
]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_METHODS = ("predict_proba", "decision_function", "predict")
_FEWEST_BINS, _MOST_BINS = 2, 64


def response_method(estimator: Any, bins: Any) -> str:
    """Return the method whose output is binned: the first one that the estimator has."""
    if bins is None:
        return "predict"
    for name in _METHODS:
        if hasattr(estimator, name):
            return name
    raise InvalidTypeError(
        f"estimator {type(estimator).__name__} has none of {', '.join(_METHODS)}; a classifier is "
        "needed."
    )


def responses(estimator: Any, X: Any, method: str) -> NDArray[Any]:
    """Return a classifier's output for rows, by the method."""
    return np.asarray(getattr(estimator, method)(X))


@dataclass(frozen=True, eq=False)
class ScoreBins:
    """From a classifier's output to the bin r of every row.

    Attributes
    ----------
    method : {"predict_proba", "decision_function", "predict"}
    edges : ndarray or None
        Inner cut points; a score equal to one is in the bin above it. None for classes.
    classes : ndarray
    """

    method: str
    edges: Array | None
    classes: NDArray[Any]

    @property
    def by_class(self) -> bool:
        """Whether bins are crossed with the predicted class (more than two classes)."""
        return self.edges is not None and self.classes.size > 2

    @property
    def size(self) -> int:
        """Number of bins."""
        if self.edges is None:
            return int(self.classes.size)
        return (self.edges.size + 1) * (self.classes.size if self.by_class else 1)

    @classmethod
    def plan(
        cls, bins: Any, method: str, output: Any, classes: NDArray[Any], *, public: bool
    ) -> ScoreBins:
        """Choose the edges: given ones, or equal frequencies, or public equal widths.

        Parameters
        ----------
        bins : int, sequence of float or None
        method : str
        output : ndarray
            The classifier's output on the rows of the fit.
        classes : ndarray
        public : bool
            Whether the edges may not depend on the rows.
        """
        if method == "predict":
            return cls(method, None, classes)
        if not isinstance(bins, int | np.integer) or isinstance(bins, bool):
            if not isinstance(bins, Sequence | np.ndarray) or isinstance(bins, str):
                raise InvalidTypeError(
                    "bins must be a number of bins, 'auto', a list of edges or None, got "
                    f"{bins!r}."
                )
            edges = np.asarray(bins, dtype=float)
            if edges.ndim != 1 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
                raise InvalidParameterError(
                    "bins must be finite, strictly increasing edges inside the range of scores."
                )
            return cls(method, edges, classes)
        number = check.positive_int(bins=bins)
        share = np.arange(1, number) / number
        if public:
            if method != "predict_proba":
                raise PrivacyError(
                    "bins must be a list of edges under privacy=: scores of decision_function "
                    "have no public range, and quantiles of the rows are private."
                )
            low = 0.0 if classes.size == 2 else 1.0 / classes.size
            return cls(method, low + (1 - low) * share, classes)
        scores = _scores(output)
        edges = np.unique(np.quantile(scores, share)) if number > 1 else np.zeros(0)
        return cls(method, edges[edges > scores.min()], classes)

    def codes(self, output: NDArray[Any]) -> Ints:
        """Return the bin of every row."""
        if self.edges is None:
            return label_codes(output, self.classes, "the estimator's predictions")
        scores = _scores(output)
        if not np.isfinite(scores).all():
            raise DataError("the estimator's scores must be finite in every row.")
        place = np.searchsorted(self.edges, scores, side="right").astype(np.int64)
        if self.by_class:
            place = output.argmax(axis=1) * (self.edges.size + 1) + place
        return np.asarray(place, dtype=np.int64)


def number_of_bins(n_rows: int, n_cells: int, *, smooth: bool) -> int:
    """Return how many bins the rows support.

    Parameters
    ----------
    n_rows : int
    n_cells : int
        Groups times clients, times predicted classes where bins are crossed with them.
    smooth : bool
        Whether rates of labels vary smoothly over cells, or each cell has the rate of its rows.

    Notes
    -----
    With n rows for each group of each client, a threshold that must lie on one of R edges costs
    about 1 / R^2. Rates of n / R rows are off by sqrt(R / n), and decide wrongly in cells that
    are so near to indifference: R / n. The sum is least near R = n^(1/3). Smooth rates do not get
    worse with R, and with R = 2 n^(1/2) what a threshold loses to its edges is a quarter of 1 / n.
    """
    share = n_rows / max(n_cells, 1)
    number = round(2 * math.sqrt(share) if smooth else share ** (1 / 3))
    return min(max(number, _FEWEST_BINS), _MOST_BINS)


def _scores(output: NDArray[Any]) -> Array:
    """Return the score of the second of two classes, or that of the predicted class."""
    values = np.asarray(output, dtype=float)
    if values.ndim == 1:
        return values
    return np.asarray(values[:, 1] if values.shape[1] == 2 else values.max(axis=1))


def label_codes(values: Any, classes: NDArray[Any], name: str) -> Ints:
    """Return the position of every label among the classes.

    Raises
    ------
    LabelError
        A missing label, or one that is not among them.
    """
    given = as_vector(values, name=name)
    places = {value: i for i, value in enumerate(classes.tolist())}
    found = np.array([places.get(v, -1) for v in given.tolist()], dtype=np.int64)
    if (found < 0).any():
        raise LabelError(
            f"{name} must hold the {classes.size} classes of the estimator, and some rows hold "
            "another value or none. Use the labels that the estimator was trained on."
        )
    return found


def client_list(client: Any, declared: Sequence[Any] | None, n_rows: int) -> tuple[Any, ...]:
    """Return the clients: the declared ones, or those that occur, sorted."""
    if client is None:
        return ("all",)
    if declared is not None:
        named = tuple(v.item() if hasattr(v, "item") else v for v in declared)
        if not named or len(set(named)) != len(named):
            raise InvalidParameterError("clients must list at least one client, each one once.")
        return named
    values = as_vector(client, name="client")
    if missing_mask(values).any():
        raise DataError("client has missing values. Give those rows a client of their own.")
    if values.dtype.kind == "f" and np.unique(values).size > 50:
        raise DataError(
            "client holds a quantity with more than 50 distinct values, not a list of clients."
        )
    found = list(dict.fromkeys(values.tolist()))
    return tuple(sorted(found, key=lambda v: (isinstance(v, str), str(type(v)), v)))


def client_codes(client: Any, clients: tuple[Any, ...], n_rows: int) -> Ints:
    """Return the position of every row's client, -1 for unknown ones."""
    if client is None:
        return np.zeros(n_rows, dtype=np.int64)
    values = as_vector(client, name="client")
    if missing_mask(values).any():
        raise DataError("client has missing values. Give those rows a client of their own.")
    places = {value: i for i, value in enumerate(clients)}
    return np.array([places.get(v, -1) for v in values.tolist()], dtype=np.int64)
