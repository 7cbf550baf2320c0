"""The shape of a pack: segments of tokens, each continuing its parent."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from vlmpack.shown import Shown


class ForestError(ValueError):
    """A forest, or something laid out by one, breaks the layout rules."""


@dataclass(frozen=True)
class Forest(Shown):
    """Token segments in a forest, laid out in pre-order.

    A root is a prompt, or the image several prompts share; a leaf is a response. Pre-order keeps
    every subtree contiguous, so "which tokens continue this one?" is one number per segment
    (`stops`) instead of a T x T table. Plain ints: hashable, printable, no device.

    Attributes:
        parents: S ints. Index of the segment continued, or -1 for a root.
        lengths: S ints, each >= 1. Tokens in the segment.

    Raises:
        ForestError: there is no segment, a length is not positive, or a segment is out of pre-order.

    Example:
        >>> pack = Forest(parents=(-1, 0, 0), lengths=(3, 2, 2))  # a prompt, two responses
        >>> pack.starts, pack.stops
        ((0, 3, 5), (7, 5, 7))
        >>> pack.depths  # both responses continue the prompt's 3 tokens
        (0, 3, 3)
    """

    parents: tuple[int, ...]
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.parents:
            raise ForestError("a forest needs at least one segment; it got none")
        if len(self.parents) != len(self.lengths):
            raise ForestError(
                f"{len(self.parents)} parents for {len(self.lengths)} lengths; give one of each a segment"
            )
        path: list[int] = []  # root to here: the only segments that may still be continued
        for segment, (parent, length) in enumerate(zip(self.parents, self.lengths, strict=True)):
            if length < 1:
                raise ForestError(f"segment {segment} has length {length}; leave it out instead")
            while path and path[-1] != parent:
                path.pop()
            if parent != -1 and not path:
                raise ForestError(_closed_parent(segment, parent, self.parents))
            path.append(segment)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First token of each segment."""
        return tuple(accumulate(self.lengths, initial=0))[:-1]

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """One past the last token of each segment's subtree."""
        stops = [start + length for start, length in zip(self.starts, self.lengths, strict=True)]
        for segment in reversed(range(len(stops))):
            if (parent := self.parents[segment]) >= 0:
                stops[parent] = max(stops[parent], stops[segment])
        return tuple(stops)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Tokens that stand before each segment on its root-to-here path."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + self.lengths[parent])
        return tuple(depths)

    @property
    def tokens(self) -> int:
        """T, the tokens of all segments."""
        return self.starts[-1] + self.lengths[-1]

    def ancestors(self, segment: int) -> tuple[int, ...]:
        """The segments before this one on its path, root first.

        Args:
            segment: its index, 0 to S - 1.
        """
        path: list[int] = []
        while (segment := self.parents[segment]) >= 0:
            path.append(segment)
        return tuple(reversed(path))


def _closed_parent(segment: int, parent: int, parents: tuple[int, ...]) -> str:
    return (
        f"segment {segment} continues segment {parent}, which is not open at that point.\n"
        f"  parents={parents}\n"
        f"Lay a segment out before its next sibling: prompt, response, response, next prompt."
    )
