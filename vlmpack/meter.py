"""Averages over preference pairs, gathered on the device and read when they are logged."""

import torch
from torch import Tensor


class Meter:
    """Sums of metrics with one value a pair; a pair weighs the same in whichever pack it was."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add [P] values of each metric. No device is waited for."""
        for name, values in metrics.items():
            exact = torch.float32 if values.device.type == "mps" else torch.float64  # which Apple's GPUs lack
            values = values.detach().sum(dtype=exact)
            self.sums[name] = self.sums[name] + values if name in self.sums else values
        self.count += len(next(iter(metrics.values())))

    def means(self, reduce) -> dict[str, float]:
        """The mean of each metric over all pairs so far, then start anew.

        Args:
            reduce: sums a tensor over all ranks; called with the same metrics on each.
        """
        means = {}
        for name, total in self.sums.items():
            count = reduce(total.new_tensor(float(self.count)))
            means[name] = (reduce(total) / count).item()
        self.__init__()
        return means
