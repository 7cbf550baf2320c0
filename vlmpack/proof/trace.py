"""What a decoder computes on its way, token by token: to find where two ways of computing part."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vlmpack.layout import path
from vlmpack.pack import Pack


@dataclass
class Trace:
    """One sequence's way through a decoder.

    Attributes:
        states: the embeddings, then what each layer returns; [L, H] each.
        angles: [L, D] of the rotary embedding, cosines before sines; None if the layers are not told.
    """

    states: list[Float[Tensor, "L H"]] = field(default_factory=list)
    angles: Float[Tensor, "L D"] | None = None


@contextmanager
def traced(decoder: nn.Module) -> Iterator[list[Trace]]:
    """While inside, every call of the decoder adds a trace.

    Args:
        decoder: a transformers decoder with its layers in a `ModuleList`.
    """
    traces: list[Trace] = []
    layers = _layers(decoder)

    def before(_: nn.Module, arguments: tuple, options: dict[str, Any]) -> None:
        hidden = arguments[0] if arguments else options["hidden_states"]
        traces.append(Trace([_rows(hidden)]))
        angles = options.get("position_embeddings")
        if isinstance(angles, tuple) and all(isinstance(each, Tensor) for each in angles):
            traces[-1].angles = torch.cat([_by_token(each, hidden.shape[-2]) for each in angles], dim=1)

    def after(_: nn.Module, __: tuple, output: Any) -> None:
        traces[-1].states.append(_rows(output[0] if isinstance(output, tuple) else output))

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)] if len(layers) else []
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield traces
    finally:
        for handle in handles:
            handle.remove()


def path_of(pack: Pack, response: int) -> Int[Tensor, " L"]:
    """Indices of the tokens from the root to a response's last token."""
    forest, last = pack.forest, int(pack.ends[response])
    leaf = bisect_right(forest.starts, last) - 1
    whole = path(forest, leaf)
    return whole[whole <= last]


def _layers(decoder: nn.Module) -> nn.ModuleList:
    lists = (each for each in decoder.modules() if isinstance(each, nn.ModuleList))
    return next((each for each in lists if len(each) == decoder.config.num_hidden_layers), nn.ModuleList())


def _rows(hidden: Tensor) -> Float[Tensor, "L H"]:
    """One row a token; families that carry several streams put theirs side by side."""
    return hidden.detach()[0].reshape(hidden.shape[1], -1)


def _by_token(angles: Tensor, tokens: int) -> Float[Tensor, "L D"]:
    """Angles [..., L, D] of each token, over whatever axes of position there are."""
    if angles.ndim < 2 or angles.shape[-2] != tokens:
        return angles.new_zeros(tokens, 0)
    return angles.detach().movedim(-2, 0).reshape(tokens, -1)
