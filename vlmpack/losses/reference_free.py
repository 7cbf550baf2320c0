"""Losses of the policy alone: no reference model is run.

CPO and ORPO also train on the preferred responses; the caller adds that with `sft`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.losses.smoothing import logistic


def sft(
    policy_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    mean_length: Float[Tensor, ""] | float,
) -> Float[Tensor, " P"]:
    """Negative log-likelihood of the preferred responses, one value per pair, unreduced.

        loss = -policy_w / mean_length

    Wang et al., 2024, section 3.2, the generation loss (https://arxiv.org/abs/2411.10442), averaged as in TRL: the
    mean over a batch's pairs is the mean over all tokens of their preferred responses. A long response counts more
    than a short one, as it does in supervised fine-tuning.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        mean_length: tokens of a preferred response, averaged over the pairs of the whole batch. Given, because
            the batch may be computed in several parts.

    Returns:
        [P] loss in nats a token.

    Example:
        >>> logps, pairs = torch.tensor([-6.0, -9.0, -2.0]), torch.tensor([[0, 1], [2, 1]])
        >>> sft(logps, pairs, mean_length=(3 + 1) / 2).mean()  # 8 nats over 4 tokens
        tensor(2.)
    """
    return -policy_logps[pairs[:, 0]] / mean_length


def cpo(
    policy_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " P"]:
    """The preference term of Contrastive Preference Optimization, one value per pair, unreduced.

        margin = beta * (policy_w - policy_l)
        loss = -(1 - label_smoothing) * log sigmoid(margin) - label_smoothing * log sigmoid(-margin)

    Xu et al., 2024, equation 3 (https://arxiv.org/abs/2401.08417): DPO with a uniform reference. The paper's loss
    adds the negative log-likelihood of the preferred response; add `sft`, which is how TRL averages it.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        beta: per nat. How soon a pair counts as told apart.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats; log 2 wherever both responses are equally likely.
    """
    preferred, rejected = policy_logps[pairs].unbind(dim=-1)
    return logistic(beta * (preferred - rejected), label_smoothing=label_smoothing)


def simpo(
    policy_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    lengths: Int[Tensor, " R"],
    *,
    beta: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " P"]:
    """Simple Preference Optimization, one value per pair, unreduced.

        margin = beta * (policy_w / length_w - policy_l / length_l) - gamma
        loss = -(1 - label_smoothing) * log sigmoid(margin) - label_smoothing * log sigmoid(-margin)

    Meng et al., 2024, equation 6 (https://arxiv.org/abs/2405.14734).

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        lengths: [R] tokens that each log-probability sums over.
        beta: tokens per nat. How soon a pair counts as told apart.
        gamma: no unit, on the scale of beta times nats a token. How far apart a pair shall be.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats.
    """
    preferred, rejected = (policy_logps / lengths)[pairs].unbind(dim=-1)
    return logistic(beta * (preferred - rejected) - gamma, label_smoothing=label_smoothing)


def orpo(
    policy_logps: Float[Tensor, " R"],
    pairs: Int[Tensor, "P 2"],
    lengths: Int[Tensor, " R"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, " P"]:
    """The odds-ratio term of Odds Ratio Preference Optimization, one value per pair, unreduced.

        log_odds = log[p / (1 - p)] with p = exp(policy / length)
        loss = -beta * log sigmoid(log_odds_w - log_odds_l)

    Hong et al., 2024, equations 4 and 7 (https://arxiv.org/abs/2403.07691), times their lambda. The paper's loss adds
    the negative log-likelihood of the preferred response: add `sft`. TRL's averages it over the prompt's tokens too.

    Args:
        policy_logps: [R] summed log-probability of each response, nats. Carries the gradient.
        pairs: [P, 2] rows of `policy_logps` as (preferred, rejected).
        lengths: [R] tokens that each log-probability sums over.
        beta: no unit. Weight of this term beside the negative log-likelihood.

    Returns:
        [P] loss in nats; beta * log 2 wherever both responses are equally likely by token.
    """
    preferred, rejected = _log_odds(policy_logps / lengths)[pairs].unbind(dim=-1)
    return -beta * F.logsigmoid(preferred - rejected)


def _log_odds(logps: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """log[p / (1 - p)] from log p. `expm1` keeps 1 - p where p rounds to 1; a log p of 0 counts as the next below."""
    logps = logps.clamp(max=-torch.finfo(logps.dtype).tiny)
    return logps - torch.log(-torch.expm1(logps))
