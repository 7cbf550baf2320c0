"""Windows of rows, read and packed ahead of the model by other processes, in their order."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vlmpack.candidates import Preparation, Window, windows


@dataclass(frozen=True)
class _Windows(IterableDataset):
    """Every worker reads all rows, and prepares every n-th window; taken in turn, they come in order."""

    rows: Iterable[Any]
    prepare: Callable
    first: int

    def __iter__(self) -> Iterator[Window]:
        worker = get_worker_info()
        own, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return map(self.prepare, islice(windows(self.rows, first=self.first), own, None, step))


def prepared(rows: Iterable[Any], prepare: Preparation, workers: int = 0, first: int = 0) -> Iterator[Window]:
    """Windows of rows, ready to be scored.

    Args:
        rows: may be iterated several times, by workers, if there are any.
        prepare: what makes a window.
        workers: processes that read rows and images; 0: this one.
        first: the place of the first row.
    """
    yield from DataLoader(_Windows(rows, prepare, first), batch_size=None, num_workers=workers)
