"""A reward model: any language or vision-language backbone, and one linear head on each response's last token."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from vlmpack.model import enable, is_enabled, run, unwrapped
from vlmpack.pack import Pack


class RewardModelConfig(PretrainedConfig):
    """What a saved reward model is made of: the backbone's own configuration.

    Attributes:
        backbone_config: of the model without its language-model head.
    """

    model_type = "vlmpack_reward"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012

    def __init__(self, backbone_config: PretrainedConfig | dict | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)  # first: it would reset the attention chosen in a backbone_config set before
        if isinstance(backbone_config, dict):
            backbone_config = AutoConfig.for_model(**backbone_config)
        self.backbone_config = backbone_config

    def get_text_config(self, *arguments: Any, **options: Any) -> PretrainedConfig:
        """As in `PreTrainedConfig`: the decoder's, whose vocabulary and hidden size are the reward model's."""
        if getattr(self, "backbone_config", None) is None:
            return super().get_text_config(*arguments, **options)
        return self.backbone_config.get_text_config(*arguments, **options)


class RewardModel(PreTrainedModel):
    """Scores every response of a pack: higher is better, in the units of a Bradley-Terry logit.

    The reward is a linear function of the last hidden state at the response's last token (Ouyang et al.,
    2022, section 3.5, https://arxiv.org/abs/2203.02155). Parameters are named as in transformers' sequence
    classifiers: `model.*` for the backbone, `score.weight` for the head.

    Args:
        config: with the backbone's configuration.
        backbone: the model without its head; built with random weights from the configuration if None.

    Example:
        reward_model = vlmpack.RewardModel.from_pretrained("llava-hf/llava-1.5-7b-hf")
        rewards = reward_model(pack)  # [R]
    """

    config_class = RewardModelConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _keep_in_fp32_modules_strict = ["score"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: RewardModelConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.model = AutoModel.from_config(config.backbone_config) if backbone is None else backbone
        hidden = config.get_text_config().hidden_size
        self.score = nn.Linear(hidden, 1, bias=False, dtype=torch.promote_types(self.model.dtype, torch.float32))
        self._no_split_modules = self.model._no_split_modules
        self.post_init()

    @classmethod
    def from_backbone(cls, backbone: PreTrainedModel) -> "RewardModel":
        """Put a fresh head on a model; its language-model head, if it has one, is left out.

        Args:
            backbone: e.g. a `LlavaForConditionalGeneration` or a `LlamaModel`; shared, not copied.
        """
        body = unwrapped(backbone).base_model
        return cls(RewardModelConfig(body.config, dtype=body.dtype), body)

    @classmethod
    def from_pretrained(cls, path: str | Path, *arguments: Any, **options: Any) -> "RewardModel":
        """Load a saved reward model, or put a fresh head on a pretrained language or vision-language model.

        Args:
            path: a folder or hub name, of either kind.
            arguments: as for transformers' `from_pretrained`.
            options: likewise. Remote code stays off unless `trust_remote_code=True` is given, and weights that are
                pickled are not read unless `use_safetensors=False` is.
        """
        options.setdefault("use_safetensors", True)
        located = {k: options[k] for k in ("revision", "cache_dir", "token", "trust_remote_code") if k in options}
        config = options.get("config") or AutoConfig.from_pretrained(path, **located)
        if config.model_type == cls.config_class.model_type:
            return super().from_pretrained(path, *arguments, **options)
        return cls.from_backbone(AutoModel.from_pretrained(path, *arguments, **options))

    def forward(self, pack: Pack) -> Float[Tensor, " R"]:
        """Reward of every response, from one forward pass of the pack.

        Packs are all that a reward model reads, so it enables itself; `vlmpack.enable` chooses the attention.

        Args:
            pack: on the model's device.

        Returns:
            [R] rewards, in the pack's order of responses.

        Raises:
            AttentionError, UnsupportedModelError: the model cannot be packed.
        """
        if not is_enabled(self):
            enable(self)
        return self.head(run(self.model, pack).last_hidden_state[0, pack.ends])

    def head(self, hidden: Float[Tensor, "R H"]) -> Float[Tensor, " R"]:
        """Rewards of last hidden states, in float32 whatever the backbone: bfloat16 cannot tell 3.00 from 3.01.

        Args:
            hidden: [R, H] the last hidden state at each response's last token.

        Returns:
            [R] rewards.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            return self.score(hidden.to(self.score.weight.dtype))[:, 0]

    def get_input_embeddings(self) -> nn.Module:
        """As in `PreTrainedModel`: the backbone's token embedding."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """As in `PreTrainedModel`: replace the backbone's token embedding."""
        self.model.set_input_embeddings(value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """A fresh head starts small, so that every response starts with about the same reward."""
        if module is getattr(self, "score", None):
            nn.init.normal_(module.weight, std=1 / (module.in_features + 1) ** 0.5)


AutoConfig.register(RewardModelConfig.model_type, RewardModelConfig)
AutoModel.register(RewardModelConfig, RewardModel)
