"""A model without its weights: enough to ask what it costs."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlmpack.reward_model import RewardModel, RewardModelConfig


class SkeletonError(ValueError):
    """There is no such model, or it cannot be built."""


def skeleton(path: str | Path) -> nn.Module:
    """The model that a configuration describes, on the meta device: shapes, and not one number.

    Args:
        path: a hub id, which uses the network unless it is cached, a folder, or a configuration's file. No code that
            comes with it is run. That of a saved reward model gives a `RewardModel`.

    Raises:
        SkeletonError: what is wrong with it.
    """
    said = str(path)
    if not Path(path).exists() and (said[0] in "/.~" or said.endswith(".json") or said.count("/") > 1):
        raise SkeletonError(f"there is no {said}; give a hub id (owner/name), a folder or a config.json")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.device("meta"):
            model = _built(config)
    except Exception as error:  # of any kind: a file, the hub, or a class that wants another configuration
        raise SkeletonError(f"{said} cannot be built: {type(error).__name__}: {str(error).strip()}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise SkeletonError(f"{said} is an encoder-decoder, whose responses are read by another stack; give a decoder")
    return model


def _built(config: PretrainedConfig) -> nn.Module:
    if isinstance(config, RewardModelConfig):
        return RewardModel(config)
    vision = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return (AutoModelForImageTextToText if vision else AutoModelForCausalLM).from_config(config)
