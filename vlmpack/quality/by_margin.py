"""Whether the model is right more often where the data is surer."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from vlmpack.quality.correlation import levelled
from vlmpack.quality.judged import Judged
from vlmpack.quality.shares import Share, share

GROUPS = 5  # at most


@dataclass(frozen=True)
class MarginGroup:
    """Pairs whose preferred response is about equally much better.

    Attributes:
        low, high: smallest and largest margin, score units of the data.
        right: share of them in which the model prefers what the data prefers.
    """

    low: float
    high: float
    right: Share


@dataclass(frozen=True)
class ByMargin:
    """Accuracy by the data's margin.

    Attributes:
        groups: by ascending margin, at most 5.
        unknown: pairs left out because their row does not say how much better the preferred one is.
    """

    groups: tuple[MarginGroup, ...]
    unknown: int


def by_margin(judged: Judged) -> ByMargin | None:
    """Accuracy in groups of pairs with similar margins.

    At most 5 distinct margins are a group each. More are cut into fifths of the pairs; all pairs of one margin go where
    the middle one of them goes, so equal margins are never parted, and groups may differ in size.

    Args:
        judged: rewards, pairs and margins.

    Returns:
        None if no margin is known.
    """
    if judged.margins is None or not (known := ~np.isnan(judged.margins)).any():
        return None
    margins, right = judged.margins[known], judged.right[known]
    group = _groups(levelled(margins, largest=float(np.abs(margins).max())))
    found = (group == number for number in np.unique(group))
    groups = [MarginGroup(float(margins[own].min()), float(margins[own].max()), share(right[own])) for own in found]
    return ByMargin(tuple(groups), int((~known).sum()))


def _groups(margins: Float64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The group of each pair, ascending; some numbers may be left out."""
    _, number, counts = np.unique(margins, return_inverse=True, return_counts=True)
    if len(counts) <= GROUPS:
        return number
    twice_the_middle = 2 * np.cumsum(counts) - counts
    return (GROUPS * twice_the_middle // (2 * len(margins)))[number]
