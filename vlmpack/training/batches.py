"""Which rows a rank computes in each optimizer step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import Dataset, Sampler


class BatchError(ValueError):
    """A data set gives no batches."""


@dataclass(frozen=True)
class Share:
    """A rank's part of a global batch: what all ranks together compute in one optimizer step.

    Attributes:
        batch_size: prompts a rank takes in one batch, on average.
        accumulation: batches of an optimizer step.
        ranks: processes.
        rank: this one, from 0.
    """

    batch_size: int
    accumulation: int = 1
    ranks: int = 1
    rank: int = 0

    @property
    def rows(self) -> int:
        """Prompts of one batch over all ranks."""
        return self.batch_size * self.ranks

    @property
    def step(self) -> int:
        """Prompts of one optimizer step over all ranks."""
        return self.rows * self.accumulation


class GlobalBatches(Sampler[list[int]]):
    """Batches of one rank, cut from an order that is the same on all of them.

    What an optimizer step holds does not depend on the number of ranks, and every row stands in exactly one rank's
    batch: none is repeated to fill the last one. The batches that accumulate to a step come as empty ones and a last
    one with all of the rank's rows, so that they are packed together.

    Args:
        order: row numbers in the order in which they meet.
        share: what this rank takes.
        deal: the rows of a step, as lists for each rank. None: consecutive rows.
        drop_last: leave out the rows that do not fill a batch.
    """

    def __init__(
        self,
        order: Iterable[int],
        share: Share,
        deal: Callable[[Sequence[int]], list[list[int]]] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.order, self.share, self.deal, self.drop_last = order, share, deal, drop_last

    def __len__(self) -> int:
        full, more = divmod(len(self.order), self.share.rows)
        return full + (more > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.share
        rows = islice(self.order, len(self) * share.rows)
        for step in _cut(rows, share.step):
            parts = [list(step)] if share.ranks == 1 else self._dealt(step)
            batches = -(-len(step) // share.rows)
            yield from ([] for _ in range(batches - 1))
            yield parts[share.rank]

    def _dealt(self, step: Sequence[int]) -> list[list[int]]:
        if self.deal is not None:
            return self.deal(step)
        size = -(-len(step) // self.share.ranks)
        return [list(step[rank * size : (rank + 1) * size]) for rank in range(self.share.ranks)]


@dataclass(frozen=True)
class Numbered:
    """A row and its place in the data set, counted from 0 over all that was read.

    Attributes:
        place: of the row.
        row: as the data set has it.
    """

    place: int
    row: Any


def _cut(rows: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Consecutive rows, so many at a time; the last may be fewer."""
    rows = iter(rows)
    while part := tuple(islice(rows, size)):
        yield part


class StreamedBatches(Sampler[list[Numbered]]):
    """Batches of one rank from a stream, which is begun anew whenever it ends.

    The rows themselves are given, read in the main process and not decoded; workers decode them. Every rank reads
    the whole stream and keeps its part, so that the order does not depend on the number of workers.

    Args:
        rows: an iterable data set; `set_epoch` is called before each pass if it has that.
        share: what this rank takes.
        name: of the data set, for messages.
    """

    def __init__(self, rows: Iterable[Any], share: Share, name: str = "training") -> None:
        self.rows, self.share, self.name = rows, share, name

    def __iter__(self) -> Iterator[list[Numbered]]:
        share = self.share
        for step in _cut(self._endless(), share.step):
            yield from ([] for _ in range(share.accumulation - 1))
            yield list(step[share.rank :: share.ranks])

    def _endless(self) -> Iterator[Numbered]:
        place, epoch = 0, 0
        while True:
            if hasattr(self.rows, "set_epoch"):
                self.rows.set_epoch(epoch)
            begin = place
            for row in self.rows:
                yield Numbered(place, row)
                place += 1
            if place == begin:
                raise BatchError(f"the {self.name} data set is a stream that gives no rows")
            epoch += 1


class NumberedRows(Dataset):
    """A map-style data set whose rows carry their places, and that hands on rows which carry them already.

    Attributes:
        rows: the data set; None if rows come from `StreamedBatches`.
    """

    def __init__(self, rows: Any = None) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | Numbered) -> Numbered:
        return item if isinstance(item, Numbered) else Numbered(item, self.rows[item])
