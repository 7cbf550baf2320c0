"""Trees as the rows of one batched attention call: which paths stand in a row together."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.splitting import split

# What one more row of a call costs in query-key pairs; measured, with the other constants, in `vlmpack.choosing`.
ROW_COST = 5_000


@lru_cache(maxsize=32)  # the policy and its reference read the same packs
def dealt(forest: Forest) -> tuple[tuple[int, ...], ...]:
    """Deal a pack's paths into the rows of one batched attention call, as cheaply as a few row lengths allow.

    Paths that part see nothing of each other, so they need not stand in one square: T x T shrinks. Where trees
    share a short beginning, repeating it in several rows costs less than one long row.

    Returns:
        B rows of segments, ascending; each holds the whole path of every leaf in it.

    Example:
        >>> dealt(Forest((-1, 0, 0), (2, 200, 200)))  # the first segment stands in both rows
        ((0, 1), (0, 2))
    """
    leaves = sorted(set(range(len(forest.parents))) - set(forest.parents))
    homes, needs = [forest.parents[leaf] for leaf in leaves], [frozenset({leaf}) for leaf in leaves]
    length = longest_path(forest)  # no row is shorter
    best, cost = [], float("inf")
    while True:
        parts = [_path_segments(forest, leaves, part) for part in split(forest, homes, needs, length)]
        price = price_of(len(parts), max(sum(forest.lengths[segment] for segment in part) for part in parts))
        if price >= cost:
            break  # longer rows share more, but squares grow faster
        best, cost = parts, price
        if len(parts) == 1:
            break
        length *= 2
    return tuple(map(tuple, best))


def longest_path(forest: Forest) -> int:
    """Tokens of the longest path from a root to a leaf."""
    return max(map(int.__add__, forest.depths, forest.lengths))


def price_of(rows: int, length: float) -> float:
    """Query-key pairs that the time for so many rows of this length amounts to."""
    return rows * (ROW_COST + length**2)


def size(forest: Forest) -> tuple[int, int]:
    """Rows that a pack is dealt into, and tokens of the longest; known without laying them out."""
    rows = dealt(forest)
    return len(rows), max(sum(forest.lengths[segment] for segment in row) for row in rows)


def _path_segments(forest: Forest, leaves: Sequence[int], part: Sequence[int]) -> list[int]:
    """The segments on the paths to some of the leaves, ascending."""
    return sorted({s for place in part for s in (*forest.ancestors(leaves[place]), leaves[place])})


def table(forest: Forest) -> tuple[Int[Tensor, "B L"], Int[Tensor, " T"]]:
    """The rows of `dealt` as tensors.

    Returns:
        [B, L] token indices, -1 where a row is shorter; [T] one place of each token in the flattened rows.
    """
    indices = torch.arange(forest.tokens).split(forest.lengths)
    rows = [torch.cat([indices[segment] for segment in row]) for row in dealt(forest)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    flat = padded.flatten()
    filled = (flat >= 0).nonzero()[:, 0]
    places = torch.zeros(forest.tokens, dtype=torch.int64).scatter_reduce(0, flat[filled], filled, "amax")
    return padded, places
