"""How one pack's attention is computed: which queries meet which keys, and by which backend."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vlmpack import masks
from vlmpack.bins import first_fit_decreasing
from vlmpack.forest import Forest

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


def fold(forest: Forest) -> tuple[tuple[int, ...], ...]:
    """Deal a pack's trees into rows no longer than the longest tree, for one batched attention call.

    Trees do not see each other, so they need not stand in one square: T x T shrinks to about T x longest tree.

    Returns:
        B rows of token indices, each tree whole and in order.

    Example:
        >>> fold(Forest((-1, 0, -1, -1), (2, 2, 3, 1)))
        ((0, 1, 2, 3), (4, 5, 6, 7))
    """
    roots = [segment for segment, parent in enumerate(forest.parents) if parent < 0]
    trees = [range(forest.starts[root], forest.stops[root]) for root in roots]
    sizes = [len(tree) for tree in trees]
    rows = first_fit_decreasing(sizes, max(sizes))
    return tuple(tuple(token for tree in row for token in trees[tree]) for row in rows)


@dataclass(frozen=True, eq=False)
class Plan:
    """One pack's attention, made once and read by every layer.

    Attributes:
        backend: "dense" (one call a layer) or "paths" (one call a run).
        forest: the pack's segments.
        runs: the forest as root-to-leaf runs, for "paths".
        rows: [B, L] token indices as folded, for "dense"; -1 fills short rows.
        reach: [T] one past the last token that may see each token.
        position: [T] distance along the path; sliding windows compare these.
        layers: the layers that have attended through this plan; each adds its index.
    """

    backend: str
    forest: Forest
    runs: tuple[Run, ...]
    rows: Int[Tensor, "B L"]
    reach: Int[Tensor, " T"]
    position: Int[Tensor, " T"]
    layers: set[int] = field(default_factory=set)
    _made: dict = field(default_factory=dict, repr=False)  # layers of one model share their masks

    @property
    def places(self) -> Int[Tensor, " T"]:
        """Where each token stands in the flattened rows."""
        if "places" not in self._made:
            flat = self.rows.flatten()
            filled = (flat >= 0).nonzero()[:, 0]
            self._made["places"] = torch.empty_like(self.reach).index_put((flat[filled],), filled)
        return self._made["places"]

    def dense_mask(self, window: int | None) -> Bool[Tensor, "B 1 L L"]:
        """Who sees whom in each row; what fills a row sees itself, so that no softmax is empty."""
        if window not in self._made:
            query, key = self.rows[:, :, None], self.rows[:, None, :]
            mask = masks.path_causal(self.reach)(0, 0, query, key) & (key >= 0)
            if window is not None:
                mask &= self.position[query] - self.position[key] < window
            mask |= torch.eye(self.rows.shape[1], dtype=torch.bool, device=mask.device)
            self._made[window] = mask[:, None]
        return self._made[window]

    def run_mask(self, run: Run, window: int | None) -> Bool[Tensor, "Q K"] | None:
        """Who sees whom in one run, keys in path order; None where it is plain causal."""
        last, lengths = run.own[-1], self.forest.lengths
        if window is not None and self.forest.depths[last] + lengths[last] <= window:
            window = None  # the whole path lies within it
        if not run.context and window is None:
            return None
        if (run, window) not in self._made:
            spans = self.position.split(lengths)
            query = torch.cat([spans[segment] for segment in run.own])
            key = torch.cat([spans[segment] for segment in (*run.context, *run.own)])
            mask = key[None, :] <= query[:, None]  # on one path, earlier means a smaller position
            if window is not None:
                mask &= masks.within(window, query, key)
            self._made[run, window] = mask
        return self._made[run, window]


def make(forest: Forest, reach: Int[Tensor, " T"], position: Int[Tensor, " T"], attention: str) -> Plan:
    """Plan a pack's attention.

    Args:
        forest: the pack's segments.
        reach: [T] on the model's device, as `masks.reach(forest)`.
        position: [T] on the model's device, as `layout.position(forest)`.
        attention: a backend's name, or "auto" for the one predicted to be faster on this pack.

    Raises:
        AttentionError: no such backend.
    """
    if attention not in BACKENDS:
        raise AttentionError(f"attention={attention!r} is not a backend; take one of {BACKENDS}")
    cut, folded = runs(forest), fold(forest)
    length = max(map(len, folded))
    rows = torch.tensor([[*row, *[-1] * (length - len(row))] for row in folded], device=reach.device)
    backend = _faster(forest, cut, rows.shape) if attention == "auto" else attention
    return Plan(backend, forest, cut, rows, reach, position)


# What one more attention call, and one more row of a call, cost in query-key pairs: the overhead of a call, and of a
# block of a kernel. Measured on 2 CPU cores by examples/benchmarks/attention_rule.py.
CALL_COST = 10_000
ROW_COST = 5_000


def _faster(forest: Forest, cut: tuple[Run, ...], rows: tuple[int, int]) -> str:
    """The backend with the fewer pairs to compute, overheads counted as pairs."""
    dense = CALL_COST + rows[0] * (ROW_COST + rows[1] ** 2)
    paths = sum(CALL_COST + area(forest, run) for run in cut)
    return "dense" if dense <= paths else "paths"


def area(forest: Forest, run: Run) -> int:
    """Query-key pairs that a kernel computes for a run: half the square if it is plain causal."""
    queries = sum(forest.lengths[segment] for segment in run.own)
    context = sum(forest.lengths[segment] for segment in run.context)
    return queries * (context + queries) if context else queries * queries // 2
