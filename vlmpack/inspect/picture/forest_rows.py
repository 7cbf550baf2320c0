"""Which segments of a forest have a row in its picture: all, or of too many siblings the first ones and the last."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmpack.inspect.exhibit import Exhibit, Segment

PLAIN, PICTURED = 11.5, 30.0  # height of a row, points
MOST = 302.0  # of all rows together, about as high as the mask beside them


@dataclass(frozen=True)
class Row:
    """A segment, or the mark of some that are left out.

    Attributes:
        depth: segments before it on its path.
        segment: None where some are left out.
        left_out: those.
        height: points.
    """

    depth: int
    segment: Segment | None
    left_out: tuple[Segment, ...] = ()
    height: float = PLAIN


def rows(exhibit: Exhibit, most: float = MOST) -> tuple[Row, ...]:
    """The rows, as many as there is room for.

    Args:
        exhibit: what there is to see.
        most: height of all together, points.
    """
    below: dict[int, list[Segment]] = {}
    for segment, parent in zip(exhibit.segments, exhibit.forest.parents, strict=True):
        below.setdefault(parent, []).append(segment)
    widest = max(map(len, below.values()))
    for kept in range(min(widest, int(most / PLAIN)), 1, -1):
        found = list(_walk(exhibit, below, kept))
        if sum(row.height for row in found) <= most:
            return tuple(found)
    return _first(exhibit, list(_walk(exhibit, below, 2)), most)


def _walk(exhibit: Exhibit, below: dict[int, list[Segment]], kept: int) -> Iterator[Row]:
    """All rows, in token order; a forest may be deeper than Python's calls can be."""
    waiting = list(_siblings(exhibit, below[-1], kept))[::-1]
    while waiting:
        row = waiting.pop()
        yield row
        if row.segment is not None:
            waiting += list(_siblings(exhibit, below.get(row.segment.number, []), kept))[::-1]


def _siblings(exhibit: Exhibit, siblings: Sequence[Segment], kept: int) -> Iterator[Row]:
    """Their rows: of the first ones and the last, and one for those between."""
    hidden = range(kept - 1, len(siblings) - 1) if len(siblings) > kept + 1 else range(0)
    for place, segment in enumerate(siblings):
        if place not in hidden:
            yield Row(segment.depth, segment, height=_height(exhibit, segment))
        elif place == hidden[0]:
            yield Row(segment.depth, None, exhibit.segments[segment.number : siblings[hidden[-1] + 1].number])


def _first(exhibit: Exhibit, found: Sequence[Row], most: float) -> tuple[Row, ...]:
    """The first rows, and one for all others."""
    room, kept = most - PLAIN, []
    for row in found:
        room -= row.height
        if room < 0:
            break
        kept.append(row)
    shown = {row.segment.number for row in kept if row.segment}
    shown |= {segment.number for row in kept for segment in row.left_out}
    left_out = tuple(each for each in exhibit.segments if each.number not in shown)
    return (*kept, Row(left_out[0].depth, None, left_out)) if left_out else tuple(kept)


def _height(exhibit: Exhibit, segment: Segment) -> float:
    places = [part.place for part in segment.parts if part.place >= 0]
    return PICTURED if any(_seen(exhibit, place) for place in places) else PLAIN


def _seen(exhibit: Exhibit, place: int) -> bool:
    return exhibit.thumbnails[exhibit.images[place].image] is not None
