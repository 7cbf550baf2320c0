"""Losses that hold each response of a pair against the reference by itself, not only against the other response.

In the formulas, `ratio = policy - reference`, nats: above 0 where the policy favours a response more than the
reference does.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def bco_pair(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Binary classification of preferred and rejected responses, one value per pair, unreduced.

        loss = -log sigmoid(beta * ratio_w) - log sigmoid(-beta * ratio_l)

    Jung et al., 2024, the binary cross-entropy without the reward shift (https://arxiv.org/abs/2404.04656). The
    shift is a moving average over batches; a pair by itself has none.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. Strength of the pull towards the reference.

    Returns:
        [P] loss in nats; 2 log 2 wherever policy and reference agree.
    """
    preferred, rejected = (beta * (policy_logps - reference_logps))[pairs].unbind(dim=-1)
    return -F.logsigmoid(preferred) - F.logsigmoid(-rejected)


def nca_pair(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Noise Contrastive Alignment on pairs, one value per pair, unreduced.

        loss = -log sigmoid(beta * ratio_w) - 1/2 * [log sigmoid(-beta * ratio_w) + log sigmoid(-beta * ratio_l)]

    Chen et al., 2024, the NCA loss for preferences (https://arxiv.org/abs/2402.05369). The second term keeps the
    preferred response near the reference, so its likelihood neither falls nor runs away.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. Strength of the pull towards the reference.

    Returns:
        [P] loss in nats; 2 log 2 wherever policy and reference agree.
    """
    preferred, rejected = (beta * (policy_logps - reference_logps))[pairs].unbind(dim=-1)
    return -F.logsigmoid(preferred) - (F.logsigmoid(-preferred) + F.logsigmoid(-rejected)) / 2


def sppo_hard(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Self-Play Preference Optimization with certain labels, one value per pair, unreduced.

        loss = (ratio_w - 1/2 / beta)^2 + (ratio_l + 1/2 / beta)^2

    Wu et al., 2024, equation 4.7 (https://arxiv.org/abs/2405.00675), with 1 and 0 for the probabilities that the
    preferred and the rejected response win, and 1 / beta for eta.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. The log-ratios that are aimed at are 1 / (2 * beta) and its negative.

    Returns:
        [P] loss in squared nats.
    """
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    return (preferred - 0.5 / beta).square() + (rejected + 0.5 / beta).square()


def apo_zero(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Anchored Preference Optimization, for preferred responses better than the model's, one value per pair.

        loss = 1 - sigmoid(beta * ratio_w) + sigmoid(beta * ratio_l)

    D'Oosterlinck et al., 2024, equation 7 (https://arxiv.org/abs/2408.06266). Preferred up, rejected down.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. How soon a log-ratio counts as far from the reference.

    Returns:
        [P] loss, 0 to 2, no unit; 1 wherever policy and reference agree.
    """
    preferred, rejected = (beta * (policy_logps - reference_logps))[pairs].unbind(dim=-1)
    return torch.sigmoid(-preferred) + torch.sigmoid(rejected)


def apo_down(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Anchored Preference Optimization, for preferred responses worse than the model's, one value per pair.

        loss = sigmoid(beta * ratio_w) + 1 - sigmoid(beta * (ratio_w - ratio_l))

    D'Oosterlinck et al., 2024, equation 8 (https://arxiv.org/abs/2408.06266). Both down, the rejected one more.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. How soon a log-ratio counts as far from the reference.

    Returns:
        [P] loss, 0 to 2, no unit; 1 wherever policy and reference agree.
    """
    preferred, rejected = (beta * (policy_logps - reference_logps))[pairs].unbind(dim=-1)
    return torch.sigmoid(preferred) + torch.sigmoid(rejected - preferred)
