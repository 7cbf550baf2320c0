"""The parts of a report: paragraphs of Markdown, each a list of lines."""

from collections.abc import Sequence

from vlmpack.quality import tables, verdicts
from vlmpack.quality.blind import Blind, Kinds
from vlmpack.quality.by_margin import ByMargin
from vlmpack.quality.calibration import Calibration
from vlmpack.quality.counts import Counts
from vlmpack.quality.length_bias import LengthBias
from vlmpack.quality.wording import counted

Paragraphs = list[list[str]]


def joined(paragraphs: Sequence[Sequence[str]]) -> str:
    """Paragraphs as a text; empty ones are left out.

    Args:
        paragraphs: of all parts.
    """
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines) + "\n"


def skipped(found: Counts) -> Paragraphs:
    """Rows that are not in the numbers.

    Args:
        found: how many and why.
    """
    if not found.skipped:
        return []
    named = [f"- `{reason.replace('`', chr(39))}`" for reason in found.reasons]
    more = [f"- and {found.skipped - len(named):,} more"] if found.skipped > len(named) else []
    return [[f"{counted(found.skipped, 'row')} could not be scored:"], [*named, *more]]


def confidence(found: Calibration | None) -> Paragraphs:
    """The reliability table.

    Args:
        found: of the pairs; None without any.
    """
    if found is None:
        return []
    how = (
        "The confidence in a choice is sigmoid(|difference of the two rewards|). In each line, as many pairs should be "
        "right as the mean confidence says."
    )
    return [["## Confidence"], [how], tables.reliability(found)]


def length(found: LengthBias) -> Paragraphs:
    """Correlations, and who prefers the longer response.

    Args:
        found: reward against length.
    """
    how = (
        "Within prompts, the prompt's mean is taken off both: only such differences decide between the responses of a "
        "prompt. Longer responses may well be better; it is a bias as far as the model prefers them more often than "
        "the data does."
    )
    numbers = (found.equal_lengths, "of equal length"), (found.ties, "of equal reward")
    out = " and ".join(f"{counted(number, 'pair')} {what}" for number, what in numbers if number)
    left_out = [f"Left out of the comparison: {out}."] if out else []
    return [["## Length"], [how], tables.correlations(found), tables.longer(found), left_out]


def margins(found: ByMargin | None) -> Paragraphs:
    """Accuracy by margin.

    Args:
        found: the groups; None if no margin is known.
    """
    if found is None:
        return [["## Accuracy by margin"], ["Not known: no row says how much better the preferred response is."]]
    verdict = verdicts.of_margins(found)
    out = [f"Left out: {counted(found.unknown, 'pair')} of unknown margin."] if found.unknown else []
    return [["## Accuracy by margin"], [f"{verdict[0].upper()}{verdict[1:]}."], tables.margins(found), out]


def images(found: Blind | None, why_not: str, kinds: Kinds | None) -> Paragraphs:
    """With images against without.

    Args:
        found: the comparison; None if it was not measured.
        why_not: in that case why.
        kinds: accuracy apart by kind of row; None if there is one kind.
    """
    how = f"Not measured: {why_not}."
    out = []
    if found is not None:
        difference = found.difference
        how = (
            f"Of {counted(difference.pairs, 'pair')} in {counted(difference.rows, 'row')}, {difference.first_only:,} "
            f"are right only with the images and {difference.second_only:,} only without. The same model was asked "
            f"without the images; none was trained without them."
        )
        out = [f"Left out: {counted(found.unscored, 'pair')} not scored without images."] if found.unscored else []
    return [["## Images"], [how], tables.images(found, kinds), out]
