"""What is computed in one go: a pack or a sample alone, and which rows of which data set it holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from vlmpack.costs.survey import SurveyedRows
from vlmpack.pack import Pack
from vlmpack.sample import Sample


@dataclass(frozen=True, eq=False)
class Task:
    """One forward pass, and in training a backward pass.

    Attributes:
        unit: a pack, or a sample to be computed unpacked.
        places: where the unit's samples stand in the data set; `fillers.NOBODY` for a filler.
        rows: the data set; None for a stream.
    """

    unit: Pack | Sample
    places: Sequence[int]
    rows: SurveyedRows | None = None

    def to(self, device: torch.device) -> "Task":
        """With the pack on the device."""
        return replace(self, unit=self.unit.to(device)) if isinstance(self.unit, Pack) else self

    @property
    def responses_of_samples(self) -> list[int]:
        """Responses of each sample, in the order of `places`."""
        if isinstance(self.unit, Sample):
            return [self.unit.responses]
        return self.unit.sample_of.unique_consecutive(return_counts=True)[1].tolist()

    @property
    def places_of_pairs(self) -> Int[Tensor, " P"]:
        """The place of each pair's row."""
        counts = torch.tensor(self.responses_of_samples)
        places = torch.tensor(self.places).repeat_interleave(counts)
        pairs = self.unit.pairs[:, 0].cpu() if isinstance(self.unit, Pack) else [w for w, _ in self.unit.pairs]
        return places[pairs]
