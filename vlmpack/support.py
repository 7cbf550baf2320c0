"""Which models can share a prefix, and why the others cannot."""

import re
from inspect import Parameter, signature

from torch import nn

from vlmpack.families import both_ways_in, model_config
from vlmpack.proven import IMAGE_TEXT, TEXT

PROVEN = frozenset({*IMAGE_TEXT, *TEXT})
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "attention"}

# Layers that carry information from token to token past the attention mask: a sibling would leak through them.
MIXES_TOKENS = re.compile(
    r"Mamba|SSM|Rwkv|DeltaNet|LinearAttention|LightningAttention|ShortConv|Recurrent|RgLru|Retention|Hyena|"
    r"Indexer|CrossAttention|Conv[123]d$"
)


class UnsupportedModelError(ValueError):
    """A model that cannot be packed exactly; the message names it and says why."""


def check(model: nn.Module, unproven: bool = False) -> None:
    """Refuse a model whose packed computation would not equal the unpacked one.

    Args:
        model: a transformers model, or a `RewardModel`.
        unproven: accept a family that nobody has proven exact, if nothing else speaks against it.

    Raises:
        UnsupportedModelError: names the model and the reason.
    """
    reasons = (
        _encoder_decoder,
        _token_mixing,
        _positions,
        _attention_hook,
        _attention_extras,
        *(() if unproven else (_unproven,)),  # last: it knows least of why
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
    most, kind = _longest_path(model)
    if longest > most:
        raise UnsupportedModelError(
            f"{type(model).__name__} scales its rotary embedding ({kind}) by the longest path in the "
            f"sequence, and this pack holds one of {longest} tokens, more than {most}.\n"
            f"Set max_length={most}, or train unpacked (packing=False)."
        )


def longest_path(model: nn.Module) -> float:
    """Tokens of the longest path that a model computes in the same way in whatever pack it stands; mostly infinite.

    Args:
        model: as for `check`.
    """
    return _longest_path(model)[0]


def _longest_path(model: nn.Module) -> tuple[float, str]:
    config = model.get_decoder().config
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [(float("inf"), "")]
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):  # of all layers, or of a kind
        known = each.get("original_max_position_embeddings") or config.max_position_embeddings
        if each.get("rope_type") in ("dynamic", "longrope"):
            limits.append((known, each["rope_type"]))
    return min(limits)


def _encoder_decoder(model: nn.Module) -> str | None:
    if getattr(model.config, "is_encoder_decoder", False):
        return "it is an encoder-decoder: a response is read by another stack than its prompt."
    return None


def _unproven(model: nn.Module) -> str | None:
    """A family is proven by its own type; a vision-language one that takes any decoder, by the decoder's type too."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known  # not with vlmpack

    decoder = model.get_decoder().config.model_type
    types = [model_config(model.config).model_type, *([decoder] if decoder in known else [])]
    unproven = next((each for each in types if each not in PROVEN), None)
    if unproven is None:
        return None
    return (
        f"{unproven} is not among the families proven exact (assets/families.md). If `vlmpack verify` finds this model "
        f"exact, train with verify=True, or call vlmpack.enable(model, unproven=True)."
    )


def _token_mixing(model: nn.Module) -> str | None:
    decoder = model.get_decoder()
    other = sorted(set(getattr(decoder.config, "layer_types", None) or ()) - ATTENTION_LAYERS)
    if other:
        return f"its layers of type {', '.join(other)} are not plain attention, so siblings would leak through them."
    for name, module in decoder.named_modules():
        if MIXES_TOKENS.search(type(module).__name__):
            return (
                f"its layer {name} ({type(module).__name__}) passes information from token to token other than "
                f"through self-attention, which no mask stops."
            )
    return None


def _positions(model: nn.Module) -> str | None:
    config = model.get_decoder().config
    if getattr(config, "alibi", False) or (config.model_type in ("bloom", "mpt", "falcon") and not _rotary(config)):
        return "it takes distances from places in the sequence (ALiBi), not from position_ids."
    return None


def _rotary(config) -> bool:
    return bool(getattr(config, "rope_parameters", None))


def _attention_hook(model: nn.Module) -> str | None:
    decoder = model.get_decoder()
    for name, module in decoder.named_modules():
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention"):
            kinds = {parameter.kind for parameter in signature(module.forward).parameters.values()}
            if Parameter.VAR_KEYWORD not in kinds:
                return f"its {name} ({type(module).__name__}) hands no further arguments to the attention function."
    return None


def _attention_extras(model: nn.Module) -> str | None:
    crossed = getattr(model.get_decoder().config, "use_bidirectional_attention", None)
    if crossed and both_ways_in(model.config) is None:
        return "its tokens attend both ways (use_bidirectional_attention), and which ones is not known."
    return None
