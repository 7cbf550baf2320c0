"""What a pack saved: the same responses, each on its own with its prompt before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmpack.forest import Forest
from vlmpack.inspect.naming import Response


@dataclass(frozen=True)
class Account:
    """Amounts as (every response on its own, packed).

    Attributes:
        tokens: through the decoder.
        passes: images through the vision tower.
        cells: query-key pairs of a layer without a window: tokens seen, summed over those that look.
    """

    tokens: tuple[int, int]
    passes: tuple[int, int]
    cells: tuple[int, int]

    @property
    def ratio(self) -> float:
        """How many tokens one packed token stands for."""
        return self.tokens[0] / self.tokens[1]

    def __str__(self) -> str:
        """One line for people.

        Example:
            >>> print(Account((40, 10), (6, 1), (0, 0)))
            10 tokens instead of 40 (4.00x), 1 vision pass instead of 6 (6.00x)
        """
        passes = "vision pass" if self.passes[1] == 1 else "vision passes"
        what = [(self.tokens, "tokens"), (self.passes, passes), (self.cells, "query-key pairs")]
        return ", ".join(
            f"{packed:,} {words} instead of {alone:,} ({alone / packed:.2f}x)"
            for (alone, packed), words in what
            if alone
        )


def account(
    forest: Forest,
    responses: Sequence[Response],
    reach: np.ndarray,
    blocks: np.ndarray,
    image_of: np.ndarray,
    vision_passes: int,
) -> Account:
    """Count a pack against its responses on their own.

    Args:
        forest: the pack's.
        responses: those of the pack.
        reach: [T] as in `Pack`.
        blocks: [T] as in `Pack`; -1 where nothing is seen both ways.
        image_of: [T] as in `Pack`.
        vision_passes: images that the pack runs through the tower.
    """
    index = np.arange(forest.tokens)
    segment_of = np.repeat(np.arange(len(forest.lengths)), forest.lengths)
    known, first = np.unique(image_of, return_index=True)
    places = np.bincount(segment_of[first[known >= 0]], minlength=len(forest.lengths))
    ahead = _ahead(blocks, segment_of, len(forest.lengths))
    lengths = [forest.depths[each.path[-1]] + forest.lengths[each.path[-1]] for each in responses]
    return Account(
        tokens=(sum(lengths), forest.tokens),
        passes=(sum(int(places[list(each.path)].sum()) for each in responses), vision_passes),
        cells=(
            sum(n * (n + 1) // 2 for n in lengths) + sum(int(ahead[list(each.path)].sum()) for each in responses),
            int((reach - index).sum() + ahead.sum()),
        ),
    )


def _ahead(blocks: np.ndarray, segment_of: np.ndarray, segments: int) -> np.ndarray:
    """For each segment, pairs in which a token sees a later one: those of stretches that are seen both ways."""
    inside = blocks >= 0
    _, first, sizes = np.unique(blocks[inside], return_index=True, return_counts=True)
    found = np.zeros(segments, dtype=np.int64)
    np.add.at(found, segment_of[inside][first], sizes * (sizes - 1) // 2)
    return found
