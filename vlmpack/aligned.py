"""Weights in memory where kernels want them: what was saved and loaded then computes the same, to the last bit."""

import torch
from torch import nn

BOUNDARY = 64  # bytes; where torch puts what it allocates


@torch.no_grad()
def align(model: nn.Module) -> None:
    """Move weights that do not begin at a boundary to where one is, on the CPU.

    Weights that are read from a file begin where the file has them. Kernels take other ways through such memory: slower
    ones, which add up in another order, so that a loaded model differs from the saved one in the last bit.

    Args:
        model: changed in place; its parameters stay the same objects.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point() and parameter.data_ptr() % BOUNDARY:
            parameter.data = parameter.data.clone()
