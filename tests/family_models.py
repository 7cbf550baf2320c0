"""Models of every family that fit the processors of `family_processors`: small, random, in float64."""

import torch
import transformers
from family_processors import processor
from tiny import VOCABULARY
from torch import nn
from transformers import AutoConfig

from vlmpack.proof.miniature import build, miniature

SQUARE = {"image_size": 28, "patch_size": 14}  # 2 x 2 patches
FINE = {"image_size": 28, "patch_size": 7}  # 4 x 4 patches, of which 2 x 2 make a token
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
VISION = {
    "llava": SQUARE,
    "vipllava": SQUARE,
    "llava_next": SQUARE,
    "llava_onevision": SQUARE,
    "internvl": {"image_size": [28, 28], "patch_size": [7, 7]},
    "gemma3": SQUARE,
    "smolvlm": FINE,
    "idefics3": FINE,
    "idefics2": {"image_size": 56, "patch_size": 14},
    "mistral3": {"image_size": 56, "patch_size": 7},
    "paligemma": SQUARE,
    "aya_vision": FINE,
    "cohere2_vision": FINE,
    "glm4v": {"image_size": 28, "patch_size": 14},
    "qwen2_vl": {"patch_size": 14},
    "qwen2_5_vl": {"patch_size": 14},
    "qwen3_vl": {"patch_size": 16},
}
OWN = {
    "llava_next": {"image_grid_pinpoints": PINPOINTS},
    "llava_onevision": {"image_grid_pinpoints": [[28, 28], *PINPOINTS]},
    "gemma3": {"mm_tokens_per_image": 4},
    "idefics2": {"perceiver_config.resampler_n_latents": 3},
    "smolvlm": {"scale_factor": 2},
    "idefics3": {"scale_factor": 2},
}


def model(family: str, seed: int = 0) -> nn.Module:
    """A random model of the family, with its processor's tokens and sizes of images."""
    config = miniature(AutoConfig.for_model(family))
    reader = processor(family)
    image_token = getattr(reader.tokenizer, "image_token_id", None) or reader.image_token_id  # Gemma 3 has two
    config.get_text_config().vocab_size = len(reader.tokenizer)
    for holder in (config, config.get_text_config()):
        for name in ("image_token_id", "image_token_index"):
            if hasattr(holder, name):
                setattr(holder, name, image_token)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(holder, name, getattr(reader.tokenizer, name))
    for name, value in VISION[family].items():
        setattr(config.vision_config, name, value)
    for path, value in OWN.get(family, {}).items():
        *parts, name = path.split(".")
        holder = config
        for part in parts:
            holder = getattr(holder, part)
        setattr(holder, name, value)
    return build(config, seed)


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "initializer_range": 0.3,
}


def text_model(name: str, **settings) -> nn.Module:
    """A random language model by its class's name, e.g. Llama."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **settings})
    config._experts_implementation = "eager"  # grouped matrix products know no float64
    return getattr(transformers, f"{name}ForCausalLM")(config)
