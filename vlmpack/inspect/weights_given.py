"""Attention weights that somebody hands over to be shown: whether they are this pack's, and weights at all."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vlmpack.inspect.exhibit import Exhibit, InspectError

LARGEST = 1.01  # of a weight: rounded to bfloat16, one of 1 may come out as 1.0078


def checked(weights: Float[Tensor, "T T"], exhibit: Exhibit, most: int) -> Float[np.ndarray, "T T"]:
    """The weights as an array in float64, which loses none of them.

    Args:
        weights: on any device, of any dtype.
        exhibit: of the pack over which they were computed.
        most: tokens of a pack whose weights can be shown.

    Raises:
        InspectError: they are too many, of another pack, or no weights.
    """
    tokens, shape = exhibit.tokens, tuple(weights.shape)
    if tokens > most:
        raise InspectError(f"the weights of {tokens:,} tokens cannot be told apart; show a pack of at most {most:,}")
    if shape != (tokens, tokens):
        raise InspectError(f"weights are of shape {shape} and the pack has {tokens} tokens; give [{tokens}, {tokens}]")
    if not ((weights >= 0) & (weights <= LARGEST)).all():
        raise InspectError(
            f"weights lie between {weights.min().item():.3g} and {weights.max().item():.3g} and must lie between 0 and "
            "1; give those after the softmax, as attention_weights does"
        )
    return weights.detach().cpu().double().numpy()
