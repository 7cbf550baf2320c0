"""A pack's attention as calls of a kernel for groups of different lengths: paths gathered, or shared parts apart.

Each group of queries meets one group of keys. A run of queries (`plan.Run`) can meet its whole root-to-leaf path, whose
keys are gathered for it; or its own tokens in one call and each segment before them in another, where nothing is
repeated and what the calls find is merged afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.plan import Plan, Run, runs, sizes

# Bytes moved for one number of a head, forward and backward, counted from `vlmpack.kernels.merging`, not measured:
# gathered keys and values are read and written (8), again in the backward (8), and their gradients are written, widened
# and added where they belong (40). A query of a part is gathered (4), its output written and merged (12); in the
# backward query, gradient and output are gathered (12), and its gradient is written, widened and added (18).
GATHERED_BYTES = 56
PART_BYTES = 46


@dataclass(frozen=True, eq=False)
class Part:
    """One call: groups of queries, each against its group of keys.

    Attributes:
        queries: [Q] indices of tokens, ascending; None for all T as they lie.
        keys: [K] likewise; a token may stand in several groups.
        query_ends: where each group of queries begins among the Q, and at last Q; 32 bits.
        key_ends: likewise, of keys.
        most_queries: of a group.
        most_keys: of a group.
        causal: whether a group's last query sees all its keys, and each query before it one key less.
    """

    queries: Int[Tensor, " Q"] | None
    keys: Int[Tensor, " K"] | None
    query_ends: Int[Tensor, " _"]
    key_ends: Int[Tensor, " _"]
    most_queries: int
    most_keys: int
    causal: bool


@dataclass(frozen=True)
class _Below:
    """Queries after a segment's run that see the segment.

    Attributes:
        segment: the one they see.
        level: how many segments stand above it; those of one level have no queries in common.
        start: index of the first query.
        stop: one past the last.
    """

    segment: int
    level: int
    start: int
    stop: int


def parts(plan: Plan, window: int | None, heads: int, key_heads: int) -> tuple[Part, ...]:
    """The calls of a layer, in the form that moves fewer bytes; with a window, over gathered paths.

    Args:
        plan: of the pack.
        window: of the layer; a part does not know how far before its queries its keys stand.
        heads: N, of queries.
        key_heads: M, of keys and values.
    """
    form = gathered
    if window is None:
        form = plan.once(("varlen", heads, key_heads), lambda: cheaper_form(plan.forest, heads, key_heads))
    return plan.once(("varlen", form), lambda: form(plan))


def cheaper_form(forest: Forest, heads: int, key_heads: int) -> Callable[[Plan], tuple[Part, ...]]:
    """Of `gathered` and `apart` the one that moves fewer bytes. Counted, not measured.

    Args:
        forest: of the pack.
        heads: N, of queries.
        key_heads: M, of keys and values.
    """
    below = _below(forest, runs(forest))
    gathering = GATHERED_BYTES * key_heads * sum(sum(sizes(forest, run)) for run in runs(forest))
    queries = PART_BYTES * heads * sum(each.stop - each.start for each in below)
    keys = GATHERED_BYTES * key_heads * sum(forest.lengths[each.segment] for each in below)
    return gathered if gathering <= queries + keys else apart


def gathered(plan: Plan) -> tuple[Part, ...]:
    """One call: every run against its whole path, root first.

    Args:
        plan: of the pack.
    """
    paths = [(*run.context, *run.own) for run in plan.runs]
    keys = [segment for path in paths for segment in path]
    own = [sizes(plan.forest, run)[1] for run in plan.runs]
    lengths = [sum(sizes(plan.forest, run)) for run in plan.runs]
    return (_part(plan, None, _tokens(plan.forest, keys), own, lengths, causal=True),)


def apart(plan: Plan) -> tuple[Part, ...]:
    """One call for what the runs see of themselves, and one for each level of segments that later runs see too.

    In pre-order the queries below a segment are contiguous, and segments of one level have none in common.

    Args:
        plan: of the pack.
    """
    forest = plan.forest
    own = [sizes(forest, run)[1] for run in plan.runs]
    found = [_part(plan, None, None, own, own, causal=True)]
    below = _below(forest, plan.runs)
    for level in sorted({each.level for each in below}):
        here = [each for each in below if each.level == level]
        queries = torch.cat([torch.arange(each.start, each.stop) for each in here])
        keys = _tokens(forest, [each.segment for each in here])
        counts = [each.stop - each.start for each in here]
        found.append(_part(plan, queries, keys, counts, [forest.lengths[e.segment] for e in here], causal=False))
    return tuple(found)


def _below(forest: Forest, cut: Sequence[Run]) -> list[_Below]:
    """For each segment that later runs see, these runs' queries; ascending."""
    found = []
    for run in cut:
        stop = forest.starts[run.own[-1]] + forest.lengths[run.own[-1]]
        for place, segment in enumerate(run.own):
            if forest.stops[segment] > stop:
                found.append(_Below(segment, len(run.context) + place, stop, forest.stops[segment]))
    return found


def _tokens(forest: Forest, segments: Sequence[int]) -> Int[Tensor, " K"]:
    indices = torch.arange(forest.tokens).split(forest.lengths)
    return torch.cat([indices[segment] for segment in segments])


def _part(
    plan: Plan,
    queries: Int[Tensor, " Q"] | None,
    keys: Int[Tensor, " K"] | None,
    query_counts: Sequence[int],
    key_counts: Sequence[int],
    causal: bool,
) -> Part:
    device = plan.reach.device
    query_ends, key_ends = (_ends(counts).to(device) for counts in (query_counts, key_counts))
    return Part(
        queries=None if queries is None else queries.to(device),
        keys=None if keys is None else keys.to(device),
        query_ends=query_ends,
        key_ends=query_ends if keys is None else key_ends,
        most_queries=max(query_counts),
        most_keys=max(key_counts),
        causal=causal,
    )


def _ends(counts: Sequence[int]) -> Int[Tensor, " _"]:
    return torch.tensor(list(accumulate(counts, initial=0)), dtype=torch.int32)
