"""Rows that turn out to be unusable while they are read: counted over ranks, named, and an error if they are many."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from vlmpack.costs.survey import SHOWN, DatasetError

FEW = 100  # rows over which the allowed share is taken at least, so that one bad row at the start is no error


class LeftOut:
    """What was left out so far.

    Attributes:
        allowed: the share of rows that may be unreadable.
        bad: rows that cannot be read.
        useless: rows that can be read and not used: all tied, or too long a prompt.
        rows: that were read.
        shown: the first messages of this rank, by the row's place.
    """

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.bad, self.useless, self.rows = 0, 0, 0
        self.shown: dict[int, str] = {}

    def add(self, counts: Sequence[float], batches: Sequence[dict[str, Any]], rows: Any = None) -> None:
        """Count what all ranks left out of some batches.

        Args:
            counts: bad rows, useless ones, and all, over all ranks.
            batches: of this rank, from the collator.
            rows: the `SurveyedRows` they are from; None for a stream.

        Raises:
            DatasetError: more rows are unreadable than allowed; on all ranks alike.
        """
        bad, useless, read = map(int, counts)
        self.bad, self.useless, self.rows = self.bad + bad, self.useless + useless, self.rows + read
        for place, message in chain.from_iterable(batch["left_out"].items() for batch in batches):
            if len(self.shown) < SHOWN:
                self.shown[place if rows is None else rows.kept[place]] = message
        if self.bad > self.allowed * max(self.rows, FEW):
            raise DatasetError(
                f"{self.bad} of the {self.rows} rows read so far cannot be read, more than "
                f"max_bad_rows={self.allowed:g} allows:\n{self._named()}\nMend them, or raise max_bad_rows."
            )

    def note(self) -> str:
        """What was left out, in a few lines; empty if nothing was."""
        if not self.bad + self.useless:
            return ""
        return (
            f"of {self.rows} rows that were read, {self.bad} could not be read and {self.useless} had nothing to "
            f"compare or too long a prompt; they were left out:\n{self._named()}"
        )

    def _named(self) -> str:
        return "\n".join(f"  row {place}: {text}" for place, text in sorted(self.shown.items()))
