"""From the rows of one batch to its packs, in DataLoader workers unless batches accumulate to one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlmpack.pack import Pack
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
        accumulated: the batch is one of several in an optimizer step, which are packed together later.
    """

    processor: Callable[[Any], Sample] | None
    max_tokens: int
    max_length: int | None = None
    packing: bool = True
    pairing: str = "all"
    prompt_weight: str = "pairs"
    accumulated: bool = False

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Process and pack a batch.

        Returns:
            `units`: packs or samples, or `samples` if it is accumulated; `weights`: [2] what their preferences weigh
            together, and the tokens of the preferred responses with the same weights.
        """
        samples = [compared(self._sample(row).truncated(self.max_length), self.pairing) for row in rows]
        weights = [(weight(each, self.prompt_weight), preferred_tokens(each, self.prompt_weight)) for each in samples]
        content = {"samples": samples} if self.accumulated else {"units": self.units(samples)}
        return {"weights": torch.tensor(weights).sum(0), **content}

    def units(self, samples: Sequence[Sample]) -> Sequence[Pack | Sample]:
        """What is computed one after the other."""
        return pack(samples, self.max_tokens) if self.packing else samples

    def _sample(self, row: Any) -> Sample:
        return row if isinstance(row, Sample) else self.processor(row)
