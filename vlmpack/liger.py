"""Log-probabilities by Liger's fused kernels, where they are asked for."""

import os
import re
from importlib.metadata import PackageNotFoundError, version

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.logit_map import LogitMap

LEAST = (0, 8, 2)  # before, gradients of single tokens' losses were wrong


class LigerError(ValueError):
    """Liger's kernels were asked for and cannot run."""


def check_liger() -> None:
    """Refuse to go on without the package, or without what its kernels run on.

    Raises:
        LigerError: liger-kernel is not installed, is too old, or there is no GPU.
    """
    try:
        found = version("liger-kernel")
    except PackageNotFoundError:
        raise LigerError("use_liger_kernel=True needs liger-kernel; pip install 'vlmpack[liger]'") from None
    if tuple(int(part) for part in re.findall(r"\d+", found)[:3]) < LEAST:
        raise LigerError(
            f"liger-kernel {found} gives single tokens' losses wrong gradients; pip install -U 'vlmpack[liger]'"
        )
    if not torch.accelerator.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        raise LigerError("use_liger_kernel=True needs a GPU, and there is none; leave it out")


def liger_logps(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Int[Tensor, " N"],
    logit_map: LogitMap,
) -> Float[Tensor, " N"]:
    """As `token_logps.token_logps`, by the Triton kernels of Hsu et al., 2024 (https://arxiv.org/abs/2410.10989).

    It makes logits again for the backward pass too, for a token's weight in the loss is known only then.

    Args:
        hidden, weight, bias, tokens, logit_map: as there.

    Returns:
        [N] nats, float32.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    if logit_map.scale != 1.0:  # before the product, for Liger knows caps and no scales
        hidden, bias = hidden * logit_map.scale, None if bias is None else bias * logit_map.scale
    return -liger_fused_linear_cross_entropy(
        hidden.to(weight.dtype),
        weight,
        tokens,
        bias,
        reduction="none",
        softcap=logit_map.cap,
        accum_dtype=torch.float32,
    )
