"""Which models can share a prefix, and why the others cannot."""

import re
from inspect import Parameter, signature

from torch import nn

from vlmpack.families import exact_families

ATTENTION_LAYERS = {"full_attention", "sliding_attention", "attention"}

# Layers that carry information from token to token past the attention mask: a sibling would leak through them.
MIXES_TOKENS = re.compile(
    r"Mamba|SSM|Rwkv|DeltaNet|LinearAttention|LightningAttention|ShortConv|Recurrent|RgLru|Retention|Hyena|"
    r"CrossAttention|Conv[123]d$"
)


class UnsupportedModelError(ValueError):
    """A model that cannot be packed exactly; the message names it and says why."""


def check(model: nn.Module) -> None:
    """Refuse a model whose packed computation would not equal the unpacked one.

    Args:
        model: a transformers model, or a `RewardModel`.

    Raises:
        UnsupportedModelError: names the model and the reason.
    """
    reasons = (
        _encoder_decoder,
        _vision_family,
        _token_mixing,
        _positions,
        _attention_hook,
        _attention_extras,
    )
    for reason in reasons:
        if text := reason(model):
            raise UnsupportedModelError(
                f"{type(model).__name__} ({model.config.model_type}) cannot be packed: {text}\n"
                f"Train it unpacked (packing=False), or take a decoder whose tokens meet only in plain attention."
            )


def check_length(model: nn.Module, longest: int) -> None:
    """Refuse rotary embeddings that change with the longest path in the sequence.

    Such a model computes a short response differently when a long one stands in the same pack.

    Args:
        model: as for `check`.
        longest: tokens of the longest prompt + response in the pack.
    """
    config = model.get_decoder().config
    rope = getattr(config, "rope_parameters", None) or {}
    known = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if rope.get("rope_type") in ("dynamic", "longrope") and longest > known:
        raise UnsupportedModelError(
            f"{type(model).__name__} scales its rotary embedding ({rope['rope_type']}) by the longest path in the "
            f"sequence, and this pack holds one of {longest} tokens, more than {known}.\n"
            f"Set max_length={known}, or train unpacked (packing=False)."
        )


def _encoder_decoder(model: nn.Module) -> str | None:
    if getattr(model.config, "is_encoder_decoder", False):
        return "it is an encoder-decoder: a response is read by another stack than its prompt."
    return None


def _vision_family(model: nn.Module) -> str | None:
    config = getattr(model.config, "backbone_config", model.config)
    if config is config.get_text_config() or config.model_type in exact_families():
        return None
    return f"the vision-language families proven exact so far are {', '.join(exact_families())}; it is none of them."


def _token_mixing(model: nn.Module) -> str | None:
    decoder = model.get_decoder()
    other = sorted(set(getattr(decoder.config, "layer_types", None) or ()) - ATTENTION_LAYERS)
    if other:
        return f"its layers of type {', '.join(other)} pass information between siblings, which no mask stops."
    for name, module in decoder.named_modules():
        if MIXES_TOKENS.search(type(module).__name__):
            return (
                f"its layer {name} ({type(module).__name__}) passes information from token to token other than "
                f"through self-attention, which no mask stops."
            )
    return None


def _positions(model: nn.Module) -> str | None:
    config = model.get_decoder().config
    if "mrope_section" in (getattr(config, "rope_parameters", None) or {}):
        return "its rotary positions have several rows (M-RoPE), which are not supported yet."
    if getattr(config, "alibi", False) or (config.model_type in ("bloom", "mpt", "falcon") and not _rotary(config)):
        return "it takes distances from places in the sequence (ALiBi), not from position_ids."
    return None


def _rotary(config) -> bool:
    return bool(getattr(config, "rope_parameters", None))


def _attention_hook(model: nn.Module) -> str | None:
    decoder = model.get_decoder()
    if not decoder._can_set_attn_implementation():
        return "its layers do not go through transformers' attention interface."
    for name, module in decoder.named_modules():
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention"):
            kinds = {parameter.kind for parameter in signature(module.forward).parameters.values()}
            if Parameter.VAR_KEYWORD not in kinds:
                return f"its {name} ({type(module).__name__}) hands no further arguments to the attention function."
    return None


def _attention_extras(model: nn.Module) -> str | None:
    config = model.get_decoder().config
    if getattr(config, "attn_logit_softcapping", None):
        return f"it caps attention scores (attn_logit_softcapping={config.attn_logit_softcapping}); not supported yet."
    if getattr(config, "use_bidirectional_attention", None):
        return "its tokens attend both ways (use_bidirectional_attention)."
    if any(name.endswith("sinks") for name, _ in model.get_decoder().named_parameters()):
        return "it has attention sinks, which are not supported yet."
    return None
