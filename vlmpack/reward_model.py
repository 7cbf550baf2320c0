"""A reward model: any language or vision-language backbone, and a head on each response's hidden state."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from vlmpack import reward_folder
from vlmpack.aligned import align
from vlmpack.judging import Judging
from vlmpack.model import enable, is_enabled, run, unwrapped
from vlmpack.pack import Pack
from vlmpack.reward_adapter import with_adapter
from vlmpack.reward_head import RewardHead
from vlmpack.reward_model_config import MARK, RewardModelConfig
from vlmpack.scores import response_states


class RewardModel(Judging, PreTrainedModel):
    """Scores every response of a pack: higher is better, in the units of a Bradley-Terry logit.

    The reward is a function of the last hidden state at the response's last token (Ouyang et al., 2022, section 3.5,
    https://arxiv.org/abs/2203.02155), or of its mean over the response. In files, parameters are named as in
    transformers' sequence classifiers: `model.*` for the backbone, `score.weight` for a linear head.

    Args:
        config: with the backbone's configuration.
        backbone: the model without its head; built with random weights from the configuration if None.

    Attributes:
        processor: the `PreferenceProcessor` that reads rows; see `Judging.processor`.
        processor_path: where it is saved; None: where the model is.
        card_sections: what the model card says of training data, saving and accuracy.

    Example:
        reward_model = vlmpack.RewardModel.from_pretrained("llava-hf/llava-1.5-7b-hf")
        rewards = reward_model(pack)  # [R]
    """

    config_class = RewardModelConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _keep_in_fp32_modules_strict = ["reward_head"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: RewardModelConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.model = AutoModel.from_config(config.backbone_config) if backbone is None else backbone
        self.reward_head = RewardHead(config.get_text_config().hidden_size, config.head, self.model.dtype)
        self.name_or_path = self.name_or_path or self.model.name_or_path  # by which an adapter finds its base again
        self._no_split_modules = self.model._no_split_modules
        self.card_sections: tuple[str, ...] = ()
        self.processor_path: str | None = None
        self.post_init()
        align(self)

    @classmethod
    def from_backbone(cls, backbone: PreTrainedModel, head: str = "linear", pooling: str = "last") -> "RewardModel":
        """Put a fresh head on a model; its language-model head, if it has one, is left out.

        Args:
            backbone: e.g. a `LlavaForConditionalGeneration` or a `LlamaModel`; shared, not copied.
            head: "linear", or "mlp" with two layers.
            pooling: the head reads the hidden state of a response's "last" token, or the "mean" over the response.
        """
        body = unwrapped(backbone).base_model
        return cls(RewardModelConfig(body.config, head, pooling, dtype=body.dtype), body)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *arguments: Any,
        head: str | None = None,
        pooling: str | None = None,
        backbone: PreTrainedModel | None = None,
        **options: Any,
    ) -> Any:
        """Load a saved reward model, or put a fresh head on a pretrained language or vision-language model.

        Saved are also sequence classifiers of one label, whoever trained them, and adapters, whose base is loaded too:
        what comes back then is PEFT's model around a `RewardModel`, with all that it can do, and `merge_and_unload`.

        Args:
            path: a folder or hub name, of any of these kinds.
            arguments: as for transformers' `from_pretrained`.
            head: of a fresh head; see `from_backbone`. None: "linear", or what was saved.
            pooling: likewise; None: "last", or what was saved.
            backbone: of an adapter whose base model is nowhere to be loaded from.
            options: as for transformers' `from_pretrained`. Remote code stays off unless `trust_remote_code=True` is
                given, and weights that are pickled are not read unless `use_safetensors=False` is.

        Raises:
            RewardModelError: the folder lacks the head, or has another than the one asked for.
        """
        options.setdefault("use_safetensors", True)
        asked = {"head": head, "pooling": pooling}
        if adapter := reward_folder.adapter_in(path, options):
            return with_adapter(cls, path, adapter, backbone, asked, options)
        config = reward_folder.config_in(path, options)
        if config is None:
            base = AutoModel.from_pretrained(path, *arguments, **options)
            return cls.from_backbone(base, head or "linear", pooling or "last")
        reward_folder.refuse_other(config, path, asked)
        whole = options.pop("output_loading_info", False)
        model, report = super().from_pretrained(
            path, *arguments, **{**options, "config": config}, output_loading_info=True
        )
        reward_folder.refuse_missing(report, path)
        align(model)
        model.card_sections = reward_folder.known_in(path)
        return (model, report) if whole else model

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **options: Any) -> None:
        """Save everything that is needed elsewhere: weights, configuration, processor and model card.

        A linear head on the last token of a text backbone is saved so that plain transformers loads the folder too, as
        `AutoModelForSequenceClassification` with equal scores; the model card says so.

        Args:
            save_directory: made if it is not there.
            is_main_process: whether this process writes what all share.
            options: as for transformers' `save_pretrained`; `push_to_hub` is a method of its own.

        Raises:
            RewardModelError: an adapter is on the model, or an upload is asked for here.
        """
        reward_folder.refuse_unsaved(self, options)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **options)
        if is_main_process:
            reward_folder.complete(Path(save_directory), self)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload reward model",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: str = "50GB",
    ) -> str:
        """Upload what `save_pretrained` saves, the model card included.

        Args:
            repo_id: owner/name on the hub; made if it is not there.
            commit_message: of the upload.
            private: whether a new repository is.
            token: to write with; None: the one of `hf auth login`.
            revision: branch.
            create_pr: open a pull request.
            max_shard_size: of a file of weights.

        Returns:
            The address of the commit.
        """
        save = {"max_shard_size": max_shard_size}
        where = {"revision": revision, "create_pr": create_pr, "commit_message": commit_message}
        return reward_folder.upload(self, repo_id, save, where, private, token)

    def forward(self, pack: Pack) -> Float[Tensor, " R"]:
        """Reward of every response, from one forward pass of the pack; never normalised.

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
        hidden = run(self.model, pack).last_hidden_state[0]
        return self.reward_head(response_states(hidden, pack, self.config.pooling))

    def get_input_embeddings(self) -> nn.Module:
        """As in `PreTrainedModel`: the backbone's token embedding."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """As in `PreTrainedModel`: replace the backbone's token embedding."""
        self.model.set_input_embeddings(value)

    def _init_weights(self, module: nn.Module) -> None:
        """A fresh head starts small."""
        head = getattr(self, "reward_head", None)
        if head is not None and any(module is layer for layer in head.children()):
            head.begin(module)


AutoModel.register(RewardModelConfig, RewardModel)

# Files name the head's layers without the head, as sequence classifiers do: score.weight.
register_checkpoint_conversion_mapping(
    MARK, [WeightRenaming(rf"^{layer}\.", f"reward_head.{layer}.") for layer in ("score", "dense")], overwrite=True
)
