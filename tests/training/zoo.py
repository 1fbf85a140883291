"""Small networks that between them use parameters in every way the gradient paths must handle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS, LENGTH = 20, 12


class Transformer(nn.Module):
    """Token and position embeddings, one encoder block, the mean over positions."""

    def __init__(self, *, norm_first: bool = False, positions: str = "embedding") -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 16, padding_idx=0)
        self.places: nn.Module | nn.Parameter = (
            nn.Embedding(LENGTH, 16)
            if positions == "embedding"
            else nn.Parameter(0.1 * torch.randn(1, LENGTH, 16))
        )
        self.block = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.1, batch_first=True, norm_first=norm_first
        )
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        places = self.places
        if isinstance(places, nn.Module):
            places = places(torch.arange(x.shape[1]))
        return self.out(self.block(self.tokens(x.long()) + places).mean(dim=1))


class Images(nn.Module):
    """Strided, dilated and grouped convolutions, group and instance normalisation."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(inplace=inplace),
            nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=4, bias=False),
            nn.InstanceNorm2d(8, affine=True),
            nn.Conv2d(8, 4, (2, 3), stride=(1, 2), padding=(1, 0)),
            nn.MaxPool2d(2, 1),
            nn.Flatten(),
            nn.LazyLinear(3),
        )
        self.layers(torch.zeros(1, 3, 10, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Series(nn.Module):
    """One-dimensional convolution, an activation in place, RMS normalisation, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=1, groups=2)
        self.norm = nn.RMSNorm(6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.conv(x).relu_().mT).mean(dim=1))


class TiedEmbedding(nn.Module):
    """An embedding whose table is also the weight of a linear map; a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 8)
        self.twice = nn.Linear(8, 8)
        self.out = nn.Linear(TOKENS, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.twice(torch.tanh(self.twice(self.tokens(x))))
        return self.out(F.linear(h.mean(dim=1), self.tokens.weight))


class Adapters(nn.Module):
    """A frozen linear layer with a trainable map of low rank beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 8).requires_grad_(False)
        self.down = nn.Linear(6, 2, bias=False)
        self.up = nn.Linear(2, 8, bias=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.base(x) + 0.5 * self.up(self.down(x))).mean(dim=1))


class Wide(nn.Module):
    """Layers for which inner products of positions are the cheaper norm; bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(60, 80)
        self.second = nn.Linear(80, 90)
        self.out = nn.Linear(90, 3)
        self.start = nn.Parameter(torch.ones(1, 1, 60))
        self.scale = nn.Parameter(torch.linspace(-1, 1, 90))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1)
        return self.out((self.scale * self.second(torch.tanh(self.first(x)))).mean(dim=1))


class WideImages(nn.Module):
    """A convolution with few positions and many weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(24, 40, 3)
        self.out = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.conv(x)).mean(dim=(2, 3)))


class Attention(nn.Module):
    """Cross attention in torch's default layout, masked self attention with weights returned."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.cross = nn.MultiheadAttention(8, 2, kdim=6, vdim=6)
        self.mixed = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
        self.own = nn.MultiheadAttention(8, 4, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.inner(x).transpose(0, 1), x.transpose(0, 1)
        y = self.cross(q, k, k, need_weights=False)[0].transpose(0, 1)
        y, weights = self.mixed(y, q.transpose(0, 1), q.transpose(0, 1))
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        padded = x[:, :, 0] > 1.5
        padded = padded & (torch.arange(x.shape[1]) > 0)
        y = self.own(y, y, y, attn_mask=later, key_padding_mask=padded, need_weights=False)[0]
        return self.out(y.mean(dim=1) + weights[:, 0, :1])


def _g(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def _tokens(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, TOKENS, (n, LENGTH), generator=generator)


ZOO = {
    "transformer": (Transformer, _tokens),
    "transformer, norm first, bare positions": (
        lambda: Transformer(norm_first=True, positions="bare"),
        _tokens,
    ),
    "transformer on floats": (Transformer, lambda n: _tokens(n).float()),
    "images": (Images, lambda n: _g(n, 3, 10, 10)),
    "series": (Series, lambda n: _g(n, 4, 9)),
    "tied embedding": (TiedEmbedding, _tokens),
    "adapters": (Adapters, lambda n: _g(n, 5, 6)),
    "wide": (Wide, lambda n: _g(n, 4, 60)),
    "wide images": (WideImages, lambda n: _g(n, 24, 4, 4)),
    "attention": (Attention, lambda n: _g(n, 5, 6)),
}


def build(name: str, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return one of the networks, ``n`` records and their labels."""
    make, data = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = make()
    return module.eval(), data(n), torch.arange(n) % 3
