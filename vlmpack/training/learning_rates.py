"""A learning rate of its own for the vision tower."""

from collections.abc import Collection
from typing import Any

from torch import nn
from transformers.trainer_optimizer import is_optimizer_factory

from vlmpack.training.config import ConfigError, PreferenceConfig
from vlmpack.training.freezing import parts_of


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decayed_names: Collection[str], vision_lr: float | None
) -> list[dict[str, Any]]:
    """The parameters in training, grouped as transformers' Trainer groups them, and the vision tower's apart.

    Only the tower's own: a projector learns at the common rate, as it is fresh more often than not. Schedulers scale
    every group's rate alike; the rate that is logged is the first group's, the common one.

    Args:
        model: may be wrapped and sharded.
        weight_decay: of the names that decay.
        decayed_names: as from `Trainer.get_decay_parameter_names`.
        vision_lr: the tower's; None: the common rate.

    Returns:
        Groups for any torch optimizer, those at the common rate first; empty ones left out.

    Raises:
        ConfigError: a rate for a vision tower that is not there or not trained.
    """
    tower = set() if vision_lr is None else set(parts_of(model).get("vision_tower", {}))
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if vision_lr is not None and not tower & set(named):
        raise ConfigError(f"vision_lr={vision_lr}, but the model trains no vision tower; leave vision_lr out")
    decayed, groups = set(decayed_names), []
    for in_tower in (False, True):
        for decays in (True, False):
            members = [p for n, p in named.items() if (n in tower) is in_tower and (n in decayed) is decays]
            own_rate = {"lr": vision_lr} if in_tower else {}
            groups.append({"params": members, "weight_decay": weight_decay if decays else 0.0, **own_rate})
    return [group for group in groups if group["params"]]


def with_groups(
    optimizer: tuple[Any, dict[str, Any]], groups: list[dict[str, Any]], name: str
) -> tuple[Any, dict[str, Any]]:
    """A class of optimizers and its arguments, as transformers' Trainer takes them, over groups of one's own.

    Args:
        optimizer: as from `Trainer.get_optimizer_cls_and_kwargs`.
        groups: as from `parameter_groups`.
        name: of the optimizer, as in `args.optim`.

    Raises:
        ConfigError: the optimizer groups parameters itself.
    """
    kind, arguments = optimizer
    if is_optimizer_factory(kind) or {"params", "model", "optimizer_dict"} & set(arguments):
        raise ConfigError(f"optim={name!r} groups parameters itself and knows no vision_lr; leave one of them out")
    return kind, {**arguments, "params": groups}


def check_vision_rate(args: PreferenceConfig, optimizers: tuple) -> None:
    """A learning rate for the vision tower must reach the optimizer.

    Args:
        args: settings.
        optimizers: as for `Trainer`: an optimizer and a scheduler, or None for each.

    Raises:
        ConfigError: the optimizer is made elsewhere.
    """
    if args.vision_lr is None:
        return
    if optimizers[0] is not None:
        raise ConfigError(
            f"vision_lr={args.vision_lr} and an optimizer of your own; give it a group for the vision tower and leave "
            f"vision_lr out"
        )
    deepspeed = getattr(args.deepspeed_plugin, "hf_ds_config", None)
    if deepspeed is not None and "optimizer" in deepspeed.config:
        raise ConfigError(
            f"vision_lr={args.vision_lr}, but DeepSpeed's configuration makes the optimizer, with one learning rate "
            f"for all; take its 'optimizer' entry out, and vlmpack makes it"
        )
