"""Where a pack's mask is not what its forest asks for, in words: counted without a table of all pairs."""

import numpy as np

from vlmpack.inspect.exhibit import Exhibit, Tokens
from vlmpack.inspect.mask_rule import may_see, path_stop, sees, segment_start
from vlmpack.inspect.naming import path_to


def faults(exhibit: Exhibit, mark: str = "") -> tuple[str, ...]:
    """What is seen beside the path, and what of the path is not seen: how much, and one of each.

    Args:
        exhibit: what there is to see.
        mark: how a picture shows what is seen beside the path, such as " (red)".

    Returns:
        A line for each; none if the mask is the forest's.
    """
    index = np.arange(exhibit.tokens)
    leaking, missing = _wrong(exhibit)
    found = []
    for cells, seen, words in (
        (leaking, True, f"leak: {{}} {{}} seen beside the path{mark}: token {{}} sees token {{}}"),
        (missing, False, "{} {} of the path not seen: token {} does not see token {}"),
    ):
        if count := int(cells.sum()):
            key = cells.argmax(keepdims=True)
            looking = (sees(exhibit, index, key) == seen) & (may_see(exhibit, index, key) != seen)
            pair = (named(exhibit, int(looking.argmax())), named(exhibit, int(key[0])))
            found.append(words.format(f"{count:,}", "cell" if count == 1 else "cells", *pair))
    return tuple(found)


def _wrong(exhibit: Exhibit) -> tuple[Tokens, Tokens]:
    """For each token, how many see it that may not, and how many do not that may: without a table of all pairs."""
    first, allowed = segment_start(exhibit), path_stop(exhibit)
    seen = np.clip(exhibit.reach, np.arange(exhibit.tokens), exhibit.tokens)
    either, nowhere = np.maximum(seen, allowed), np.zeros_like(seen)
    leaking = either - allowed + _of_stretch(exhibit, nowhere, first)
    leaking += _of_stretch(exhibit, either, np.full_like(seen, exhibit.tokens))
    return leaking, either - seen - _of_stretch(exhibit, seen, either)


def _of_stretch(exhibit: Exhibit, start: Tokens, stop: Tokens) -> Tokens:
    """For each token, how many of its stretch stand from one place to another."""
    found = np.zeros_like(start)
    for number in np.unique(exhibit.blocks[exhibit.blocks >= 0]):
        members = np.flatnonzero(exhibit.blocks == number)
        found[members] = np.searchsorted(members, stop[members]) - np.searchsorted(members, start[members])
    return found


def named(exhibit: Exhibit, token: int) -> str:
    """A token by its index and its segment: "31 (A4)".

    Args:
        exhibit: what there is to see.
        token: its index.
    """
    return f"{token} ({exhibit.segments[path_to(exhibit.forest, token)[-1]].name})"
