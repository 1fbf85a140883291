"""Recurrent networks of hand-written cells, for which per-record gradients exist."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "AbsoluteLoss", "RecurrentNetwork"]

NETWORKS = ("lstm", "gru", "bilstm", "bigru")


class _GRUCell(nn.Module):
    """The gated recurrent unit with two biases, as ``torch.nn.GRU`` has it."""

    def __init__(self, n_inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.ih = nn.Linear(n_inputs, 3 * hidden, device="meta").to_empty(device="cpu")
        self.hh = nn.Linear(hidden, 3 * hidden, device="meta").to_empty(device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state, shape (batch, hidden)."""
        h = x.new_zeros((x.shape[0], self.hidden))
        for t in range(x.shape[1]):
            r, z, n = self.ih(x[:, t]).chunk(3, dim=1)
            hr, hz, hn = self.hh(h).chunk(3, dim=1)
            z = torch.sigmoid(z + hz)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h
        return h


class _LSTMCell(nn.Module):
    """Long short-term memory with two biases, as ``torch.nn.LSTM`` has it."""

    def __init__(self, n_inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.ih = nn.Linear(n_inputs, 4 * hidden, device="meta").to_empty(device="cpu")
        self.hh = nn.Linear(hidden, 4 * hidden, device="meta").to_empty(device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state, shape (batch, hidden)."""
        h = x.new_zeros((x.shape[0], self.hidden))
        c = h
        for t in range(x.shape[1]):
            i, f, g, o = (self.ih(x[:, t]) + self.hh(h)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


class RecurrentNetwork(nn.Module):
    """One recurrent layer and a dense one, which adds to the last values seen.

    The backward cell of a bidirectional network reads the window from its end, so that its last
    state is at the first lag. A network whose dense layer is zero forecasts the last values.

    Parameters
    ----------
    kind : {"lstm", "gru", "bilstm", "bigru"}
    n_series, n_features : int
        Inputs are the series first, then calendar features.
    hidden : int
    horizon : int
    rng : numpy.random.Generator or None
        Initial weights (Glorot uniform, the dense layer zero); None leaves them to be loaded.
    """

    def __init__(
        self,
        kind: str,
        n_series: int,
        n_features: int,
        hidden: int,
        horizon: int,
        rng: np.random.Generator | None,
    ) -> None:
        super().__init__()
        cell = _GRUCell if kind.endswith("gru") else _LSTMCell
        self.n_series, self.horizon = n_series, horizon
        self.forward_cell = cell(n_series + n_features, hidden)
        self.backward_cell = cell(n_series + n_features, hidden) if kind[:2] == "bi" else None
        width = hidden * (1 if self.backward_cell is None else 2)
        size = n_series * horizon
        self.dense = nn.Linear(width, size, device="meta").to_empty(device="cpu")
        if rng is not None:
            self._start(rng)

    @torch.no_grad()
    def _start(self, rng: np.random.Generator) -> None:
        for name, p in self.named_parameters():
            if p.ndim == 1 or name.startswith("dense"):
                p.zero_()
                continue
            limit = math.sqrt(6.0 / (p.shape[1] + p.shape[1]))
            p.copy_(torch.from_numpy(rng.uniform(-limit, limit, size=p.shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Return forecasts, shape (batch, horizon * n_series), of (batch, lags, inputs)."""
        states = [self.forward_cell(x)]
        if self.backward_cell is not None:
            states.append(self.backward_cell(x.flip(1)))
        last = x[:, -1, : self.n_series]
        out: Tensor = self.dense(torch.cat(states, dim=1)) + last.repeat(1, self.horizon)
        return out


class AbsoluteLoss:
    """Mean absolute error of the outputs of a record."""

    def __init__(self, n_outputs: int) -> None:
        self.n_outputs = n_outputs

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return each record's loss."""
        return (output - y).abs().mean(dim=1)

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the sign of the error over the number of outputs."""
        return torch.sign(output - y) / self.n_outputs

    def score(self, output: Tensor) -> None:
        """Return None: a forecast has no score in [0, 1]."""
        return None

    def score_backprop(self, output: Tensor) -> None:
        """Return None."""
        return None
