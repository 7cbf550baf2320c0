"""What a model does to the logits that come out of its head, before it returns them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LogitMap:
    """Logits as the model returns them: scaled, then squeezed into (-cap, cap) by tanh.

        map(z) = cap * tanh(scale * z / cap)

    Soft-capping: Gemma 2 report, 2024, section 2 (https://arxiv.org/abs/2408.00118).

    Attributes:
        scale: what logits are multiplied with.
        cap: None for no squeezing.
    """

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """Map the head's logits."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def chain(self, gradient: Float[Tensor, "N V"], mapped: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """From the gradient of mapped logits to that of the head's: times scale * (1 - (mapped / cap)^2)."""
        if self.cap is not None:
            gradient = gradient * (1 - (mapped / self.cap).square())
        return gradient if self.scale == 1.0 else gradient * self.scale


UNCHANGED = LogitMap()
