"""Losses of a reward model on pairs."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def bradley_terry(
    rewards: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    margin: Float[Tensor, " P"] | float = 0.0,
) -> Float[Tensor, " P"]:
    """Reward-model loss under the Bradley-Terry model, one value per pair, unreduced.

        loss = -log sigmoid(reward_w - reward_l - margin)

    Ouyang et al., 2022, equation 1 (https://arxiv.org/abs/2203.02155), before the mean; the margin is that of
    Touvron et al., 2023, equation 2 (https://arxiv.org/abs/2307.09288).

    Args:
        rewards: [R] reward of each response. Carries the gradient.
        pairs: [P, 2] rows of `rewards` as (preferred, rejected).
        margin: [P] or one number, reward units. How far apart a pair shall be; 0 asks only for the order.

    Returns:
        [P] loss in nats.
    """
    preferred, rejected = rewards[pairs].unbind(dim=-1)
    return -F.logsigmoid(preferred - rejected - margin)


def centering(rewards: Float[Tensor, " R"], pairs: Int[Tensor, "P 2"]) -> Float[Tensor, " P"]:
    """How far a pair's rewards are from lying around zero, one value per pair, unreduced.

        loss = (reward_w + reward_l)^2

    Eisenstein et al., 2023, equation 2 (https://arxiv.org/abs/2312.09244), before the coefficient; 0.01 is usual.
    Differences of rewards leave open where zero is; this settles it.

    Args:
        rewards: [R] reward of each response. Carries the gradient.
        pairs: [P, 2] rows of `rewards` as (preferred, rejected).

    Returns:
        [P] loss in squared reward units; 0 where the two rewards are opposite.

    Example:
        >>> import torch
        >>> centering(torch.tensor([3.0, -1.0]), torch.tensor([[0, 1]]))
        tensor([4.])
    """
    preferred, rejected = rewards[pairs].unbind(dim=-1)
    return (preferred + rejected).square()
