"""From the rows of one optimizer step to its packs, in DataLoader workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vlmpack.pack import Pack
from vlmpack.packing import PackingError, pack
from vlmpack.preferences import compared, preferred_tokens, weight
from vlmpack.sample import Sample, SampleError
from vlmpack.training.batches import Numbered
from vlmpack.training.fillers import LOOKED_AT, NOBODY


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
        sharing: what stands once; see `packing.pack`.
        padding: fill trees up to equal lengths; likewise.
        blind: take the images out of every prompt.
        filler: what packs without an image take along, if it has one; see `fillers.filler`. None: one rank only.
    """

    processor: Callable[[Any], Sample] | None
    max_tokens: int
    max_length: int | None = None
    packing: bool = True
    pairing: str = "all"
    prompt_weight: str = "pairs"
    sharing: str = "all"
    padding: bool = False
    blind: bool = False
    filler: Sample | None = None

    def __call__(self, rows: Sequence[Numbered]) -> dict[str, Any]:
        """Process and pack the rows of a batch.

        Rows that cannot be read after all, or that have nothing to compare, are left out and named.

        Returns:
            `units`: packs or samples; `places`: for each unit, the places of its samples; `weights`: [5] what their
            preferences weigh together, the tokens of the preferred responses with the same weights, how many rows
            cannot be read, how many cannot be used, and how many there are; `left_out`: why, by the row's place.
        """
        samples, places, bad, useless = [], [], {}, {}
        for each in rows:
            try:
                sample = each.row if isinstance(each.row, Sample) else self.processor(each.row)
            except Exception as error:  # one row's surprise must not take the others with it
                known = isinstance(error, ValueError | OSError)
                bad[each.place] = str(error) if known else f"{type(error).__name__}: {error}"
                continue
            try:
                samples.append(self._usable(sample, each.place))
                places.append(each.place)
            except SampleError as error:
                useless[each.place] = str(error)
        weights = [(weight(each, self.prompt_weight), preferred_tokens(each, self.prompt_weight)) for each in samples]
        totals = torch.tensor([(0.0, 0.0), *weights]).sum(0)
        units = self.units(samples)
        rows_of = [_rows(unit) if self.packing else [row] for row, unit in enumerate(units)]
        return {
            "units": units,
            "places": [[places[row] if row < len(places) else NOBODY for row in rows] for rows in rows_of],
            "weights": torch.cat([totals, totals.new_tensor([len(bad), len(useless), len(rows)])]),
            "left_out": bad | useless,
        }

    def units(self, samples: Sequence[Sample]) -> Sequence[Pack | Sample]:
        """What is computed one after the other."""
        if not self.packing or not samples:
            return samples
        packs = pack(samples, self.max_tokens, sharing=self.sharing, padding=self.padding)
        return packs if self.filler is None else [self._filled(each, samples) for each in packs]

    def _filled(self, each: Pack, samples: Sequence[Sample]) -> Pack:
        """A pack with an image, if need be that of the filler, which then follows all others."""
        if each.placements and not self.filler.images:
            raise PackingError(
                f"an image turned up after the stream's first {LOOKED_AT} rows had none, and ranks whose packs have no "
                f"image have none to take along; begin the stream with a row that has an image"
            )
        if each.placements or not self.filler.images:
            return each
        rows = [*_rows(each), len(samples)]
        company = [*(samples[row] for row in rows[:-1]), self.filler]
        (filled,) = pack(company, each.tokens + self.filler.lengths.packed, sharing=self.sharing)
        return replace(filled, sample_of=torch.tensor(rows)[filled.sample_of])

    def _usable(self, sample: Sample, place: int) -> Sample:
        """A sample cut to length, with the pairs that are compared."""
        sample = compared(sample.truncated(self.max_length), self.pairing)
        sample = sample.without_images() if self.blind else sample  # after it was cut: the same responses are judged
        if not sample.pairs:
            raise SampleError("all its responses are tied")
        most = len(sample.prompt_ids) + sum(map(len, sample.response_ids))
        if self.packing and most > self.max_tokens and (tokens := sample.lengths.packed) > self.max_tokens:
            raise PackingError(
                f"row {place} has {tokens} tokens (its prompt once and all its responses), more than "
                f"max_tokens={self.max_tokens}; raise max_tokens to {tokens}, or cut responses with max_length"
            )
        return sample


def _rows(unit: Pack) -> list[int]:
    """The samples of a pack, in the order in which their responses stand."""
    return list(dict.fromkeys(unit.sample_of.tolist()))
