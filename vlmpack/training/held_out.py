"""What a reward model says of the responses of a data set: every one of them, over all ranks."""

from collections.abc import Callable, Iterable, Iterator
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack.pack import Pack
from vlmpack.sample import Sample
from vlmpack.scored import Scored
from vlmpack.training.fillers import NOBODY
from vlmpack.training.task import Task


@torch.no_grad()
def scored_tasks(
    tasks: Iterable[Task], scores: Callable[[Pack | Sample], Float[Tensor, " R"]], device: torch.device
) -> list[Scored]:
    """The rewards of the rows that some tasks hold; a filler is none.

    Args:
        tasks: what this rank computes, of the data set's own responses (`sharing` is not "pair").
        scores: of a unit's responses.
        device: that computes.

    Returns:
        One for each row, by its place among the rows that are used; `images` says whether it has any.
    """
    found = []
    for task in tasks:
        task = task.to(device)
        found += map(_finite, _by_row(task, scores(task.unit).double().tolist()))
    return found


def _finite(row: Scored) -> Scored:
    if all(map(isfinite, row.rewards)):
        return row
    return Scored(row.place, error=f"its rewards are {row.rewards}; look at the weights")


def _by_row(task: Task, rewards: list[float]) -> Iterator[Scored]:
    unit = task.unit
    pairs = unit.pairs.tolist() if isinstance(unit, Pack) else list(unit.pairs)
    margins = None if unit.margins is None else [float(margin) for margin in unit.margins]
    lengths = unit.response_lengths.tolist() if isinstance(unit, Pack) else [len(each) for each in unit.response_ids]
    first = 0
    for place, responses in zip(task.places, task.responses_of_samples, strict=True):
        own = [k for k, (preferred, _) in enumerate(pairs) if first <= preferred < first + responses]
        if place != NOBODY:
            yield Scored(
                place=int(place),
                rewards=tuple(rewards[first : first + responses]),
                pairs=tuple((pairs[k][0] - first, pairs[k][1] - first) for k in own),
                margins=None if margins is None else tuple(margins[k] for k in own),
                lengths=tuple(lengths[first : first + responses]),
                images=int(task.rows.lengths.first_image[place] >= 0),
            )
        first += responses
