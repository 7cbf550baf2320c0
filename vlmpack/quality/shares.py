"""A share of a few things counted, with the interval in which the share of all such things may lie."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

DEVIATIONS = 1.959963984540054  # standard deviations of a normal distribution, to either side, that hold 95 %


@dataclass(frozen=True)
class Share:
    """How many of how many.

    Attributes:
        count: of those for which it holds.
        of: all of them, at least 1.
        value: count / of.
        low, high: 95 % Wilson interval of the value.
    """

    count: int
    of: int
    value: float
    low: float
    high: float


def share(holds: Bool[np.ndarray, " n"]) -> Share | None:
    """The share of those for which something holds, with its 95 % interval.

        low, high = (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Wilson, 1927, "Probable inference, the law of succession, and statistical inference"
    (https://doi.org/10.2307/2276774), with z = 1.96. It keeps within 0 and 1 and is not empty where p is 0 or 1, as
    with few things it often is. It takes the things as independent of each other.

    Args:
        holds: [n] for each thing, whether it holds.

    Returns:
        None if there is nothing.

    Example:
        >>> share(np.array([True, True, False]))  # doctest: +ELLIPSIS
        Share(count=2, of=3, value=0.666..., low=0.207..., high=0.938...)
    """
    of, count = len(holds), int(holds.sum())
    if not of:
        return None
    value, square = count / of, DEVIATIONS**2
    middle = value + square / (2 * of)
    reach = DEVIATIONS * math.sqrt(value * (1 - value) / of + square / (4 * of**2))
    low, high = ((middle + side * reach) / (1 + square / of) for side in (-1, 1))
    return Share(count, of, value, 0.0 if count == 0 else low, 1.0 if count == of else high)
