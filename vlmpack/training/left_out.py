"""Rows that turn out to be unusable while they are read: counted over ranks, named, and an error if they are many."""

from collections.abc import Mapping

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

    def add(self, bad: float, useless: float, rows: float, messages: Mapping[int, str]) -> None:
        """Count what all ranks left out of a step.

        Args:
            bad, useless, rows: over all ranks.
            messages: of this rank, by the row's place.

        Raises:
            DatasetError: more rows are unreadable than allowed; on all ranks alike.
        """
        self.bad, self.useless, self.rows = self.bad + int(bad), self.useless + int(useless), self.rows + int(rows)
        for place, message in messages.items():
            if len(self.shown) < SHOWN:
                self.shown[place] = message
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
