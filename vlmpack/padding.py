"""Trees filled up to equal lengths, so that a pack costs what the rows of a padded batch cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from vlmpack.forest import Forest
from vlmpack.prefix import Merged


def padded(merged: Merged) -> Merged:
    """Fill every tree up to the tokens of the longest one.

    What fills a tree up lies on no response's path, so nobody predicts it, and no token of a response sees it. It
    continues the tree's last response: a prompt and its one response become a row as it stands in a padded batch. No
    path grows past the longest there was, which rotary embeddings may be scaled by; what a tree still lacks stands
    beside it. The token is the response's last one, which is none of an image.

    Args:
        merged: not filled up yet.

    Returns:
        The same samples; `padding` says how many tokens were added.
    """
    forest = merged.forest
    heads = [segment for segment, parent in enumerate(forest.parents) if parent < 0]
    sizes = [forest.stops[head] - forest.starts[head] for head in heads]
    paths = [depth + length for depth, length in zip(forest.depths, forest.lengths, strict=True)]
    parents, spans, numbers, kinds = [], [], [], []  # `numbers`: where each segment stands in the result
    for head, stop, size in zip(heads, [*heads[1:], len(paths)], sizes, strict=True):
        first = len(spans)
        parents += [-1 if parent < 0 else parent - head + first for parent in forest.parents[head:stop]]
        numbers += range(first, len(parents))
        pieces = _pieces(max(sizes) - size, max(paths) - paths[stop - 1], max(paths))
        parents += [len(parents) - 1 if continues else -1 for _, continues in pieces]
        fillers = [np.full(length, merged.spans[stop - 1][-1]) for length, _ in pieces]
        spans += [*merged.spans[head:stop], *fillers]
        kinds += [*merged.kinds[head:stop], *(np.zeros(len(each), dtype=np.int8) for each in fillers)]
    return replace(
        merged,
        forest=Forest(tuple(parents), tuple(map(len, spans))),
        prompts=tuple(numbers[segment] for segment in merged.prompts),
        leaves=tuple(tuple(numbers[leaf] for leaf in each) for each in merged.leaves),
        spans=tuple(spans),
        kinds=tuple(kinds),
        padding=max(sizes) * len(sizes) - sum(sizes),
    )


def _pieces(missing: int, room: int, longest: int) -> list[tuple[int, bool]]:
    """What fills a tree up, as lengths, and whether each continues the tree.

    Args:
        missing: tokens that the tree lacks.
        room: how many of them may continue its last path.
        longest: how many may stand on a path of their own.
    """
    below = min(missing, room)
    beside, last = divmod(missing - below, longest)
    pieces = [(below, True), *[(longest, False)] * beside, (last, False)]
    return [(length, continues) for length, continues in pieces if length]


def rows_in_order(forest: Forest, needs: Sequence[Iterable[int]], max_tokens: int) -> list[list[int]]:
    """Cut samples into parts in the order given: a part ends where the next sample would not fit.

    Args:
        forest: of all samples.
        needs: for each sample, all segments on its paths.
        max_tokens: of a part, filled up; no sample alone takes more.

    Returns:
        The parts as lists of consecutive samples.
    """
    parts: list[list[int]] = []
    held: set[int] = set()  # segments of the part that is still open
    for sample, need in enumerate(needs):
        if parts and padded_tokens(forest, held.union(need)) <= max_tokens:
            parts[-1].append(sample)
        else:
            parts.append([sample])
            held = set()
        held.update(need)
    return parts


def padded_tokens(forest: Forest, segments: Iterable[int]) -> int:
    """What some segments take when their trees are filled up: trees times the longest."""
    sizes = Counter()
    for segment in segments:
        sizes[(*forest.ancestors(segment), segment)[0]] += forest.lengths[segment]
    return len(sizes) * max(sizes.values())
