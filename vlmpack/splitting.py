"""Cutting a forest into parts of limited size, each with the whole path above what it holds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlmpack.bins import first_fit_decreasing
from vlmpack.forest import Forest


@dataclass(frozen=True)
class _Piece:
    """Items that stay together, and what they need at and below one segment.

    Attributes:
        own: tokens that nothing else needs.
        common: segments that other items need too.
        items: of the piece.
    """

    own: int
    common: frozenset[int]
    items: tuple[int, ...]

    def tokens(self, forest: Forest) -> int:
        """All that the items need."""
        return self.own + sum(forest.lengths[segment] for segment in self.common)


def split(forest: Forest, homes: Sequence[int], needs: Sequence[frozenset[int]], capacity: int) -> list[list[int]]:
    """Deal items that hang on a forest into parts of at most `capacity` tokens, each segment counted once a part.

    From the leaves up: a subtree that fits is one piece. One that does not is dealt into bins, first-fit-decreasing
    at each segment, and every bin repeats that segment's tokens and those above it, so a segment is repeated only
    if what hangs on it needs several parts. Items that need the same segments are gathered before. Trees that share
    nothing are dealt as in `first_fit_decreasing`.

    Args:
        forest: all that the items need.
        homes: for each item, the segment that it continues; -1 if it is a tree of its own.
        needs: for each item, the segments below its home that it needs; those above come with the home.
        capacity: tokens of a part; no item with the path above it is larger.

    Returns:
        The parts as lists of ascending items, by their first item.

    Example:
        >>> image = Forest((-1, 0, 0, 0), (4, 3, 3, 2))  # and three questions on it
        >>> needs = [frozenset({1}), frozenset({2}), frozenset({3})]
        >>> split(image, homes=[0, 0, 0], needs=needs, capacity=10)  # its 4 tokens stand in both parts
        [[0, 1], [2]]
    """
    ground = len(forest.parents)  # what the roots hang on; it has no tokens
    common = _needed_by_several(forest, homes, needs)
    hanging: list[list[_Piece]] = [[] for _ in range(ground + 1)]
    for item, (home, need) in enumerate(zip(homes, needs, strict=True)):
        own = sum(forest.lengths[segment] for segment in need - common)
        hanging[home].append(_Piece(own, need & common, (item,)))  # -1 is the ground
    for segment in reversed(range(ground)):
        if not hanging[segment]:
            continue  # an item's own
        length = forest.lengths[segment]
        below = forest.stops[segment] - forest.starts[segment] - length
        pieces = _dealt(forest, hanging[segment], below, capacity - forest.depths[segment] - length)
        own, here = (0, {segment}) if segment in common else (length, set())
        hanging[forest.parents[segment]] += [_Piece(own + p.own, p.common | here, p.items) for p in pieces]
        hanging[segment] = []
    parts = _dealt(forest, hanging[ground], forest.tokens, capacity)
    return sorted(sorted(part.items) for part in parts)


def _needed_by_several(forest: Forest, homes: Sequence[int], needs: Sequence[frozenset[int]]) -> frozenset[int]:
    """Segments that one item needs below its home, and another below or above its own."""
    count = Counter(segment for need in needs for segment in need)
    above = {segment for home in {*homes} if home in count for segment in (*forest.ancestors(home), home)}
    return frozenset(segment for segment, items in count.items() if items > 1 or segment in above)


def _dealt(forest: Forest, pieces: list[_Piece], below: int, room: int) -> list[_Piece]:
    """All pieces as one if what hangs there fits, else dealt into bins."""
    if below <= room:
        common = frozenset().union(*(piece.common for piece in pieces))
        return [_Piece(below - sum(forest.lengths[s] for s in common), common, _items(pieces))]
    pieces = _gathered(forest, pieces, room)
    bins = first_fit_decreasing([piece.tokens(forest) for piece in pieces], room)
    return [_united([pieces[row] for row in rows]) for rows in bins]


def _gathered(forest: Forest, pieces: list[_Piece], room: int) -> list[_Piece]:
    """Pieces that need the same segments as one, largest first, each where most of it is already and there is room."""
    apart = [piece for piece in pieces if not piece.common]
    gathered: list[_Piece] = []
    holders: dict[int, set[int]] = {}  # for each segment, the gathered pieces that need it
    for piece in sorted((p for p in pieces if p.common), key=lambda p: -p.tokens(forest)):
        overlap = Counter()
        for segment in piece.common:
            overlap.update(dict.fromkeys(holders.get(segment, ()), forest.lengths[segment]))
        for place, _ in overlap.most_common():
            united = _united([gathered[place], piece])
            if united.tokens(forest) <= room:
                gathered[place] = united
                break
        else:
            place = len(gathered)
            gathered.append(piece)
        for segment in piece.common:
            holders.setdefault(segment, set()).add(place)
    return [*apart, *gathered]


def _united(pieces: Sequence[_Piece]) -> _Piece:
    common = frozenset().union(*(piece.common for piece in pieces))
    return _Piece(sum(piece.own for piece in pieces), common, _items(pieces))


def _items(pieces: Iterable[_Piece]) -> tuple[int, ...]:
    return tuple(item for piece in pieces for item in piece.items)
