"""What a task computes, and what its rows would take with every response on its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmpack.pack import Pack
from vlmpack.sample import Sample
from vlmpack.training.fillers import NOBODY
from vlmpack.training.task import Task


@dataclass(frozen=True)
class Work:
    """Work on some rows, as it is done and as it would be unpacked; each pack counts once, whoever else reads it.

    "Unpacked" is every response of the pack as a sequence of its own, after its prompt and images.

    Attributes:
        tokens: that are computed, padding included.
        unpacked_tokens: on the paths of all responses.
        packs: sequences that run through the model; a response that is computed unpacked is one.
        vision_passes: images that are given to the vision tower, those included whose features a cache knows.
        unpacked_vision_passes: images on the paths of all responses.
    """

    tokens: int = 0
    unpacked_tokens: int = 0
    packs: int = 0
    vision_passes: int = 0
    unpacked_vision_passes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers, in the order of the attributes."""
        return tuple(vars(self).values())

    @property
    def saved(self) -> float:
        """The share of the unpacked tokens that need not be computed; 0 if there are none."""
        return 1 - self.tokens / self.unpacked_tokens if self.unpacked_tokens else 0.0


def work_of(task: Task) -> Work:
    """The work that a task does for rows of the data set; what only a filler needs is none.

    Host-side, and fast: asked of a pack that is on a device, it would wait for it.

    Args:
        task: not moved to a device yet.

    Example:
        >>> import torch, vlmpack
        >>> sample = Sample(torch.tensor([7, 8, 9]), (torch.tensor([1]), torch.tensor([2, 2])))
        >>> work_of(Task(vlmpack.pack([sample])[0], places=[0]))  # prompt 3 + 1 + 2 tokens, or 3 + 1 and 3 + 2
        Work(tokens=6, unpacked_tokens=9, packs=1, vision_passes=0, unpacked_vision_passes=0)
    """
    if all(place == NOBODY for place in task.places):
        return Work()
    return _of_sample(task.unit) if isinstance(task.unit, Sample) else _of_pack(task.unit, _served(task))


def _of_sample(sample: Sample) -> Work:
    tokens = sample.responses * len(sample.prompt_ids) + sum(map(len, sample.response_ids))
    images = sample.responses * len(sample.images)
    return Work(tokens, tokens, sample.responses, images, images)


def _of_pack(pack: Pack, ends: list[int]) -> Work:
    """Of a pack whose responses, those that count, have their last tokens at `ends`, ascending."""
    lengths, firsts = np.asarray(pack.forest.lengths), _first_tokens(pack)
    paths = _between(ends, pack.forest.starts, pack.forest.stops)
    shown = _between(ends, firsts, pack.reach[0].numpy()[firsts])
    return Work(
        tokens=pack.padding + int(lengths[paths > 0].sum()),
        unpacked_tokens=int(lengths @ paths),
        packs=1,
        vision_passes=len({image for image, used in zip(pack.placements, shown, strict=True) if used}),
        unpacked_vision_passes=int(shown.sum()),
    )


def _served(task: Task) -> list[int]:
    """The last tokens of the responses that are rows', not a filler's, ascending."""
    ends = task.unit.ends.tolist()
    if NOBODY in task.places:
        counts = zip(task.places, task.responses_of_samples, strict=True)
        whose = [place for place, responses in counts for _ in range(responses)]
        ends = [end for end, place in zip(ends, whose, strict=True) if place != NOBODY]
    return sorted(ends)


def _between(ends: list[int], starts: Sequence[int] | np.ndarray, stops: Sequence[int] | np.ndarray) -> np.ndarray:
    """How many responses end in each subtree: on so many paths its first token lies."""
    return np.searchsorted(ends, stops) - np.searchsorted(ends, starts)


def _first_tokens(pack: Pack) -> np.ndarray:
    """[I] Where each place of an image begins: places are counted in token order, so the highest so far only rises."""
    highest = np.maximum.accumulate(pack.image_of[0].numpy())
    return np.searchsorted(highest, np.arange(len(pack.placements)))
