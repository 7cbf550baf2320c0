"""Rows of different lengths in two arrays, so that a million of them are as cheap as one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of values laid end to end.

    Attributes:
        values: [m, ...] of all rows.
        starts: [n + 1] where each row begins, and at last where the last one ends.

    Example:
        >>> rows = Ragged(np.array([5, 6, 7]), np.array([0, 2, 2, 3]))
        >>> rows[0].tolist(), rows.counts.tolist(), rows.sums.tolist()
        ([5, 6], [2, 0, 1], [11, 0, 7])
    """

    values: np.ndarray
    starts: Int[np.ndarray, " _"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.starts[row] : self.starts[row + 1]]

    @property
    def counts(self) -> Int[np.ndarray, " n"]:
        """Values of each row."""
        return np.diff(self.starts)

    @property
    def sums(self) -> Int[np.ndarray, " n"]:
        """The sum of each row's values, which are numbers."""
        total = np.concatenate([[0], np.cumsum(self.values, dtype=np.int64)])
        return total[self.starts[1:]] - total[self.starts[:-1]]

    @property
    def rows(self) -> Int[np.ndarray, " m"]:
        """For each value, its row."""
        return np.repeat(np.arange(len(self)), self.counts)

    def take(self, places: Int[np.ndarray, " k"]) -> "Ragged":
        """Some rows, in the order named."""
        counts = self.counts[places]
        starts = _starts(counts)
        shift = np.repeat(self.starts[:-1][places] - starts[:-1], counts)
        return Ragged(self.values[np.arange(starts[-1]) + shift], starts)

    def where(self, kept: Bool[np.ndarray, " m"]) -> "Ragged":
        """All rows, with some of their values."""
        before = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        return Ragged(self.values[kept], before[self.starts])


def _starts(counts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " _"]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
