"""What a module or a loss must be for clipping to bound a record's influence, put to the test.

All tests run on made-up records of the data's shape and dtype; none reads a record.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.training._losses import LogisticLoss, RecordLoss, SoftmaxLoss, SquaredLoss

__all__ = [
    "ProbeLoss",
    "agrees_with_functional",
    "check_per_record_module",
    "check_record_loss",
    "check_same_parameters",
    "made_up_inputs",
    "plain_attention",
    "randomised_copy",
    "refuse_batch_norm",
]

_TOLERANCE = 1e-5
_N = 6


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention from plain operations.

    The fused inference path of transformers has no derivative, and fused attention no rule for
    vectorised derivatives.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# -- made-up records -------------------------------------------------------------------------
def made_up_inputs(module: nn.Module, like: Tensor, n: int) -> Tensor:
    """Return ``n`` records of the shape and dtype of ``like`` on which the module can be run.

    Floats without symmetries, or token ids that every ``nn.Embedding`` of the module knows:
    for integer data, and for float data where the module cannot be run on arbitrary floats.

    Raises
    ------
    InvalidParameterError
        If the module can be run on neither.
    """
    shape = (n, *like.shape[1:])
    makers: list[Callable[[], Tensor]] = [lambda: _tokens(module, shape).to(like.dtype)]
    if like.is_floating_point():
        makers.insert(0, lambda: _waves(shape).to(like.dtype))
    failure: Exception | None = None
    for make in makers:
        made = make().to(like.device)
        try:
            with torch.no_grad(), plain_attention():
                module(made)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            failure = error
            continue
        return made
    raise InvalidParameterError(
        f"module cannot be run on made-up records of shape {shape} and dtype {like.dtype}: "
        f"{failure}. It must take a batch of records as the data hold them."
    )


def _waves(shape: tuple[int, ...]) -> Tensor:
    at = torch.arange(1.0, 1 + _size(shape), dtype=torch.float64)
    return torch.sin(at**2).reshape(shape)


def _tokens(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    tables = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    known = min(tables, default=2)
    # Few enough that records hold a token several times.
    known = max(1, min(known, max(2, _size(shape[1:]) // 2)))
    at = torch.arange(_size(shape))
    return ((at * at) // 3 % known).reshape(shape)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def randomised_copy(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy with trainable parameters moved, so that no gradient is zero by its start."""
    twin = copy.deepcopy(module).to(dtype=dtype) if dtype else copy.deepcopy(module)
    with torch.no_grad():
        for at, p in enumerate(q for q in twin.parameters() if q.requires_grad):
            shift = torch.cos((at + 1.0) * torch.arange(1.0, p.numel() + 1, dtype=torch.float64))
            p.add_(0.1 * shift.reshape(p.shape).to(p))
    return twin


# -- gradients -------------------------------------------------------------------------------
class ProbeLoss:
    """A loss that is linear in the outputs: its derivative there is the target."""

    def __init__(self, n_outputs: int) -> None:
        self.n_outputs = n_outputs

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return inner products of output and target."""
        return (output * y).flatten(1).sum(dim=1)

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the target."""
        return y

    def score(self, output: Tensor) -> None:
        """Return None."""
        return None

    def score_backprop(self, output: Tensor) -> None:
        """Return None."""
        return None


def agrees_with_functional(
    make: Callable[[nn.Module, RecordLoss], object], module: nn.Module, like: Tensor
) -> bool:
    """Return whether a path has the norms and clipped sums of vectorised per-record gradients.

    Both are computed on made-up records, by a copy of the module with moved parameters: in
    float64 where it can be run so (agreement to 1e-8), otherwise in its own precision (1e-4).
    """
    for dtype, tolerance in ((torch.float64, 1e-8), (None, 1e-4)):
        twin = randomised_copy(module, dtype)
        given = like.to(dtype) if dtype and like.is_floating_point() else like
        try:
            inputs = made_up_inputs(twin, given, 5)
            with torch.no_grad(), plain_attention():
                output = twin(inputs)
        except (InvalidParameterError, RuntimeError, TypeError):
            continue
        if dtype is not None and output.dtype != dtype:
            continue
        return _agree(make, twin, inputs, output, tolerance)
    raise InvalidParameterError("module cannot be copied and run on made-up records.")


def _agree(
    make: Callable[[nn.Module, RecordLoss], object],
    twin: nn.Module,
    inputs: Tensor,
    output: Tensor,
    tolerance: float,
) -> bool:
    from privfair.training._functional import FunctionalPath

    loss = ProbeLoss(output.shape[-1])
    y = _waves(tuple(output.shape)).flip(0).to(output)
    rows = torch.arange(len(inputs), device=inputs.device)
    reference = FunctionalPath(twin, loss)
    other = make(twin, loss)
    norms = reference.sums(inputs, y, rows, None, 0.0).norms
    bound = float(norms.median())
    for limit in (None, bound if bound > 0 else 1.0):
        a = reference.sums(inputs, y, rows, limit, 0.0)
        b = other.sums(inputs, y, rows, limit, 0.0)  # type: ignore[attr-defined]
        scale = float(a.norms.max().clamp(min=1e-30))
        if not torch.allclose(a.norms, b.norms, rtol=tolerance, atol=tolerance * scale):
            return False
        if not float((a.total - b.total).norm()) <= tolerance * scale * len(inputs):
            return False
    return True


def check_same_parameters(module: nn.Module, params: list[nn.Parameter]) -> None:
    """Refuse a module whose trainable parameters are not those that were prepared."""
    now = [p for p in module.parameters() if p.requires_grad]
    if len(now) != len(params) or any(a is not b for a, b in zip(now, params, strict=True)):
        raise AccountingAssumptionError(
            "the trainable parameters changed after training was prepared: one was added, "
            "replaced, frozen or unfrozen. Its gradient would be neither clipped nor noised. Fix "
            "what is trainable before training."
        )


# -- modules ---------------------------------------------------------------------------------
def refuse_batch_norm(module: nn.Module) -> None:
    """Raise AccountingAssumptionError if the module has a layer that mixes records by design."""
    for name, part in module.named_modules():
        mixes = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if isinstance(part, nn.modules.instancenorm._InstanceNorm):
            mixes = part.track_running_stats
        if mixes:
            raise AccountingAssumptionError(
                f"module has {type(part).__name__} ({name or 'itself'}), which mixes the records "
                "of a batch or keeps statistics of them. Clipping one record's gradient then "
                "does not bound its influence. Use GroupNorm or LayerNorm."
            )


def check_per_record_module(module: nn.Module, shape: int | Tensor, n_outputs: int) -> None:
    """Refuse a module whose output for one record depends on another record, or on chance.

    Batch normalisation is refused by name, anything else by a test on made-up inputs: altering
    one row of a batch must leave the outputs of the others, and every buffer, as they were, and
    the same batch must give the same outputs.

    Parameters
    ----------
    module : torch.nn.Module
    shape : int or Tensor
        Number of features, or a tensor whose records' shape and dtype are the data's.
    n_outputs : int

    Raises
    ------
    AccountingAssumptionError
        If the module mixes records, changes its buffers in a forward pass, keeps what it is
        given, draws at random, or returns the wrong shape.
    """
    refuse_batch_norm(module)
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise AccountingAssumptionError("module has no trainable parameter.")
    first = trainable[0]
    like = torch.empty((0, shape), device=first.device) if isinstance(shape, int) else shape
    _compare_rows(randomised_copy(module).eval(), like, n_outputs)


@torch.no_grad()
def _compare_rows(probe: nn.Module, like: Tensor, n_outputs: int) -> None:
    buffers = {n: b.clone() for n, b in probe.named_buffers()}
    base = made_up_inputs(probe, like, _N)
    other = base.clone()
    other[0] = _altered(base)
    with plain_attention():
        out = probe(base)
        if not isinstance(out, Tensor) or out.shape != (_N, n_outputs):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            of = ", ".join(["batch", *map(str, base.shape[1:])])
            raise AccountingAssumptionError(
                f"module must map ({of}) to (batch, {n_outputs}), got {shape} for a batch of {_N}."
            )
        if any(not torch.equal(b, buffers[n]) for n, b in probe.named_buffers()):
            raise AccountingAssumptionError(
                "module changes a buffer in its forward pass. A buffer that remembers private "
                "records would be released without noise. Remove it, or freeze it."
            )
        size = out.abs().max().clamp(min=1.0)
        kept = _kept_tensors(probe)
        if not (probe(base) - out).abs().max() / size <= _TOLERANCE:
            raise AccountingAssumptionError(
                "module gives different outputs for the same records: it draws at random in "
                "evaluation mode (dropout called with training=True?). Its gradients could not "
                "be checked. Remove the randomness."
            )
        change = (probe(other)[1:] - out[1:]).abs().max() / size
        if not _same_tensors(kept, _kept_tensors(probe)):
            raise AccountingAssumptionError(
                "module keeps what it is given in an attribute (its last inputs, attention "
                "weights?). Private records would be in what is released. Return such values, or "
                "do not keep them."
            )
        for part in (torch.arange(2, 5), torch.arange(_N).flip(0)):
            alone = (probe(base[part]) - out[part]).abs().max() / size
            if not alone <= _TOLERANCE:
                raise AccountingAssumptionError(
                    "module mixes records: the output for a record depends on how many records "
                    "are in the batch, or on its place among them. Use layers that treat each "
                    "record alone."
                )
    if not change <= _TOLERANCE:
        raise AccountingAssumptionError(
            "module mixes records: changing one row of a batch changed the output of another. "
            "Clipping one record's gradient then does not bound its influence, and no epsilon "
            "would be valid. Use layers that treat each record alone."
        )


def _kept_tensors(module: nn.Module) -> list[Tensor]:
    """Return copies of all tensors and floats in attributes that are no parameters or buffers."""
    found: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor | np.ndarray | float):
            found.append(torch.as_tensor(value).detach().clone())
        elif isinstance(value, dict):
            collect(list(value.values()))
        elif isinstance(value, list | tuple | set | deque):
            for item in value:
                collect(item)

    for part in module.modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                collect(value)
    return found


def _same_tensors(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x.double(), y.double(), rtol=0.0, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _altered(base: Tensor) -> Tensor:
    """Return another first record on which the module can be run."""
    record = base[0]
    if record.is_floating_point() and not torch.equal(base, base.round()):
        return torch.cos(3.0 * record) + 0.5
    # Tokens: one that is known everywhere, which changes sums and means over positions, too.
    most = base.max()
    return torch.full_like(record, float(base.min() if bool((record == most).all()) else most))


# -- losses ----------------------------------------------------------------------------------
def check_record_loss(loss: RecordLoss) -> bool:
    """Refuse a loss that is not a sum of per-record terms with the stated derivative.

    Returns
    -------
    bool
        Whether the loss could be tested: on made-up outputs, and targets that are 0.0 or 1.0,
        class positions, or rows of these. A loss that takes other targets must not be handed the
        records of a batch together.

    Raises
    ------
    AccountingAssumptionError
        If a record's term, or its derivative, depends on another record, on the number of
        records or on its place among them.
    """
    if type(loss) in (LogisticLoss, SoftmaxLoss, SquaredLoss, ProbeLoss):
        return True
    loss = copy.deepcopy(loss)  # whatever it remembers of made-up records goes with the copy
    k = loss.n_outputs
    out = 2.0 * _waves((_N, k)).float()
    at = torch.arange(_N)
    for y in ((at % 2).float(), at % max(k, 2), (_waves((_N, k)) > 0).float()):
        try:
            terms = loss.per_record(out, y)
            back = loss.backprop(out, y)
        except Exception:
            continue
        _check_terms(loss, out, y, terms, back)
        return True
    return False


def _check_terms(loss: RecordLoss, out: Tensor, y: Tensor, terms: Tensor, back: Tensor) -> None:
    if terms.shape != (_N,):
        raise AccountingAssumptionError(
            f"loss.per_record must return one term for each record, shape ({_N},) for {_N} "
            f"records, got {tuple(terms.shape)}. A loss of the whole batch has no per-record "
            "gradient to clip."
        )
    other = out.clone()
    other[0] = torch.cos(3.0 * out[0]) + 0.5
    moved = (loss.per_record(other, y) - terms)[1:].abs().max()
    turned = (loss.backprop(other, y) - back)[1:].abs().max()
    if not max(float(moved), float(turned)) <= _TOLERANCE:
        raise AccountingAssumptionError(
            "the loss is not a sum over records: changing the output of one record changed the "
            "term of another (a contrastive, ranking or batch-level loss?). Clipping each "
            "record's gradient then does not bound its influence."
        )
    at = torch.arange(_N)
    for part in (at[:1], at[2:5], at.flip(0), torch.cat([at, at[:1]])):
        fewer = loss.per_record(out[part], y[part]) - terms[part]
        slopes = loss.backprop(out[part], y[part]) - back[part]
        if not max(float(fewer.abs().max()), float(slopes.abs().max())) <= _TOLERANCE:
            raise AccountingAssumptionError(
                "the loss of a record depends on how many records are in the batch, or on its "
                "place among them (a mean over the batch?). Leaving out one record would then "
                "change the gradients of all others. Return each record's own term; the engine "
                "divides by a public constant."
            )
    variable = out.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss.per_record(variable, y).sum(), variable)
    if not torch.allclose(slope, back, rtol=1e-3, atol=1e-4):
        raise AccountingAssumptionError(
            "loss.backprop is not the derivative of loss.per_record at the output."
        )
