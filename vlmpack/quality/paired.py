"""Two ways of judging the same pairs: how much more often one is right, and whether that may be chance."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from vlmpack.quality.shares import DEVIATIONS


@dataclass(frozen=True)
class Paired:
    """How two shares of the same pairs differ.

    Attributes:
        pairs: compared.
        rows: that they come from.
        first_only: pairs for which it holds the first way and not the second.
        second_only: the other way round.
        difference: (first_only - second_only) / pairs.
        low, high: its 95 % interval.
        p: chance of a difference at least as large, to either side, if the two ways were alike; exact.
    """

    pairs: int
    rows: int
    first_only: int
    second_only: int
    difference: float
    low: float
    high: float
    p: float

    @property
    def changed(self) -> float:
        """Share of pairs that one way judges right and the other does not."""
        return (self.first_only + self.second_only) / self.pairs


def paired(
    first: Bool[np.ndarray, " P"], second: Bool[np.ndarray, " P"], row_of: Int[np.ndarray, " P"]
) -> Paired | None:
    """Compare two ways of judging the same pairs, row by row.

    Pairs of one row share responses and stand or fall together, so the row is what is counted: its net is the pairs
    that hold only the first way minus those that hold only the second.

    Args:
        first: [P] whether it holds for a pair, the first way.
        second: [P] the same, the second way.
        row_of: [P] the row that each pair is of.

    Returns:
        None if there are no pairs.
    """
    if not len(first):
        return None
    only = first & ~second, second & ~first
    _, number, sizes = np.unique(row_of, return_inverse=True, return_counts=True)
    nets = np.bincount(number, only[0].astype(np.float64) - only[1]).astype(np.int64)
    counts = [int(each.sum()) for each in only]
    difference = (counts[0] - counts[1]) / len(first)
    return Paired(len(first), len(sizes), *counts, difference, *_interval(nets, sizes), sign_flip(nets))


def sign_flip(nets: Int[np.ndarray, " n"]) -> float:
    """The chance of a sum at least as far from 0 if every row's net were as likely to have the other sign.

        p = P(|sum_i s_i net_i| >= |sum_i net_i|), each s_i is -1 or 1 with chance 1/2

    Fisher, 1935, "The Design of Experiments", section 21. With one pair a row it is McNemar's test in its exact form:
    2 sum_{k <= min(b, c)} C(b + c, k) / 2^(b + c), at most 1, with b and c pairs right only one way (McNemar, 1947,
    https://doi.org/10.1007/BF02295996). All 2^n sign patterns count: the chances of every sum are the inverse Fourier
    transform of the product of the rows' characteristic functions, cos(net_i t). Rounding errs by 1e-11 or so
    with ten thousand rows that differ, so a p as small as that says no more than that it is small.

    Args:
        nets: [n] of each row.

    Returns:
        1 if all are 0, for then nothing speaks for a difference.

    Example:
        >>> round(sign_flip(np.array([1, 1, 1, 1, 1, -1])), 6)  # 2 (C(6, 0) + C(6, 1)) / 2^6
        0.21875
    """
    sizes, counts = np.unique(np.abs(nets[nets != 0]), return_counts=True)
    most = int((sizes * counts).sum())
    turn = np.pi * np.arange(most + 1) / (most + 1)
    spectrum = np.exp(-1j * most * turn)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spectrum *= np.cos(size * turn) ** count
    chances = np.fft.ifft(spectrum).real.clip(0)  # of the sums -most, -most + 2, ... most
    far = np.abs(2 * np.arange(most + 1) - most) >= abs(int(nets.sum()))
    return min(1.0, float(chances[far].sum()))


def _interval(nets: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """95 % interval of the difference.

    Agresti and Min, 2005, "Simple improved confidence intervals for comparing matched proportions"
    (https://doi.org/10.1002/sim.1781): half a pair is added to each of the four outcomes, so that no difference in a
    few pairs is not taken for certain. Here two rows of average size are added, and rows are the units of a ratio
    (Cochran, 1977, "Sampling Techniques", chapter 2); with one pair a row it is theirs.
    """
    size = float(sizes.mean())
    pairs = float(sizes.sum()) + 2 * size
    middle = float(nets.sum()) / pairs
    added = size**2 * (1 + 2 * middle**2)
    deviation = math.sqrt(float(((nets - middle * sizes) ** 2).sum()) + added) / pairs
    return max(-1.0, middle - DEVIATIONS * deviation), min(1.0, middle + DEVIATIONS * deviation)
