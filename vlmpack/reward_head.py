"""From a response's hidden state to its reward: one linear layer, or two."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HEADS = ("linear", "mlp")


class RewardHead(nn.Module):
    """A linear function of the hidden state, or a two-layer perceptron, in float32 whatever the backbone.

    bfloat16 cannot tell 3.00 from 3.01. The last layer has no bias: a constant moves all rewards alike, which no
    comparison sees.

    Args:
        hidden: H, the backbone's hidden size.
        kind: "linear", or "mlp" with a layer of the same width and SiLU before it.
        dtype: of the backbone.
    """

    def __init__(self, hidden: int, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        exact = torch.promote_types(dtype, torch.float32)
        self.dense = nn.Linear(hidden, hidden, dtype=exact) if kind == "mlp" else None
        self.score = nn.Linear(hidden, 1, bias=False, dtype=exact)

    def forward(self, hidden: Float[Tensor, "R H"]) -> Float[Tensor, " R"]:
        """The reward of each hidden state."""
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.score.weight.dtype)
            if self.dense is not None:
                hidden = F.silu(self.dense(hidden))
            return self.score(hidden)[:, 0]

    @torch.no_grad()
    def begin(self, layer: nn.Linear) -> None:
        """Random weights for one of the layers: small, so that every response starts with about the same reward.

        Args:
            layer: of this head.
        """
        nn.init.normal_(layer.weight, std=(layer.in_features + 1) ** -0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
