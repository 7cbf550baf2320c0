"""In which order rows meet in batches."""

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

from vlmpack.bins import first_fit_decreasing


class ByImage(Sampler[int]):
    """A random order in which rows that show the same images meet in one batch, where they share them.

    Groups of rows with the same images are dealt whole into batches, larger groups cut into batches of their own; the
    rows of a few groups fill what is left. Batches come in random order, so which rows meet is random but for that.

    Args:
        images: for each row, what it shows; equal for rows that shall meet. Rows without images are given ().
        batch_size: rows in a batch.
        seed: of the order; each epoch has another.
    """

    def __init__(self, images: Sequence[Hashable], batch_size: int, seed: int = 0) -> None:
        self.images, self.batch_size, self.seed, self.epoch = images, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        groups = self._groups(torch.randperm(len(self.images), generator=generator).tolist())
        bins = first_fit_decreasing([len(group) for group in groups], self.batch_size)
        batches = [[row for group in rows for row in groups[group]] for rows in bins]
        full, last = _filled(batches, self.batch_size)
        order = torch.randperm(len(full), generator=generator).tolist()
        yield from (row for batch in order for row in full[batch])
        yield from last

    def _groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows with the same images together, no more than a batch holds."""
        groups: dict[Hashable, list[int]] = {}
        for row in rows:
            groups.setdefault(self.images[row] or ("row", row), []).append(row)
        size = self.batch_size
        return [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]


def _filled(batches: list[list[int]], size: int) -> tuple[list[list[int]], list[int]]:
    """Batches of exactly `size` rows and what is left: the emptiest ones are dissolved to fill the others."""
    batches = sorted(batches, key=len, reverse=True)
    count = sum(map(len, batches)) // size
    full, loose = batches[:count], [row for batch in batches[count:] for row in batch]
    filled = []
    for batch in full:
        missing = size - len(batch)
        filled.append(batch + loose[:missing])
        loose = loose[missing:]
    return filled, loose
