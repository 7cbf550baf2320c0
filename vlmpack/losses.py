"""Preference losses over response scores. Formulas only: no model, no packing."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def dpo(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " P"]:
    """Direct Preference Optimization, one value per pair, unreduced.

        margin = beta * [(policy_w - reference_w) - (policy_l - reference_l)]
        loss = -(1 - label_smoothing) * log sigmoid(margin) - label_smoothing * log sigmoid(-margin)

    Rafailov et al., 2023, equation 7 (https://arxiv.org/abs/2305.18290), before the mean; smoothing as in
    conservative DPO, Mitchell, 2023 (https://ericmitchell.ai/cdpo.pdf), equation 3. A prompt with n responses
    may give up to n(n-1)/2 pairs from one shared forward pass.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. Strength of the pull towards the reference.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats; log 2 wherever policy and reference agree.
    """
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    margin = beta * (preferred - rejected)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


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
