"""Which tokens see which, as few polygons: a picture of 8,000 tokens needs no table of 64 million cells."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from vlmpack import masks
from vlmpack.inspect.exhibit import Exhibit

Tokens = Int[np.ndarray, " T"]
Corners = Float[np.ndarray, "corners 2"]


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
    seen_until = np.minimum(exhibit.reach, _on_path(exhibit))
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
    """What is seen by the pack's own `reach` though it does not lie on the path of the token that looks.

    Args:
        exhibit: what there is to see.
    """
    allowed, seen_until = _on_path(exhibit), np.minimum(exhibit.reach, exhibit.tokens)
    wrong = np.where(seen_until > allowed, allowed * (exhibit.tokens + 1) + seen_until, -1)
    return [rectangle(first, last, *divmod(both, exhibit.tokens + 1)) for first, last, both in runs(wrong) if both >= 0]


def stretches(exhibit: Exhibit) -> list[Region]:
    """What is seen both ways: all tokens of a stretch by each other.

    Args:
        exhibit: what there is to see.
    """
    known: dict[int, list[tuple[int, int]]] = {}
    for first, stop, number in runs(exhibit.blocks):
        if number >= 0:
            known.setdefault(number, []).append((first, stop))
    parts = lookings(exhibit)
    starts = [part.start for part in parts]
    found = []
    for spans in known.values():
        for first, stop in spans:
            for looking in parts[bisect_right(starts, first) - 1 : bisect_left(starts, stop)]:
                rows = max(first, looking.start), min(stop, looking.stop)
                found += [Region(looking, own, rectangle(*columns, *rows)) for own, columns in _cut(spans, looking)]
    return found


def _cut(spans: Sequence[tuple[int, int]], looking: Looking) -> Iterator[tuple[bool, tuple[int, int]]]:
    """Spans cut where some neighbours begin and end: whether it is theirs, and the part."""
    for first, stop in spans:
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
    index = np.arange(exhibit.tokens)
    blocks = exhibit.blocks
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < np.minimum(exhibit.reach, _on_path(exhibit))[None, :])
    return seen | ((blocks[None, :] == blocks[:, None]) & (blocks >= 0)[:, None])


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


def _on_path(exhibit: Exhibit) -> Tokens:
    """For each token, one past the last that has it on its path: by the forest, whatever `reach` says."""
    return masks.reach(exhibit.forest).numpy()


def _staircases(start: int, stop: int, until: int) -> list[Corners]:
    """The cells on and below the diagonal of some columns, down to a row."""
    stop = min(stop, until)
    if stop <= start:
        return []
    steps = np.repeat(np.arange(start, stop + 1), 2)
    return [np.concatenate([np.stack([steps[1:], steps[:-1]], axis=1), [(stop, until), (start, until)]]).astype(float)]
