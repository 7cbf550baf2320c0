"""Losses of one number a pair: how much more the policy than the reference favours the preferred response.

In the formulas, `delta = (policy_w - reference_w) - (policy_l - reference_l)`, nats.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.losses.smoothing import logistic


class LossError(ValueError):
    """A loss is asked for with a setting for which its formula has no value."""


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
    return logistic(beta * (preferred - rejected), label_smoothing=label_smoothing)


def robust(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float,
) -> Float[Tensor, " P"]:
    """Robust DPO, one value per pair, unreduced: in the mean, the DPO loss of the labels before some were flipped.

        margin = beta * delta
        loss = [-(1 - label_smoothing) * log sigmoid(margin) + label_smoothing * log sigmoid(-margin)]
               / (1 - 2 * label_smoothing)

    Ray Chowdhury et al., 2024, the rDPO loss (https://arxiv.org/abs/2403.00409). Smoothing in `dpo` hedges between
    a label and its flip; this subtracts the flip's share, so a value may be negative.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. Strength of the pull towards the reference.
        label_smoothing: the probability, at least 0 and below 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats; log 2 wherever policy and reference agree.

    Raises:
        LossError: `label_smoothing` is outside [0, 0.5).
    """
    if not 0 <= label_smoothing < 0.5:
        raise LossError(
            f"label_smoothing={label_smoothing}: the labels are to be right more often than wrong.\n"
            f"Give robust the probability of a flipped label, at least 0 and below 0.5."
        )
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    margin = beta * (preferred - rejected)
    clean, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Hinge loss of DPO's margin, one value per pair, unreduced.

        loss = max(0, 1 - beta * delta)

    Liu et al., 2023, the hinge-norm loss (https://arxiv.org/abs/2309.06657), there with gamma for beta.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. A pair is done with once `delta` reaches 1 / beta.

    Returns:
        [P] loss, no unit; 1 wherever policy and reference agree.
    """
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    return F.relu(1 - beta * (preferred - rejected))


def ipo(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    lengths: Int[Tensor, " R"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Identity Preference Optimization, one value per pair, unreduced.

        ratio = (policy - reference) / length
        loss = (ratio_w - ratio_l - 1 / (2 * beta))^2

    Azar et al., 2023, equation 17 (https://arxiv.org/abs/2310.12036), with beta for tau. As in TRL, each response's
    log-ratio is averaged over that response's own tokens, which the paper does not write: summed, the loss would
    grow with the square of the length.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        lengths: [R] tokens that each log-probability sums over.
        beta: tokens per nat. The difference that is aimed at is 1 / (2 * beta) nats a token.

    Returns:
        [P] loss in squared nats a token.
    """
    preferred, rejected = ((policy_logps - reference_logps) / lengths)[pairs].unbind(dim=-1)
    return (preferred - rejected - 1 / (2 * beta)).square()


def sigmoid_norm(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    lengths: Int[Tensor, " R"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """Length-normalized DPO, one value per pair, unreduced.

        ratio = (policy - reference) / length
        loss = -log sigmoid(beta * (ratio_w - ratio_l))

    Lambert et al., 2024, section 4.3 (https://arxiv.org/abs/2411.15124). Each response's log-ratio is averaged over
    that response's own tokens, so beta is larger than DPO's by about a response's length.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        lengths: [R] tokens that each log-probability sums over.
        beta: tokens per nat. Strength of the pull towards the reference.

    Returns:
        [P] loss in nats; log 2 wherever policy and reference agree.
    """
    preferred, rejected = ((policy_logps - reference_logps) / lengths)[pairs].unbind(dim=-1)
    return -F.logsigmoid(beta * (preferred - rejected))


def exo_pair(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float,
) -> Float[Tensor, " P"]:
    """Efficient Exact Optimization on pairs, one value per pair, unreduced: KL(policy's choice || labelled choice).

        q = sigmoid(beta * delta)
        loss = q * log[q / (1 - label_smoothing)] + (1 - q) * log[(1 - q) / label_smoothing]

    Ji et al., 2024, equation 16 (https://arxiv.org/abs/2402.00856). The reverse of DPO's divergence: it is infinite
    where the label leaves no doubt, so there must be some.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. Strength of the pull towards the reference.
        label_smoothing: the probability, above 0 and below 1, that a pair's label is flipped; 1e-3 in the paper.

    Returns:
        [P] loss in nats; 0 where the policy's choice is the labelled one, smoothing included.

    Raises:
        LossError: `label_smoothing` is 0, 1 or no probability.
    """
    if not 0 < label_smoothing < 1:
        raise LossError(
            f"label_smoothing={label_smoothing}: exo_pair compares with a label that is sometimes wrong, and its\n"
            f"logarithm has no value at 0 or 1. Give it the probability of a flipped label, such as 1e-3."
        )
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    margin = beta * (preferred - rejected)
    stays = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-label_smoothing))
    flips = torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(label_smoothing))
    return stays + flips


def discopop(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    tau: float = 0.05,
) -> Float[Tensor, " P"]:
    """Discovered Preference Optimization, one value per pair, unreduced: a blend of a logistic and an exponential.

        margin = beta * delta
        share = sigmoid(margin / tau)
        loss = (1 - share) * -log sigmoid(margin) + share * exp(-margin)

    Lu et al., 2024, equation 5 (https://arxiv.org/abs/2406.08414), the log-ratio modulated loss.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. Strength of the pull towards the reference.
        tau: above 0 and below 1, no unit. The margin over which the one loss gives way to the other.

    Returns:
        [P] loss, no unit.
    """
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    margin = beta * (preferred - rejected)
    logistic_part = torch.sigmoid(-margin / tau) * -F.logsigmoid(margin)
    exponential_part = torch.exp(F.logsigmoid(margin / tau) - margin)  # one exponential: 0 * infinity has no value
    return logistic_part + exponential_part
