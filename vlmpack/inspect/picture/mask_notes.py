"""What a picture of a mask says in words: what is what, and where it is not what the forest asks for."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from vlmpack import masks
from vlmpack.inspect.exhibit import Exhibit

AXES = "row: the token that looks · column: the token that is seen"


@dataclass(frozen=True)
class Note:
    """A line below the mask's heading.

    Attributes:
        words: what it says.
        wrong: whether something is not as it must be.
    """

    words: str
    wrong: bool


def notes(exhibit: Exhibit) -> tuple[Note, ...]:
    """What rows and columns are, and where `reach` is not the forest's: cells beside the path seen, on it not seen.

    Args:
        exhibit: what there is to see.
    """
    index = np.arange(exhibit.tokens)
    allowed = masks.reach(exhibit.forest).numpy()
    seen = np.clip(exhibit.reach, index, exhibit.tokens)
    found = [Note(AXES + " · pale: earlier on its path", False)]
    for upper, lower, words in (
        (seen, allowed, "leak: {} {} seen beside the path (red): token {} sees token {}"),
        (allowed, seen, "{} {} of the path not seen: token {} does not see token {}"),
    ):
        cells = np.maximum(upper - lower, 0)
        if count := int(cells.sum()):
            key = int(cells.argmax())
            pair = (named(exhibit, int(lower[key])), named(exhibit, key))
            found.append(Note(words.format(f"{count:,}", "cell" if count == 1 else "cells", *pair), True))
    return tuple(found)


def named(exhibit: Exhibit, token: int) -> str:
    """A token by its index and its segment: "31 (A4)".

    Args:
        exhibit: what there is to see.
        token: its index.
    """
    return f"{token} ({exhibit.segments[bisect_right(exhibit.forest.starts, token) - 1].name})"
