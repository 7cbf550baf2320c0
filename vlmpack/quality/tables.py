"""The numbers as Markdown tables."""

from collections.abc import Sequence

from vlmpack.quality.blind import Blind, Kinds
from vlmpack.quality.by_margin import ByMargin
from vlmpack.quality.calibration import Calibration
from vlmpack.quality.counts import Counts
from vlmpack.quality.length_bias import LengthBias
from vlmpack.quality.paired import Paired
from vlmpack.quality.shares import Share
from vlmpack.quality.wording import chance, coefficient, interval, percent, points, signed, span


def summary(counts: Counts, calibration: Calibration | None) -> list[str]:
    """What was judged, and the main numbers.

    Args:
        counts: of what was judged.
        calibration: of its pairs; None without any.
    """
    lines = [
        ("rows scored", f"{counts.rows:,}"),
        ("rows that could not be scored", f"{counts.skipped:,}"),
        ("responses", f"{counts.responses:,}"),
        ("pairs", f"{counts.pairs:,}, of {counts.rows_with_pairs:,} rows"),
        ("reward, mean", f"{signed(counts.reward_mean, 3)} logits"),
        ("reward, standard deviation", f"{counts.reward_deviation:.3f} logits"),
    ]
    if calibration is not None:
        lines += [
            ("accuracy", f"{percent(calibration.right.value)} of pairs"),
            ("accuracy, 95 % interval", interval(calibration.right)),
            ("ties (count as wrong)", f"{calibration.ties:,} pairs"),
            ("mean confidence", percent(calibration.confidence)),
            ("expected calibration error", f"{100 * calibration.expected_error:.1f} points"),
            ("of a perfectly calibrated model, about", f"{100 * calibration.noise:.1f} points"),
            ("log loss (guessing: 0.693)", f"{calibration.log_loss:.3f} nats a pair"),
        ]
    return _table(("", ""), lines)


def reliability(calibration: Calibration) -> list[str]:
    """The bins that have pairs.

    Args:
        calibration: of the pairs.
    """
    head = ("confidence", "pairs", "mean confidence", "right", "95 % interval")
    kept = [each for each in calibration.bins if each.pairs]
    return _table(
        head,
        [
            (
                f"{100 * each.low:.0f} to {100 * each.high:.0f} %",
                f"{each.pairs:,}",
                percent(each.confidence),
                *_share(each.right),
            )
            for each in kept
        ],
    )


def correlations(length: LengthBias) -> list[str]:
    """Correlations of reward and length.

    Args:
        length: reward against length.
    """
    found = {"over all responses": length.overall, "within prompts": length.within}
    lines = [
        (name, f"{each.points:,}", *map(coefficient, (each.pearson, each.spearman))) for name, each in found.items()
    ]
    return _table(("reward and length (tokens)", "responses", "Pearson", "Spearman"), lines)


def longer(length: LengthBias) -> list[str]:
    """Who prefers the longer response how often; empty if no pair tells.

    Args:
        length: reward against length.
    """
    if length.difference is None:
        return []
    lines = [
        ("by the model", f"{length.model_longer.of:,}", *_share(length.model_longer)),
        ("by the data", f"{length.data_longer.of:,}", *_share(length.data_longer)),
        _difference("model minus data", length.difference),
    ]
    return _table(("the longer response is preferred", "pairs", "share", "95 % interval"), lines)


def margins(found: ByMargin) -> list[str]:
    """Accuracy by margin.

    Args:
        found: the groups.
    """
    head = ("margin (score units of the data)", "pairs", "right", "95 % interval")
    return _table(
        head, [(span(each.low, each.high), f"{each.right.of:,}", *_share(each.right)) for each in found.groups]
    )


def images(blind: Blind | None, kinds: Kinds | None) -> list[str]:
    """With images against without, and text-only rows.

    Args:
        blind: with images against without; None if that was not measured.
        kinds: apart by kind of row; None if there is one kind.
    """
    lines = []
    if blind is not None:
        lines += [
            ("with its images", f"{blind.with_images.of:,}", *_share(blind.with_images)),
            ("the same pairs without images", f"{blind.without_images.of:,}", *_share(blind.without_images)),
            _difference("with minus without", blind.difference),
        ]
    if kinds is not None:
        if blind is None or blind.unscored:
            lines.append(("rows with images, all", f"{kinds.with_images.of:,}", *_share(kinds.with_images)))
        lines.append(("text-only rows", f"{kinds.text_only.of:,}", *_share(kinds.text_only)))
    return _table(("", "pairs", "right", "95 % interval"), lines) if lines else []


def _share(share: Share) -> tuple[str, str]:
    return percent(share.value), interval(share)


def _difference(name: str, found: Paired) -> tuple[str, str, str, str]:
    bounds = f"{signed(100 * found.low, 1)} to {points(found.high)}, {chance(found.p)}"
    return name, f"{found.pairs:,}", points(found.difference), bounds


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ruler, *lines)]
