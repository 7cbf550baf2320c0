"""What a trainer makes of some responses' scores: a loss, and what it logs."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Judgement:
    """The loss of some responses and what is logged of them.

    Attributes:
        loss: a sum over prompts, each with its weight; to be divided by the weights of the whole step.
        pair_scores: [P, 2] of (preferred, rejected), for metrics.
        metrics: [P] values by name.
    """

    loss: Float[Tensor, ""]
    pair_scores: Float[Tensor, "P 2"]
    metrics: dict[str, Tensor]


def reward_metrics(scores: Float[Tensor, "P 2"]) -> dict[str, Tensor]:
    """TRL's metrics of [P, 2] scores of (preferred, rejected)."""
    chosen, rejected = scores.unbind(dim=-1)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),  # a tie is not right
        "rewards/margins": chosen - rejected,
    }
