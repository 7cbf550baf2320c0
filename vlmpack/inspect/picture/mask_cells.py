"""Which tokens see which, as few polygons: a picture of 8,000 tokens needs no table of 64 million cells."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from jaxtyping import Float

from vlmpack.inspect.exhibit import Exhibit, Tokens
from vlmpack.inspect.mask_rule import may_see, path_stop, sees

Corners = Float[np.ndarray, "corners 2"]
Span = tuple[int, int]  # the first token, and one past the last


@dataclass(frozen=True)
class Looking:
    """Neighbouring tokens that are drawn alike: the text of a segment, or one image of it.

    Attributes:
        segment: its row in the forest.
        start, stop: indices of the first token and of the one after the last.
        image: whether they are an image's.
    """

    segment: int
    start: int
    stop: int
    image: bool


@dataclass(frozen=True, eq=False)
class Region:
    """Cells of the mask with one outline.

    Attributes:
        looking: the tokens in its rows.
        own: whether the tokens in its columns are the same ones, rather than earlier ones.
        corners: (token seen, token looking), token `t` reaching from `t` to `t + 1`.
    """

    looking: Looking
    own: bool
    corners: Corners


def lookings(exhibit: Exhibit) -> tuple[Looking, ...]:
    """The parts of all segments, in token order.

    Args:
        exhibit: what there is to see.
    """
    return tuple(
        Looking(segment.number, part.start, part.stop, part.place >= 0)
        for segment in exhibit.segments
        for part in segment.parts
    )


def regions(exhibit: Exhibit) -> list[Region]:
    """What is seen by the pack's own `reach` and lies on the path of the token that looks, without stretches.

    Args:
        exhibit: what there is to see.
    """
    seen_until = np.minimum(exhibit.reach, path_stop(exhibit))
    found = []
    for looking in lookings(exhibit):
        stop = np.clip(seen_until, looking.start, looking.stop)
        for first, last, until in runs(stop[: looking.start]):
            if until > looking.start:
                found.append(Region(looking, False, rectangle(first, last, looking.start, until)))
        for first, last, until in runs(stop[looking.start : looking.stop]):
            outlines = _staircases(looking.start + first, looking.start + last, until)
            found += [Region(looking, True, corners) for corners in outlines]
    return found


def astray(exhibit: Exhibit) -> list[Corners]:
    """What is seen, by the pack's own `reach` or in a stretch, though it is not on the path of the token that looks.

    Args:
        exhibit: what there is to see.
    """
    allowed, seen_until = path_stop(exhibit), np.minimum(exhibit.reach, exhibit.tokens)
    wrong = np.where(seen_until > allowed, allowed * (exhibit.tokens + 1) + seen_until, -1)
    reached = [(columns, divmod(both, exhibit.tokens + 1)) for *columns, both in runs(wrong) if both >= 0]
    together = [(columns, rows) for rows, columns, fits in _both_ways(exhibit) if not fits]
    return [rectangle(*columns, *rows) for columns, rows in reached + together]


def stretches(exhibit: Exhibit) -> list[Region]:
    """What is seen both ways: all tokens of a stretch by each other, which stand in one segment.

    Args:
        exhibit: what there is to see.
    """
    parts = lookings(exhibit)
    starts = [part.start for part in parts]
    found = []
    for (first, stop), columns, fits in _both_ways(exhibit):
        for looking in parts[bisect_right(starts, first) - 1 : bisect_left(starts, stop)] if fits else ():
            rows = max(first, looking.start), min(stop, looking.stop)
            found += [Region(looking, own, rectangle(*part, *rows)) for own, part in _cut(columns, looking)]
    return found


def _both_ways(exhibit: Exhibit) -> Iterator[tuple[Span, Span, bool]]:
    """Each pair of spans of one stretch: what looks, what is seen, and whether it may be seen; each in one segment."""
    segments = len(exhibit.segments)
    segment_of = np.repeat(np.arange(segments), exhibit.forest.lengths)
    known: dict[int, list[Span]] = {}
    for first, stop, number in runs(np.where(exhibit.blocks < 0, -1, exhibit.blocks * segments + segment_of)):
        if number >= 0:
            known.setdefault(number // segments, []).append((first, stop))
    pairs = [pair for spans in known.values() for pair in product(spans, repeat=2)]
    rows, columns = np.array([(rows[0], columns[0]) for rows, columns in pairs], dtype=int).reshape(-1, 2).T
    for pair, fits in zip(pairs, may_see(exhibit, rows, columns).tolist(), strict=True):
        yield *pair, fits


def _cut(span: Span, looking: Looking) -> Iterator[tuple[bool, Span]]:
    """A span cut where some neighbours begin and end: whether it is theirs, and the part."""
    first, stop = span
    cuts = sorted({first, stop, *(cut for cut in (looking.start, looking.stop) if first < cut < stop)})
    for part in pairwise(cuts):
        yield looking.start <= part[0] < looking.stop, part


def table(exhibit: Exhibit) -> np.ndarray:
    """The mask as a table: what is seen by `reach` or by stretches, and is allowed.

    Args:
        exhibit: of few tokens.

    Returns:
        [T, T] bools, a row for each token that looks.
    """
    query, key = np.indices((exhibit.tokens, exhibit.tokens))
    return sees(exhibit, query, key) & may_see(exhibit, query, key)


def runs(values: Tokens) -> Iterator[tuple[int, int, int]]:
    """Neighbours of equal value as (first, one past the last, value).

    Args:
        values: any number of them.

    Example:
        >>> list(runs(np.array([7, 7, 3])))
        [(0, 2, 7), (2, 3, 3)]
    """
    if len(values) == 0:
        return
    cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for first, stop in pairwise(cuts):
        yield first, stop, int(values[first])


def rectangle(left: int, right: int, top: int, bottom: int) -> Corners:
    """The outline of whole columns and rows.

    Args:
        left, right: the first column, and one past the last.
        top, bottom: the first row, and one past the last.
    """
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=float)


def _staircases(start: int, stop: int, until: int) -> list[Corners]:
    """The cells on and below the diagonal of some columns, down to a row."""
    stop = min(stop, until)
    if stop <= start:
        return []
    steps = np.repeat(np.arange(start, stop + 1), 2)
    return [np.concatenate([np.stack([steps[1:], steps[:-1]], axis=1), [(stop, until), (start, until)]]).astype(float)]
