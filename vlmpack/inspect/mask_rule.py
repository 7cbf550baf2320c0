"""What a token sees and what it may see: the first by the pack's own arrays, the second by its forest alone."""

import numpy as np
from jaxtyping import Bool, Int

from vlmpack import masks
from vlmpack.inspect.exhibit import Exhibit, Tokens

Indices = Int[np.ndarray, "..."]


def sees(exhibit: Exhibit, query: Indices, key: Indices) -> Bool[np.ndarray, "..."]:
    """Whether tokens see others, by the pack's own `reach` and `blocks`.

    Args:
        exhibit: what there is to see.
        query: indices of tokens that look.
        key: of those that are looked at, of a shape that goes with it.
    """
    return ((key <= query) & (query < exhibit.reach[key])) | _together(exhibit, query, key)


def may_see(exhibit: Exhibit, query: Indices, key: Indices) -> Bool[np.ndarray, "..."]:
    """Whether they may: what stands before them on their path, and both ways within a segment.

    Args:
        exhibit: what there is to see.
        query, key: as for `sees`.
    """
    behind = (segment_start(exhibit)[key] <= query) & (query < path_stop(exhibit)[key])
    return behind & ((key <= query) | _together(exhibit, query, key))


def segment_start(exhibit: Exhibit) -> Tokens:
    """For each token, the first of its segment: of tokens that stand earlier, none may see it.

    Args:
        exhibit: what there is to see.
    """
    return np.repeat(exhibit.forest.starts, exhibit.forest.lengths)


def path_stop(exhibit: Exhibit) -> Tokens:
    """For each token, one past the last that has it on its path: by the forest, whatever `reach` says.

    Args:
        exhibit: what there is to see.
    """
    return masks.reach(exhibit.forest).numpy()


def _together(exhibit: Exhibit, query: Indices, key: Indices) -> Bool[np.ndarray, "..."]:
    """Whether two tokens are of one stretch."""
    return (exhibit.blocks[query] == exhibit.blocks[key]) & (exhibit.blocks[key] >= 0)
