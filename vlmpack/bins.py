"""Dealing items of different sizes into as few bins as a simple rule finds."""

from collections.abc import Sequence


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Deal items into bins: largest first, each into the first bin that still has room.

    Johnson et al., 1974: never more than 11/9 of the fewest possible bins, plus a constant.

    Args:
        sizes: of each item, in tokens, none larger than the capacity.
        capacity: of a bin, in tokens.

    Returns:
        The bins as lists of ascending item rows, by their first row.

    Example:
        >>> first_fit_decreasing([3, 6, 4, 2], capacity=9)
        [[0, 1], [2, 3]]
    """
    bins: list[list[int]] = []
    room = _FirstWithRoom(len(sizes), capacity)
    for row in sorted(range(len(sizes)), key=lambda row: -sizes[row]):
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
