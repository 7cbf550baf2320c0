"""What DPO training minimises: one loss, or several with weights, over the log-probabilities of a batch's responses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack import losses
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

    def to(self, device: torch.device | str) -> "Scored":
        """The same on another device."""
        mean = self.mean_length.to(device) if isinstance(self.mean_length, Tensor) else self.mean_length
        reference = None if self.reference is None else self.reference.to(device)
        return Scored(self.policy.to(device), reference, self.preferences.to(device), mean)


def joined_scores(parts: Sequence[Scored]) -> Scored:
    """Several parts of a batch as one."""
    known = all(part.reference is not None for part in parts)
    return Scored(
        policy=torch.cat([part.policy for part in parts]),
        reference=torch.cat([part.reference for part in parts]) if known else None,
        preferences=joined([part.preferences for part in parts]),
        mean_length=parts[0].mean_length,
    )


@runtime_checkable
class Settings(Protocol):
    """What the losses read of a `DPOConfig`."""

    beta: float
    label_smoothing: float
    discopop_tau: float
    simpo_gamma: float
    cpo_alpha: float
    prompt_weight: str
    weighted_losses: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Loss:
    """A loss by its name, and what is particular to it.

    Attributes:
        values: of scored responses; [P] one a pair, or [R] one a response if `listwise`.
        reference: compares with a reference model.
        listwise: ranks all responses of a prompt at once.
        whole_batch: compares all pairs of a batch at once.
        by_token: compares averages over each response's tokens.
    """

    values: Callable[[Scored, Settings], Tensor]
    reference: bool = True
    listwise: bool = False
    whole_batch: bool = False
    by_token: bool = False


def _contrast(loss: Callable, *knobs: str) -> Callable[[Scored, Settings], Tensor]:
    """A loss of policy, reference and pairs that takes beta and further settings of the same names."""
    return lambda scored, settings: loss(
        scored.policy,
        scored.reference,
        scored.preferences.pairs,
        **{knob: getattr(settings, knob) for knob in ("beta", *knobs)},
    )


def _averaged(loss: Callable) -> Callable[[Scored, Settings], Tensor]:
    """Likewise, with each response's own length."""
    return lambda scored, settings: loss(
        scored.policy,
        scored.reference,
        scored.preferences.pairs,
        scored.preferences.lengths,
        beta=settings.beta,
    )


def _discopop(scored: Scored, settings: Settings) -> Tensor:
    pairs, tau = scored.preferences.pairs, settings.discopop_tau
    return losses.discopop(scored.policy, scored.reference, pairs, beta=settings.beta, tau=tau)


def _sft(scored: Scored, settings: Settings) -> Tensor:
    return losses.sft(scored.policy, scored.preferences.pairs, mean_length=scored.mean_length)


def _cpo(scored: Scored, settings: Settings) -> Tensor:
    pairs, smoothing = scored.preferences.pairs, settings.label_smoothing
    preference = losses.cpo(scored.policy, pairs, beta=settings.beta, label_smoothing=smoothing)
    return preference + settings.cpo_alpha * _sft(scored, settings)


def _simpo(scored: Scored, settings: Settings) -> Tensor:
    return losses.simpo(
        scored.policy,
        scored.preferences.pairs,
        scored.preferences.lengths,
        beta=settings.beta,
        gamma=settings.simpo_gamma,
        label_smoothing=settings.label_smoothing,
    )


def _orpo(scored: Scored, settings: Settings) -> Tensor:
    pairs, lengths = scored.preferences.pairs, scored.preferences.lengths
    return _sft(scored, settings) + losses.orpo(scored.policy, pairs, lengths, beta=settings.beta)


LOSSES = {  # by TRL's names
    "sigmoid": Loss(_contrast(losses.dpo, "label_smoothing")),
    "sigmoid_norm": Loss(_averaged(losses.sigmoid_norm)),
    "robust": Loss(_contrast(losses.robust, "label_smoothing")),
    "hinge": Loss(_contrast(losses.hinge)),
    "ipo": Loss(_averaged(losses.ipo)),
    "exo_pair": Loss(_contrast(losses.exo_pair, "label_smoothing")),
    "nca_pair": Loss(_contrast(losses.nca_pair)),
    "bco_pair": Loss(_contrast(losses.bco_pair)),
    "sppo_hard": Loss(_contrast(losses.sppo_hard)),
    "aot": Loss(_contrast(losses.aot, "label_smoothing"), whole_batch=True),
    "aot_unpaired": Loss(_contrast(losses.aot_unpaired, "label_smoothing"), whole_batch=True),
    "apo_zero": Loss(_contrast(losses.apo_zero)),
    "apo_down": Loss(_contrast(losses.apo_down)),
    "discopop": Loss(_discopop),
    "plackett_luce": Loss(_contrast(losses.dpo_plackett_luce), listwise=True),
    "sft": Loss(_sft, reference=False),
    "cpo": Loss(_cpo, reference=False),
    "simpo": Loss(_simpo, reference=False, by_token=True),
    "orpo": Loss(_orpo, reference=False, by_token=True),
}


def objective(scored: Scored, settings: Settings) -> Float[Tensor, ""]:
    """The sum over prompts of what the configured losses say, each prompt with its weight.

    Divide by the weights of the whole optimizer step; see `preferences.weight`.
    """
    total = scored.policy.new_zeros(())
    for name, coefficient in settings.weighted_losses:
        loss, preferences = LOSSES[name], scored.preferences
        weights = (preferences.list_weights if loss.listwise else preferences.pair_weights)(settings.prompt_weight)
        total = total + coefficient * (loss.values(scored, settings) * weights).sum()
    return total


def rewards(scored: Scored, settings: Settings) -> Float[Tensor, " R"]:
    """The implicit reward of each response, as TRL reports it: beta times what the losses compare."""
    policy = scored.policy.detach()
    if scored.reference is not None:
        return settings.beta * (policy - scored.reference)
    by_token = any(LOSSES[name].by_token for name, _ in settings.weighted_losses)
    return settings.beta * (policy / scored.preferences.lengths if by_token else policy)
