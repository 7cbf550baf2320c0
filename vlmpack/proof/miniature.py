"""A small model of any architecture: a configuration shrunk by the names of its fields, and random weights for it.

Widths, counts and windows shrink. What decides the *kind* of computation stays: activations, scalings, soft caps,
position encodings, ties, and a layer of every kind.
"""

import copy
import re

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlmpack.proof.fitting import CHUNK, GRID, HEADS, NARROW, PATCH, WIDTH, WINDOW, fill_in, fit_together
from vlmpack.proof.layers import keep_two_of_each_kind
from vlmpack.proof.special_tokens import TOKEN, moved_tokens, parts, widen_vocabulary


class MiniatureError(ValueError):
    """No small model can be made of this configuration here."""


def miniature(config: PretrainedConfig) -> PretrainedConfig:
    """The same architecture, small.

    Args:
        config: of any model; its sub-configurations shrink with it.

    Returns:
        A copy with few narrow layers, two of each kind that there is, a small vocabulary in which special tokens keep
        their order, and images of few patches.
    """
    small = copy.deepcopy(config)
    tokens = moved_tokens(small)
    least = _layers_that_read_images(small)
    for part in parts(small):
        keep_two_of_each_kind(part, least)
        before = dict(part.__dict__)
        for name, value in before.items():
            part.__dict__[name] = _shrunk(name, value, before, tokens)
        fill_in(part)
        fit_together(part, before)
    widen_vocabulary(small)
    return small


def _layers_that_read_images(config: PretrainedConfig) -> int:
    """How many layers it takes for images to enter where they do and be read once more after the last place."""
    targets = [
        *(getattr(config, "deepstack_layer_map", None) or ()),
        *(getattr(config, "spatial_target_layers", None) or ()),
    ]
    if targets:
        return len(targets) + 1
    return 3 if any("deepstack" in name for part in parts(config) for name in part.__dict__) else 2


def build(config: PretrainedConfig, seed: int = 0) -> nn.Module:
    """A model with random weights, in float64 and eval mode.

    Args:
        config: a small one, or there will not be enough memory.
        seed: of the weights.

    Returns:
        A model in which every weight matters to the output.

    Raises:
        MiniatureError: transformers cannot build it; the message says why.
    """
    auto = AutoModelForCausalLM
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        auto = AutoModelForImageTextToText
    torch.manual_seed(seed)
    model = _from_config(auto, config).double().eval()
    model.set_experts_implementation("eager")  # grouped matrix products know no float64
    _draw_weights(model)
    return model


def _from_config(auto: type, config: PretrainedConfig) -> nn.Module:
    reasons = []
    for attention in ("sdpa", "eager"):
        try:
            return auto.from_config(copy.deepcopy(config), attn_implementation=attention)
        except Exception as reason:  # any kind, for transformers' models raise any; all of it is passed on
            reasons.append(reason)
    raise MiniatureError(
        f"transformers builds no small {config.model_type}: {type(reasons[-1]).__name__}: {reasons[-1]}"
    ) from reasons[-1]


@torch.no_grad()
def _draw_weights(model: nn.Module) -> None:
    """Weights of a size at which no part's share of the output vanishes: initial ones are too small, or zero."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            noise = torch.randn(parameter.shape, dtype=torch.float64)
            if parameter.ndim < 2 or "Norm" in type(module).__name__:
                parameter.add_(0.1 * noise)  # around what is neutral there: a norm's one or zero, a bias's zero
            elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                parameter.copy_(noise * (2 / parameter[0].numel() ** 0.5))
            else:
                parameter.copy_(0.25 * noise)


def _shrunk(name: str, value, fields: dict, tokens: dict[int, int]):
    """A field's small value; itself where no rule knows the name."""
    if isinstance(value, bool) or value is None or isinstance(value, PretrainedConfig):
        return value
    if name == "_heterogeneity_spec":  # what single layers have of their own
        for own in value.per_layer_overrides.values():
            own.update({each: _shrunk(each, number, {**fields, **own}, tokens) for each, number in own.items()})
        return value
    if FEATURES.fullmatch(name) and type(value) is int:
        return max(-2, min(value, 1))  # of two layers
    if isinstance(value, list | tuple) and value and name not in UNTOUCHED:
        return type(value)(_shrunk(name, each, fields, tokens) for each in value)
    if not isinstance(value, int) or (value <= 0 and not TOKEN.search(name)):
        return value
    if TOKEN.search(name):
        return tokens.get(value, value)
    for pattern, rule in RULES.items():
        if re.fullmatch(pattern, name):
            return rule(value, fields) if callable(rule) else rule
    return value


FEATURES = re.compile(r"\w*feature_layers?|spatial_vision_layer")
UNTOUCHED = {"conv_stride", "channel_multiplier"}


def _key_value_heads(value: int, fields: dict) -> int:
    heads = next((fields[n] for n in fields if re.fullmatch(HEAD_COUNT, n) and isinstance(fields[n], int)), value)
    return HEADS if value >= heads else min(value, HEADS // 2)


def _head_size(value: int, fields: dict) -> int:
    """16, or what leaves a quarter of it enough for three kinds of positions."""
    rope = str(fields.get("rope_parameters")) + str(fields.get("partial_rotary_factor"))
    return 32 if "0.25" in rope or "0.125" in rope else 16


def _side(_: int, fields: dict) -> int:
    """Twice as long where the tower itself or what follows it leaves a sixteenth of the patches."""
    coarse = "output_channels" in fields or (fields.get("scale_factor") or 0) > 2
    return PATCH * GRID * (2 if coarse else 1)


HEAD_COUNT = (
    r"(swa_)?num(_sliding)?_attention_heads|n_heads?|(decoder_|encoder_)?attention_heads|num_heads|resampler_n_heads"
    r"|conf_num_attention_heads|resampler_heads"
)

# Tried from the top: the first that matches a field's whole name says its small value.
RULES = {
    HEAD_COUNT: HEADS,
    r"(swa_)?num_(key_value|kv)_heads|num_query_groups": _key_value_heads,
    r"(swa_|global_)?head_dim|attention_head_(dim|size)|kv_channels|d_head|d_kv": _head_size,
    r"resampler_(head_dim|dim_head)": _head_size,
    r"qk_nope_head_dim|v_head_dim|linear_(key|value)_head_dim|linear_head_dim|index_head_dim": 16,
    r"qk_rope_head_dim|rotary_dim": 8,
    r"mamba_d_head|mamba_head_?dim|\w*d_state|(ssm_)?state_size": 16,
    r"mamba_n_heads|mamba_num_heads|n_mamba_heads": lambda value, fields: min(value, 2 * WIDTH // 16),
    r"\w*n_groups|mamba_ngroups": lambda value, _: min(value, 2),
    r"downsample_channels": WIDTH,
    r"num_embeddings|codebook_size|base_channels": 32,
    r"resolution": PATCH * GRID * 4,
    r"(q|kv|o)_lora_rank": 16,
    r"linear_num_key_heads": 2,
    r"linear_num_(value_)?heads|index_n_heads": 4,
    r"\w*sliding_window(_size)?|attention_window_size|local_attention|index_topk": WINDOW,
    r"attention_chunk_size|mamba_chunk_size|chunk_size": CHUNK,
    r"(moe_)?num_(local_|routed_)?experts|n_routed_experts": 4,
    r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts": lambda value, _: min(value, 2),
    r"n_group|num_expert_group": lambda value, _: min(value, 2),
    r"topk_group": 1,
    r"patch_size": PATCH,
    r"image_size|force_image_size|crop_size": _side,
    r"max_image_size|max_img_size": PATCH * GRID * 4,
    r"output_channels": 32,
    r"hidden_sizes": WIDTH,
    r"zero_expert_num": 2,
    r"num_image_tokens|image_seq_length|num_patches|num_position_embeddings": GRID * GRID,
    r"mm_tokens_per_image|num_query_tokens|resampler_n(um)?_latents|vision_soft_tokens_per_image": 4,
    r"pos_emb_(height|width)|posemb_grid_size": GRID,
    r"num_logits_to_keep|\w*_channels_in": lambda value, _: value,
    r"\w*(intermediate_size|ffn_dim|ffn_hidden_size|inner_dim|mlp_dim|expert_dim)|dim_ff|dff|d_inner|n_inner": NARROW,
    r"\w*hidden_size(_per_layer_input|_global)?|d_model|n_embd|\w*embed_dim|emb_dim|embedding_size|dim_model"
    r"|\w*(projection|output|out|in|input|proj|hidden|encoder)_dims?|projection_size|lru_width|embedding_dim": WIDTH,
}
