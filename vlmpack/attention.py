"""The attention itself, one function a backend: packed queries, keys and values in, outputs out."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
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

    Returns:
        [1, N, T, E]
    """
    key, value = (_repeat_heads(x, query.shape[1]) for x in (key, value))
    backend = {"dense": _dense, "paths": _paths}[plan.backend]
    return backend(query, key, value, plan, scale=scale, window=window, dropout=dropout)


def _dense(query, key, value, plan: Plan, *, scale, window, dropout):
    """One call: the trees as rows of a batch, each under its own mask."""
    query, key, value = (_fold(x, plan) for x in (query, key, value))
    mask = plan.dense_mask(window)
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    return rearrange(output, "b n l e -> n (b l) e").index_select(1, plan.places)[None]


def _fold(tokens: Float[Tensor, "1 N T D"], plan: Plan) -> Float[Tensor, "B N L D"]:
    """Tokens as rows; what fills a short row is any token, for nobody sees it."""
    flat = tokens[0].index_select(1, plan.rows.flatten().clamp(min=0))
    return rearrange(flat, "n (b l) d -> b n l d", b=len(plan.rows))


def _paths(query, key, value, plan: Plan, *, scale, window, dropout):
    """One call a root-to-leaf run: no table over a whole tree, and no work on siblings."""
    # split, not slices: the gradient of a slice is as large as the whole sequence
    queries, keys, values = (x.split(plan.forest.lengths, dim=2) for x in (query, key, value))
    outputs = []
    for run in plan.runs:
        mask, path = plan.run_mask(run, window), (*run.context, *run.own)
        output = scaled_dot_product_attention(
            torch.cat([queries[segment] for segment in plan.queries(run, window)], dim=2),
            torch.cat([keys[segment] for segment in path], dim=2),
            torch.cat([values[segment] for segment in path], dim=2),
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scale,
        )
        own = sum(plan.forest.lengths[segment] for segment in run.own)
        outputs.append(output[:, :, -own:])
    return torch.cat(outputs, dim=2)


def _repeat_heads(tokens: Float[Tensor, "1 M T D"], heads: int) -> Float[Tensor, "1 N T D"]:
    """Give every query head its key head: each of the M is shared by N / M neighbours."""
    return tokens if tokens.shape[1] == heads else tokens.repeat_interleave(heads // tokens.shape[1], dim=1)
