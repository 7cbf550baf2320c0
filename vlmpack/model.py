"""Running a pack through a transformers model. The only file that knows transformers' attention hooks."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vlmpack import families, support
from vlmpack.attention import attend
from vlmpack.choosing import settled
from vlmpack.kernels.weighing import Settings, weigh
from vlmpack.pack import Pack, lay_out
from vlmpack.plan import BACKENDS, AttentionError, Plan, make
from vlmpack.positions import position_ids
from vlmpack.sample import Sample
from vlmpack.support import UnsupportedModelError
from vlmpack.vision import feature_maker, placed

IMPLEMENTATION = "vlmpack"  # the name under which transformers finds `_attention`

# transformers passes a 4-D mask on as it is and detects nothing. This one is empty: a layer that
# used it instead of the plan would fail on its shape, not compute something wrong.
_NO_MASK_SHAPE = (1, 1, 0, 0)


def enable(model: nn.Module, attention: str = "auto", unproven: bool = False) -> nn.Module:
    """Let a model read packs. Calls without a pack compute what they did before.

    Args:
        model: a transformers model, a PEFT model or a `RewardModel`; changed in place.
        attention: "varlen" (FlashAttention, on a CUDA device in half precision), "flex" (FlexAttention), "paths" (one
            call a root-to-leaf run, no table over a whole tree), "dense" (one call a layer, the trees as rows of a
            batch, each under its own mask), or "auto" (for each pack the one predicted to be the fastest that can run;
            the logger "vlmpack" says which, and why).
        unproven: accept a family that nobody has proven exact; `vlmpack.verify` proves a model.

    Returns:
        The model.

    Raises:
        AttentionError: no such backend, it cannot run this model, or a layer does not attend through it.
        UnsupportedModelError: the model cannot be packed exactly; says why.
    """
    if attention not in BACKENDS:
        raise AttentionError(f"attention={attention!r} is not a backend; take one of {BACKENDS}")
    base = unwrapped(model)
    support.check(base, unproven)
    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    decoder = base.get_decoder()
    decoder.set_attn_implementation(IMPLEMENTATION)
    decoder.vlmpack_attention = attention
    _try_out(base, decoder)
    return model


def is_enabled(model: nn.Module) -> bool:
    """Whether the model reads packs already."""
    return hasattr(unwrapped(model).get_decoder(), "vlmpack_attention")


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers for data parallelism, compilation and adapters."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif (inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None)) is not None:
            model = inner
        else:
            return model


def run(model: nn.Module, pack: Pack, listener: Callable | None = None, **arguments: Any) -> Any:
    """Call the model on a pack and return what it returns.

    Args:
        model: enabled; may be wrapped.
        pack: on the model's device.
        listener: is told what each layer attends with; see `Plan.listener`.
        arguments: further arguments of the model's forward, such as `logits_to_keep`.

    Raises:
        AttentionError: the model was not enabled, or a layer did not attend through the plan.
    """
    base = unwrapped(model)
    decoder = base.get_decoder()
    if not is_enabled(base):
        raise AttentionError(f"{type(base).__name__} does not know packs yet; call vlmpack.enable(model) first")
    support.check_length(base, max(map(sum, zip(pack.forest.depths, pack.forest.lengths, strict=True))))
    _check_family(base, pack)
    plan = replace(_plan(base, pack), listener=listener)
    inputs = _text_inputs(pack) | {"position_ids": position_ids(base, pack)} | _token_types(base, pack)
    with placed(base, pack):
        outputs = model(**inputs, plan=plan, **_cast_images(base, pack.images), **arguments)
    _check_layers(decoder, plan)
    return outputs


def _check_family(base: nn.Module, pack: Pack) -> None:
    """Samples that were made for another family would be computed with another mask than the model's own."""
    wants = families.both_ways_in(base.config)
    if wants not in (None, pack.both_ways) and (pack.placements or wants == "prompt"):
        raise AttentionError(
            f"the pack's samples have both_ways={pack.both_ways!r} and {type(base).__name__} wants {wants!r}; make the "
            f"samples with this model's own processor"
        )


def _token_types(base: nn.Module, pack: Pack) -> dict[str, Tensor]:
    """What tells text from images, for the models that ask for it; masks do not come of it here."""
    takes = signature(base.forward).parameters
    if feature_maker(base) is None:
        return {}
    images = (pack.image_of >= 0).int()
    types = {"mm_token_type_ids": images, "token_type_ids": images}
    if pack.both_ways == "prompt":
        types["token_type_ids"] = (pack.blocks < 0).int()
    return {name: tensor for name, tensor in types.items() if name in takes}


def few_tokens(base: nn.Module) -> Pack:
    """A prompt of one token with two responses of one, on the model's device: to see what a model does.

    Args:
        base: not wrapped.
    """
    responses = (torch.tensor([0]), torch.tensor([1]))
    sample = Sample(torch.tensor([0]), responses, both_ways=families.both_ways_in(base.config))
    return lay_out([sample], rows=[0]).to(base.get_decoder().get_input_embeddings().weight.device)


@torch.no_grad()
def _try_out(base: nn.Module, decoder: nn.Module) -> None:
    """Three tokens through the decoder: what a layer would refuse in training, it refuses here."""
    if any(parameter.numel() == 0 for parameter in decoder.parameters()):
        return  # sharded weights are not at hand yet; the first pack will tell
    pack = few_tokens(base)
    plan = _plan(base, pack)
    try:
        decoder(**_text_inputs(pack), plan=plan)
    except AttentionError:
        raise
    except Exception as error:  # whatever the model's own code raises when its masks and positions are given
        raise UnsupportedModelError(
            f"{type(base).__name__} ({base.config.model_type}) cannot be packed: its {type(decoder).__name__} fails on "
            f"three tokens of a pack with {type(error).__name__}: {error}"
        ) from error
    _check_layers(decoder, plan)


def _plan(base: nn.Module, pack: Pack) -> Plan:
    family, attention = families.family_of(base.config), base.get_decoder().vlmpack_attention
    blocks = None if families.both_ways_in(base.config) is None else pack.blocks[0]
    plan = make(
        pack.forest,
        pack.reach[0],
        pack.position_ids[0],
        attention,
        blocks=blocks,
        block_layers=family.layers,
        window_cuts_blocks=family.window_cuts_blocks,
    )
    return settled(plan)


def _text_inputs(pack: Pack) -> dict[str, Any]:
    return {
        "input_ids": pack.input_ids,
        "position_ids": pack.position_ids,
        "attention_mask": torch.empty(_NO_MASK_SHAPE, dtype=torch.bool, device=pack.input_ids.device),
        "use_cache": False,
    }


def _check_layers(decoder: nn.Module, plan: Plan) -> None:
    layers = decoder.config.num_hidden_layers
    if len(plan.layers) != layers:
        raise AttentionError(
            f"{len(plan.layers)} of the {layers} layers of {type(decoder).__name__} attend through vlmpack; the others "
            f"would mix siblings. This model cannot be packed."
        )


def _cast_images(base: nn.Module, images: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pixels in the vision tower's dtype; indices and sizes as they are."""
    if not images:
        return {}
    tower = next(base.get_encoder("image").parameters())
    dtype = tower.dtype if tower.is_floating_point() else None  # quantized weights say nothing of activations
    return {name: x.to(dtype) if dtype and x.is_floating_point() else x for name, x in images.items()}


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    plan: Plan | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: through the plan if there is one, else as transformers would."""
    settings = Settings(scaling, dropout, softcap, s_aux)
    if plan is None:
        _refuse_lost_plan(module, attention_mask)
        if softcap is None and s_aux is None:
            sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
            return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)
        output = weigh(query, key, value, attention_mask, settings)
    else:
        _refuse_own_mask(module, attention_mask)
        _refuse_extras(module, plan, others)
        plan.layers.add(module.layer_idx)
        window, plan = _window(module, sliding_window), plan.of_layer(_kind(module))
        if plan.listener is not None:
            plan.listener(module.layer_idx, query, key, value, plan, window, settings)
        try:
            output = attend(query, key, value, plan, window, settings)
        except AttentionError as error:
            raise AttentionError(f"{type(module).__name__} of layer {module.layer_idx}: {error}") from error
    return output.transpose(1, 2).contiguous(), None


def _refuse_lost_plan(module: nn.Module, attention_mask: Tensor | None) -> None:
    if attention_mask is not None and attention_mask.shape == _NO_MASK_SHAPE:
        raise AttentionError(
            f"{type(module).__name__} got a pack's mask but not its plan: the model does not hand extra arguments "
            f"to its attention layers. This model cannot be packed."
        )


def _refuse_own_mask(module: nn.Module, attention_mask: Tensor | None) -> None:
    """A layer that puts a mask of its own in place wants something that the plan does not know."""
    if attention_mask is None or attention_mask.shape != _NO_MASK_SHAPE:
        raise AttentionError(
            f"{type(module).__name__} makes an attention mask of its own, which a pack's plan would ignore. This model "
            f"cannot be packed."
        )


def _refuse_extras(module: nn.Module, plan: Plan, others: dict[str, Any]) -> None:
    """What an attention layer asks for beyond what the plan knows, we cannot do."""
    asked = [name for name in ("position_bias", "head_mask") if others.get(name) is not None]
    if asked or (plan.blocks is None and not getattr(module, "is_causal", True)):
        raise AttentionError(
            f"{type(module).__name__} asks for {', '.join(asked) or 'attention both ways'}, which packing does not "
            f"support yet. This model cannot be packed."
        )


def _kind(module: nn.Module) -> str | None:
    """Which of the decoder's kinds of layers a layer is; None if they are all alike."""
    kinds = getattr(module.config, "layer_types", None)
    return None if kinds is None else kinds[module.layer_idx]


def _window(module: nn.Module, told: int | None) -> int | None:
    """The layer's sliding window, which some layers leave to the mask."""
    if _kind(module) in (None, "sliding_attention"):
        return told or getattr(module.config, "sliding_window", None)
    return None
