"""How one pack's attention is computed: which queries meet which keys, and by which backend."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vlmpack import masks
from vlmpack.forest import Forest

BACKENDS = ("auto", "dense", "paths")
Span = tuple[int, int]  # [start, stop) in the pack


class AttentionError(ValueError):
    """An attention backend was asked for what it cannot do."""


@dataclass(frozen=True)
class Run:
    """Consecutive queries that lie on one root-to-leaf path, and the keys before them on it.

    Attributes:
        queries: the span of query tokens; each sees the earlier ones of its own run too.
        context: the spans of the path's tokens before the run, root first; empty for a root's run.
    """

    queries: Span
    context: tuple[Span, ...]

    @property
    def area(self) -> int:
        """Query-key pairs in the rectangle that a kernel without causal skipping computes."""
        return _length(self.queries) * (sum(map(_length, self.context)) + _length(self.queries))


def runs(forest: Forest) -> tuple[Run, ...]:
    """Cut a forest into root-to-leaf runs: a segment and its first child are one run.

    A prompt and its first response are plain causal attention; each further response is attention
    of its own tokens on the prompt's and its own.

    Example:
        >>> [(run.queries, run.context) for run in runs(Forest((-1, 0, 0), (3, 2, 2)))]
        [((0, 5), ()), ((5, 7), ((0, 3),))]
    """
    spans = [(start, start + length) for start, length in zip(forest.starts, forest.lengths, strict=True)]
    heads = [s for s, parent in enumerate(forest.parents) if parent < 0 or parent != s - 1]
    stops = [forest.starts[head] for head in heads[1:]] + [forest.tokens]
    return tuple(
        Run((forest.starts[head], stop), tuple(spans[s] for s in forest.ancestors(head)))
        for head, stop in zip(heads, stops, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Plan:
    """One pack's attention, made once and read by every layer.

    Attributes:
        backend: "dense" (one call, T x T mask) or "paths" (one call a run).
        runs: the forest as root-to-leaf runs.
        reach: [T] one past the last token that may see each token.
        position: [T] distance along the path; sliding windows compare these.
        layers: the layers that have attended through this plan; each adds its index.
    """

    backend: str
    runs: tuple[Run, ...]
    reach: Int[Tensor, " T"]
    position: Int[Tensor, " T"]
    layers: set[int] = field(default_factory=set)
    _masks: dict = field(default_factory=dict, repr=False)  # layers of one model share their masks

    def dense_mask(self, window: int | None) -> Bool[Tensor, "T T"]:
        """Who sees whom, for the whole pack at once."""
        if window not in self._masks:
            mask = masks.dense(self.reach)
            if window is not None:
                mask &= masks.within(window, self.position, self.position)
            self._masks[window] = mask
        return self._masks[window]

    def run_mask(self, run: Run, window: int | None) -> Bool[Tensor, "Q K"] | None:
        """Who sees whom in one run, keys in path order; None where it is plain causal."""
        window = window if window is not None and int(self.position[run.queries[1] - 1]) >= window else None
        if not run.context and window is None:
            return None
        if (run, window) not in self._masks:
            query = self.position[slice(*run.queries)]
            key = torch.cat([self.position[slice(*span)] for span in (*run.context, run.queries)])
            mask = key[None, :] <= query[:, None]  # on one path, earlier means a smaller position
            if window is not None:
                mask &= masks.within(window, query, key)
            self._masks[run, window] = mask
        return self._masks[run, window]


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
    cut = runs(forest)
    return Plan(_faster(cut, forest.tokens) if attention == "auto" else attention, cut, reach, position)


# Query-key pairs that one more attention call costs as much time as. Measured on 2 CPU cores, see
# examples/benchmarks/attention_rule.py.
CALL_COST = 60_000


def _faster(cut: tuple[Run, ...], tokens: int) -> str:
    paths = sum(run.area + CALL_COST for run in cut)
    return "dense" if tokens * tokens + CALL_COST <= paths else "paths"


def _length(span: Span) -> int:
    return span[1] - span[0]
