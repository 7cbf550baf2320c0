"""The `paths` backend: one call a root-to-leaf run, no table over a whole tree, and no work on siblings."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.kernels.weighing import Settings, added, weigh
from vlmpack.plan import Plan, Run, sizes

# What plain causal attention costs of the whole square, half of which it need not compute. Measured on 2 CPU cores by
# examples/benchmarks/attention_rule.py.
CAUSAL_SHARE = 0.85


@dataclass(frozen=True, eq=False)
class Call:
    """One attention call.

    Attributes:
        queries: segments whose queries are computed.
        keys: segments of the path, root first.
        mask: [Q, K] what is added to the scores, keys in path order; None where it is plain causal.
        own: how many of the queries, the last ones, are the run's own.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    mask: Float[Tensor, "Q K"] | None
    own: int


def calls(plan: Plan, window: int | None, dtype: torch.dtype) -> tuple[Call, ...]:
    """The calls of a layer, a run each.

    Args:
        plan: of the pack.
        window: of the layer.
        dtype: of its scores.
    """
    key = ("paths", window, dtype)
    return plan.once(key, lambda: tuple(_call(plan, run, window, dtype) for run in plan.runs))


def _call(plan: Plan, run: Run, window: int | None, dtype: torch.dtype) -> Call:
    """A run as plain causal attention over its whole path where that is exact and cheaper, else under a mask.

    What plain attention computes for the context is dropped, so it matters little what the context's own tokens see.
    """
    context, own = sizes(plan.forest, run)
    window = plan.window_over(run, window)
    keys = (*run.context, *run.own)
    if window is not None or plan.crossed.intersection(run.own):
        indices = plan.once(("paths", "indices"), lambda: _indices(plan))
        places = torch.cat([indices[segment] for segment in keys])
        seen = plan.seen(window)(0, 0, places[context:, None], places[None, :])
        return Call(run.own, keys, added(seen, dtype), own)
    if _is_cheaper_whole(context, own):
        return Call(keys, keys, None, own)
    table, most = plan.once(("paths", "table", dtype), lambda: _table(plan, dtype))
    seen = table[:own, most - context : most + own]
    return Call(run.own, keys, seen if seen.device.type == "cpu" else seen.contiguous(), own)  # kernels want it aligned


def _indices(plan: Plan) -> tuple[Int[Tensor, " _"], ...]:
    """The tokens of each segment."""
    return torch.arange(plan.forest.tokens, device=plan.reach.device).split(plan.forest.lengths)


def _table(plan: Plan, dtype: torch.dtype) -> tuple[Float[Tensor, "Q K"], int]:
    """The mask of a run as long, after a context as long, as any: all of the context, and what came before in the run.

    Shorter ones are cut out of it around the place where the context ends, which is returned too.
    """
    below = [sizes(plan.forest, run) for run in plan.runs if run.context]
    most, own = (max(lengths) for lengths in zip(*below, strict=True))
    key = torch.arange(-most, own, device=plan.reach.device)
    return added(key <= torch.arange(own, device=plan.reach.device)[:, None], dtype), most


def area(forest: Forest, run: Run) -> float:
    """Query-key pairs that a kernel's time amounts to for a run."""
    context, own = sizes(forest, run)
    path = context + own
    return path * (CAUSAL_SHARE * path if _is_cheaper_whole(context, own) else own)


def _is_cheaper_whole(context: int, own: int) -> bool:
    """Whether plain causal attention of the whole path costs less than its lower part under a mask."""
    return not context or CAUSAL_SHARE * (context + own) < own


def attend(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T E"],
    plan: Plan,
    window: int | None,
    settings: Settings,
) -> Float[Tensor, "1 N T E"]:
    """Attention over a pack; arguments as in `vlmpack.attention.attend`."""
    # split, not slices: the gradient of a slice is as large as the whole sequence
    queries, keys, values = (x.split(plan.forest.lengths, dim=2) for x in (query, key, value))
    outputs = []
    for call in calls(plan, window, query.dtype):
        output = weigh(
            torch.cat([queries[segment] for segment in call.queries], dim=2),
            torch.cat([keys[segment] for segment in call.keys], dim=2),
            torch.cat([values[segment] for segment in call.keys], dim=2),
            call.mask,
            settings,
        )
        outputs.append(output[:, :, -call.own :])
    return torch.cat(outputs, dim=2)
