"""The attention itself, one function a backend: packed queries, keys and values in, outputs out."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention

from vlmpack.plan import Plan


def attend(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T E"],
    plan: Plan,
    *,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "1 N T E"]:
    """Attention over a pack: each token sees its own root-to-here path and nothing else.

    Args:
        query: [1, N, T, D], rotary positions applied.
        key: [1, M, T, D]; M divides N (grouped queries).
        value: [1, M, T, E].
        plan: from `vlmpack.plan.make`.
        scale: of the scores before the softmax; None for 1 / sqrt(D).
        window: tokens back along the path that are seen; None for all.
        dropout: share of attention weights dropped. Packed and unpacked draw differently.
        softcap: scores are squeezed into (-softcap, softcap) before the softmax, by tanh.
        sinks: [N] a score that takes part in every softmax of a head and has no value.

    Returns:
        [1, N, T, E]
    """
    key, value = (repeat_heads(x, query.shape[1]) for x in (key, value))
    settings = {"dropout": dropout, "scale": scale, "softcap": softcap, "sinks": sinks}
    return {"dense": _dense, "paths": _paths}[plan.backend](query, key, value, plan, window, settings)


def weigh(
    query: Float[Tensor, "B N Q D"],
    key: Float[Tensor, "B N K D"],
    value: Float[Tensor, "B N K E"],
    mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "B N Q E"]:
    """One attention call: torch's own, or written out where it cannot do what the model asks for.

    Args:
        query, key, value: every query head with its key head.
        mask: who is seen, True or what is added to the score. None for plain causal attention; a single query, which
            follows all keys, sees them all.
        dropout, scale, softcap, sinks: as in `attend`.
    """
    if softcap is None and sinks is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scale
        )
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = mask.tril() if len(mask) > 1 else mask
    least = torch.finfo(scores.dtype).min  # not -inf: a padding row that sees nobody must not become NaN
    scores = scores.masked_fill(~mask, least) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(len(scores), -1, scores.shape[2], 1)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return F.dropout(weights, dropout)[..., : key.shape[2]] @ value


def _dense(query, key, value, plan: Plan, window, settings):
    """One call: the trees as rows of a batch, each under its own mask."""
    query, key, value = (_fold(x, plan) for x in (query, key, value))
    output = weigh(query, key, value, plan.dense_mask(window), **settings)
    return rearrange(output, "b n l e -> n (b l) e").index_select(1, plan.places)[None]


def _fold(tokens: Float[Tensor, "1 N T D"], plan: Plan) -> Float[Tensor, "B N L D"]:
    """Tokens as rows; what fills a short row is any token, for nobody sees it."""
    flat = tokens[0].index_select(1, plan.rows.flatten().clamp(min=0))
    return rearrange(flat, "n (b l) d -> b n l d", b=len(plan.rows))


def _paths(query, key, value, plan: Plan, window, settings):
    """One call a root-to-leaf run: no table over a whole tree, and no work on siblings."""
    # split, not slices: the gradient of a slice is as large as the whole sequence
    queries, keys, values = (x.split(plan.forest.lengths, dim=2) for x in (query, key, value))
    outputs = []
    for run in plan.runs:
        path = (*run.context, *run.own)
        output = weigh(
            torch.cat([queries[segment] for segment in plan.queries(run, window)], dim=2),
            torch.cat([keys[segment] for segment in path], dim=2),
            torch.cat([values[segment] for segment in path], dim=2),
            plan.run_mask(run, window),
            **settings,
        )
        own = sum(plan.forest.lengths[segment] for segment in run.own)
        outputs.append(output[:, :, -own:])
    return torch.cat(outputs, dim=2)


def repeat_heads(tokens: Float[Tensor, "B M T D"], heads: int) -> Float[Tensor, "B N T D"]:
    """Give every query head its key head: each of the M is shared by N / M neighbours.

    Args:
        tokens: keys or values.
        heads: N, the query heads.
    """
    return tokens if tokens.shape[1] == heads else tokens.repeat_interleave(heads // tokens.shape[1], dim=1)
