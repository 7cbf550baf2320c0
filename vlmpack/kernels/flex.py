"""The `flex` backend: FlexAttention over the blocks that a pack's tokens see, the rest left out."""

from collections.abc import Callable
from functools import cache
from inspect import signature
from types import FunctionType
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import flex_attention as flex

from vlmpack.kernels.block_mask import BLOCK, block_mask
from vlmpack.kernels.weighing import Settings
from vlmpack.plan import Plan

HAS_AUX = "return_aux" in signature(flex.flex_attention).parameters
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
    output, total = _compiled(query.device, _kind(query, key, value, plan, window, settings))(
        *(query, key, value),
        None if settings.softcap is None else capped(_number(settings.softcap, query)),
        block_mask(plan, window, length),
        settings.scale,
        query.shape[1] != key.shape[1],  # grouped
        settings.sinks is not None,
    )
    if settings.sinks is not None:
        share = torch.sigmoid(total - settings.sinks[:, None])  # of the softmax that is not the sink's
        output = output * share[..., None].to(output.dtype)
    return output[:, :, :tokens]


def capped(softcap: Float[Tensor, ""]) -> Callable:
    """Scores squeezed into (-softcap, softcap), as a `score_mod` of FlexAttention.

    Args:
        softcap: a tensor, on the scores' device: numbers that are no integers cannot be handed into compiled ones.
    """

    @no_type_check
    def capped_score(score, b, h, q, k):
        return softcap * torch.tanh(score / softcap)

    return capped_score


def _number(value: float, query: Tensor) -> Float[Tensor, ""]:
    return query.new_full((), value, dtype=torch.promote_types(query.dtype, torch.float32))


def _kind(query, key, value, plan: Plan, window: int | None, settings: Settings) -> tuple[Any, ...]:
    """All by which the graphs of two layers differ, lengths aside."""
    sizes = query.shape[1], key.shape[1], query.shape[3], value.shape[3]
    masked = window is None, plan.blocks is None, plan.window_cuts_blocks
    asked = settings.softcap is None, settings.sinks is None
    return (query.dtype, *sizes, *masked, *asked, torch.is_grad_enabled())


@cache
def _compiled(device: torch.device, kind: tuple[Any, ...]) -> Callable:
    """FlexAttention compiled once for all lengths: masks read tensors that are inputs, so nothing is baked in.

    Torch allows a function's code a few graphs, and then fails; with code of its own, each kind of layers has these few
    to itself, however many models one process holds. On the CPU, where only values without gradients are asked for, it
    runs as it is written.
    """
    name = "_".join(map(str, ("attention", device, *kind))).replace(".", "_").replace(":", "_")
    own = FunctionType(_attention.__code__.replace(co_name=name), _attention.__globals__, name)
    backend = "eager" if device.type == "cpu" else "inductor"
    return torch.compile(own, dynamic=True, fullgraph=True, backend=backend)


@no_type_check
def _attention(query, key, value, score_mod, mask, scale, grouped, with_total):
    """The output, and if asked for the log of the sum of each softmax's exponentials; torch 2.8 has another name."""
    known = query, key, value, score_mod, mask, scale, grouped
    if not with_total:
        return flex.flex_attention(*known), None
    if HAS_AUX:
        output, aux = flex.flex_attention(*known, return_aux=flex.AuxRequest(lse=True))
        return output, aux.lse
    return flex.flex_attention(*known, return_lse=True)
