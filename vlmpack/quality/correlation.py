"""How far two columns of numbers rise together: Pearson's and Spearman's coefficients."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Correlation:
    """Two coefficients of the same points.

    Attributes:
        points: how many.
        pearson: -1 to 1, of the values; None where one of the columns is constant.
        spearman: -1 to 1, of their ranks; None likewise.
    """

    points: int
    pearson: float | None
    spearman: float | None


def correlation(first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " n"]) -> Correlation:
    """Both coefficients.

    Spearman's is Pearson's of the ranks, equal values sharing their mean rank: Spearman, 1904, "The proof and
    measurement of association between two things" (https://doi.org/10.2307/1412159).

    Args:
        first, second: [n] the two columns.

    Returns:
        Both, each None where it is not defined.

    Example:
        >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])).spearman
        1.0
    """
    return Correlation(len(first), pearson(first, second), pearson(ranks(first), ranks(second)))


def pearson(first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " n"]) -> float | None:
    """Pearson's coefficient.

        r = sum (x - mean x) (y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2)

    Pearson, 1895, "Note on regression and inheritance in the case of two parents"
    (https://doi.org/10.1098/rspl.1895.0041).

    Args:
        first, second: [n] the two columns.

    Returns:
        None if there are fewer than two points or one of the columns is constant.
    """
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    x, y = ((each - each.mean()) / np.ptp(each) for each in (first, second))
    value = float((x * y).sum()) / math.sqrt(float((x * x).sum() * (y * y).sum()))
    return max(-1.0, min(1.0, value))


def ranks(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The place of each value among them all, from 1; equal ones share their mean place.

    Args:
        values: [n] any numbers.

    Returns:
        [n] 1 for the smallest.

    Example:
        >>> ranks(np.array([5.0, 7.0, 5.0])).tolist()
        [1.5, 3.0, 1.5]
    """
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[number]


def levelled(values: Float64[np.ndarray, " n"], largest: float) -> Float64[np.ndarray, " n"]:
    """Values that differ by nothing but rounding, made equal, so that they are one rank and one group.

    0.3 - 0.2 and 0.2 - 0.1 are two numbers to a computer. What is kept is 2^-40 of the largest number that they were
    computed from, or twice as fine.

    Args:
        values: [n] results of sums and differences.
        largest: size of the largest number in these.

    Returns:
        [n] the values, rounded.

    Example:
        >>> set(levelled(np.array([0.3 - 0.2, 0.2 - 0.1]), largest=0.25).round(6).tolist())
        {0.1}
    """
    if largest == 0:
        return values
    step = 2.0 ** (math.ceil(math.log2(largest)) - 40)
    return np.round(values / step) * step
