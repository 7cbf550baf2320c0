"""The logistic loss of a margin whose label may be wrong: what DPO, CPO, SimPO and AOT have in common."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def logistic(margin: Float[Tensor, " P"], *, label_smoothing: float = 0.0) -> Float[Tensor, " P"]:
    """The logistic loss, with a label that is flipped by chance.

        loss = -(1 - label_smoothing) * log sigmoid(margin) - label_smoothing * log sigmoid(-margin)

    Mitchell, 2023, equation 3 (https://ericmitchell.ai/cdpo.pdf), where `margin` is DPO's.

    Args:
        margin: [P] how much further up the preferred response is than the rejected one.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.

    Returns:
        [P] loss in nats; log 2 where the margin is 0, whatever the smoothing.
    """
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
