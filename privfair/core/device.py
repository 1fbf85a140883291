"""One place that decides where tensors live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privfair.core.exceptions import InvalidParameterError, MissingDependencyError

if TYPE_CHECKING:
    import torch

__all__ = ["resolve_device"]


def resolve_device(device: str = "auto") -> torch.device:
    """Return the torch device for ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    ``"auto"`` takes CUDA where it is available. The choice never changes a guarantee's
    numerical class.

    Raises
    ------
    MissingDependencyError
        If CUDA is asked for by name and not available.

    Examples
    --------
    >>> resolve_device("cpu").type
    'cpu'
    """
    import torch

    if not isinstance(device, str) or not (
        device in ("auto", "cpu", "cuda") or device.removeprefix("cuda:").isdigit()
    ):
        raise InvalidParameterError(
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}."
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MissingDependencyError(
            f"device={device!r} was asked for and torch sees no CUDA device here. Use "
            "device='auto' or 'cpu', or install a CUDA build of torch and its driver."
        )
    return torch.device(device)
