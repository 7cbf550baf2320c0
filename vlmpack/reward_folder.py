"""A reward model's folder: what kind it is, what must be in it, and what is written into it beside the weights."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import find_adapter_config_file

from vlmpack.model_card import CARD, plain_card, sections_in
from vlmpack.reward_model_config import RewardModelConfig, RewardModelError, as_classifier, reward_config_in

LOCATED = ("revision", "cache_dir", "token", "local_files_only", "subfolder", "force_download", "proxies")  # where


def config_in(path: str | Path, options: Mapping[str, Any]) -> RewardModelConfig | None:
    """The reward model's configuration in a folder; None if another kind of model is there.

    Args:
        path: folder or hub name.
        options: as given to `from_pretrained`; a `config` among them is taken instead.
    """
    where = {name: options[name] for name in (*LOCATED, "trust_remote_code") if name in options}
    given = options.get("config")
    return reward_config_in(given if isinstance(given, PretrainedConfig) else AutoConfig.from_pretrained(path, **where))


def located(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `from_pretrained`'s options that say where a folder is.

    Args:
        options: as given.
    """
    return {name: options[name] for name in LOCATED if name in options}


def adapter_in(path: str | Path, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The adapter's configuration in a folder; None if there is no adapter.

    Args:
        path: folder or hub name.
        options: as given to `from_pretrained`.
    """
    found = find_adapter_config_file(str(path), **located(options))
    return None if found is None else json.loads(Path(found).read_text())


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
            "an adapter is on the reward model; save the trainer's model (trainer.save_model()), or merge it first: "
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
    card = plain_card(model, served=classifier, sections=model.card_sections)
    (folder / CARD).write_text(card, encoding="utf-8")


def complete_adapter(folder: Path, model: Any) -> None:
    """Write what an adapter's folder lacks: how the head reads, how rewards are normalised, and the model card.

    Args:
        folder: with the adapter.
        model: the `RewardModel` that the adapter is on.
    """
    model.config.save_pretrained(folder)
    card = plain_card(model, served=None, sections=model.card_sections)
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


def known_in(path: str | Path) -> tuple[str, ...]:
    """What the model card in a folder says of training data, saving and accuracy; nothing if it is no card of ours.

    Args:
        path: a folder; of a hub name nothing is looked for.
    """
    file = Path(path) / CARD
    return sections_in(file.read_text(encoding="utf-8")) if file.is_file() else ()


def upload(
    model: Any, repo_id: str, save: Mapping[str, Any], where: Mapping[str, Any], private: bool | None, token: Any
) -> str:
    """Save into a temporary folder and upload that; returns the address of the commit."""
    api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **save)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, **where))
