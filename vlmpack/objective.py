"""What DPO training minimises: one loss, or several with weights, over the log-probabilities of a batch's responses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack import losses
from vlmpack.config import DPOConfig
from vlmpack.preferences import Preferences, joined


@dataclass(frozen=True, eq=False)
class Scored:
    """What the losses read.

    Attributes:
        policy: [R] summed log-probability of each response, nats.
        reference: [R] the same under the reference; None if no loss needs it.
        preferences: among the R responses.
        mean_length: tokens of a preferred response, averaged over the pairs of the whole step, weighted.
    """

    policy: Float[Tensor, " R"]
    reference: Float[Tensor, " R"] | None
    preferences: Preferences
    mean_length: float | Tensor


def joined_scores(parts: Sequence[Scored]) -> Scored:
    """Several parts of a batch as one."""
    known = all(part.reference is not None for part in parts)
    return Scored(
        policy=torch.cat([part.policy for part in parts]),
        reference=torch.cat([part.reference for part in parts]) if known else None,
        preferences=joined([part.preferences for part in parts]),
        mean_length=parts[0].mean_length,
    )


Loss = Callable[[Scored, DPOConfig], Tensor]


def _contrast(loss: Callable, *knobs: str) -> Loss:
    """A loss of policy, reference and pairs that takes beta and further settings of the same names."""
    return lambda s, c: loss(
        s.policy, s.reference, s.preferences.pairs, **{knob: getattr(c, knob) for knob in ("beta", *knobs)}
    )


def _averaged(loss: Callable) -> Loss:
    """Likewise, with each response's own length."""
    return lambda s, c: loss(s.policy, s.reference, s.preferences.pairs, s.preferences.lengths, beta=c.beta)


def _sft(s: Scored, c: DPOConfig) -> Tensor:
    return losses.sft(s.policy, s.preferences.pairs, mean_length=s.mean_length)


def _discopop(s: Scored, c: DPOConfig) -> Tensor:
    return losses.discopop(s.policy, s.reference, s.preferences.pairs, beta=c.beta, tau=c.discopop_tau)


def _cpo(s: Scored, c: DPOConfig) -> Tensor:
    preference = losses.cpo(s.policy, s.preferences.pairs, beta=c.beta, label_smoothing=c.label_smoothing)
    return preference + c.cpo_alpha * _sft(s, c)


def _simpo(s: Scored, c: DPOConfig) -> Tensor:
    lengths, smoothing = s.preferences.lengths, c.label_smoothing
    return losses.simpo(
        s.policy, s.preferences.pairs, lengths, beta=c.beta, gamma=c.simpo_gamma, label_smoothing=smoothing
    )


def _orpo(s: Scored, c: DPOConfig) -> Tensor:
    return _sft(s, c) + losses.orpo(s.policy, s.preferences.pairs, s.preferences.lengths, beta=c.beta)


# By TRL's names. One value a pair; "plackett_luce" has one a response.
LOSSES: dict[str, Loss] = {
    "sigmoid": _contrast(losses.dpo, "label_smoothing"),
    "sigmoid_norm": _averaged(losses.sigmoid_norm),
    "robust": _contrast(losses.robust, "label_smoothing"),
    "hinge": _contrast(losses.hinge),
    "ipo": _averaged(losses.ipo),
    "exo_pair": _contrast(losses.exo_pair, "label_smoothing"),
    "nca_pair": _contrast(losses.nca_pair),
    "bco_pair": _contrast(losses.bco_pair),
    "sppo_hard": _contrast(losses.sppo_hard),
    "aot": _contrast(losses.aot, "label_smoothing"),
    "aot_unpaired": _contrast(losses.aot_unpaired, "label_smoothing"),
    "apo_zero": _contrast(losses.apo_zero),
    "apo_down": _contrast(losses.apo_down),
    "discopop": _discopop,
    "plackett_luce": _contrast(losses.dpo_plackett_luce),
    "sft": _sft,
    "cpo": _cpo,
    "simpo": _simpo,
    "orpo": _orpo,
}


def objective(scored: Scored, config: DPOConfig) -> Float[Tensor, ""]:
    """The sum over prompts of what the configured losses say, each prompt with its weight.

    Divide by the weights of the whole optimizer step; see `preferences.weight`.
    """
    total = scored.policy.new_zeros(())
    for name, weight in config.weighted_losses:
        values = LOSSES[name](scored, config)
        listwise = name == "plackett_luce"
        weigh = scored.preferences.list_weights if listwise else scored.preferences.pair_weights
        total = total + weight * (values * weigh(config.prompt_weight)).sum()
    return total


def rewards(scored: Scored, config: DPOConfig) -> Float[Tensor, " R"]:
    """The implicit reward of each response, as TRL reports it: beta times what the losses compare."""
    policy = scored.policy.detach()
    if scored.reference is not None:
        return config.beta * (policy - scored.reference)
    by_token = {"simpo", "orpo"} & {name for name, _ in config.weighted_losses}
    return config.beta * (policy / scored.preferences.lengths if by_token else policy)
