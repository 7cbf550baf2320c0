"""What a rank computes to keep the others company: a sample that adds nothing to the loss."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from vlmpack.lengths import LengthTable
from vlmpack.sample import Sample

LOOKED_AT = 1000  # rows of a stream in which an image must turn up, if any are to come
NOBODY = -1  # the place of a row that is none of the data set's


def filler(sample: Sample) -> Sample:
    """A sample that adds nothing to a loss: its prompt and one token to answer it, and no pair.

    Engines that shard a model gather its weights as the layers run, so all ranks must run the same layers equally
    often: a rank with fewer packs runs one of these, and a pack without an image takes one with an image along.
    """
    return replace(sample, response_ids=(sample.response_ids[0][:1],), pairs=(), margins=())


def smallest(lengths: LengthTable) -> int:
    """The row that is cheapest to compute; one with an image if there are any."""
    has_image = lengths.first_image >= 0
    rows = np.flatnonzero(has_image) if has_image.any() else np.arange(len(lengths))
    return int(rows[lengths.prompt[rows].argmin()])


def first_with_image(rows: Iterable[Any], read: Callable[[Any], Sample]) -> Sample | None:
    """The first sample of a stream that has an image, or its first sample; rows that cannot be read are passed over."""
    first = None
    for row in islice(rows, LOOKED_AT):
        try:
            sample = read(row)
        except (ValueError, OSError):
            continue
        if sample.images:
            return sample
        first = first or sample
    return first
