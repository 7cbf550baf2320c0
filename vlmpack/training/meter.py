"""Averages over preference pairs, gathered on the device and read when they are logged."""

import torch
from torch import Tensor


class Meter:
    """Sums of metrics with one value a pair; a pair weighs the same in whichever pack it was."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}  # [2] each with what it is divided by

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add [P] values of each metric. No device is waited for."""
        for name, values in metrics.items():
            self._add(name, values.detach().sum(dtype=_exact(values)), len(values))

    def add_loss(self, loss: Tensor, weight: Tensor) -> None:
        """Add a part of the loss and what it weighs."""
        self._add("loss", loss.detach().to(_exact(loss)), weight)

    def _add(self, name: str, value: Tensor, weight: Tensor | int) -> None:
        sums = torch.stack([value, torch.as_tensor(weight).to(value)])
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def means(self, reduce) -> dict[str, float]:
        """The mean of each metric over all pairs so far, then start anew.

        Args:
            reduce: sums a tensor over all ranks; called with the same metrics on each.
        """
        means = {}
        for name, sums in self.sums.items():
            value, weight = reduce(sums)
            means[name] = (value / weight).item()
        self.__init__()
        return means


def _exact(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64  # which Apple's GPUs lack
