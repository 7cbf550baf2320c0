"""Cutting a forest into parts of limited size, each with the whole path above what it holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlmpack.bins import first_fit_decreasing
from vlmpack.forest import Forest


@dataclass(frozen=True)
class _Piece:
    """Items that stay together, and the tokens that they need at and below one segment."""

    tokens: int
    items: tuple[int, ...]


def split(forest: Forest, homes: Sequence[int], weights: Sequence[int], capacity: int) -> list[list[int]]:
    """Deal items that hang on a forest into parts of at most `capacity` tokens, ancestors counted once a part.

    From the leaves up: a subtree that fits is one piece. One that does not is dealt into bins, first-fit-decreasing
    at each segment, and every bin repeats that segment's tokens and those above it, so a segment is repeated only
    if what hangs on it needs several parts. Trees that share nothing are dealt as in `first_fit_decreasing`.

    Args:
        forest: all that the items need: what several share, and below it what each has of its own.
        homes: for each item, the segment that it continues; -1 if it is a tree of its own.
        weights: for each item, the tokens of the segments that it needs below its home.
        capacity: tokens of a part; no item with the path above it is larger.

    Returns:
        The parts as lists of ascending items, by their first item.

    Example:
        >>> image = Forest((-1, 0, 0, 0), (4, 3, 3, 2))  # and three questions on it
        >>> split(image, homes=[0, 0, 0], weights=[3, 3, 2], capacity=10)  # its 4 tokens stand in both parts
        [[0, 1], [2]]
    """
    ground = len(forest.parents)  # what the roots hang on; it has no tokens
    hanging: list[list[_Piece]] = [[] for _ in range(ground + 1)]
    for item, (home, weight) in enumerate(zip(homes, weights, strict=True)):
        hanging[home].append(_Piece(weight, (item,)))  # -1 is the ground
    for segment in reversed(range(ground)):
        if not hanging[segment]:
            continue  # inside an item's own weight
        own = forest.lengths[segment]
        below = forest.stops[segment] - forest.starts[segment] - own
        pieces = _dealt(hanging[segment], below, capacity - forest.depths[segment] - own)
        parent = forest.parents[segment]
        hanging[parent] += [_Piece(own + piece.tokens, piece.items) for piece in pieces]
        hanging[segment] = []
    parts = _dealt(hanging[ground], sum(piece.tokens for piece in hanging[ground]), capacity)
    return sorted(sorted(part.items) for part in parts)


def _dealt(pieces: list[_Piece], below: int, room: int) -> list[_Piece]:
    """All pieces as one if what hangs there fits, else dealt into bins."""
    if below <= room:
        return [_Piece(below, tuple(item for piece in pieces for item in piece.items))]
    bins = first_fit_decreasing([piece.tokens for piece in pieces], room)
    return [
        _Piece(sum(pieces[row].tokens for row in rows), tuple(item for row in rows for item in pieces[row].items))
        for rows in bins
    ]
