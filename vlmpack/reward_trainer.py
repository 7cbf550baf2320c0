"""Reward-model training on packs."""

from typing import Any

import torch
from torch import Tensor, nn

from vlmpack import losses, unpacked
from vlmpack.config import ConfigError, RewardConfig
from vlmpack.model import unwrapped
from vlmpack.pack import Pack
from vlmpack.preference_trainer import PreferenceTrainer, pairs_of, reward_metrics
from vlmpack.reward_model import RewardModel
from vlmpack.sample import Sample
from vlmpack.survey import DatasetError, SurveyedRows


class RewardTrainer(PreferenceTrainer):
    """Reward-model training on packs (Bradley-Terry; Ouyang et al., 2022, https://arxiv.org/abs/2203.02155).

    Args:
        model: a `vlmpack.RewardModel`.
        args: settings.
        others: as for `PreferenceTrainer`.
    """

    def __init__(self, model: nn.Module, args: RewardConfig | None = None, **others: Any) -> None:
        if not isinstance(unwrapped(model), RewardModel):
            raise ConfigError(
                f"the model is a {type(unwrapped(model)).__name__}; give it a head with "
                f"RewardModel.from_backbone(model), or load it with RewardModel.from_pretrained"
            )
        peft_config = others.get("peft_config")
        if peft_config is not None and "score" not in (peft_config.modules_to_save or ()):
            raise ConfigError("the head would stay random: add modules_to_save=['score'] to the peft_config")
        super().__init__(model, args or RewardConfig(), **others)
        if not any("score" in name and p.requires_grad for name, p in self.model.named_parameters()):
            raise ConfigError("the head (score) is frozen; train it, e.g. by modules_to_save=['score'] in the adapter")
        if self.args.use_margin and isinstance(self.train_dataset, SurveyedRows):
            _refuse_missing_margins(self.train_dataset)

    def pair_losses(self, model: nn.Module, unit: Pack | Sample) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `PreferenceTrainer`; scores are the rewards."""
        with self.accelerator.autocast():  # the oracle calls the model's parts, past the prepared forward
            rewards = model(unit) if isinstance(unit, Pack) else unpacked.rewards(unwrapped(model), [unit])
        pairs = pairs_of(unit, rewards.device)
        loss = losses.bradley_terry(rewards, pairs, margin=self._margin(unit, rewards))
        scores = rewards.detach()[pairs]
        metrics = reward_metrics(scores)
        trl_names = {"accuracy": metrics["rewards/accuracies"], "margin": metrics["rewards/margins"]}
        return loss, scores, metrics | trl_names

    def _margin(self, unit: Pack | Sample, like: Tensor) -> Tensor | float:
        if not self.args.use_margin:
            return 0.0
        return torch.as_tensor(unit.margins).to(like)


def _refuse_missing_margins(dataset: SurveyedRows) -> None:
    missing = [row for row, each in zip(dataset.kept, dataset.lengths, strict=True) if not each.margins]
    if missing:
        raise DatasetError(
            f"use_margin=True, but {len(missing)} rows have neither scores nor a margin, the first of them row "
            f"{missing[0]}; add them, or leave use_margin off"
        )
