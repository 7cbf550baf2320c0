"""A reward model's folder: what kind it is, what must be in it, and what is written into it beside the weights."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file, find_adapter_config_file

from vlmpack.model_card import CARD, plain_card, written_card
from vlmpack.reward_model_config import RewardModelConfig, RewardModelError, as_classifier, reward_config_in

LOCATED = ("revision", "cache_dir", "token")  # options that say where a folder is
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def config_in(path: str | Path, options: Mapping[str, Any]) -> RewardModelConfig | None:
    """The reward model's configuration in a folder; None if another kind of model is there.

    Args:
        path: folder or hub name.
        options: as given to `from_pretrained`; a `config` among them is taken instead.
    """
    where = {name: options[name] for name in (*LOCATED, "trust_remote_code") if name in options}
    given = options.get("config")
    return reward_config_in(given if isinstance(given, PretrainedConfig) else AutoConfig.from_pretrained(path, **where))


def adapter_in(path: str | Path, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The adapter's configuration in a folder; None if there is no adapter.

    Args:
        path: folder or hub name.
        options: as given to `from_pretrained`.
    """
    where = {name: options[name] for name in LOCATED if name in options}
    found = find_adapter_config_file(str(path), **where)
    return None if found is None else json.loads(Path(found).read_text())


def with_adapter(
    kind: type,
    path: str | Path,
    adapter: Mapping[str, Any],
    backbone: PreTrainedModel | None,
    asked: Mapping[str, str | None],
    arguments: tuple,
    options: Mapping[str, Any],
) -> Any:
    """The base model of an adapter, with a head of the adapter's kind, and the adapter on it.

    Args:
        kind: `RewardModel`.
        path: the adapter's folder or hub name.
        adapter: its configuration.
        backbone: the base, if it is at hand.
        asked: `head` and `pooling` as they were asked for.
        arguments: of `from_pretrained`.
        options: likewise.

    Raises:
        RewardModelError: peft is missing, the adapter holds no head, or nothing says what its base is.
    """
    try:
        from peft import PeftModel
    except ImportError as missing:
        raise RewardModelError(f"{path} is an adapter; install peft: pip install 'vlmpack[peft]'") from missing
    saved = _config_beside(path, options)
    found = {"head": _head_kind(path, options), "pooling": saved.pooling if saved else None}
    wanted = {name: asked[name] or found[name] for name in found}
    base = adapter.get("base_model_name_or_path")
    if backbone is None and not base:
        raise RewardModelError(
            f"the adapter {path} does not say what its base model is; give it: "
            f"RewardModel.from_pretrained({str(path)!r}, backbone=...)"
        )
    if backbone is not None:
        model = kind.from_backbone(backbone, wanted["head"], wanted["pooling"] or "last")
    else:
        model = kind.from_pretrained(base, *arguments, **wanted, **_of_base(options))
    if saved is not None:
        model.config.reward_mean, model.config.reward_std = saved.reward_mean, saved.reward_std
    if (Path(path) / "tokenizer_config.json").is_file():
        model.processor_path = str(path)
    return PeftModel.from_pretrained(model, str(path), **{n: options[n] for n in LOCATED if n in options}).eval()


def refuse_other(config: RewardModelConfig, path: str | Path, asked: Mapping[str, str | None]) -> None:
    """A saved head is what it is."""
    for name, value in asked.items():
        if value is not None and value != getattr(config, name):
            raise RewardModelError(f"{name}={value!r}, but {path} is a reward model with {getattr(config, name)!r}")


def refuse_missing(report: Mapping[str, Any], path: str | Path) -> None:
    """No weight of a saved reward model is random."""
    if lost := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise RewardModelError(f"{path} lacks {len(lost)} weights of a reward model, such as {lost[0]}")


def refuse_unsaved(model: Any, options: Mapping[str, Any]) -> None:
    """What would be saved as something that does not load again."""
    if any("lora_" in name or ".modules_to_save." in name for name, _ in model.named_parameters()):
        raise RewardModelError(
            "an adapter is on the reward model; save PEFT's model around it, or merge it first: "
            "model.merge_and_unload().save_pretrained(...)"
        )
    if options.get("push_to_hub"):
        raise RewardModelError("push_to_hub=True: save first, then call reward_model.push_to_hub('owner/name')")


def has_adapter(model: Any) -> bool:
    """Whether a model is PEFT's, around another."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def complete(folder: Path, model: Any) -> None:
    """Write what belongs beside the weights: the processor, a configuration that others load too, and the model card.

    Args:
        folder: with the weights.
        model: the `RewardModel`.
    """
    processor = model.processor_or_none
    if processor is not None:
        processor.save_pretrained(folder)
    classifier = as_classifier(model.config, padding_of(model.config, processor))
    if classifier is not None:
        classifier.save_pretrained(folder)
    card = model.card or plain_card(model, served=classifier, sections=model.card_sections)
    (folder / CARD).write_text(card, encoding="utf-8")


def complete_adapter(folder: Path, model: Any) -> None:
    """Write what an adapter's folder lacks: how the head reads, how rewards are normalised, and the model card.

    Args:
        folder: with the adapter.
        model: the `RewardModel` that the adapter is on.
    """
    model.config.save_pretrained(folder)
    card = model.card or plain_card(model, served=None, sections=model.card_sections)
    (folder / CARD).write_text(card, encoding="utf-8")


def padding_of(config: RewardModelConfig, processor: Any) -> int | None:
    """The padding token if it can end no response; None if it may, or nobody knows.

    Args:
        config: of the reward model.
        processor: a `PreferenceProcessor`, or None.
    """
    tokens = config.get_text_config() if processor is None else processor.tokenizer
    ends = tokens.eos_token_id if isinstance(tokens.eos_token_id, list) else [tokens.eos_token_id]
    pad = tokens.pad_token_id
    return None if pad is None or None in ends or pad in ends else pad


def card_in(path: str | Path) -> str | None:
    """The model card that was saved with a reward model, if it is one of ours."""
    file = Path(path) / CARD
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return text if written_card(text) else None


def upload(
    model: Any, repo_id: str, save: Mapping[str, Any], where: Mapping[str, Any], private: bool | None, token: Any
) -> str:
    """Save into a temporary folder and upload that; returns the address of the commit."""
    api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **save)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, **where))


def _config_beside(path: str | Path, options: Mapping[str, Any]) -> RewardModelConfig | None:
    """What `complete_adapter` wrote; None in a folder that PEFT alone wrote."""
    where = {name: options[name] for name in LOCATED if name in options}
    try:
        return reward_config_in(AutoConfig.from_pretrained(path, **where))
    except (OSError, ValueError):
        return None


def _head_kind(path: str | Path, options: Mapping[str, Any]) -> str:
    """Which head an adapter trained, by the names of its weights."""
    where = {name: options[name] for name in LOCATED if name in options}
    with safe_open(cached_file(str(path), ADAPTER_WEIGHTS, **where), framework="pt") as weights:
        names = list(weights.keys())
    if not any("reward_head" in name and "score" in name for name in names):
        raise RewardModelError(
            f"the adapter {path} holds no head, so rewards would be random; train it with "
            f"modules_to_save=['reward_head']"
        )
    return "mlp" if any("reward_head" in name and "dense" in name for name in names) else "linear"


def _of_base(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of an adapter's options holds for its base too: its revision, for one, is its own."""
    return {name: value for name, value in options.items() if name not in ("revision", "config")}
