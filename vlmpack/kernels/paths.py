"""The `paths` backend: root-to-leaf runs in blocks of queries, no table over a whole tree, and no work on siblings."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.kernels.weighing import Settings, added, weigh
from vlmpack.plan import Plan, Run, sizes

# What plain causal attention costs of the whole square, half of which it need not compute. Measured on 2 CPU cores by
# examples/benchmarks/attention_rule.py.
CAUSAL_SHARE = 0.85
# Queries of a long run that are computed under one mask; with a window, as many as half of it, where that is more. Few
# leave out more of what is not seen, many join the keys before them less often.
BLOCK, WINDOW_BLOCK = 512, 128


@dataclass(frozen=True, eq=False)
class Call:
    """One attention call. Its pieces are segments, cut where blocks of queries begin; see `pieces`.

    Attributes:
        queries: pieces whose queries are computed.
        keys: pieces of the path, in its order.
        seen: tokens of the keys, the first ones, that take part.
        mask: [Q, K] what is added to the scores, keys in path order; None where it is plain causal.
        own: how many of the queries, the last ones, are the call's own.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    seen: int
    mask: Float[Tensor, "Q K"] | None
    own: int


def calls(plan: Plan, window: int | None, dtype: torch.dtype) -> tuple[Call, ...]:
    """The calls of a layer, one or more a run, in the order of the tokens.

    Args:
        plan: of the pack.
        window: of the layer.
        dtype: of its scores.
    """
    key = ("paths", window, dtype)
    return plan.once(key, lambda: tuple(call for run in plan.runs for call in _calls(plan, run, window, dtype)))


def pieces(plan: Plan, window: int | None) -> tuple[int, ...]:
    """Tokens of each piece: what a layer's sequence is split into, so that every call's keys are whole pieces.

    Args:
        plan: of the pack.
        window: of the layer.
    """
    return plan.once(("paths", "pieces", window), lambda: _pieces(plan, window))


def _pieces(plan: Plan, window: int | None) -> tuple[int, ...]:
    begins = {block.start for run in plan.runs for block in _blocks(plan, run, window)}
    edges = sorted(begins.union(plan.forest.starts, [plan.forest.tokens]))
    return tuple(stop - start for start, stop in pairwise(edges))


def _blocks(plan: Plan, run: Run, window: int | None) -> list[range]:
    """The tokens of a run, cut where one mask for all of them would be quadratic.

    With a window, a block sees little but itself. Without, it sees all that came before, and what is seen both ways is
    a block of its own, all of which is seen.
    """
    start, window = plan.forest.starts[run.own[0]], plan.window_over(run, window)
    tokens = range(start, start + sizes(plan.forest, run)[1])
    size = BLOCK if window is None else max(WINDOW_BLOCK, window // 2)
    if len(tokens) <= size or _is_plain(plan, run, window):
        return [tokens]
    whole = {each for each in _stretches(plan) if each.start in tokens} if window is None else set()
    edges = sorted({tokens.start, tokens.stop}.union(*((each.start, each.stop) for each in whole)))
    return [
        block
        for part in (range(*pair) for pair in pairwise(edges))
        for block in ([part] if part in whole else _chunks(part, size))
    ]


def _chunks(tokens: range, size: int) -> list[range]:
    return [tokens[first : first + size] for first in range(0, len(tokens), size)]


def _is_plain(plan: Plan, run: Run, window: int | None) -> bool:
    """Whether a run is computed as plain causal attention over its whole path: where that is exact and cheaper.

    What plain attention computes for the context is dropped, so it matters little what the context's own tokens see.
    """
    return window is None and not plan.crossed.intersection(run.own) and _is_cheaper_whole(*sizes(plan.forest, run))


def _stretches(plan: Plan) -> tuple[range, ...]:
    """The tokens of each stretch seen both ways."""
    return plan.once(("paths", "stretches"), lambda: _found(plan))


def _found(plan: Plan) -> tuple[range, ...]:
    numbered = enumerate([] if plan.blocks is None else plan.blocks.tolist())
    groups = [(number, [token for token, _ in run]) for number, run in groupby(numbered, key=lambda pair: pair[1])]
    return tuple(range(tokens[0], tokens[-1] + 1) for number, tokens in groups if number >= 0)


def _calls(plan: Plan, run: Run, window: int | None, dtype: torch.dtype) -> list[Call]:
    """A call for each block of a run."""
    path = _path(plan, run, window)
    if _is_plain(plan, run, path.window):
        return [Call(path.pieces, path.pieces, path.edges[-1], None, sizes(plan.forest, run)[1])]
    return [_call(plan, path, block, dtype) for block in _blocks(plan, run, window)]


@dataclass(frozen=True)
class _Path:
    """The way from a root to the end of a run.

    Attributes:
        spans: the tokens of each segment, root first.
        pieces: of all segments.
        edges: places on the path where each piece begins, and where the last one ends.
        shift: the place of a token of the run, less its index in the pack.
        window: of the layer; None where the whole path lies within it.
    """

    spans: tuple[range, ...]
    pieces: tuple[int, ...]
    edges: tuple[int, ...]
    shift: int
    window: int | None


def _path(plan: Plan, run: Run, window: int | None) -> _Path:
    lengths, starts = pieces(plan, window), plan.forest.starts
    begins = plan.once(("paths", "begins", window), lambda: tuple(accumulate(lengths, initial=0)))
    spans = [range(starts[each], starts[each] + plan.forest.lengths[each]) for each in (*run.context, *run.own)]
    path = [p for span in spans for p in range(bisect_left(begins, span.start), bisect_left(begins, span.stop))]
    edges = accumulate((lengths[piece] for piece in path), initial=0)
    shift = plan.forest.depths[run.own[0]] - starts[run.own[0]]
    return _Path(tuple(spans), tuple(path), tuple(edges), shift, plan.window_over(run, window))


def _call(plan: Plan, path: _Path, block: range, dtype: torch.dtype) -> Call:
    """One block, against the keys that it can see and few others."""
    beside = [each for each in _stretches(plan) if each.start < block.stop and block.start < each.stop]
    start, stop = (place + path.shift for place in (block.start, max(each.stop for each in (block, *beside))))
    first, last = 0, len(path.pieces)  # without a window a run's blocks share the keys of the whole path, joined once
    if path.window is not None:
        before = [each.start + path.shift for each in beside if not plan.window_cuts_blocks]
        least = max(0, min([start - path.window + 1, *before]))
        first, last = bisect_right(path.edges, least) - 1, bisect_left(path.edges, stop)
    base = path.edges[first]
    if path.window is None and beside == [block]:
        mask = torch.zeros(1, stop, dtype=dtype, device=plan.reach.device).expand(len(block), -1)  # all is seen
    elif beside:
        mask = _looked_up(plan, path, range(start, start + len(block)), range(base, stop), dtype)
    else:
        mask = _causal(plan, len(block), start - base, path.window, dtype)
    queries = path.pieces[bisect_left(path.edges, start) : bisect_left(path.edges, start + len(block))]
    return Call(queries, path.pieces[first:last], stop - base, mask, len(block))


def _looked_up(plan: Plan, path: _Path, queries: range, keys: range, dtype: torch.dtype) -> Float[Tensor, "Q K"]:
    """The mask of some places on a path, token by token."""
    tokens = torch.cat([torch.arange(span.start, span.stop, device=plan.reach.device) for span in path.spans])
    rows, columns = tokens[queries.start : queries.stop, None], tokens[None, keys.start : keys.stop]
    return added(plan.seen(path.window)(0, 0, rows, columns), dtype)


def _causal(plan: Plan, queries: int, before: int, window: int | None, dtype: torch.dtype) -> Float[Tensor, "Q K"]:
    """The mask of queries that see themselves and tokens before them, where none is seen both ways.

    With a window, blocks of equal shape share one. Without, all are cut out of one table, around the place where the
    tokens before the queries end.
    """
    if window is not None:
        key = ("paths", "band", window, dtype, queries, before)
        return plan.once(key, lambda: _band(plan, queries, before, window, dtype))
    table, most = plan.once(("paths", "table", dtype), lambda: _table(plan, dtype))
    seen = table[:queries, most - before : most + queries]
    return seen if seen.device.type == "cpu" else seen.contiguous()  # kernels want it aligned


def _band(plan: Plan, queries: int, before: int, window: int, dtype: torch.dtype) -> Float[Tensor, "Q K"]:
    query = torch.arange(before, before + queries, device=plan.reach.device)[:, None]
    back = query - torch.arange(before + queries, device=plan.reach.device)
    return added((back >= 0) & (back < window), dtype)


def _table(plan: Plan, dtype: torch.dtype) -> tuple[Float[Tensor, "Q K"], int]:
    """The mask of a block as long, after as much, as any: all of what comes before, and what came earlier in the block.

    Returns:
        the mask, and how much comes before in it.
    """
    below = [sizes(plan.forest, run) for run in plan.runs if not _is_plain(plan, run, None)]
    most = max(context + (own if own > BLOCK else 0) for context, own in below)
    own = min(BLOCK, max(own for _, own in below))
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
    queries, keys, values = (x.split(pieces(plan, window), dim=2) for x in (query, key, value))
    outputs, path, joined = [], None, ()
    for call in calls(plan, window, query.dtype):
        if call.keys != path:
            path, joined = call.keys, [torch.cat([x[piece] for piece in call.keys], dim=2) for x in (keys, values)]
        own = torch.cat([queries[piece] for piece in call.queries], dim=2)
        seen = (x if call.seen == x.shape[2] else x[:, :, : call.seen] for x in joined)
        outputs.append(weigh(own, *seen, call.mask, settings)[:, :, -call.own :])
    return torch.cat(outputs, dim=2)
