"""A reward model under an adapter: how it is loaded, and PEFT's model around it, which saves it whole."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import cached_file

from vlmpack.reward_folder import complete_adapter, config_in, known_in, located, refuse_other
from vlmpack.reward_model_config import RewardModelConfig, RewardModelError, reward_config_in

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def with_adapter(
    kind: type,
    path: str | Path,
    adapter: Mapping[str, Any],
    backbone: PreTrainedModel | None,
    asked: Mapping[str, str | None],
    options: Mapping[str, Any],
) -> Any:
    """The base model of an adapter, with a head of the adapter's kind, and the adapter on it.

    Args:
        kind: `RewardModel`.
        path: the adapter's folder or hub name.
        adapter: its configuration.
        backbone: the base, if it is at hand.
        asked: `head` and `pooling` as they were asked for.
        options: of `from_pretrained`.

    Raises:
        RewardModelError: peft is missing, the adapter holds no head or another one than was asked for, or nothing says
            what its base is or what its head reads.
    """
    try:
        from peft import PeftModel
    except ImportError as missing:
        raise RewardModelError(f"{path} is an adapter; install peft: pip install 'vlmpack[peft]'") from missing
    saved, head = _config_beside(path, options), _head_kind(path, options)
    if asked["head"] not in (None, head):
        raise RewardModelError(f"head={asked['head']!r}, but the adapter {path} has trained a head of kind {head!r}")
    if saved is not None:
        refuse_other(saved, path, {"pooling": asked["pooling"]})
    model = _base_of(
        kind, path, adapter, backbone, {"head": head, "pooling": asked["pooling"] or _pooling(saved)}, options
    )
    if saved is not None:
        model.config.reward_mean, model.config.reward_std = saved.reward_mean, saved.reward_std
    if (Path(path) / "tokenizer_config.json").is_file():
        model.processor_path = str(path)
    model.card_sections = known_in(path)
    found = PeftModel.from_pretrained(model, str(path), **located(options))
    return of_rewards(found.eval())


def of_rewards(model: Any) -> Any:
    """Let PEFT's model around a reward model set what the reward model reads by, and save its folder whole.

    Args:
        model: changed in place; what it hands on already, such as `score`, stays as it is.
    """
    model.__class__ = _kind(type(model))
    return model


@cache
def _kind(kind: type) -> type:
    """PEFT's class, and what it lacks."""

    class RewardAdapter(kind):
        """PEFT's model around a `RewardModel`."""

        @property
        def processor(self) -> Any:
            """See `Judging.processor`."""
            return self.get_base_model().processor

        @processor.setter
        def processor(self, value: Any) -> None:
            """Set what reads rows, where it is looked for."""
            self.get_base_model().processor = value

        def save_pretrained(self, save_directory: str, *arguments: Any, **options: Any) -> None:
            """As in `PeftModel`; the folder also says how the head reads and how rewards are normalised."""
            super().save_pretrained(save_directory, *arguments, **options)
            if options.get("is_main_process", True):
                complete_adapter(Path(save_directory), self.get_base_model())

    return RewardAdapter


def _pooling(saved: RewardModelConfig | None) -> str | None:
    return None if saved is None else saved.pooling


def _base_of(
    kind: type,
    path: str | Path,
    adapter: Mapping[str, Any],
    backbone: PreTrainedModel | None,
    wanted: Mapping[str, str | None],
    options: Mapping[str, Any],
) -> Any:
    """The reward model under an adapter; nothing of how it reads is guessed."""
    base, own = adapter.get("base_model_name_or_path"), _of_base(options)
    if backbone is None and not base:
        raise RewardModelError(
            f"the adapter {path} does not say what its base model is; give it: "
            f"RewardModel.from_pretrained({str(path)!r}, backbone=...)"
        )
    known = None if backbone is not None else config_in(base, own)
    if wanted["pooling"] is None and known is None:
        raise RewardModelError(
            f"the adapter {path} does not say what its head reads, for PEFT alone saved it; say it: pooling='last' or "
            f"'mean'"
        )
    if backbone is not None:
        return kind.from_backbone(backbone, wanted["head"], wanted["pooling"])
    return kind.from_pretrained(base, **wanted, **own)


def _config_beside(path: str | Path, options: Mapping[str, Any]) -> RewardModelConfig | None:
    """What `complete_adapter` wrote; None in a folder that PEFT alone wrote."""
    try:
        return reward_config_in(AutoConfig.from_pretrained(path, **located(options)))
    except (OSError, ValueError):
        return None


def _head_kind(path: str | Path, options: Mapping[str, Any]) -> str:
    """Which head an adapter trained, by the names of its weights."""
    with safe_open(cached_file(str(path), ADAPTER_WEIGHTS, **located(options)), framework="pt") as weights:
        names = list(weights.keys())
    if not any("reward_head" in name and "score" in name for name in names):
        raise RewardModelError(
            f"the adapter {path} holds no head, so rewards would be random; train it with "
            f"modules_to_save=['reward_head']"
        )
    return "mlp" if any("reward_head" in name and "dense" in name for name in names) else "linear"


def _of_base(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of an adapter's options holds for its base too: its revision, for one, is its own."""
    return {name: value for name, value in options.items() if name not in ("revision", "config", "subfolder")}
