"""What must hold of a model and its settings before a trainer is built around them."""

from typing import Any

import torch
from torch import nn

from vlmpack.dropout import disable_dropout
from vlmpack.head import use_liger
from vlmpack.model import enable, unwrapped
from vlmpack.proof.verify import verify
from vlmpack.support import UnsupportedModelError
from vlmpack.training.config import ConfigError, PreferenceConfig
from vlmpack.training.freezing import freeze, spare_frozen_tower


def prepared(
    model: nn.Module, args: PreferenceConfig, processor: Any = None, peft_config: Any = None
) -> tuple[nn.Module, str]:
    """Check everything that can be checked before training, and let the model read packs.

    Args:
        model: changed in place.
        args: settings.
        processor: what reads rows; None if the data sets hold samples.
        peft_config: put an adapter of this kind on the model.

    Returns:
        The model, or the adapter around it; and what is frozen and what was proven of it, for the user (empty if that
        was not asked for).

    Raises:
        ConfigError: settings that do not go together.
        UnsupportedModelError: packing is not exact on this model.
    """
    check_devices(args)
    check_compilation(args)
    check_processor(processor)
    check_adapter(model, peft_config)
    model = with_adapter(model, peft_config)
    frozen = freeze(
        model,
        vision_tower=args.freeze_vision_tower,
        multi_modal_projector=args.freeze_multi_modal_projector,
        language_model=args.freeze_language_model,
    )
    check_precision(model)
    proof = _enabled(model, args) if args.packing else ""
    spare_frozen_tower(model)
    if args.disable_dropout:
        disable_dropout(model)
    return model, "\n".join(filter(None, [frozen, proof]))


def _enabled(model: nn.Module, args: PreferenceConfig) -> str:
    """Let a model read packs, proven exact first if that is asked for; returns the proof."""
    report = verify(unwrapped(model).config) if args.verify else ""
    if report and not report.exact:
        raise UnsupportedModelError(f"verify=True: packing is not exact on {report}\nTrain with packing=False.")
    enable_as_set(model, args)
    return str(report)


def enable_as_set(model: nn.Module, args: PreferenceConfig) -> None:
    """Let a model read packs by the attention and the kernels that the settings name.

    Args:
        model: changed in place.
        args: settings.
    """
    enable(model, args.attention, unproven=args.verify)
    if args.use_liger_kernel:
        use_liger(model)


def check_devices(args: PreferenceConfig) -> None:
    """One process drives one device, and the unpacked comparison runs in one process."""
    if args.n_gpu > 1:
        raise ConfigError(
            f"{args.n_gpu} GPUs in one process would need DataParallel, which cannot split a pack; start one process "
            f"a GPU with `accelerate launch`, or set CUDA_VISIBLE_DEVICES to one of them"
        )
    if not args.packing and args.world_size > 1:
        raise ConfigError("packing=False is for comparison and runs in one process; leave packing on")


def check_compilation(args: PreferenceConfig) -> None:
    """A pack's plan is no tensor: what is compiled for one shape of a tree does not serve the next."""
    if args.packing and args.torch_compile:
        raise ConfigError(
            "torch_compile=True would compile anew for nearly every pack, since the shape of its tree steers the "
            "computation; leave it off"
        )


def check_precision(model: nn.Module) -> None:
    """Weights that are trained must survive an optimizer step."""
    halves = [name for name, p in model.named_parameters() if p.requires_grad and p.dtype == torch.float16]
    if halves:
        raise ConfigError(
            f"{len(halves)} trainable weights are float16 ({halves[0]}), in which an optimizer step overflows; load "
            f"the model with dtype=torch.float32 or torch.bfloat16 (mixed precision is fp16=True or bf16=True in args)"
        )


def check_processor(processor: Any) -> None:
    """A processor must read preference rows, not texts."""
    if processor is not None and not hasattr(processor, "measure"):
        raise ConfigError(
            f"processing_class is a {type(processor).__name__}, which reads no preference rows; give "
            f"vlmpack.processors.PreferenceProcessor(processor)"
        )


def check_adapter(model: nn.Module, peft_config: Any) -> None:
    """An adapter may change weights, not the sequence: the tree says where every token stands."""
    adapters = getattr(model, "peft_config", None) or {}
    for adapter in [peft_config, *adapters.values()]:
        if getattr(adapter, "is_prompt_learning", False) or getattr(adapter, "is_adaption_prompt", False):
            raise ConfigError(
                f"{type(adapter).__name__} puts virtual tokens before the sequence, and a pack is many sequences; use "
                f"an adapter of the weights, e.g. LoraConfig"
            )


def with_adapter(model: nn.Module, peft_config: Any) -> nn.Module:
    """The model, or an adapter on it if one is asked for."""
    if peft_config is None:
        return model
    try:
        from peft import get_peft_model
    except ImportError:
        raise ConfigError("peft_config needs the peft package: pip install 'vlmpack[peft]'") from None
    return get_peft_model(model, peft_config)
