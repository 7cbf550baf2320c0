"""Which samples share a pack."""

from collections.abc import Sequence

from vlmpack.pack import Pack, lay_out
from vlmpack.sample import Sample


class PackingError(ValueError):
    """Samples cannot be packed as asked."""


def pack(samples: Sequence[Sample], max_tokens: int = 8192) -> list[Pack]:
    """Put samples into as few packs as first-fit-decreasing finds, every sample in exactly one.

    Args:
        samples: in any order.
        max_tokens: the most tokens in one pack. A memory knob: it changes no result.

    Returns:
        Packs, each with its samples in the order given; `Pack.sample_of` says which they are.

    Raises:
        PackingError: there is no sample, `max_tokens` is not positive, or a sample is larger.
    """
    if not samples:
        raise PackingError("there are no samples to pack")
    sizes = [sample.lengths.packed for sample in samples]
    return [lay_out([samples[row] for row in rows], rows) for rows in first_fit_decreasing(sizes, max_tokens)]


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Deal items into bins: largest first, each into the first bin that still has room.

    Johnson et al., 1974: never more than 11/9 of the fewest possible bins, plus a constant.

    Args:
        sizes: of each item, in tokens.
        capacity: of a bin, in tokens.

    Returns:
        The bins as lists of ascending item rows, by their first row.

    Example:
        >>> first_fit_decreasing([3, 6, 4, 2], capacity=9)
        [[0, 1], [2, 3]]
    """
    if capacity <= 0:
        raise PackingError(f"max_tokens={capacity} holds nothing; give the tokens that fit into memory, e.g. 8192")
    bins: list[list[int]] = []
    room = _FirstWithRoom(len(sizes), capacity)
    for row in sorted(range(len(sizes)), key=lambda row: -sizes[row]):
        if sizes[row] > capacity:
            raise PackingError(
                f"sample {row} has {sizes[row]} tokens (its prompt once and all its responses), more than "
                f"max_tokens={capacity}; raise max_tokens to {sizes[row]}, or cut responses with max_length"
            )
        place = room.take(sizes[row])
        if place == len(bins):
            bins.append([])
        bins[place].append(row)
    return sorted(sorted(rows) for rows in bins)


class _FirstWithRoom:
    """Bins by the room left in them; finds the first with enough in O(log bins).

    A tournament tree: each node holds the larger room of its two children.
    """

    def __init__(self, bins: int, capacity: int) -> None:
        self.leaves = 1 << max(0, bins - 1).bit_length()
        self.most = [capacity] * (2 * self.leaves)

    def take(self, size: int) -> int:
        """Take so much room from the first bin that has it; return the bin."""
        node = 1
        while node < self.leaves:
            node = 2 * node if self.most[2 * node] >= size else 2 * node + 1
        place = node - self.leaves
        self.most[node] -= size
        while node := node // 2:
            self.most[node] = max(self.most[2 * node], self.most[2 * node + 1])
        return place
