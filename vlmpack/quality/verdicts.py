"""What the numbers amount to, in a few words each: fragments, without a capital or a full stop."""

from vlmpack.quality.blind import Blind
from vlmpack.quality.by_margin import ByMargin
from vlmpack.quality.calibration import Calibration
from vlmpack.quality.length_bias import LengthBias

SURE = 0.05  # a difference that chance gives less often than this is one
NOTABLE = 0.05  # a difference of shares that matters to somebody who uses the rewards
GUESSABLE = 0.6  # share of pairs right without the images, above which the text tells a good deal


def of_accuracy(found: Calibration) -> str:
    """Whether the model knows anything.

    Args:
        found: its accuracy and ties.
    """
    if found.ties == found.pairs:
        return "the rewards of a pair never differ"
    if found.right.low > 0.5:
        return "better than guessing"
    if found.ties >= NOTABLE * found.pairs:  # which are wrong, so that below one half need not be worse than guessing
        return f"{found.ties:,} ties among them, which count as wrong"
    return "not to be told from guessing" if found.right.high >= 0.5 else "worse than guessing"


def of_confidence(found: Calibration) -> str:
    """Whether it is as sure as it may be: its mean confidence lies inside the interval of its accuracy.

    Args:
        found: confidence and accuracy.
    """
    if found.right.low <= found.confidence <= found.right.high:
        return "about as sure as it is right"
    above = found.confidence - found.right.value
    size = "" if abs(above) >= NOTABLE else "slightly "
    return f"{size}{'over' if above > 0 else 'under'}-confident"


def of_length(found: LengthBias) -> str:
    """Whether it likes long responses more than the data does.

    Args:
        found: how often either prefers the longer response.
    """
    difference = found.difference
    if difference is None:
        return "no pair has two lengths and two rewards"
    if difference.p >= SURE:
        wide = max(abs(difference.low), abs(difference.high)) >= NOTABLE
        return f"no {'sign of a ' if wide else ''}length bias beyond the data's"
    size = "" if abs(difference.difference) >= NOTABLE else "slight "
    likes, more = (
        ("longer", "shorter")[found.model_longer.value < 0.5],
        ("longer", "shorter")[difference.difference < 0],
    )
    if likes != more:  # a model that errs at random comes closer to one half than the data, and has no bias
        return f"prefers {likes} responses less often than the data does"
    return f"{size}length bias towards {more} responses"


def of_margins(found: ByMargin) -> str:
    """Whether it is right where the data is sure: the intervals of the first and the last group lie apart.

    Args:
        found: accuracy by margin.
    """
    least, most = found.groups[0].right, found.groups[-1].right
    if most.low > least.high:
        return "more often right where the data is surer"
    if most.high < least.low:
        return "less often right where the data is surer, which is strange"
    return "all pairs have the same margin" if len(found.groups) == 1 else "no clear change with the margin"


def of_images(found: Blind) -> str:
    """Whether the images matter to it.

    That it does not use them is said only if a gain of 5 points can be ruled out.

    Args:
        found: accuracy with images and without.
    """
    difference = found.difference
    if difference.p < SURE and difference.difference < 0:
        return "the images mislead the model"
    if difference.p < SURE:
        return f"the model {'uses' if difference.difference >= NOTABLE else 'hardly uses'} the images"
    if difference.high >= NOTABLE:
        return "too few pairs to tell whether the model uses the images"
    if difference.changed >= 2 * NOTABLE:
        return "the images change what the model prefers but do not help it"
    return "the model does not use the images"


def of_text(found: Blind) -> str:
    """Whether the data can be guessed without the images; empty if not by far.

    Args:
        found: accuracy without images.
    """
    return "the data can be guessed from the text" if found.without_images.low > GUESSABLE else ""
