"""DPO on packs."""

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmpack import losses, unpacked
from vlmpack.config import ConfigError, DPOConfig
from vlmpack.model import enable, unwrapped
from vlmpack.pack import Pack
from vlmpack.preference_trainer import PreferenceTrainer, pairs_of, reward_metrics
from vlmpack.sample import Sample
from vlmpack.scores import response_logps


class DPOTrainer(PreferenceTrainer):
    """Direct Preference Optimization on packs (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290).

    The reference is, in this order: `ref_model`; the model with its PEFT adapter switched off; a frozen copy
    of the model as it is given.

    Args:
        model: a causal language model or an image-text-to-text model.
        args: settings.
        ref_model: the frozen reference; made as said above if None.
        others: as for `PreferenceTrainer`.
    """

    def __init__(
        self,
        model: nn.Module,
        args: DPOConfig | None = None,
        *,
        ref_model: nn.Module | None = None,
        **others: Any,
    ) -> None:
        if ref_model is model:
            raise ConfigError("ref_model is the model itself; leave ref_model out, and a frozen copy is made")
        if unwrapped(model).get_output_embeddings() is None:
            raise ConfigError(
                f"{type(unwrapped(model)).__name__} has no language-model head, so it gives no log-probability"
            )
        super().__init__(model, args or DPOConfig(), **others)
        if ref_model is None and not hasattr(self.model, "disable_adapter"):
            ref_model = deepcopy(self.model)
        self.ref_model = None if ref_model is None else self._frozen(ref_model)

    def pair_losses(self, model: nn.Module, unit: Pack | Sample) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `PreferenceTrainer`; scores are the implicit rewards, beta * (policy - reference)."""
        logps = _logps(model, unit)
        reference = self.reference_logps(unit)
        pairs = pairs_of(unit, logps.device)
        loss = losses.dpo(logps, reference, pairs, beta=self.args.beta, label_smoothing=self.args.label_smoothing)
        rewards = self.args.beta * (logps.detach() - reference)
        chosen, rejected = logps.detach()[pairs].unbind(dim=-1)
        return (
            loss,
            rewards[pairs],
            reward_metrics(rewards[pairs]) | {"logps/chosen": chosen, "logps/rejected": rejected},
        )

    @torch.no_grad()
    def reference_logps(self, unit: Pack | Sample) -> Float[Tensor, " R"]:
        """Summed log-probability of each response under the reference, nats."""
        if self.ref_model is not None:
            return _logps(self.ref_model, unit)
        training = self.model.training
        self.model.eval()  # a dropout that was left on shall not blur the reference
        with self.accelerator.unwrap_model(self.model).disable_adapter():
            logps = _logps(self.model, unit)
        self.model.train(training)
        return logps

    def _frozen(self, model: nn.Module) -> nn.Module:
        if self.args.packing:
            enable(model, self.args.attention)
        model.requires_grad_(False).eval()
        return self.accelerator.prepare_model(model, evaluation_mode=True)


def _logps(model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
    return response_logps(model, unit) if isinstance(unit, Pack) else unpacked.response_logps(model, [unit])
