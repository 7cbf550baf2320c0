"""What is striking about a model's rewards, in sentences with the numbers that show it."""

from vlmpack.quality import verdicts
from vlmpack.quality.blind import Blind
from vlmpack.quality.calibration import Calibration
from vlmpack.quality.counts import Counts
from vlmpack.quality.length_bias import LengthBias
from vlmpack.quality.wording import chance, coefficient, counted, interval, percent, points, signed

FEW = 100  # pairs, below which no share is known to 10 points


def striking(
    counts: Counts, calibration: Calibration | None, length: LengthBias, blind: Blind | None, why_not_blind: str
) -> list[str]:
    """All of them, the most important first.

    Args:
        counts: of what was judged.
        calibration: of its pairs; None without any.
        length: reward against length.
        blind: with images against without; None if that was not measured.
        why_not_blind: in that case why.
    """
    if calibration is None:
        said = ["No row says which of two responses is better, so accuracy and confidence are not known."]
    else:
        said = [about_accuracy(calibration), about_confidence(calibration)]
    images = [f"Whether the model uses the images was not measured: {why_not_blind}."]
    return [*said, about_length(length), *(images if blind is None else about_images(blind)), *about_pairs(counts)]


def about_accuracy(found: Calibration) -> str:
    """How often the model prefers what the data prefers.

    Args:
        found: its accuracy and ties.
    """
    verdict = verdicts.of_accuracy(found)
    swapped = " Are preferred and rejected swapped?" if verdict == "worse than guessing" else ""
    return (
        f"Accuracy: {percent(found.right.value)} of {counted(found.pairs, 'pair')} are right (95 % interval "
        f"{interval(found.right)}): {verdict}.{swapped}"
    )


def about_confidence(found: Calibration) -> str:
    """Whether the model is as sure as it may be.

    Args:
        found: confidence and accuracy.
    """
    above = found.confidence - found.right.value
    return (
        f"Confidence: {verdicts.of_confidence(found)}. Mean confidence is {percent(found.confidence)}, accuracy "
        f"{percent(found.right.value)} ({points(above)}). The expected calibration error is "
        f"{100 * found.expected_error:.1f} points; a perfectly calibrated model would show about "
        f"{100 * found.noise:.1f} on {counted(found.pairs, 'pair')}."
    )


def about_length(found: LengthBias) -> str:
    """Whether the model likes long responses more than the data does.

    Args:
        found: reward against length.
    """
    within = f"Pearson's correlation of reward and length within prompts is {coefficient(found.within.pearson)}."
    difference = found.difference
    if difference is None:
        return f"Length: {verdicts.of_length(found)}. {within}"
    return (
        f"Length: {verdicts.of_length(found)}. The model prefers the longer response in "
        f"{percent(found.model_longer.value)} of {counted(difference.pairs, 'pair')}, the data in "
        f"{percent(found.data_longer.value)} ({points(difference.difference)}, {chance(difference.p)}). {within}"
    )


def about_images(found: Blind) -> list[str]:
    """Whether the images matter, and whether the text alone is enough.

    Args:
        found: accuracy with images and without.
    """
    difference = found.difference
    bounds = f"95 % interval {signed(100 * difference.low, 1)} to {points(difference.high)}"
    said = [
        f"Images: {verdicts.of_images(found)}: {percent(found.with_images.value)} of "
        f"{counted(difference.pairs, 'pair')} are right with them and {percent(found.without_images.value)} without "
        f"({chance(difference.p)}). The difference is {points(difference.difference)} ({bounds})."
    ]
    if text := verdicts.of_text(found):
        said.append(
            f"Text: {text}: {percent(found.without_images.value)} of the pairs with an image are right without it, so "
            f"high accuracy on such data does not show that a model sees."
        )
    return said


def about_pairs(found: Counts) -> list[str]:
    """What must be known of the pairs when the rest is read.

    Args:
        found: how many there are.
    """
    said = []
    if 0 < found.pairs < FEW:
        said.append(f"Only {counted(found.pairs, 'pair')}: everything here is rough; read the intervals.")
    if found.pairs > found.rows_with_pairs:
        said.append(
            f"The {found.pairs:,} pairs come from {counted(found.rows_with_pairs, 'row')}, and pairs of a row share "
            f"responses. Intervals of single shares take pairs as independent and are too narrow here; differences "
            f"with a p take rows as independent."
        )
    return said
