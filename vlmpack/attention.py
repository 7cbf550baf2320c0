"""The attention itself: packed queries, keys and values in, outputs out, by the backend that the plan names."""

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack.choosing import chosen, refusal
from vlmpack.kernels import dense, flex, paths, varlen
from vlmpack.kernels.weighing import Settings
from vlmpack.plan import BACKENDS, AttentionError, Plan


def attend(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T E"],
    plan: Plan,
    window: int | None,
    settings: Settings,
) -> Float[Tensor, "1 N T E"]:
    """Attention over a pack: each token sees its own root-to-here path and nothing else.

    Args:
        query: [1, N, T, D], rotary positions applied.
        key: [1, M, T, D]; M divides N (grouped queries).
        value: [1, M, T, E].
        plan: from `vlmpack.plan.make`.
        window: tokens back along the path that are seen; None for all.
        settings: what else the layer asks for.

    Returns:
        [1, N, T, E]

    Raises:
        AttentionError: the plan's backend cannot compute this layer; says why, and which can.
    """
    layer = (*_cast(query, key, value), plan, window, settings)
    backend = chosen(*layer) if plan.backend == "auto" else plan.backend
    if reason := refusal(backend, *layer):
        able = [name for name in BACKENDS[1:] if refusal(name, *layer) is None]
        raise AttentionError(f"attention={backend!r} cannot run: {reason}. What can: {', '.join(able)}, or 'auto'")
    attended = {"dense": dense, "paths": paths, "flex": flex, "varlen": varlen}[backend].attend
    return attended(*layer)


def _cast(*heads: Tensor) -> tuple[Tensor, ...]:
    """In autocast's precision where it is on, as torch's own attention is; the other kernels are not cast for."""
    device = heads[0].device.type
    if not torch.is_autocast_enabled(device):
        return heads
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in heads)
