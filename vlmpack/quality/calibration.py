"""Whether the model is as often right as its own probabilities say."""

import math
from dataclasses import dataclass

import numpy as np

from vlmpack.quality.checking import QualityError
from vlmpack.quality.judged import Judged
from vlmpack.quality.shares import Share, share


@dataclass(frozen=True)
class Bin:
    """Pairs on which the model is about equally sure.

    Attributes:
        low, high: bounds of the confidence; the upper one belongs to the next bin, except for 1.
        pairs: in it.
        confidence: their mean confidence; None if there are none.
        right: share of them in which the model prefers what the data prefers; None if there are none.
    """

    low: float
    high: float
    pairs: int
    confidence: float | None
    right: Share | None


@dataclass(frozen=True)
class Calibration:
    """Confidence against correctness.

    Attributes:
        pairs: judged.
        ties: those with equal rewards. They are wrong, with confidence 0.5.
        right: share of pairs in which the preferred response has the higher reward: the accuracy.
        confidence: mean, 0.5 to 1.
        expected_error: expected calibration error, 0 to 1.
        noise: about what a perfectly calibrated model would show as expected error on so many pairs.
        log_loss: of the Bradley-Terry model, nats a pair; log 2 = 0.693 is that of a model which knows nothing.
        bins: by confidence, ascending.
    """

    pairs: int
    ties: int
    right: Share
    confidence: float
    expected_error: float
    noise: float
    log_loss: float
    bins: tuple[Bin, ...]


def calibration(judged: Judged, *, bins: int = 10) -> Calibration | None:
    """Reliability of the Bradley-Terry probabilities.

        confidence = sigmoid(|reward_w - reward_l|)
        expected error = sum_m (n_m / P) |share right in bin m - mean confidence in bin m|
        log loss = -mean log sigmoid(reward_w - reward_l)

    Guo et al., 2017, equation 3 (https://arxiv.org/abs/1706.04599), over bins of equal width. The confidence in a
    choice between two is at least 0.5, so the bins divide [0.5, 1]. With few pairs the error is above 0 by chance
    alone (Roelofs et al., 2020, https://arxiv.org/abs/2012.08668): by about sqrt(2 c (1 - c) / (pi n_m)) in a bin,
    the mean distance of a normal variable from its mean. `noise` is that, weighted as the error is.

    Args:
        judged: rewards and pairs.
        bins: of equal width, at least 1.

    Returns:
        None if there are no pairs.

    Raises:
        QualityError: fewer than one bin.
    """
    if bins < 1:
        raise QualityError(f"bins={bins} leaves no bin to count pairs in; give 1 or more")
    if not len(judged.pairs):
        return None
    gaps, right = judged.gaps, judged.right
    confidence = 1 / (1 + np.exp(-np.abs(gaps)))
    place = np.minimum((2 * bins * (confidence - 0.5)).astype(np.int64), bins - 1)
    found = tuple(_bin(number, bins, confidence[place == number], right[place == number]) for number in range(bins))
    spread = np.bincount(place, confidence * (1 - confidence))
    return Calibration(
        pairs=len(gaps),
        ties=int((gaps == 0).sum()),
        right=share(right),
        confidence=float(confidence.mean()),
        expected_error=sum(each.pairs * abs(each.right.value - each.confidence) for each in found if each.pairs)
        / len(gaps),
        noise=float(np.sqrt(2 * spread / math.pi).sum()) / len(gaps),
        log_loss=float(np.logaddexp(0, -gaps).mean()),
        bins=found,
    )


def _bin(number: int, bins: int, confidence: np.ndarray, right: np.ndarray) -> Bin:
    low, high = (0.5 + 0.5 * edge / bins for edge in (number, number + 1))
    return Bin(low, high, len(right), float(confidence.mean()) if len(right) else None, share(right))
