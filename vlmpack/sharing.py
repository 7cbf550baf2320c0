"""What stands once in a pack: all that begins alike, each sample's prompt, or nothing.

The packed computation and those it is compared with differ only in the forest, so they run through the same model,
the same attention and the same losses, and what they cost can be compared.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch

from vlmpack.forest import Forest
from vlmpack.prefix import Merged, merge
from vlmpack.sample import Sample

SHARINGS = ("all", "prompt", "none", "pair")


def in_trees(sample: Sample, sharing: str) -> Sample:
    """A sample with its responses as often as they are computed.

    With "pair", each pair has two of its own: a response in three pairs stands three times. A loss over lists of
    responses cannot be computed of such copies, for which copy would stand in the list? A sample without pairs keeps
    its responses.
    """
    if sharing != "pair" or not sample.pairs:
        return sample
    copies = tuple(sample.response_ids[response] for pair in sample.pairs for response in pair)
    pairs = tuple((2 * place, 2 * place + 1) for place in range(len(sample.pairs)))
    return replace(sample, response_ids=copies, pairs=pairs)


def arrange(samples: Sequence[Sample], sharing: str) -> Merged:
    """Samples as one forest.

    Args:
        samples: one or more, as from `in_trees`.
        sharing: "all": what begins alike stands once, at any depth and across samples, see `prefix.merge`; "prompt":
            a tree a sample, its prompt and images once and all its responses after it; "none" and "pair": a tree a
            response, its prompt repeated and its images run through the tower again.
    """
    if sharing == "all":
        return merge(samples)
    return _side_by_side([_alone(sample, prompt_once=sharing == "prompt") for sample in samples])


def _alone(sample: Sample, prompt_once: bool) -> Merged:
    """One sample as a tree of all its responses, or as a tree of each."""
    first = merge([replace(sample, response_ids=sample.response_ids[:1], pairs=(), margins=())])
    responses = [response.to("cpu", torch.int64).numpy() for response in sample.response_ids]
    spans, kinds, parents, leaves = [], [], [], []
    for tree in [responses] if prompt_once else [[response] for response in responses]:
        root = len(spans)
        spans += [first.spans[0], *tree]
        kinds += [first.kinds[0], *(np.zeros(len(response), dtype=np.int8) for response in tree)]
        parents += [-1, *[root] * len(tree)]
        leaves += range(root + 1, len(spans))
    images, placements = first.images, first.placements
    if not prompt_once:
        images = tuple(images[number] for number in placements) * len(responses)
        placements = tuple(range(len(images)))
    forest = Forest(tuple(parents), tuple(map(len, spans)))
    return Merged(forest, (0,), (tuple(leaves),), images, placements, tuple(spans), tuple(kinds))


def _side_by_side(parts: Sequence[Merged]) -> Merged:
    """Forests one after the other."""
    segments = list(accumulate((len(part.spans) for part in parts), initial=0))
    images = list(accumulate((len(part.images) for part in parts), initial=0))
    after = list(zip(parts, segments, images, strict=False))  # each with what stands before it
    parents = [-1 if parent < 0 else parent + first for part, first, _ in after for parent in part.forest.parents]
    return Merged(
        forest=Forest(tuple(parents), tuple(length for part in parts for length in part.forest.lengths)),
        prompts=tuple(segment + first for part, first, _ in after for segment in part.prompts),
        leaves=tuple(tuple(leaf + first for leaf in each) for part, first, _ in after for each in part.leaves),
        images=tuple(image for part in parts for image in part.images),
        placements=tuple(number + before for part, _, before in after for number in part.placements),
        spans=tuple(span for part in parts for span in part.spans),
        kinds=tuple(kind for part in parts for kind in part.kinds),
    )
