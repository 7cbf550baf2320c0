"""Losses of whole rankings: each response against all that it is preferred to, at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def plackett_luce(scores: Float[Tensor, " R"], pairs: Int[Tensor, "P 2"]) -> Float[Tensor, " R"]:
    """Negative log-likelihood of rankings under the Plackett-Luce model, one value per response, unreduced.

        loss_i = log[exp(score_i) + sum over j that i is preferred to of exp(score_j)] - score_i

    Rafailov et al., 2023, equation 18 (https://arxiv.org/abs/2305.18290), whose products over ranks are sums here:
    of a prompt's responses in strict order, with all their pairs, these values sum to -log p(ranking). Two
    responses are Bradley-Terry. A tie makes no pair, so tied responses are not compared with each other.

    Args:
        scores: [R] score of each response, such as its reward, nats. Carries the gradient.
        pairs: [P, 2] rows of `scores` as (preferred, rejected), each pair once; several prompts' together.

    Returns:
        [R] loss in nats: -log of the chance to be chosen before all those. 0 for a response preferred to none.

    Example:
        >>> scores = torch.tensor([2.0, 1.0, 0.0])  # in the order of the ranking
        >>> plackett_luce(scores, torch.tensor([[0, 1], [0, 2], [1, 2]]))
        tensor([0.4076, 0.3133, 0.0000])
    """
    preferred, rejected = pairs.unbind(dim=-1)
    gap = scores[rejected] - scores[preferred]
    peak = torch.zeros_like(scores).scatter_reduce(0, preferred, gap.detach(), "amax")  # at least 0: i's own term
    others = torch.expm1(-peak).index_add(0, preferred, torch.exp(gap - peak[preferred]))
    return peak + torch.log1p(others)


def dpo_plackett_luce(
    policy_logps: Float[Tensor, " R"],
    reference_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " R"]:
    """Direct Preference Optimization on rankings, one value per response, unreduced.

        score = beta * (policy - reference)
        loss_i = log[exp(score_i) + sum over j that i is preferred to of exp(score_j)] - score_i

    Rafailov et al., 2023, appendix A.3, the last equation (https://arxiv.org/abs/2305.18290). See `plackett_luce`.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        reference_logps: [R] the same under the frozen reference model.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected), each pair once; several prompts' together.
        beta: per nat. Strength of the pull towards the reference.

    Returns:
        [R] loss in nats; the logarithm of how many compete wherever policy and reference agree.
    """
    return plackett_luce(beta * (policy_logps - reference_logps), pairs)
