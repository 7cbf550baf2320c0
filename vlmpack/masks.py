"""Who may attend to whom: said once, rendered for each attention backend."""

from collections.abc import Callable

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

    def path_causal_mask(b, h, q, k):
        return (k <= q) & (q < reach[k])

    return path_causal_mask


def dense(reach: Int[Tensor, " T"]) -> Bool[Tensor, "T T"]:
    """`path_causal` as a table, queries in rows. O(T^2) memory: for tests and pictures."""
    token = torch.arange(len(reach), device=reach.device)
    return path_causal(reach)(0, 0, token[:, None], token[None, :])


def within(window: int, query_position: Int[Tensor, " Q"], key_position: Int[Tensor, " K"]) -> Bool[Tensor, "Q K"]:
    """Which keys lie fewer than `window` tokens back on the path.

    Positions, not indices: a response's neighbour in the pack may be a sibling a whole prompt away.
    """
    return query_position[:, None] - key_position[None, :] < window
