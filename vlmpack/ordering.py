"""In which order rows meet in batches."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState

from vlmpack.bins import first_fit_decreasing


class ByImage(Sampler[int]):
    """A random order in which rows that show the same image meet in one batch, where they share it.

    Groups of rows with the same first image are dealt whole into batches, larger groups cut into batches of their
    own; the rows of a few groups fill what is left. Batches come in random order, so which rows meet is random but
    for that.

    Args:
        images: for each row, digests of its images; rows with the same first one shall meet.
        batch_size: rows in a batch.
        seed: of the order; each epoch has another.
    """

    def __init__(self, images: Sequence[tuple[Hashable, ...]], batch_size: int, seed: int = 0) -> None:
        self.images, self.batch_size, self.seed, self.epoch = images, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        groups = self._groups(torch.randperm(len(self.images), generator=generator).tolist())
        last, groups = _taken(groups, len(self.images) % self.batch_size)
        bins = first_fit_decreasing([len(group) for group in groups], self.batch_size) if groups else []
        batches = _filled([[row for group in rows for row in groups[group]] for rows in bins], self.batch_size)
        order = torch.randperm(len(batches), generator=generator).tolist()
        yield from (row for batch in order for row in batches[batch])
        yield from last

    def _groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows with the same first image together, those with the same others side by side; no more than a batch."""
        groups: dict[Hashable, list[int]] = {}
        for row in rows:
            first = self.images[row][0] if self.images[row] else ("row", row)
            groups.setdefault(first, []).append(row)
        size = self.batch_size
        ordered = [sorted(group, key=lambda row: self.images[row]) for group in groups.values()]
        return [group[at : at + size] for group in ordered for at in range(0, len(group), size)]


def _taken(groups: list[list[int]], rows: int) -> tuple[list[int], list[list[int]]]:
    """So many rows off the first groups, and the groups that are left: the batch that is not full, at random."""
    taken: list[int] = []
    left = []
    for group in groups:
        missing = rows - len(taken)
        taken += group[:missing]
        left += [group[missing:]] if group[missing:] else []
    return taken, left


def _filled(batches: list[list[int]], size: int) -> list[list[int]]:
    """Batches of exactly `size` rows: the emptiest ones are dissolved to fill the others."""
    batches = sorted(batches, key=len, reverse=True)
    count = sum(map(len, batches)) // size
    loose = [row for batch in batches[count:] for row in batch]
    filled = []
    for batch in batches[:count]:
        missing = size - len(batch)
        filled.append(batch + loose[:missing])
        loose = loose[missing:]
    return filled


class EpochOrder(TrainerCallback):
    """Tells the order which epoch begins. The samplers that accelerate wraps around it for several ranks do not."""

    def __init__(self, order: ByImage) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **others: Any) -> None:
        """Before the epoch's first batch is drawn, after a resume too."""
        self.order.set_epoch(int(state.epoch))
