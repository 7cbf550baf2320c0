"""Losses that need all of a batch's pairs at once, computed pack by pack all the same."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack.training.judgement import Judgement
from vlmpack.training.objective import Scored, joined_scores


def linearised(
    judge: Callable[[Scored], Judgement], scored: Scored, responses: Sequence[int], first: int = 0, ranks: int = 1
) -> list[Callable[[Any, Float[Tensor, " R"]], Judgement]]:
    """Judge a whole batch, and give each of its parts a loss with the same gradient.

    By the chain rule the gradient of the whole loss is the sum over parts of (its gradient with respect to their
    scores, held fixed) times (those scores). So a batch is computed twice, first without gradient for all scores,
    then part by part; no more than one part's activations are held, and the result is that of one large pack.

    Args:
        judge: the loss of all responses together.
        scored: all responses of the batch, without gradient; those of all ranks.
        responses: how many of them each part of this rank holds.
        first: the first of them that is this rank's.
        ranks: processes; each knows the whole loss, and gives its share of it.

    Returns:
        For each part, a function of it and its scores, recomputed with gradient. The losses add up to the whole
        loss; the metrics come with the first.
    """
    with torch.enable_grad():
        scored.policy.requires_grad_()
        whole = judge(scored)
        (gradient,) = torch.autograd.grad(whole.loss, scored.policy)
    held = gradient[first : first + sum(responses)].split(list(responses))
    parts = len(held) * ranks
    return [
        partial(_judge_part, whole, gradient=each, parts=parts, first=place == 0) for place, each in enumerate(held)
    ]


def of_all_ranks(own: Scored, gather: Callable[[list], list], rank: int) -> tuple[Scored, int]:
    """The responses of all ranks as one, and which of them is this rank's first.

    Args:
        own: of this rank.
        gather: a list of every rank's objects, in the ranks' order.
        rank: this one.
    """
    device = own.policy.device
    parts = [part.to(device) for part in gather([own.to("cpu")])]
    return joined_scores(parts), sum(len(part.policy) for part in parts[:rank])


def _judge_part(
    whole: Judgement, task: Any, scores: Float[Tensor, " R"], *, gradient: Tensor, parts: int, first: bool
) -> Judgement:
    """A part's share of the whole loss, with the gradient that the whole loss has for its scores."""
    change = (scores * gradient).sum()
    loss = whole.loss.detach() / parts + change - change.detach()
    return Judgement(loss, whole.pair_scores, whole.metrics if first else {})
