"""From the rows of one batch to its packs. Runs in DataLoader workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlmpack.packing import pack
from vlmpack.preferences import compared, preferred_tokens, weight
from vlmpack.sample import Sample


@dataclass(frozen=True)
class Collator:
    """Turns rows into what one training step computes, unit by unit.

    Attributes:
        processor: a row to a `Sample`; None if the rows are samples already.
        max_tokens: tokens of a pack.
        max_length: tokens of prompt + response; response tails are cut.
        packing: units are packs; if not, single samples for the unpacked computation.
        pairing: which pairs are compared; see `preferences.selected`.
        prompt_weight: see `preferences.weight`.
    """

    processor: Callable[[Any], Sample] | None
    max_tokens: int
    max_length: int | None = None
    packing: bool = True
    pairing: str = "all"
    prompt_weight: str = "pairs"

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Process and pack a batch.

        Returns:
            `units`: packs or samples; `weights`: [2] what their preferences weigh together, and the tokens of the
            preferred responses with the same weights.
        """
        samples = [compared(self._sample(row).truncated(self.max_length), self.pairing) for row in rows]
        units = pack(samples, self.max_tokens) if self.packing else samples
        weights = [(weight(each, self.prompt_weight), preferred_tokens(each, self.prompt_weight)) for each in samples]
        return {"weights": torch.tensor(weights).sum(0), "units": units}

    def _sample(self, row: Any) -> Sample:
        return row if isinstance(row, Sample) else self.processor(row)
