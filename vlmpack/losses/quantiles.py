"""Losses of the pairs as a whole: sorted first, then compared rank by rank. No value belongs to one pair.

A batch computed in several parts gives other values than the batch in one.
"""

from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.losses.smoothing import logistic


def aot(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " P"]:
    """Alignment via Optimal Transport, paired: one value per rank of all the pairs given together, unreduced.

        policy_gap, reference_gap = sort(policy_w - policy_l), sort(reference_w - reference_l)
        margin = beta * (policy_gap - reference_gap)
        loss = -(1 - label_smoothing) * log sigmoid(margin) - label_smoothing * log sigmoid(-margin)

    Melnyk et al., 2024, the paired AOT loss (https://arxiv.org/abs/2406.05882). The policy's gaps are to be larger
    than the reference's as distributions; a gap need not be larger for every pair.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected); their order makes no difference.
        beta: per nat. Strength of the pull towards the reference.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats, smallest gaps first; log 2 wherever policy and reference agree.
    """
    preferred, rejected = policy_logps[pairs].unbind(dim=-1)
    reference_preferred, reference_rejected = reference_logps[pairs].unbind(dim=-1)
    policy_gap = (preferred - rejected).sort().values
    reference_gap = (reference_preferred - reference_rejected).sort().values
    return logistic(beta * (policy_gap - reference_gap), label_smoothing=label_smoothing)


def aot_unpaired(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " P"]:
    """Alignment via Optimal Transport, unpaired: one value per rank of all the pairs given together, unreduced.

        margin = beta * [sort(policy_w - reference_w) - sort(policy_l - reference_l)]
        loss = -(1 - label_smoothing) * log sigmoid(margin) - label_smoothing * log sigmoid(-margin)

    Melnyk et al., 2024, the unpaired AOT loss (https://arxiv.org/abs/2406.05882). The preferred responses' log-ratios
    are to be larger than the rejected ones' as distributions; which was paired with which makes no difference.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected); their order makes no difference.
        beta: per nat. Strength of the pull towards the reference.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats, smallest log-ratios first; log 2 wherever policy and reference agree.
    """
    preferred, rejected = (policy_logps - reference_logps)[pairs].unbind(dim=-1)
    margin = beta * (preferred.sort().values - rejected.sort().values)
    return logistic(margin, label_smoothing=label_smoothing)
