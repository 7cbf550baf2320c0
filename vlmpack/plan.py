"""One pack's attention, as every backend reads it: which tokens there are, and who may see whom."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jaxtyping import Int
from torch import Tensor

from vlmpack import masks
from vlmpack.forest import Forest

BACKENDS = ("auto", "dense", "paths", "flex", "varlen")


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


def sizes(forest: Forest, run: Run) -> tuple[int, int]:
    """Tokens of the context, and of the run."""
    return tuple(sum(forest.lengths[segment] for segment in part) for part in (run.context, run.own))


@dataclass(frozen=True, eq=False)
class Plan:
    """One pack's attention, made once and read by every layer.

    Attributes:
        backend: the name of the one that computes it, or "auto" where each layer's own settings decide.
        forest: the pack's segments.
        runs: the forest as root-to-leaf runs.
        reach: [T] one past the last token that may see each token.
        position: [T] distance along the path; sliding windows compare these.
        blocks: [T] the stretch in which a token sees all others both ways; -1 for none. Each lies in one segment.
        block_layers: the kind of layers in which they do; None for all.
        window_cuts_blocks: whether a sliding window holds inside such a stretch too.
        layers: the layers that have attended through this plan; each adds its index.
        listener: is told what each layer attends with: its index, query, key, value, plan, window and settings.
    """

    backend: str
    forest: Forest
    runs: tuple[Run, ...]
    reach: Int[Tensor, " T"]
    position: Int[Tensor, " T"]
    blocks: Int[Tensor, " T"] | None = None
    block_layers: str | None = None
    window_cuts_blocks: bool = False
    layers: set[int] = field(default_factory=set)
    listener: Callable | None = None
    _made: dict = field(default_factory=dict, repr=False)

    def of_layer(self, kind: str | None) -> "Plan":
        """The plan as a kind of layers reads it: without stretches seen both ways where those do not see so."""
        return self if self.block_layers in (None, kind) else self._causal

    def by(self, backend: str) -> "Plan":
        """The same plan for another backend."""
        return replace(self, backend=backend)

    @cached_property
    def _causal(self) -> "Plan":
        return replace(self, blocks=None, block_layers=None, _made={})  # `layers` stays the same set

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What a backend derives from the plan: made for the first layer that asks, read by all others.

        Args:
            key: the backend's name, what it is, and all that it depends on besides the plan.
            make: gives it.
        """
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def seen(self, window: int | None) -> Callable:
        """Who sees whom: `mask(b, h, query, key)` of indices, for layers with this window."""
        return masks.seen(self.reach, self.position, window, self.blocks, self.window_cuts_blocks)

    def window_over(self, run: Run, window: int | None) -> int | None:
        """The window, unless the whole path of a run lies within it."""
        last = run.own[-1]
        longer = window is not None and self.forest.depths[last] + self.forest.lengths[last] > window
        return window if longer else None

    @cached_property
    def crossed(self) -> frozenset[int]:
        """Segments in which tokens see each other both ways, so that attention is not causal."""
        if self.blocks is None:
            return frozenset()
        parts = self.blocks.cpu().split(self.forest.lengths)
        return frozenset(segment for segment, blocks in enumerate(parts) if (blocks >= 0).any())


def make(
    forest: Forest,
    reach: Int[Tensor, " T"],
    position: Int[Tensor, " T"],
    attention: str,
    blocks: Int[Tensor, " T"] | None = None,
    block_layers: str | None = None,
    window_cuts_blocks: bool = False,
) -> Plan:
    """Plan a pack's attention. What only one backend needs, it makes when the first layer asks for it.

    Args:
        forest: the pack's segments.
        reach: [T] on the model's device, as `masks.reach(forest)`.
        position: [T] on the model's device, as `layout.position(forest)`.
        attention: a backend's name, or "auto" for the one predicted to be the fastest that can run.
        blocks: [T] on the model's device, as `Pack.blocks`; None if every token sees earlier ones only.
        block_layers, window_cuts_blocks: as in `Plan`.

    Raises:
        AttentionError: no such backend.
    """
    if attention not in BACKENDS:
        raise AttentionError(f"attention={attention!r} is not a backend; take one of {BACKENDS}")
    return Plan(
        attention,
        forest,
        runs(forest),
        reach,
        position,
        blocks=blocks,
        block_layers=block_layers,
        window_cuts_blocks=window_cuts_blocks,
    )
