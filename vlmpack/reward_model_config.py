"""What a reward model is made of, as its folder says it: in a form of our own, or as a sequence classifier's."""

from copy import deepcopy
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from vlmpack.reward_head import HEADS
from vlmpack.scores import POOLINGS

MARK = "vlmpack_reward"  # our model type, and in a sequence classifier's configuration the name of what is ours


class RewardModelError(ValueError):
    """A reward model cannot be made, loaded, saved or asked as it was wanted."""


class RewardModelConfig(PretrainedConfig):
    """What a saved reward model is made of.

    Attributes:
        backbone_config: configuration of the model without its language-model head.
        head: "linear", or "mlp" with two layers; see `vlmpack.reward_head`.
        pooling: the hidden state that the head reads: of a response's "last" token, or the "mean" over the response.
        reward_mean: what `RewardModel.normalize` found; rewards that are shown are (reward - mean) / std.
        reward_std: likewise; above 0.

    Raises:
        RewardModelError: a setting has no such value.
    """

    model_type = MARK
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        backbone_config: PretrainedConfig | dict | None = None,
        head: str = "linear",
        pooling: str = "last",
        reward_mean: float = 0.0,
        reward_std: float = 1.0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)  # first: it would reset the attention chosen in a backbone_config set before
        if isinstance(backbone_config, dict):
            backbone_config = AutoConfig.for_model(**backbone_config)
        if head not in HEADS or pooling not in POOLINGS:
            raise RewardModelError(
                f"head={head!r}, pooling={pooling!r}: a head is one of {', '.join(HEADS)}, a pooling one of "
                f"{', '.join(POOLINGS)}"
            )
        if not reward_std > 0:
            raise RewardModelError(f"reward_std={reward_std} must be above 0")
        self.backbone_config = backbone_config
        self.head, self.pooling = head, pooling
        self.reward_mean, self.reward_std = reward_mean, reward_std

    def get_text_config(self, *arguments: Any, **options: Any) -> PretrainedConfig:
        """As in `PreTrainedConfig`: the decoder's, whose vocabulary and hidden size are the reward model's."""
        if getattr(self, "backbone_config", None) is None:
            return super().get_text_config(*arguments, **options)
        return self.backbone_config.get_text_config(*arguments, **options)


def own_settings(config: RewardModelConfig) -> dict[str, Any]:
    """What a configuration says beyond its backbone's."""
    return {name: getattr(config, name) for name in ("head", "pooling", "reward_mean", "reward_std")}


def reward_config_in(config: PretrainedConfig) -> RewardModelConfig | None:
    """The reward model that a folder's configuration describes; None if it is of something else.

    A sequence classifier of one label is a reward model with a linear head on the last token, whoever trained it.

    Args:
        config: as `AutoConfig` reads it.
    """
    if isinstance(config, RewardModelConfig):
        return config
    architecture = (config.architectures or [""])[0]
    if not architecture.endswith("ForSequenceClassification") or config.num_labels != 1:
        return None
    backbone = deepcopy(config)
    own = backbone.__dict__.pop(MARK, {})
    return RewardModelConfig(backbone, dtype=config.dtype, **own)


def as_classifier(config: RewardModelConfig, pad_token_id: int | None) -> PretrainedConfig | None:
    """The configuration under which plain transformers loads the same weights as a sequence classifier of one label.

    Args:
        config: of the reward model.
        pad_token_id: of a token that ends no response; None: rows are then classified one at a time. transformers
            reads the last token that is not padding, so a padding token that ends responses would give the reward of
            one token before: silently another one.

    Returns:
        None if no class of transformers computes this: the backbone sees images or has no classifier that is a
        linear layer on the last token.
    """
    backbone = config.backbone_config
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(backbone), None)
    if kind is None or (config.head, config.pooling) != ("linear", "last") or sees_images(backbone):
        return None
    if not issubclass(kind, GenericForSequenceClassification) or kind.base_model_prefix != "model":
        return None
    classifier = deepcopy(backbone)
    classifier.architectures, classifier.num_labels = [kind.__name__], 1
    classifier.pad_token_id, classifier.dtype = pad_token_id, config.dtype
    setattr(classifier, MARK, own_settings(config))
    return classifier


def sees_images(backbone: PretrainedConfig) -> bool:
    """Whether a backbone has a part for images."""
    return getattr(backbone, "vision_config", None) is not None


AutoConfig.register(RewardModelConfig.model_type, RewardModelConfig)
