"""The `varlen` backend: FlashAttention over groups of queries and keys of different lengths."""

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack.kernels.flash import KERNELS
from vlmpack.kernels.merging import Kernel, merged
from vlmpack.kernels.parts import parts
from vlmpack.kernels.weighing import Settings
from vlmpack.plan import AttentionError, Plan

HALF = (torch.float16, torch.bfloat16)
LEAST_CAPABILITY = 8  # of the device: Ampere
MOST_HEAD = 256  # of a head's size


def refusal(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, window: int | None, settings: Settings
) -> str | None:
    """Why no FlashAttention at hand can compute a layer; None if one can.

    Args:
        query, key, value: of the layer.
        plan: of the pack.
        window: of the layer.
        settings: of the layer.
    """
    if plan.blocks is not None:
        return "FlashAttention sees earlier tokens only, and tokens of this model's layer see each other both ways"
    if settings.dropout:
        return f"a merged softmax has no dropout, and the layer asks for attention dropout={settings.dropout}"
    if query.device.type != "cuda":
        return f"FlashAttention needs a CUDA device, and the model is on {query.device}"
    if {query.dtype, key.dtype, value.dtype} - set(HALF):
        return f"FlashAttention computes in float16 or bfloat16, and the layer in {query.dtype}"
    if torch.cuda.get_device_capability(query.device)[0] < LEAST_CAPABILITY:
        return f"FlashAttention needs an Ampere GPU or newer, not {torch.cuda.get_device_name(query.device)}"
    if (size := query.shape[-1]) != value.shape[-1] or size % 8 or size > MOST_HEAD:
        return (
            f"FlashAttention takes heads of up to {MOST_HEAD} numbers, a multiple of 8 and as many in values, and the "
            f"layer's are of {size} and {value.shape[-1]}"
        )
    reasons = []
    for kernel in KERNELS:
        if (reason := kernel.refusal(query, window, settings)) is None:
            return None  # further packages are not imported for nothing
        reasons.append(reason)
    return "; ".join(reasons)


def attend(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T D"],
    plan: Plan,
    window: int | None,
    settings: Settings,
) -> Float[Tensor, "1 N T D"]:
    """Attention over a pack; arguments as in `vlmpack.attention.attend`."""
    kernel = _kernel(query, window, settings)
    calls = parts(plan, window, query.shape[1], key.shape[1])
    tokens = (x[0].transpose(0, 1) for x in (query, key, value))
    return merged(*tokens, calls, kernel, window, settings).transpose(0, 1)[None]


def _kernel(query: Tensor, window: int | None, settings: Settings) -> Kernel:
    """The first that can: torch's own, which FlashAttention-3 may stand behind, before the package's."""
    for kernel in KERNELS:
        if kernel.refusal(query, window, settings) is None:
            return kernel
    raise AttentionError("; ".join(kernel.refusal(query, window, settings) for kernel in KERNELS))
