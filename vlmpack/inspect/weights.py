"""What a layer really attends to: its weights, as the attention that trains gives them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmpack.at_rest import at_rest
from vlmpack.attention import attend
from vlmpack.inspect.exhibit import InspectError
from vlmpack.kernels.weighing import Settings
from vlmpack.model import run, unwrapped
from vlmpack.pack import Pack
from vlmpack.plan import Plan

MOST_TOKENS = 4096  # of a pack; the weights of a longer one are a table that nobody can look at


@torch.no_grad()
def attention_weights(model: nn.Module, pack: Pack, layer: int = 0, head: int = 0) -> Float[Tensor, "T T"]:
    """The attention weights of one layer and head over a pack: how much each token takes from each other one.

    They are not computed anew under a mask, which would show what the mask says. The layer's own queries and keys, of
    all heads, go through the very attention that training uses, whatever backend that is, with values of which each
    holds a one at its own token: what comes out is the weights. So a weight outside the mask is exactly 0, or a leak.
    For a training in mixed precision, call it inside the same `torch.autocast`.

    Args:
        model: after `vlmpack.enable`; a `RewardModel` enables itself when it is first called.
        pack: small, on the model's device.
        layer: index of a decoder layer.
        head: index of one of its query heads.

    Returns:
        [T, T] in rows the token that looks, in columns the one that is seen; rows sum to 1, or to less where a layer
        has attention sinks.

    Raises:
        AttentionError: the model was not enabled, or its attention cannot compute this.
        InspectError: this is no pack, it is too long, or there is no such layer or head.

    Example:
        weights = vlmpack.inspect.attention_weights(model, pack, layer=1, head=0)
        assert weights[~vlmpack.masks.dense(pack.reach[0])].max() == 0  # where tokens see earlier ones only
    """
    if not isinstance(pack, Pack):
        raise InspectError(f"a {type(pack).__name__} has no mask to attend under; give a Pack, of vlmpack.pack")
    if pack.tokens > MOST_TOKENS:
        raise InspectError(f"the pack has {pack.tokens:,} tokens; give one of at most {MOST_TOKENS:,}, of a row or two")
    heard: dict[int, tuple] = {}

    def listen(index: int, *attended: Any) -> None:
        heard.setdefault(index, attended) if index == layer else heard.setdefault(index, ())

    body = unwrapped(model).base_model
    with at_rest(body):
        run(body, pack, listener=listen)
    if not heard.get(layer):
        raise InspectError(f"there is no layer {layer}; the model has layers 0 to {max(heard)}")
    return _weights(*heard[layer], head)


def _weights(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T E"],
    plan: Plan,
    window: int | None,
    settings: Settings,
    head: int,
) -> Float[Tensor, "T T"]:
    heads, tokens, size = query.shape[1], *value.shape[2:]
    if not 0 <= head < heads:
        raise InspectError(f"there is no head {head}; the layer has query heads 0 to {heads - 1}")
    settings = Settings(settings.scale, softcap=settings.softcap, sinks=settings.sinks)  # nothing is dropped
    columns = []
    for start in range(0, tokens, size):  # as many at a time as the layer's own values are wide: kernels look at that
        ones, stop = torch.zeros_like(value), min(start + size, tokens)
        ones[0, :, range(start, stop), range(stop - start)] = 1
        columns.append(attend(query, key, ones, plan, window, settings)[0, head, :, : stop - start])
    return torch.cat(columns, dim=-1)
