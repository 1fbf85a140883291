"""What every classifier that is trained by the engine makes of labels and of outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.utils.multiclass import check_classification_targets

from privfair.core.exceptions import InvalidParameterError, LabelError
from privfair.core.frames import as_vector, missing_mask
from privfair.training._base import BasePrivateEstimator, Problem
from privfair.training._losses import LogisticLoss, SoftmaxLoss

__all__ = ["ClassifierParts"]


class ClassifierParts(BasePrivateEstimator):
    """Labels in, decisions out.

    Attributes
    ----------
    classes : array-like or None
        The estimator's parameter: all labels that can occur, public.
    """

    classes: Any

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return logits: shape (n_rows,) for two classes, else (n_rows, n_classes)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each row."""
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities, shape (n_rows, n_classes), columns as in ``classes_``."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([expit(-scores), expit(scores)], axis=1)
        return softmax(scores, axis=1)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`predict_proba`, without underflow."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([log_expit(-scores), log_expit(scores)], axis=1)
        return log_softmax(scores, axis=1)

    @property
    def coef_(self) -> NDArray[np.float64]:
        """Coefficients of the linear model in encoded columns."""
        return self._linear_module().weight.numpy().astype(np.float64)

    @property
    def intercept_(self) -> NDArray[np.float64]:
        """Intercepts of the linear model."""
        return self._linear_module().bias.numpy().astype(np.float64)

    def _problem(self, y: NDArray[Any]) -> Problem:
        if missing_mask(y).any():
            raise LabelError("y contains NaN or missing labels. Drop those rows before fitting.")
        if y.dtype.kind == "f" and np.isinf(y).any():
            raise LabelError("y contains infinity (inf), which is no label.")
        if y.dtype.kind == "c":  # what scikit-learn says of complex numbers lists them
            raise LabelError("y contains complex numbers, which are no labels.")
        check_classification_targets(y)
        notes: tuple[str, ...] = ()
        known = self.__dict__.get("_label_set", self.classes)
        if known is None:
            classes = np.unique(y)
            notes = ("the set of labels in y is public",)
        else:
            classes = self._class_list(known)
        if len(classes) < 2:
            raise LabelError(
                f"a classifier needs two classes at least; y has {len(classes)} class. Pass "
                "classes=[...] if only some of the labels occur."
            )
        positions = np.searchsorted(classes, y) if known is None else _find(classes, y)
        self.classes_ = classes
        if len(classes) == 2:
            return Problem(LogisticLoss(), positions.astype(np.float32), notes)
        return Problem(SoftmaxLoss(len(classes)), positions.astype(np.int64), notes)

    @staticmethod
    def _class_list(values: ArrayLike) -> NDArray[Any]:
        """Return a declared list of labels, sorted."""
        listed = as_vector(values, name="classes")
        classes = np.unique(listed)
        if len(classes) != len(listed):
            raise InvalidParameterError("classes must not hold a label twice.")
        return classes


def _find(classes: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    if (classes.dtype.kind in "biuf") != (y.dtype.kind in "biuf"):
        raise LabelError(
            "classes and y are of different kinds, numbers and labels. Pass both as the same."
        )
    positions = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    if (classes[positions] != y).any():
        raise LabelError(
            "y has a label that is not in classes. Add it there; labels outside a public list "
            "cannot be learnt."
        )
    return positions
