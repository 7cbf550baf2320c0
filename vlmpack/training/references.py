"""A data set's reference log-probabilities: which are known, which are not, and those of a pack's responses."""

from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.lengths import LengthTable
from vlmpack.training.fillers import NOBODY
from vlmpack.training.reference_cache import ReferenceCache, ReferenceCacheError
from vlmpack.training.task import Task


class References:
    """The reference's log-probabilities of a data set's responses, by the rows' content.

    Args:
        cache: where they are kept.
        lengths: of the data set's rows.
        sharing: of packs; with "pair", a response stands once for each pair that it is in.
    """

    def __init__(self, cache: ReferenceCache, lengths: LengthTable, sharing: str = "all") -> None:
        self.cache, self.lengths, self.sharing = cache, lengths, sharing
        self.counts = lengths.responses_of_row

    def missing(self) -> Int[np.ndarray, " m"]:
        """Rows that are not known yet, those that share an image side by side, long ones first among them.

        Raises:
            ReferenceCacheError: nobody has said what the rows hold.
        """
        if not self.lengths.content.any(axis=1).all():
            raise ReferenceCacheError(
                "the processor's measure() gives rows no content, by which they could be told apart; leave "
                "precompute_ref_log_probs off, or let it fill Lengths.content"
            )
        known = np.asarray(self.cache.known([each.tobytes() for each in self.lengths.content]), dtype=bool)
        unknown = np.flatnonzero(~known)
        order = np.lexsort((-self.lengths.packed[unknown], self.lengths.first_image[unknown]))
        return unknown[order]

    def learn(self, task: Task, logps: Float[Tensor, " R"]) -> None:
        """Keep what the reference says of a unit's responses, each of which stands once; nats."""
        for place, part in zip(task.places, logps.split(task.responses_of_samples), strict=True):
            if place != NOBODY:
                self.cache.add(self.lengths.content[place].tobytes(), part)

    def of(self, task: Task) -> Float[Tensor, " R"]:
        """Log-probability of each response of a unit, nats; 0 for a filler's.

        Raises:
            ReferenceCacheError: a row is not known.
        """
        found = [self._row(place, count) for place, count in zip(task.places, task.responses_of_samples, strict=True)]
        return torch.cat(found)

    def _row(self, place: int, count: int) -> Float[Tensor, " r"]:
        if place == NOBODY:
            return torch.zeros(count, dtype=torch.float64)
        logps = self.cache.get(self.lengths.content[place].tobytes(), int(self.counts[place]))
        return logps[list(chain(*self.lengths[place].pairs))] if self.sharing == "pair" else logps
