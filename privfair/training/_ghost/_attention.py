"""Multi-head attention written out, so that its projections can be watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attend", "attention_gap"]

Project = Callable[..., Tensor]


def attention_gap(a: dict[str, Any]) -> str | None:
    """Return what of a call of ``F.multi_head_attention_forward`` is not written out here."""
    if a["query"].dim() != 3:
        return "attention without a batch dimension"
    if a["bias_k"] is not None or a["bias_v"] is not None or a["add_zero_attn"]:
        return "attention with added keys"
    if a.get("static_k") is not None or a.get("static_v") is not None:
        return "attention with static keys"
    if a.get("training", True) and a["dropout_p"] > 0.0:
        return "attention with dropout at work"
    return None


def attend(project: Project, a: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return output and weights of ``F.multi_head_attention_forward``.

    Parameters
    ----------
    project : callable
        ``project(x, weight, bias, rows)`` is a watched linear map by the given rows of weight
        and bias; None stands for all rows.
    a : dict
        The call's arguments by name.
    """
    query, key, value = a["query"], a["key"], a["value"]
    q, k, v = _projections(project, a, query, key, value)
    heads, width = a["num_heads"], a["embed_dim_to_check"]
    q, k, v = (x.unflatten(-1, (heads, width // heads)).transpose(1, 2) for x in (q, k, v))
    mask, causal = _mask(a, q, k)
    weights = None
    if a.get("need_weights", True):
        scores = (q * math.sqrt(heads / width)) @ k.mT
        attention = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        mixed = attention @ v
        weights = attention.mean(dim=1) if a.get("average_attn_weights", True) else attention
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    joined = mixed.transpose(1, 2).flatten(2)
    out = project(joined, a["out_proj_weight"], a["out_proj_bias"], None)
    return out.transpose(0, 1), weights


def _projections(
    project: Project, a: dict[str, Any], query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    width = a["embed_dim_to_check"]
    weight, bias = a["in_proj_weight"], a["in_proj_bias"]
    batched = [x.transpose(0, 1) for x in (query, key, value)]
    if a.get("use_separate_proj_weight", False):
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        q, k, v = (
            project(x, a[name], bias, (None, (at * width, (at + 1) * width)))
            for at, (x, name) in enumerate(zip(batched, names, strict=True))
        )
    elif query is key and key is value:
        q, k, v = project(batched[0], weight, bias, None).chunk(3, dim=-1)
    else:
        q, k, v = (
            project(x, weight, bias, ((at * width, (at + 1) * width),) * 2)
            for at, x in enumerate(batched)
        )
    return q, k, v


def _mask(a: dict[str, Any], q: Tensor, k: Tensor) -> tuple[Tensor | None, bool]:
    """Return the additive mask, broadcastable to (batch, heads, T, S), and the causal hint."""
    batch, heads, target, _ = q.shape
    mask, padding = a.get("attn_mask"), a.get("key_padding_mask")
    if a.get("is_causal", False) and padding is None and not a.get("need_weights", True):
        return None, True
    merged = None
    if mask is not None:
        merged = _additive(mask, q.dtype)
        if merged.dim() == 3:
            merged = merged.view(batch, heads, target, k.shape[2])
    if padding is not None:
        columns = _additive(padding, q.dtype).view(batch, 1, 1, k.shape[2])
        merged = columns if merged is None else merged + columns
    return merged, False


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        mask, float("-inf")
    )
