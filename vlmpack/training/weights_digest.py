"""A fingerprint of a frozen model: one changed bit of one weight changes it, another way to load the model does not."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256  # twice as fast as blake2b where processors have instructions for it
from typing import Any

import torch
from torch import Tensor, nn

from vlmpack.model import unwrapped

CHUNK = 1 << 26  # bytes that a thread takes to the CPU at a time
MOST_THREADS = 8

# Settings that change between two runs of one model and nothing it computes. Weights say their own dtype.
IRRELEVANT = (
    "transformers_version",
    "_name_or_path",
    "architectures",
    "_attn_implementation",
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
)

_BEHIND_ADAPTERS = ("base_layer", "original_module", "token_adapter")  # where PEFT keeps what it took the place of


class WeightsError(ValueError):
    """A model's weights cannot be read, so that nothing can be said of what it computes."""


@torch.no_grad()
def weights_digest(model: nn.Module) -> str:
    """A digest of a model's class, configuration, parameters and persistent buffers.

    Of a model with adapters, what computes when they are switched off counts, under the names it has without them, so
    that putting an adapter on changes nothing. A tied weight counts under each of its names. What quantized layers
    save beside their weights (scales, code tables) counts too.

    Sharded weights (DTensor, DeepSpeed ZeRO-3) are gathered one after the other, so that the digest does not depend on
    the number of ranks: all ranks must call this together, and all get the same.

    Args:
        model: a transformers model, wrapped or not; with the first FSDP, before it is wrapped.

    Returns:
        64 hexadecimal digits.

    Raises:
        WeightsError: a weight is on the meta device or is no tensor, or an adapter does not tell what it adapts.
    """
    base = unwrapped(model)
    state = _base_state(base)
    for name, value in state.items():
        _refuse_unreadable(name, value)
    config = getattr(base, "config", None)
    about = [type(base).__name__, None if config is None else _relevant(config.to_dict())]
    whole = sha256(json.dumps(about, sort_keys=True).encode())
    for name, digest in _digests(state):
        whole.update(json.dumps([name, digest]).encode())
    return whole.hexdigest()


def _relevant(settings: Any) -> Any:
    """Settings without the irrelevant ones, in nested configurations too."""
    if isinstance(settings, dict):
        return {name: _relevant(value) for name, value in settings.items() if name not in IRRELEVANT}
    return settings


def _base_state(base: nn.Module) -> dict[str, Any]:
    """Parameters and persistent buffers without adapters, in sorted order of the names they have without them."""
    plain_names = dict(_plain_names(base, "", ""))
    state = {}
    for name, value in base.state_dict(keep_vars=True).items():
        owner = name.rpartition(".")[0]
        while owner not in plain_names:  # quantized layers save "weight.absmax" beside "weight"
            owner = owner.rpartition(".")[0]
        if (plain := plain_names[owner]) is not None:
            state[plain + name.removeprefix(owner)] = value
    return dict(sorted(state.items()))


def _plain_names(module: nn.Module, name: str, plain: str) -> Iterator[tuple[str, str | None]]:
    """For every module, its name without adapters; None for an adapter, whose own parameters do not count."""
    children = dict(module.named_children())
    if not _is_adapter(module):
        yield name, plain
        for child, inner in children.items():
            yield from _plain_names(inner, f"{name}.{child}".lstrip("."), f"{plain}.{child}".lstrip("."))
        return
    behind = [child for child in _BEHIND_ADAPTERS if child in children]
    if not behind:
        raise WeightsError(
            f"{name} is a {type(module).__name__} of PEFT, which keeps what it adapts under none of the names "
            f"{_BEHIND_ADAPTERS}; take the digest before the adapter is put on"
        )
    yield name, None
    yield from _plain_names(children[behind[0]], f"{name}.{behind[0]}", plain)


def _is_adapter(module: nn.Module) -> bool:
    """Whether PEFT put the module in place of another."""
    return any(each.__module__.split(".")[0] == "peft" for each in type(module).__mro__)


def _refuse_unreadable(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise WeightsError(f"{name} is saved as a {type(value).__name__}, not a tensor; a digest needs tensors")
    if value.is_meta:
        raise WeightsError(
            f"{name} {tuple(value.shape)} is on the meta device, so its weights are not at hand; load the model whole, "
            f"without offloading, and take the digest then"
        )


def _digests(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Each name with its tensor's digest, in order of name; hashing frees Python's lock, so that threads help."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        here = [(name, pool.submit(_digest, tensor)) for name, tensor in state.items() if not _is_sharded(tensor)]
        gathered = [(name, _gathered_digest(tensor)) for name, tensor in state.items() if _is_sharded(tensor)]
        yield from sorted([*gathered, *((name, digest.result()) for name, digest in here)])


def _is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds a part: of a DTensor, or as DeepSpeed's ZeRO-3 does."""
    return hasattr(tensor, "full_tensor") or hasattr(tensor, "ds_tensor")


def _gathered_digest(tensor: Tensor) -> str:
    """The digest of the whole of a tensor of which each rank holds a part; all ranks must gather in one order."""
    if hasattr(tensor, "full_tensor"):
        return _digest(tensor.full_tensor())
    tensor.all_gather()  # DeepSpeed
    try:
        return _digest(tensor)
    finally:
        tensor.partition()


def _digest(tensor: Tensor) -> str:
    """The digest of a tensor's dtype, shape and bytes; of those inside it, if it is made of others."""
    digest = sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    if hasattr(tensor, "__tensor_flatten__"):
        inner, _ = tensor.__tensor_flatten__()
        digest.update(json.dumps([(name, _digest(getattr(tensor, name))) for name in inner]).encode())
        return digest.hexdigest()
    flat = tensor.detach().reshape(-1)
    step = CHUNK // tensor.element_size()
    for start in range(0, len(flat), step):
        digest.update(flat[start : start + step].view(torch.uint8).cpu().numpy())
    return digest.hexdigest()
