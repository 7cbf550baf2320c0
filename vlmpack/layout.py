"""Where every token of a forest stands: its position on its path, and the token before it."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from vlmpack.forest import Forest


def position(forest: Forest) -> Int[Tensor, " T"]:
    """Each token's distance from its root along its own path.

    Siblings restart where their parent ended: that is where each would stand if it were alone.

    Example:
        >>> position(Forest((-1, 0, 0), (3, 2, 2))).tolist()
        [0, 1, 2, 3, 4, 3, 4]
    """
    shift = torch.tensor(forest.depths) - torch.tensor(forest.starts)
    return torch.arange(forest.tokens) + shift.repeat_interleave(torch.tensor(forest.lengths))


def previous(forest: Forest) -> Int[Tensor, " T"]:
    """For each token, the index of the token before it on its path; -1 for a root's first token.

    The hidden state of `previous[t]` predicts token t. Inside a segment that is t - 1; a response's
    first token is predicted by the last token of its prompt, wherever that stands.

    Example:
        >>> previous(Forest((-1, 0, 0), (3, 2, 2))).tolist()
        [-1, 0, 1, 2, 3, 2, 5]
    """
    before = torch.arange(forest.tokens) - 1
    for start, parent in zip(forest.starts, forest.parents, strict=True):
        before[start] = -1 if parent < 0 else forest.starts[parent] + forest.lengths[parent] - 1
    return before


def path(forest: Forest, segment: int) -> Int[Tensor, " L"]:
    """Indices of the tokens from a root to the end of a segment.

    Example:
        >>> path(Forest((-1, 0, 0), (3, 2, 2)), 2).tolist()
        [0, 1, 2, 5, 6]
    """
    segments = (*forest.ancestors(segment), segment)
    return torch.cat([torch.arange(forest.lengths[s]) + forest.starts[s] for s in segments])


def targets(
    forest: Forest, leaves: Sequence[int], prompts: Sequence[int]
) -> tuple[Int[Tensor, " N"], Int[Tensor, "M 2"]]:
    """The tokens that are predicted, each once, and which responses each counts for.

    A response is a path with a prompt length, so it may begin in a segment that siblings share. Its
    log-probability is the sum over its path's tokens after the prompt.

    Args:
        forest: the pack's segments.
        leaves: R segments. The one in which each response ends.
        prompts: R ints. Tokens of each response's path that belong to its prompt.

    Returns:
        [N] indices of tokens, ascending; [M, 2] terms of the sums: a row of those tokens, and a response.

    Example:
        >>> [t.tolist() for t in targets(Forest((-1, 0, 0), (3, 2, 1)), [1, 2], [3, 3])]
        [[3, 4, 5], [[0, 0], [1, 0], [2, 1]]]
    """
    spans: list[Tensor] = []
    rows: list[Tensor] = []
    for row, (leaf, prompt) in enumerate(zip(leaves, prompts, strict=True)):
        for segment in (*forest.ancestors(leaf), leaf):
            skipped = max(0, prompt - forest.depths[segment])  # the segment's own tokens inside the prompt
            start, stop = forest.starts[segment] + skipped, forest.starts[segment] + forest.lengths[segment]
            if start < stop:
                spans.append(torch.arange(start, stop))
                rows.append(torch.full((stop - start,), row))
    tokens = torch.cat(spans)
    predicted = torch.zeros(forest.tokens, dtype=torch.bool).index_fill(0, tokens, True)
    place = predicted.cumsum(0) - 1  # of each predicted token among them
    return predicted.nonzero()[:, 0], torch.stack([place[tokens], torch.cat(rows)], dim=1)
