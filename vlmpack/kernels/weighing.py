"""One attention call under a mask: torch's own, or written out where it cannot do what the model asks for."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention


class Settings(NamedTuple):
    """What a layer asks of its attention besides who sees whom.

    Attributes:
        scale: of the scores before the softmax; None for 1 / sqrt(D).
        dropout: share of attention weights dropped. Packed and unpacked draw differently.
        softcap: scores are squeezed into (-softcap, softcap) before the softmax, by tanh.
        sinks: [N] a score that takes part in every softmax of a head and has no value.
    """

    scale: float | None = None
    dropout: float = 0.0
    softcap: float | None = None
    sinks: Tensor | None = None


def added(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """A mask as what is added to scores: 0 where they are seen, minus infinity elsewhere.

    Torch makes this of every table of truths that it is given, anew for each call and layer, and keeps it for the
    backward; made once, all calls share it.

    Args:
        mask: True where a query sees a key; every query sees one.
        dtype: of the scores.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def weigh(
    query: Float[Tensor, "B N Q D"],
    key: Float[Tensor, "B M K D"],
    value: Float[Tensor, "B M K E"],
    mask: Tensor | None,
    settings: Settings,
) -> Float[Tensor, "B N Q E"]:
    """One attention call.

    Args:
        query: as it comes.
        key, value: M heads, each for N / M neighbours among the query's.
        mask: who is seen, True or what is added to the score. None for plain causal attention; a single query, which
            follows all keys, sees them all.
        settings: of the layer.
    """
    grouped = query.shape[1] != key.shape[1]
    if grouped and (query.device.type != "cpu" or settings.softcap is not None or settings.sinks is not None):
        # on CUDA no fused kernel takes grouped heads under a mask, and what torch falls back to keeps all scores
        key, value, grouped = repeat_heads(key, query.shape[1]), repeat_heads(value, query.shape[1]), False
    if settings.softcap is not None or settings.sinks is not None:
        return _written_out(query, key, value, mask, settings)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        dropout_p=settings.dropout,
        scale=settings.scale,
        enable_gqa=grouped,
    )


def _written_out(query, key, value, mask: Tensor | None, settings: Settings) -> Tensor:
    """Every query head with its key head; capped scores, and sinks among them."""
    scale = query.shape[-1] ** -0.5 if settings.scale is None else settings.scale
    scores = query @ key.mT * scale
    if settings.softcap is not None:
        scores = settings.softcap * torch.tanh(scores / settings.softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = mask.tril() if len(mask) > 1 else mask
    least = torch.finfo(scores.dtype).min  # not -inf: a padding row that sees nobody must not become NaN
    scores = scores.masked_fill(~mask, least) if mask.dtype == torch.bool else scores + mask
    if settings.sinks is not None:
        sinks = settings.sinks[:, None, None].expand(len(scores), -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return F.dropout(weights, settings.dropout)[..., : key.shape[2]] @ value


def repeat_heads(tokens: Float[Tensor, "B M T D"], heads: int) -> Float[Tensor, "B N T D"]:
    """Give every query head its key head: each of the M is shared by N / M neighbours.

    Args:
        tokens: keys or values.
        heads: N, the query heads.
    """
    return tokens if tokens.shape[1] == heads else tokens.repeat_interleave(heads // tokens.shape[1], dim=1)
