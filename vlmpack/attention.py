"""The attention itself, one function a backend: packed queries, keys and values in, outputs out."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vlmpack.plan import Plan, Run


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
    """One call under the T x T mask."""
    mask = plan.dense_mask(window)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


def _paths(query, key, value, plan: Plan, *, scale, window, dropout):
    """One call a root-to-leaf run: no T x T table, and no work on siblings."""
    outputs = []
    for run in plan.runs:
        mask = plan.run_mask(run, window)
        outputs.append(
            scaled_dot_product_attention(
                query[:, :, slice(*run.queries)],
                _path_of(run, key),
                _path_of(run, value),
                attn_mask=mask,
                is_causal=mask is None,
                dropout_p=dropout,
                scale=scale,
            )
        )
    return torch.cat(outputs, dim=2)


def _path_of(run: Run, tokens: Float[Tensor, "1 N T D"]) -> Float[Tensor, "1 N P D"]:
    """A run's tokens and those before it on its path, in path order."""
    own = tokens[:, :, slice(*run.queries)]
    return torch.cat([*(tokens[:, :, slice(*span)] for span in run.context), own], dim=2) if run.context else own


def _repeat_heads(tokens: Float[Tensor, "1 M T D"], heads: int) -> Float[Tensor, "1 N T D"]:
    """Give every query head its key head: each of the M is shared by N / M neighbours."""
    return tokens if tokens.shape[1] == heads else tokens.repeat_interleave(heads // tokens.shape[1], dim=1)
