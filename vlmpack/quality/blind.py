"""Whether the images matter: the same pairs judged with them and without."""

from dataclasses import dataclass

import numpy as np

from vlmpack.quality.judged import Judged
from vlmpack.quality.paired import Paired, paired
from vlmpack.quality.shares import Share, share


@dataclass(frozen=True)
class Blind:
    """The same pairs of rows with images, judged with the images and without.

    Attributes:
        with_images: share of pairs in which the model prefers what the data prefers.
        without_images: the same with the images taken out of the prompt.
        difference: with minus without.
        unscored: pairs of rows with images left out because they were not scored without.
    """

    with_images: Share
    without_images: Share
    difference: Paired
    unscored: int


@dataclass(frozen=True)
class Kinds:
    """Accuracy apart for rows with and without an image, where a data set has both.

    Attributes:
        with_images: share of pairs right, of rows that show an image.
        text_only: the same, of rows that show none.
    """

    with_images: Share
    text_only: Share


def blind(judged: Judged) -> Blind | None:
    """Compare with a baseline that does not see: the same model, asked without the images.

    A model that is as often right without them judges by the text. Goyal et al., 2017
    (https://arxiv.org/abs/1612.00837), use models that see no image to tell what visual question answering owes to
    language alone; theirs are trained so, this one is only asked so.

    Args:
        judged: rewards with images and without, and pairs.

    Returns:
        None if there is nothing to compare; `why_not_blind` says why.
    """
    if why_not_blind(judged):
        return None
    shown, scored = _shown(judged), _scored(judged)
    kept = shown & scored
    blind_gaps = judged.blind_rewards[judged.pairs[:, 0]] - judged.blind_rewards[judged.pairs[:, 1]]
    seeing, unseeing = judged.right[kept], blind_gaps[kept] > 0
    difference = paired(seeing, unseeing, judged.row_of_pair[kept])
    return Blind(share(seeing), share(unseeing), difference, int((shown & ~scored).sum()))


def why_not_blind(judged: Judged) -> str:
    """Why there is nothing to compare; empty if there is.

    Args:
        judged: as for `blind`.
    """
    if not judged.shows_image.any():
        return "no row has an image"
    if not _shown(judged).any():
        return "no row with an image has a pair"
    if judged.blind_rewards is None:
        return "the rows were not scored without their images"
    if not (_shown(judged) & _scored(judged)).any():
        return "no pair of a row with an image was scored without it"
    return ""


def by_kind(judged: Judged) -> Kinds | None:
    """Accuracy apart for rows with and without an image.

    Args:
        judged: rewards and pairs.

    Returns:
        None unless there are pairs of both kinds.
    """
    shown = _shown(judged)
    kinds = share(judged.right[shown]), share(judged.right[~shown])
    return None if None in kinds else Kinds(*kinds)


def _shown(judged: Judged) -> np.ndarray:
    """[P] whether a pair's row has an image."""
    return judged.shows_image[judged.pairs[:, 0]]


def _scored(judged: Judged) -> np.ndarray:
    """[P] whether both responses of a pair were scored without images."""
    return ~np.isnan(judged.blind_rewards[judged.pairs]).any(axis=1)
