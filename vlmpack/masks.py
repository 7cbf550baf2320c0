"""Who may attend to whom: said once, rendered for each attention backend.

Masks are functions of indices that torch may compile, so nothing checks types inside them.
"""

from collections.abc import Callable
from typing import no_type_check

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vlmpack.forest import Forest


def reach(forest: Forest) -> Int[Tensor, " T"]:
    """For each token, one past the last token that may see it: the end of its segment's subtree.

    Example:
        >>> reach(Forest((-1, 0, 0), (3, 2, 2))).tolist()
        [7, 7, 7, 5, 5, 7, 7]
    """
    return torch.tensor(forest.stops).repeat_interleave(torch.tensor(forest.lengths))


def path_causal(reach: Int[Tensor, " T"]) -> Callable:
    """Mask: a token sees itself and the earlier tokens of its own root-to-here path.

    In pre-order, k lies on q's path exactly when q falls inside k's subtree, so the rule is two
    comparisons and one gather. Siblings, other trees and other depths need no case of their own.

    Args:
        reach: [T] from `reach(forest)`; set `reach[i] = i + 1` for padding.

    Returns:
        A `mask_mod(b, h, q, k)` for `torch.nn.attention.flex_attention.create_block_mask`.
    """

    @no_type_check
    def path_causal_mask(b, h, q, k):
        return (k <= q) & (q < reach[k])

    return path_causal_mask


def dense(reach: Int[Tensor, " T"]) -> Bool[Tensor, "T T"]:
    """`path_causal` as a table, queries in rows. O(T^2) memory: for tests and pictures."""
    token = torch.arange(len(reach), device=reach.device)
    return path_causal(reach)(0, 0, token[:, None], token[None, :])


def within(window: int, position: Int[Tensor, " T"]) -> Callable:
    """Mask: a token sees those fewer than `window` tokens back on the path, and whatever comes after.

    Positions, not indices: a response's neighbour in the pack may be a sibling a whole prompt away.
    """

    @no_type_check
    def within_mask(b, h, q, k):
        return position[q] - position[k] < window

    return within_mask


def both_ways(blocks: Int[Tensor, " T"]) -> Callable:
    """Mask: a token sees all tokens of its own stretch, those after it too, as in an image or a prefix-LM's prompt.

    Args:
        blocks: [T] the number of each token's stretch; -1 for tokens that are in none.
    """

    @no_type_check
    def both_ways_mask(b, h, q, k):
        return (blocks[q] == blocks[k]) & (blocks[q] >= 0)

    return both_ways_mask


def seen(
    reach: Int[Tensor, " T"],
    position: Int[Tensor, " T"],
    window: int | None = None,
    blocks: Int[Tensor, " T"] | None = None,
    window_cuts_blocks: bool = False,
) -> Callable:
    """Mask of one layer: `path_causal`, cut by the layer's sliding window, widened by stretches seen both ways.

    Args:
        reach: [T] from `reach(forest)`.
        position: [T] distance along the path.
        window: tokens back that are seen; None for all.
        blocks: [T] as for `both_ways`; None if there are none.
        window_cuts_blocks: whether the window holds inside a stretch too.
    """
    causal = path_causal(reach)
    near = within(window, position) if window is not None else None
    beside = both_ways(blocks) if blocks is not None else None

    @no_type_check
    def seen_mask(b, h, q, k):
        mask = causal(b, h, q, k)
        if beside is not None and window_cuts_blocks:
            mask = mask | beside(b, h, q, k)
        if near is not None:
            mask = mask & near(b, h, q, k)
        if beside is not None and not window_cuts_blocks:
            mask = mask | beside(b, h, q, k)
        return mask

    return seen_mask
