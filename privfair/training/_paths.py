"""Which gradient path a module takes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.training._clipping import ClipRule
from privfair.training._closed_form import ClosedFormPath, ScoreWeights, StepSums, linear_stack
from privfair.training._functional import FunctionalPath
from privfair.training._ghost import GhostPath
from privfair.training._ghost._recorder import UnsupportedUseError
from privfair.training._losses import RecordLoss
from privfair.training._probe import (
    ProbeLoss,
    check_per_record_module,
    check_record_loss,
    made_up_inputs,
)

__all__ = ["PATHS", "GradientPath", "choose_path"]

PATHS = ("auto", "closed_form", "ghost", "functional", "opacus")


class GradientPath(Protocol):
    """One way to a clipped gradient sum."""

    @property
    def name(self) -> str:
        """The path's name."""
        ...

    def prepare(self, X: Tensor) -> None:
        """Get ready for these records; only their shape, dtype and public sums may matter."""
        ...

    def sums(
        self,
        X: Tensor,
        y: Tensor,
        rows: Tensor,
        bound: float | ClipRule | None,
        guard: float,
        score_weights: ScoreWeights | None = None,
        sample_weight: Tensor | None = None,
    ) -> StepSums:
        """Return the sum of clipped gradients over the records at ``rows``."""
        ...


def choose_path(
    grad_path: str, module: nn.Module, loss: RecordLoss, fixed_places: bool = False
) -> GradientPath:
    """Return the path of that name, or for ``"auto"`` the first that fits.

    ``fixed_places`` says that neighbouring data sets give batches with the same rows in the same
    places, all but one.
    """
    check.one_of(PATHS, grad_path=grad_path)
    stack = linear_stack(module) is not None
    if stack and grad_path in ("auto", "closed_form"):
        if check_record_loss(loss):
            return ClosedFormPath(module, loss, fixed_places)
        if grad_path == "closed_form":
            raise InvalidParameterError(_untested(grad_path))
    elif grad_path == "closed_form":
        raise InvalidParameterError(
            "grad_path='closed_form' needs a stack of nn.Linear with Tanh, ReLU, Sigmoid or "
            "Identity between; use 'auto'."
        )
    return _CheckedPath(grad_path, module, loss)


def _not_vectorised(error: Exception) -> str:
    return (
        "the module's per-record gradients cannot be computed: torch.func.vmap fails on made-up "
        f"records ({str(error).partition(chr(10))[0][:200]}). Control flow by values, "
        "and some recurrent layers, cannot be vectorised; use grad_path='opacus', whose layers "
        "(opacus.layers.DPGRU, for example) can, or other layers."
    )


def _untested(grad_path: str) -> str:
    return (
        f"grad_path={grad_path!r} hands the loss a whole batch, and this loss could "
        "not be tested on made-up targets (0.0 or 1.0, class positions, or rows of "
        "them). Use 'functional', which computes each record's loss alone."
    )


class _CheckedPath:
    """A path for an arbitrary module, which is put to the test once the data's shape is known.

    With ``"auto"`` it is the book-keeping path if every use of a trainable parameter has a formula
    there and its sums on made-up records agree with those of vectorised per-record gradients;
    otherwise the latter.
    """

    def __init__(self, wanted: str, module: nn.Module, loss: RecordLoss) -> None:
        self._wanted, self._module, self._loss = wanted, module, loss
        self._tested = check_record_loss(loss)
        self._path: GradientPath | None = None
        if wanted == "functional":
            self._path = FunctionalPath(module, loss)
        elif wanted == "opacus":
            from privfair.training._opacus import OpacusPath

            self._path = OpacusPath(module, loss)

    @property
    def name(self) -> str:
        """The path in use, or ``"auto"`` before the data's shape is known."""
        return self._wanted if self._path is None else self._path.name

    def prepare(self, X: Tensor) -> None:
        """Refuse a module that clipping cannot bound, and choose."""
        self._module.eval()
        check_per_record_module(self._module, X, self._loss.n_outputs)
        if not self._tested and self._wanted not in ("auto", "functional"):
            raise InvalidParameterError(_untested(self._wanted))
        if self._wanted in ("auto", "ghost"):
            try:
                self._path = self._bookkeeping(X)
            except (RuntimeError, TypeError, ValueError) as error:
                raise InvalidParameterError(_not_vectorised(error)) from error
        else:
            self._chosen.prepare(X)
        if self._chosen.name == "functional":
            self._try_out(X)

    def _try_out(self, X: Tensor) -> None:
        """Run the functional path on made-up records: it must not fail on the data."""
        made = made_up_inputs(self._module, X, 3)
        loss = ProbeLoss(self._loss.n_outputs)
        y = torch.ones((3, loss.n_outputs), dtype=made.dtype if made.is_floating_point() else None)
        rows = torch.arange(3, device=X.device)
        try:
            FunctionalPath(self._module, loss).sums(made, y.to(X.device), rows, 1.0, 0.0)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise InvalidParameterError(_not_vectorised(error)) from error

    def _bookkeeping(self, X: Tensor) -> GradientPath:
        if self._wanted == "auto" and not self._tested:
            return FunctionalPath(self._module, self._loss)
        path = GhostPath(self._module, self._loss)
        try:
            path.prepare(X)
        except UnsupportedUseError as error:
            if self._wanted == "ghost":
                raise InvalidParameterError(
                    f"grad_path='ghost' does not fit this module: {error}. Use 'auto'."
                ) from error
            return FunctionalPath(self._module, self._loss)
        return path

    @property
    def _chosen(self) -> GradientPath:
        if self._path is None:
            raise RuntimeError("prepare() comes before sums()")
        return self._path

    def sums(
        self,
        X: Tensor,
        y: Tensor,
        rows: Tensor,
        bound: float | ClipRule | None,
        guard: float,
        score_weights: ScoreWeights | None = None,
        sample_weight: Tensor | None = None,
    ) -> StepSums:
        """Return the sum of clipped gradients over the records at ``rows``."""
        return self._chosen.sums(X, y, rows, bound, guard, score_weights, sample_weight)
