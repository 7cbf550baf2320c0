"""Reward-model training on packs."""

from copy import copy
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vlmpack import losses, unpacked
from vlmpack.costs.survey import DatasetError, SurveyedRows
from vlmpack.model import unwrapped
from vlmpack.pack import Pack
from vlmpack.preferences import Preferences
from vlmpack.reward_model import RewardModel
from vlmpack.sample import Sample
from vlmpack.training.config import ConfigError, RewardConfig
from vlmpack.training.judgement import Judgement, reward_metrics
from vlmpack.training.judging_trainer import JudgingTrainer
from vlmpack.training.objective import Scored


class RewardTrainer(JudgingTrainer):
    """Reward-model training on packs (Bradley-Terry; Ouyang et al., 2022, https://arxiv.org/abs/2203.02155).

    After training the rewards of the evaluation set are measured and reported; `save_model` writes a folder that
    `RewardModel.from_pretrained` loads anywhere, with a model card of data, saving and accuracy.

    Args:
        model: a `vlmpack.RewardModel`.
        args: settings.
        others: as for `PreferenceTrainer`.

    Attributes:
        qualities: what was measured of each evaluation set, by its name; "" if there is but one.

    Raises:
        ConfigError: the model is no `RewardModel`, its head would not be trained, or settings do not go together.
    """

    def __init__(self, model: nn.Module, args: RewardConfig | None = None, **others: Any) -> None:
        if not isinstance(unwrapped(model), RewardModel):
            raise ConfigError(
                f"the model is a {type(unwrapped(model)).__name__}; give it a head with "
                f"RewardModel.from_backbone(model), or load it with RewardModel.from_pretrained"
            )
        peft_config = others.get("peft_config")
        if peft_config is not None and not {"reward_head", "score"} & set(peft_config.modules_to_save or ()):
            raise ConfigError("the head would stay random: add modules_to_save=['reward_head'] to the peft_config")
        if peft_config is not None and peft_config.task_type is not None:
            others["peft_config"] = plain = copy(peft_config)
            plain.task_type = None  # TRL's SEQ_CLS would have PEFT call the model with token ids, not with packs
        _refuse_task_type(model)
        super().__init__(model, args or RewardConfig(), **others)
        _refuse_frozen_head(self.model)

    def surveyed(self, rows: Any, name: str) -> Any:
        """As in `PreferenceTrainer`; with `use_margin`, every row must have margins."""
        surveyed = super().surveyed(rows, name)
        if self._survey_args.use_margin:
            for key, each in surveyed.items() if isinstance(surveyed, dict) else [(name, surveyed)]:
                if isinstance(each, SurveyedRows):
                    _refuse_missing_margins(each, key)
        return surveyed

    def scores(self, model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
        """See `PreferenceTrainer`; scores are the rewards."""
        with self.accelerator.autocast():  # the oracle calls the model's parts, past the prepared forward
            return model(unit) if isinstance(unit, Pack) else unpacked.rewards(unwrapped(model), [unit])

    def judge(self, scored: Scored) -> Judgement:
        """See `PreferenceTrainer`; scores are the rewards."""
        scores = scored.policy.detach()[scored.preferences.pairs]
        metrics = reward_metrics(scores)
        trl_names = {"accuracy": metrics["rewards/accuracies"], "margin": metrics["rewards/margins"]}
        return Judgement(self._loss(scored.policy, scored.preferences), scores, metrics | trl_names)

    def _loss(self, rewards: Float[Tensor, " R"], preferences: Preferences) -> Float[Tensor, ""]:
        pairs, weight = preferences.pairs, self.args.prompt_weight
        if self.args.loss_type == "plackett_luce":
            loss = (losses.plackett_luce(rewards, pairs) * preferences.list_weights(weight)).sum()
        elif self.args.use_margin and preferences.margins is None:
            raise DatasetError("use_margin=True, but a row of the stream has neither scores nor a margin; add them")
        else:
            margin = preferences.margins.to(rewards) if self.args.use_margin else 0.0
            loss = (losses.bradley_terry(rewards, pairs, margin=margin) * preferences.pair_weights(weight)).sum()
        if coefficient := self.args.center_rewards_coefficient:
            centering = losses.centering(rewards, pairs) * preferences.pair_weights(weight)
            loss = loss + coefficient * centering.sum()
        return loss


def _refuse_task_type(model: nn.Module) -> None:
    """PEFT's models for a task call what they wrap with token ids."""
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        if adapter.task_type is not None:
            raise ConfigError(
                f"the adapter on the model has task_type={adapter.task_type!r}, by which PEFT would not hand packs on; "
                f"leave task_type out, or give the peft_config to the trainer"
            )


def _refuse_frozen_head(model: nn.Module) -> None:
    """Every layer of the head is trained: itself, or the copy that an adapter holds of it."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for layer in ("score", *(["dense"] if unwrapped(model).config.head == "mlp" else [])):
        if not any("reward_head" in name and f".{layer}." in name for name in trained):
            raise ConfigError(
                f"the head's layer {layer!r} is frozen; train it, in an adapter by modules_to_save=['reward_head']"
            )


def _refuse_missing_margins(dataset: SurveyedRows, name: str) -> None:
    missing = [dataset.kept[place] for place in (~dataset.lengths.margins).nonzero()[0].tolist()]
    if missing:
        raise DatasetError(
            f"use_margin=True, but {len(missing)} {name} rows have neither scores nor a margin, the first of them row "
            f"{missing[0]}; add them, or leave use_margin off"
        )
