"""A model's quality in six lines of a terminal."""

from vlmpack.quality import verdicts
from vlmpack.quality.blind import Blind
from vlmpack.quality.by_margin import ByMargin
from vlmpack.quality.calibration import Calibration
from vlmpack.quality.counts import Counts
from vlmpack.quality.length_bias import LengthBias
from vlmpack.quality.wording import chance, coefficient, counted, interval, percent, points, span

NO_PAIRS = "not known, for no row says which of two responses is better"


def judged(found: Counts) -> str:
    """What was judged.

    Args:
        found: how many.
    """
    parts = [(found.rows, "row"), (found.responses, "response"), (found.pairs, "pair")]
    said = ", ".join(counted(number, noun) for number, noun in parts)
    if not found.skipped:
        return f"judged: {said}"
    return f"judged: {said}; {found.skipped:,} more could not be scored ({'; '.join(found.reasons[:1])})"


def accuracy(found: Calibration | None) -> str:
    """How often it is right.

    Args:
        found: of the pairs; None without any.
    """
    if found is None:
        return f"accuracy: {NO_PAIRS}"
    numbers = f"{percent(found.right.value)} of pairs (95 % interval {interval(found.right)})"
    return f"accuracy: {numbers}, {verdicts.of_accuracy(found)}; log loss {found.log_loss:.3f} nats"


def confidence(found: Calibration | None) -> str:
    """How sure it is.

    Args:
        found: of the pairs; None without any.
    """
    if found is None:
        return f"confidence: {NO_PAIRS}"
    numbers = f"{percent(found.confidence)}, {points(found.confidence - found.right.value)} against accuracy"
    error = f"calibration error {100 * found.expected_error:.1f} points, by chance {100 * found.noise:.1f}"
    return f"confidence: {verdicts.of_confidence(found)} ({numbers}); {error}"


def length(found: LengthBias) -> str:
    """What it makes of length.

    Args:
        found: reward against length.
    """
    within = f"Pearson {coefficient(found.within.pearson)} within prompts"
    if found.difference is None:
        return f"length: {verdicts.of_length(found)}; {within}"
    numbers = f"longer preferred {percent(found.model_longer.value)}, by the data {percent(found.data_longer.value)}"
    return f"length: {verdicts.of_length(found)} ({numbers}); {within}"


def margins(found: ByMargin | None) -> str:
    """Where it is right.

    Args:
        found: accuracy by margin; None if no margin is known.
    """
    if found is None:
        return "margins: not known, for no row says how much better the preferred response is"
    ends = found.groups if len(found.groups) == 1 else (found.groups[0], found.groups[-1])
    numbers = ", ".join(f"{percent(each.right.value)} right at {span(each.low, each.high)}" for each in ends)
    return f"margins: {verdicts.of_margins(found)} ({numbers})"


def images(found: Blind | None, why_not: str) -> str:
    """What it makes of the images.

    Args:
        found: with images against without; None if that was not measured.
        why_not: in that case why.
    """
    if found is None:
        return f"images: not measured, for {why_not}"
    numbers = f"{percent(found.with_images.value)} right with, {percent(found.without_images.value)} without"
    text = f"; {said}" if (said := verdicts.of_text(found)) else ""
    return f"images: {verdicts.of_images(found)} ({numbers}, {chance(found.difference.p)}){text}"
