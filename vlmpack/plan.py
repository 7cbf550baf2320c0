"""How one pack's attention is computed: which queries meet which keys, and by which backend."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import zip_longest

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vlmpack import masks
from vlmpack.forest import Forest
from vlmpack.splitting import split

BACKENDS = ("auto", "dense", "paths")


class AttentionError(ValueError):
    """An attention backend was asked for what it cannot do."""


@dataclass(frozen=True)
class Run:
    """Segments that lie one after the other on a root-to-leaf path and in the pack, and those before them on it.

    Attributes:
        own: segments whose tokens are the queries; each token sees the earlier ones of its own run too.
        context: segments of the path before the run, root first; empty for a root's run.
    """

    own: tuple[int, ...]
    context: tuple[int, ...]


def runs(forest: Forest) -> tuple[Run, ...]:
    """Cut a forest into root-to-leaf runs: a segment and its first child are one run.

    A prompt and its first response are plain causal attention; each further response is attention
    of its own tokens on the prompt's and its own.

    Example:
        >>> [(run.own, run.context) for run in runs(Forest((-1, 0, 0), (3, 2, 2)))]
        [((0, 1), ()), ((2,), (0,))]
    """
    heads = [s for s, parent in enumerate(forest.parents) if parent < 0 or parent != s - 1]
    stops = [*heads[1:], len(forest.parents)]
    return tuple(Run(tuple(range(head, stop)), forest.ancestors(head)) for head, stop in zip(heads, stops, strict=True))


@lru_cache(maxsize=32)  # the policy and its reference read the same packs
def fold(forest: Forest) -> tuple[tuple[int, ...], ...]:
    """Deal a pack's paths into the rows of one batched attention call, as cheaply as a few row lengths allow.

    Paths that part see nothing of each other, so they need not stand in one square: T x T shrinks. Where trees
    share a short beginning, repeating it in several rows costs less than one long row.

    Returns:
        B rows of token indices, ascending; each holds the whole path of every leaf in it.

    Example:
        >>> rows = fold(Forest((-1, 0, 0), (2, 200, 200)))  # the first 2 tokens stand in both rows
        >>> [(row[0], row[-1], len(row)) for row in rows]
        [(0, 201, 202), (0, 401, 202)]
    """
    leaves = sorted(set(range(len(forest.parents))) - set(forest.parents))
    homes, needs = [forest.parents[leaf] for leaf in leaves], [frozenset({leaf}) for leaf in leaves]
    length = max(forest.depths[leaf] + forest.lengths[leaf] for leaf in leaves)  # no row is shorter
    best, cost = [], float("inf")
    while True:
        parts = [_path_segments(forest, leaves, part) for part in split(forest, homes, needs, length)]
        longest = max(sum(forest.lengths[segment] for segment in part) for part in parts)
        price = len(parts) * (ROW_COST + longest**2)
        if price >= cost:
            break  # longer rows share more, but squares grow faster
        best, cost = parts, price
        if len(parts) == 1:
            break
        length *= 2
    return tuple(_tokens(forest, part) for part in best)


def _path_segments(forest: Forest, leaves: Sequence[int], part: Sequence[int]) -> list[int]:
    """The segments on the paths to some of the leaves, ascending."""
    return sorted({s for place in part for s in (*forest.ancestors(leaves[place]), leaves[place])})


def _tokens(forest: Forest, segments: Sequence[int]) -> tuple[int, ...]:
    spans = (range(forest.starts[s], forest.starts[s] + forest.lengths[s]) for s in segments)
    return tuple(token for span in spans for token in span)


@dataclass(frozen=True, eq=False)
class Plan:
    """One pack's attention, made once and read by every layer.

    Attributes:
        backend: "dense" (one call a layer) or "paths" (one call a run).
        forest: the pack's segments.
        runs: the forest as root-to-leaf runs, for "paths".
        rows: [B, L] token indices as folded, for "dense"; -1 fills short rows, and a token may stand in several.
        places: [T] one place of each token in the flattened rows.
        reach: [T] one past the last token that may see each token.
        position: [T] distance along the path; sliding windows compare these.
        blocks: [T] the stretch in which a token sees all others both ways; -1 for none. Each lies in one segment.
        block_layers: the kind of layers in which they do; None for all.
        window_cuts_blocks: whether a sliding window holds inside such a stretch too.
        layers: the layers that have attended through this plan; each adds its index.
    """

    backend: str
    forest: Forest
    runs: tuple[Run, ...]
    rows: Int[Tensor, "B L"]
    places: Int[Tensor, " T"]
    reach: Int[Tensor, " T"]
    position: Int[Tensor, " T"]
    blocks: Int[Tensor, " T"] | None = None
    block_layers: str | None = None
    window_cuts_blocks: bool = False
    layers: set[int] = field(default_factory=set)
    _made: dict = field(default_factory=dict, repr=False)  # layers of one model share their masks

    def of_layer(self, kind: str | None) -> "Plan":
        """The plan as a kind of layers reads it: without stretches seen both ways where those do not see so."""
        return self if self.block_layers in (None, kind) else self._causal

    @cached_property
    def _causal(self) -> "Plan":
        return replace(self, blocks=None, block_layers=None, _made={})  # `layers` stays the same set

    def dense_mask(self, window: int | None) -> Bool[Tensor, "B 1 L L"]:
        """Who sees whom in each row; what fills a row sees itself, so that no softmax is empty."""
        if window not in self._made:
            query, key = self.rows[:, :, None], self.rows[:, None, :]
            mask = self._seen(query, key, window) & (key >= 0)
            mask |= torch.eye(self.rows.shape[1], dtype=torch.bool, device=mask.device)
            self._made[window] = mask[:, None]
        return self._made[window]

    def _seen(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """The mask of queries and keys, given by index."""
        mask = masks.seen(self.reach, self.position, window, self.blocks, self.window_cuts_blocks)
        return mask(0, 0, query, key)

    @cached_property
    def _crossed(self) -> frozenset[int]:
        """Segments in which tokens see each other both ways, so that attention is not causal."""
        if self.blocks is None:
            return frozenset()
        parts = self.blocks.cpu().split(self.forest.lengths)
        return frozenset(segment for segment, blocks in enumerate(parts) if (blocks >= 0).any())

    def is_plain(self, run: Run, window: int | None) -> bool:
        """Whether a run is computed as plain causal attention, its context's queries included.

        Over the whole path that costs less than its lower part under a mask if the context is short; what is computed
        for the context is dropped, so it matters little what the context's own tokens would see.
        """
        if self._crossed.intersection(run.own) or self._window(run, window) is not None:
            return False
        return _is_plain(self.forest, run)

    def queries(self, run: Run, window: int | None) -> tuple[int, ...]:
        """The segments whose queries a run computes: its own, or the whole path where that is plain and cheaper."""
        return (*run.context, *run.own) if self.is_plain(run, window) else run.own

    def _window(self, run: Run, window: int | None) -> int | None:
        """The window, unless the whole path lies within it."""
        last = run.own[-1]
        longer = window is not None and self.forest.depths[last] + self.forest.lengths[last] > window
        return window if longer else None

    def run_mask(self, run: Run, window: int | None) -> Bool[Tensor, "Q K"] | None:
        """Who sees whom in one run, keys in path order; None where it is plain causal."""
        window = self._window(run, window)
        if self.is_plain(run, window):
            return None
        if (run, window) not in self._made:
            indices = torch.arange(self.forest.tokens, device=self.position.device).split(self.forest.lengths)
            query = torch.cat([indices[segment] for segment in run.own])[:, None]
            key = torch.cat([indices[segment] for segment in (*run.context, *run.own)])[None, :]
            self._made[run, window] = self._seen(query, key, window)
        return self._made[run, window]


def make(
    forest: Forest,
    reach: Int[Tensor, " T"],
    position: Int[Tensor, " T"],
    attention: str,
    blocks: Int[Tensor, " T"] | None = None,
    block_layers: str | None = None,
    window_cuts_blocks: bool = False,
) -> Plan:
    """Plan a pack's attention.

    Args:
        forest: the pack's segments.
        reach: [T] on the model's device, as `masks.reach(forest)`.
        position: [T] on the model's device, as `layout.position(forest)`.
        attention: a backend's name, or "auto" for the one predicted to be faster on this pack.
        blocks: [T] on the model's device, as `Pack.blocks`; None if every token sees earlier ones only.
        block_layers, window_cuts_blocks: as in `Plan`.

    Raises:
        AttentionError: no such backend.
    """
    if attention not in BACKENDS:
        raise AttentionError(f"attention={attention!r} is not a backend; take one of {BACKENDS}")
    cut, folded = runs(forest), fold(forest)
    rows = torch.tensor(list(zip_longest(*folded, fillvalue=-1))).T.contiguous()
    backend = _faster(forest, cut, rows.shape) if attention == "auto" else attention
    device = reach.device
    places = _places(rows, forest.tokens)
    return Plan(
        backend,
        forest,
        cut,
        rows.to(device),
        places.to(device),
        reach,
        position,
        blocks=blocks,
        block_layers=block_layers,
        window_cuts_blocks=window_cuts_blocks,
    )


def _places(rows: Int[Tensor, "B L"], tokens: int) -> Int[Tensor, " T"]:
    """For each token, a place in the flattened rows where it stands."""
    flat = rows.flatten()
    filled = (flat >= 0).nonzero()[:, 0]
    return torch.zeros(tokens, dtype=torch.int64).scatter_reduce(0, flat[filled], filled, "amax")


# What one more attention call, and one more row of a call, cost in query-key pairs: the overhead of a call, and of a
# block of a kernel; and what plain causal attention costs of the whole square, half of which it needs not compute.
# Measured on 2 CPU cores by examples/benchmarks/attention_rule.py.
CALL_COST = 10_000
ROW_COST = 5_000
CAUSAL_SHARE = 0.85


def _faster(forest: Forest, cut: tuple[Run, ...], rows: tuple[int, int]) -> str:
    """The backend with the fewer pairs to compute, overheads counted as pairs."""
    dense = CALL_COST + rows[0] * (ROW_COST + rows[1] ** 2)
    paths = sum(CALL_COST + area(forest, run) for run in cut)
    return "dense" if dense <= paths else "paths"


def area(forest: Forest, run: Run) -> float:
    """Query-key pairs that a kernel's time amounts to for a run."""
    context, own = _sizes(forest, run)
    return (context + own) * (CAUSAL_SHARE * (context + own) if _is_plain(forest, run) else own)


def _is_plain(forest: Forest, run: Run) -> bool:
    """Whether to compute a run as plain causal attention, its context's queries included."""
    context, own = _sizes(forest, run)
    return not context or CAUSAL_SHARE * (context + own) < own


def _sizes(forest: Forest, run: Run) -> tuple[int, int]:
    """Tokens of the context, and of the run."""
    return tuple(sum(forest.lengths[segment] for segment in part) for part in (run.context, run.own))
