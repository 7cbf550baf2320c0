"""In which order rows meet in batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from torch.utils.data import Sampler

STRATEGIES = ("random", "sequential", "length_sorted", "group_by_length")
MEGABATCH = 50  # batches that are sorted by length together, as in transformers


class OrderError(ValueError):
    """Rows cannot be ordered as asked."""


class Order(Sampler[int]):
    """The order in which an epoch's rows come; cut into runs of `batch_size` rows, it says which rows meet.

    It follows from its arguments and the epoch alone, so that every rank, and a run that resumes, finds the same.

    Rows that show the same image share it where they meet in one batch, so with `images` they stay together. A
    random order then deals them whole into batches, those of an image with more rows than a batch into batches of
    their own, and cuts a few to fill batches exactly; orders by length lay them one after another.

    Args:
        strategy: "random"; "sequential", as given; "length_sorted", longest first, each epoch the same;
            "group_by_length", batches of similar lengths in random order, that with the longest row first so that
            too little memory shows at once. All but "length_sorted" and "sequential" choose at random which rows
            make up the incomplete batch at the end.
        lengths: [n] tokens of each row.
        batch_size: rows of an optimizer batch, over all ranks and accumulation.
        seed: of the order; each epoch has another.
        images: [n] the number of each row's first image, -1 for none; such rows shall meet. None: they need not.
        alike: [n] by which rows of one image are sorted, so that equal ones stand side by side; for example the
            number of each row's list of images. None: they stand as they come.

    Raises:
        OrderError: an unknown strategy, an order as given that shall group too, or arguments that do not fit together.
    """

    def __init__(
        self,
        strategy: str,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        seed: int,
        images: Sequence[int] | np.ndarray | None = None,
        alike: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        _check(strategy, batch_size, len(lengths), images, alike)
        self.strategy, self.batch_size, self.seed, self.epoch = strategy, batch_size, seed, 0
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.units = None if images is None else _units(np.asarray(images, dtype=np.int64))
        self.alike = np.zeros(len(lengths), dtype=np.int64) if alike is None else np.asarray(alike)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        yield from self.rows().tolist()

    def rows(self) -> Int[np.ndarray, " n"]:
        """All rows in the epoch's order."""
        if self.strategy == "sequential":
            return np.arange(len(self))
        if self.strategy == "length_sorted":
            return self._together(self._longest_first(np.arange(len(self))))
        random = np.random.default_rng((self.seed, self.epoch))
        if self.strategy == "group_by_length":
            return self._by_length(random)
        return random.permutation(len(self)) if self.units is None else self._by_image(random)

    def _longest_first(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        return rows[np.argsort(-self.lengths[rows], kind="stable")]

    def _together(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Rows of one unit moved to where the first of them stands."""
        if self.units is None:
            return rows
        return rows[np.lexsort((self.alike[rows], _first_places(self.units[rows])))]

    def _by_length(self, random: np.random.Generator) -> Int[np.ndarray, " n"]:
        rows = random.permutation(len(self))
        longest = int(np.argmax(self.lengths))
        rows = self._together(np.concatenate([[longest], rows[rows != longest]]))  # not in the incomplete batch
        full, last = np.split(rows, [len(rows) // self.batch_size * self.batch_size])
        places = np.arange(len(full)) if self.units is None else _first_places(self.units[full])
        megabatches = places // (MEGABATCH * self.batch_size)
        full = self._together(full[np.lexsort((-self.lengths[full], megabatches))])
        batches = full.reshape(-1, self.batch_size)
        order = random.permutation(len(batches))
        if len(batches):
            first = np.argmax(self.lengths[batches].max(axis=1))
            order = np.concatenate([[first], order[order != first]])
        return np.concatenate([batches[order].ravel(), self._together(self._longest_first(last))])

    def _by_image(self, random: np.random.Generator) -> Int[np.ndarray, " n"]:
        rows = self._together(random.permutation(len(self)))
        pieces = _pieces(self.units[rows], self.batch_size)
        missing = len(rows) % self.batch_size
        last, rows, pieces = rows[:missing], rows[missing:], pieces[missing:]
        _, pieces, sizes = np.unique(pieces, return_inverse=True, return_counts=True)
        bins = _first_fit_decreasing(sizes, self.batch_size)[pieces]
        batches = _filled(rows, bins, self.batch_size)
        return np.concatenate([random.permutation(batches).ravel(), last])


def _check(strategy: str, batch_size: int, rows: int, images: Any, alike: Any) -> None:
    if strategy not in STRATEGIES:
        raise OrderError(f"train_sampling_strategy={strategy!r} is not one of {', '.join(STRATEGIES)}")
    if strategy == "sequential" and images is not None:
        raise OrderError(
            "train_sampling_strategy='sequential' is an order of its own and does not go with groups by image; "
            "leave out group_by_image, or choose 'random', 'length_sorted' or 'group_by_length'"
        )
    if batch_size < 1:
        raise OrderError(f"batch_size={batch_size} holds no row; give one or more")
    if rows == 0:
        raise OrderError("there are no rows to order")
    if alike is not None and images is None:
        raise OrderError("alike sorts the rows of one image; give images too")
    for name, given in (("images", images), ("alike", alike)):
        if given is not None and len(given) != rows:
            raise OrderError(f"{len(given)} {name} for {rows} rows; give one for each")


def _units(images: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """A number for each row, below n, the same for rows of one image."""
    alone = images.max() + 1 + np.arange(len(images))
    return np.unique(np.where(images < 0, alone, images), return_inverse=True)[1]


def _first_places(units: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """For each row, where the first row of its unit stands."""
    first = np.empty(units.max(initial=-1) + 1, dtype=np.int64)
    first[units[::-1]] = np.arange(len(units))[::-1]  # the last to be written is the first that stands
    return first[units]


def _pieces(units: Int[np.ndarray, " n"], size: int) -> Int[np.ndarray, " n"]:
    """For each row of units laid one after another, the number of its piece: a unit, cut after so many rows."""
    begins = (np.arange(len(units)) - _first_places(units)) % size == 0
    return np.cumsum(begins) - 1


def _first_fit_decreasing(sizes: Int[np.ndarray, " m"], capacity: int) -> Int[np.ndarray, " m"]:
    """`bins.first_fit_decreasing` for many items of few sizes: those of one size are dealt in one step.

    Returns:
        [m] the bin of each item.
    """
    bins = np.empty_like(sizes)
    room = np.empty(0, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    for items in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1) if len(order) else ():
        size = sizes[items[0]]
        without = len(items) - int((room // size).sum())
        room = np.concatenate([room, np.full(max(0, -(-without // (capacity // size))), capacity)])
        dealt = np.diff(np.minimum(np.cumsum(room // size), len(items)), prepend=0)
        bins[items] = np.repeat(np.arange(len(room)), dealt)
        room -= dealt * size
    return bins


def _filled(rows: Int[np.ndarray, " m"], bins: Int[np.ndarray, " m"], size: int) -> Int[np.ndarray, "b size"]:
    """Batches of exactly `size` rows: the emptiest bins are dissolved to fill the others."""
    sizes = np.bincount(bins)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    order = np.argsort(rank[bins], kind="stable")
    count = len(rows) // size
    kept = np.sort(sizes)[::-1][:count]
    batch = np.concatenate([np.repeat(np.arange(count), kept), np.repeat(np.arange(count), size - kept)])
    return rows[order][np.argsort(batch, kind="stable")].reshape(count, size)
