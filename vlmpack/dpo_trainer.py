"""DPO on packs."""

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmpack import unpacked
from vlmpack.config import ConfigError, DPOConfig
from vlmpack.judgement import Judgement, reward_metrics
from vlmpack.model import enable, unwrapped
from vlmpack.objective import Scored, objective, rewards
from vlmpack.pack import Pack
from vlmpack.preference_trainer import PreferenceTrainer
from vlmpack.sample import Sample
from vlmpack.scores import response_logps


class DPOTrainer(PreferenceTrainer):
    """Direct Preference Optimization on packs (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290).

    The reference is, in this order: `ref_model`; the model with its PEFT adapter switched off; a frozen copy
    of the model as it is given. Losses that compare with no reference (`sft`, `cpo`, `simpo`, `orpo`) hold none.

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
        if not self.args.needs_reference:
            ref_model = None
        elif ref_model is None and not hasattr(self.model, "disable_adapter"):
            ref_model = deepcopy(self.model)
        self.ref_model = None if ref_model is None else self._frozen(ref_model)

    @property
    def compares_whole_batches(self) -> bool:
        """See `PreferenceTrainer`."""
        return self.args.compares_whole_batches

    def scores(self, model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
        """Summed log-probability of each response, nats."""
        return _logps(model, unit)

    def judge(self, scored: Scored) -> Judgement:
        """See `PreferenceTrainer`; scores are the implicit rewards."""
        pairs = scored.preferences.pairs
        pair_rewards = rewards(scored, self.args)[pairs]
        chosen, rejected = scored.policy.detach()[pairs].unbind(dim=-1)
        metrics = reward_metrics(pair_rewards) | {"logps/chosen": chosen, "logps/rejected": rejected}
        return Judgement(objective(scored, self.args), pair_rewards, metrics)

    @torch.no_grad()
    def reference_scores(self, unit: Pack | Sample) -> Float[Tensor, " R"] | None:
        """Summed log-probability of each response under the reference, nats; None if no loss asks for it."""
        if not self.args.needs_reference:
            return None
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
            enable(model, self.args.attention, unproven=self.args.verify)
        model.requires_grad_(False).eval()
        return self.accelerator.prepare_model(model, evaluation_mode=True)


def _logps(model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
    return response_logps(model, unit) if isinstance(unit, Pack) else unpacked.response_logps(model, [unit])
