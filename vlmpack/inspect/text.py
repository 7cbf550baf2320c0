"""A pack in a terminal: its segments as a tree, who sees whom, and what was saved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from vlmpack.forest import Forest
from vlmpack.inspect.exhibit import Exhibit, Segment, exhibit
from vlmpack.inspect.mask_faults import faults
from vlmpack.inspect.naming import Response
from vlmpack.pack import Pack
from vlmpack.sample import Sample
from vlmpack.shown import enumerated

WIDEST = 60  # characters of a segment's text
MOST_SEEN = 24  # segments whose seeing is shown as a table
SAYINGS = {"all": "█", "earlier": "◣", "some": "▒", "none": "·"}


def text(shown: Pack | Sample | Forest, processor: Any = None) -> str:
    """What there is to see of a pack, a sample or a forest, in plain text; `print(pack)` prints it.

    Args:
        shown: what to look at.
        processor: as for `vlmpack.inspect.draw`.

    Returns:
        Lines: what was saved; each segment with its tokens, its name, how many responses share it and what it
        says; which segments each one sees.

    Raises:
        InspectError: `shown` is none of the three.
    """
    return rendered(exhibit(shown, processor))


def rendered(exhibit: Exhibit) -> str:
    """An exhibit as text.

    Args:
        exhibit: what there is to see.
    """
    lines = [f"{counted(exhibit)}: {exhibit.account}", *faults(exhibit), "", *_tree(exhibit)]
    if len(exhibit.segments) <= MOST_SEEN:
        lines += ["", *_seen(exhibit)]
    return "\n".join(lines)


def counted(exhibit: Exhibit) -> str:
    """How many prompts and responses there are; of a forest alone, trees and leaves.

    Args:
        exhibit: what there is to see.
    """
    prompt, response = ("tree", "leaf") if exhibit.pack is None else ("prompt", "response")
    return enumerated({prompt: len({each.prompt for each in exhibit.responses}), response: len(exhibit.responses)})


def _tree(exhibit: Exhibit) -> list[str]:
    """A line for each segment."""
    rows = [("tokens", "segment", "shared by", "text" if exhibit.pieces else "")]
    ending: dict[int, list[Response]] = {}  # with a preference, by the segment in which they end
    for response in exhibit.responses:
        if response.beats:
            ending.setdefault(response.path[-1], []).append(response)
    for segment in exhibit.segments:
        last = segment.stop - 1
        span = f"{segment.start}–{last}" if last > segment.start else f"{last}"
        says = _says(exhibit, segment, ending.get(segment.number, ()))
        rows.append((span, "  " * segment.depth + segment.name, f"{segment.stands_for}", says))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"{span:>{widths[0]}}  {name:<{widths[1]}}  {times:>{widths[2]}}  {says}".rstrip()
        for span, name, times, says in rows
    ]


def _says(exhibit: Exhibit, segment: Segment, ending: Sequence[Response]) -> str:
    """The text of a segment, images by number, cut in the middle; then what it is preferred to."""
    said = []
    for part in segment.parts:
        if part.place >= 0:
            placed = exhibit.images[part.place]
            said.append(f"[image {placed.image + 1}: {placed.tokens} tokens]")
        elif (words := exhibit.text(part.start, part.stop)) is not None:
            said.append(shortened(printable(words) if words.strip(" ") else "␣" * len(words), WIDEST))
    for each in ending:
        said.append(f"  ({each.name} > {', '.join(exhibit.responses[row].name for row in each.beats)})")
    return "".join(said)


def printable(words: str) -> str:
    """A text on one line that does nothing to a terminal: what is no visible character is written as its number.

    Args:
        words: from data, so they may hold anything.

    Example:
        >>> printable("a\\n\\x1b[31mred")
        'a⏎‹001B›[31mred'
    """
    marked = words.replace("\n", "⏎")
    return "".join(letter if letter.isprintable() else f"‹{ord(letter):04X}›" for letter in marked)


def shortened(words: str, most: int) -> str:
    """A text with its middle left out if it is long.

    Args:
        words: one line.
        most: characters that are kept.

    Example:
        >>> shortened("a long text indeed", 9)
        'a lo…deed'
    """
    if len(words) <= most:
        return words
    kept = most - 1
    return words[: kept // 2] + "…" + words[len(words) - (kept - kept // 2) + kept % 2 :] if kept > 1 else "…"


def _seen(exhibit: Exhibit) -> list[str]:
    """A table of segments: in rows those that look, in columns those that are seen."""
    names = [_abbreviation(segment) for segment in exhibit.segments]
    widest = max(map(len, names))
    lines = [f"{'sees':>{widest}}  " + " ".join(f"{name:<{max(1, len(name))}}" for name in names)]
    for segment, name in zip(exhibit.segments, names, strict=True):
        marks = [SAYINGS[how_seen(exhibit, segment, other)] for other in exhibit.segments]
        lines.append(f"{name:>{widest}}  " + " ".join(f"{m:<{len(n)}}" for m, n in zip(marks, names, strict=True)))
    some = ", ▒ some of it" if any(SAYINGS["some"] in line for line in lines) else ""
    return [line.rstrip() for line in lines] + [f"(█ all of it, ◣ the tokens up to its own{some}, · nothing)"]


def _abbreviation(segment: Segment) -> str:
    return segment.name.removeprefix("prompts ").removeprefix("prompt ").replace(" … ", "…").replace(", ", ",")


def how_seen(exhibit: Exhibit, query: Segment, key: Segment) -> str:
    """How much of one segment the tokens of another see: "all", "earlier" (up to their own), "some" or "none".

    Args:
        exhibit: of both.
        query: the one that looks.
        key: the one that is seen.
    """
    keys = np.arange(key.start, key.stop)
    first = np.maximum(keys, query.start)  # of the tokens that look, the first that does not stand before each key
    earlier = int(np.maximum(query.stop - first, 0).sum())
    seen = int(np.maximum(np.minimum(exhibit.reach[keys], query.stop) - first, 0).sum())
    beside = _seen_both_ways_alone(exhibit, query, keys)
    whole = (query.stop - query.start) * len(keys)
    if seen + beside == 0:
        return "none"
    if seen + beside == whole and (query is not key or whole > 1):
        return "all"
    return "earlier" if query is key and not beside and seen == earlier else "some"


def _seen_both_ways_alone(exhibit: Exhibit, query: Segment, keys: Int[np.ndarray, " n"]) -> int:
    """Pairs that are seen because they stand in one stretch, and not by `reach`."""
    blocks, found = exhibit.blocks[query.start : query.stop], 0
    for stretch in np.intersect1d(blocks[blocks >= 0], exhibit.blocks[keys]):
        looks = (query.start + np.flatnonzero(blocks == stretch))[:, None]
        near = keys[exhibit.blocks[keys] == stretch][None, :]
        found += int(((looks < near) | (looks >= exhibit.reach[near])).sum())
    return found
