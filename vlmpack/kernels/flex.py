"""The `flex` backend: FlexAttention over the blocks that a pack's tokens see, the rest left out."""

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import flex_attention as flex

from vlmpack.kernels.block_mask import BLOCK, block_mask
from vlmpack.kernels.weighing import Settings
from vlmpack.plan import Plan

LEAST_HEAD = 16  # of a head's size, for the kernel's matrix products


def refusal(query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> str | None:
    """Why FlexAttention cannot compute a layer; None if it can.

    Args:
        query, key, value: of the layer.
        settings: of the layer.
    """
    if settings.dropout:
        return f"FlexAttention has no dropout, and the layer asks for attention dropout={settings.dropout}"
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if query.device.type == "cpu" and learns:
        return "torch's FlexAttention has no backward on the CPU"
    if query.device.type != "cpu" and query.dtype == torch.float64:
        return f"FlexAttention's kernel does not compute in {query.dtype}"
    if query.device.type != "cpu" and min(query.shape[-1], value.shape[-1]) < LEAST_HEAD:
        return f"FlexAttention's kernel takes heads of {LEAST_HEAD} numbers or more, not of {query.shape[-1]}"
    return None


def attend(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T E"],
    plan: Plan,
    window: int | None,
    settings: Settings,
) -> Float[Tensor, "1 N T E"]:
    """Attention over a pack; arguments as in `vlmpack.attention.attend`."""
    tokens = query.shape[2]
    length = max(tokens, BLOCK + 1)  # two blocks at least: torch compiles sizes of one apart from all others
    query, key, value = (F.pad(x, (0, 0, 0, length - tokens)) if length > tokens else x for x in (query, key, value))
    arguments = {
        "score_mod": None if settings.softcap is None else capped(settings.softcap),
        "block_mask": block_mask(plan, window, length),
        "scale": settings.scale,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    if settings.sinks is None:
        return _compiled(query.device.type)(query, key, value, **arguments)[:, :, :tokens]
    output, total = _with_total(query, key, value, arguments)
    share = torch.sigmoid(total - settings.sinks[:, None])  # of the softmax that is not the sink's
    return (output * share[..., None].to(output.dtype))[:, :, :tokens]


def capped(softcap: float) -> Callable:
    """Scores squeezed into (-softcap, softcap), as a `score_mod` of FlexAttention."""

    @no_type_check
    def capped_score(score, b, h, q, k):
        return softcap * torch.tanh(score / softcap)

    return capped_score


def _with_total(query, key, value, arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The output, and the log of the sum of each softmax's exponentials; torch 2.8 has another name for it."""
    attention = _compiled(query.device.type)
    if "return_aux" in signature(flex.flex_attention).parameters:
        output, aux = attention(query, key, value, **arguments, return_aux=flex.AuxRequest(lse=True))
        return output, aux.lse
    return attention(query, key, value, **arguments, return_lse=True)


@cache
def _compiled(device: str) -> Callable:
    """FlexAttention compiled once for all lengths: masks read tensors that are inputs, so nothing is baked in.

    On the CPU, where only values without gradients are asked for, it runs as it is written.
    """
    backend = "eager" if device == "cpu" else "inductor"
    return torch.compile(flex.flex_attention, dynamic=True, fullgraph=True, backend=backend)
