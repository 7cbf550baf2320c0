"""The panels of the picture of a model's quality, each drawn on axes that it is given."""

import textwrap
from collections.abc import Sequence
from typing import Any

from vlmpack.inspect.palette import FAINT, INK, PROMPT, RESPONSES, mixed
from vlmpack.quality import verdicts
from vlmpack.quality.blind import Blind, Kinds
from vlmpack.quality.by_margin import ByMargin, MarginGroup
from vlmpack.quality.calibration import Calibration
from vlmpack.quality.length_bias import LengthBias
from vlmpack.quality.shares import Share
from vlmpack.quality.wording import chance, coefficient, counted, percent, points, signed, span

CROWDED = 2000  # points, beyond which their density is drawn
SMALL = 8  # size of letters, points
WIDE = 62  # letters in a line of a title
SEEN, UNSEEN, TEXT = RESPONSES[0], RESPONSES[1], RESPONSES[2]


def reliability(axes: Any, found: Calibration | None) -> None:
    """Share right against confidence, with the diagonal on which a calibrated model lies.

    Args:
        axes: to draw on.
        found: of the pairs; None without any.
    """
    if found is None:
        _nothing(axes, "Confidence and accuracy", "no row says which of two responses is better")
        return
    kept = [each for each in found.bins if each.pairs]
    for each in kept:
        wide = each.high - each.low
        axes.bar(each.low, each.right.value, wide, align="edge", color=mixed(SEEN, 0.25), edgecolor="white")
        axes.text(each.low + wide / 2, -0.035, f"{each.pairs:,}", ha="center", va="center", color=INK, fontsize=7)
    axes.plot([0.5, 1], [0.5, 1], color=INK, linestyle=":", linewidth=1, label="a calibrated model")
    _intervals(axes, [each.confidence for each in kept], [each.right for each in kept], SEEN)
    axes.legend(loc="upper left", frameon=False, fontsize=SMALL)
    _head(
        axes,
        f"{verdicts.of_confidence(found)}: {percent(found.confidence)} sure, {percent(found.right.value)} right",
        f"expected calibration error {100 * found.expected_error:.1f} points (by chance about {100 * found.noise:.1f})",
    )
    _name(axes, "confidence in a choice (above: pairs)", "share of pairs right")
    axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9, 1], ["50 %", "60 %", "70 %", "80 %", "90 %", "100 %"])
    _percents(axes)
    axes.set(xlim=(0.49, 1.01), ylim=(-0.07, 1.14))


def length(axes: Any, found: LengthBias) -> None:
    """Reward against length, both minus their prompt's mean.

    Args:
        axes: to draw on.
        found: with the points.
    """
    if not len(found.centred_lengths):
        _nothing(axes, "Reward and length within prompts", "no prompt has several responses")
        return
    tokens, rewards = found.centred_lengths, found.centred_rewards
    if len(tokens) > CROWDED:
        hexes = axes.hexbin(tokens, rewards, gridsize=45, mincnt=1, bins="log", cmap="Blues", linewidths=0.2)
        bar = axes.figure.colorbar(hexes, ax=axes)
        bar.set_label("responses", fontsize=9)
        bar.ax.tick_params(labelsize=SMALL)
    else:
        many = len(tokens) > 200
        axes.scatter(tokens, rewards, s=12 if many else 24, color=SEEN, alpha=0.4 if many else 0.8, linewidths=0)
    axes.axhline(0, color=PROMPT, linewidth=0.6)
    axes.axvline(0, color=PROMPT, linewidth=0.6)
    within = found.within
    both = f"Pearson {coefficient(within.pearson)}, Spearman {coefficient(within.spearman)}"
    _head(axes, verdicts.of_length(found), f"within prompts: {both}")
    _name(axes, "tokens above the prompt's mean", "reward above the prompt's mean (logits)")


def margins(axes: Any, found: ByMargin | None) -> None:
    """Accuracy by the data's margin, with intervals.

    Args:
        axes: to draw on.
        found: the groups; None if no margin is known.
    """
    heading = "Accuracy by the data's margin"
    if found is None:
        _nothing(axes, heading, "no row says how much better the preferred response is")
        return
    places = list(range(len(found.groups)))
    shares = [each.right for each in found.groups]
    axes.bar(places, [each.value for each in shares], 0.6, color=mixed(SEEN, 0.25))
    _intervals(axes, places, shares, SEEN)
    _guessing(axes)
    labels = [f"{_broken(each)}\n{counted(each.right.of, 'pair')}" for each in found.groups]
    axes.set_xticks(places, labels, fontsize=SMALL)
    _head(axes, heading, f"{verdicts.of_margins(found)} (95 % intervals)")
    _name(axes, "how much better the preferred response is (score units of the data)", "share of pairs right")
    axes.set(xlim=(-0.6, max(len(places), 2) + 0.1))
    _percents(axes)


def images(axes: Any, blind: Blind | None, why_not: str, kinds: Kinds | None) -> None:
    """Accuracy with images, without them, and on text-only rows.

    Args:
        axes: to draw on.
        blind: with images against without; None if that was not measured.
        why_not: in that case why.
        kinds: apart by kind of row; None if there is one kind.
    """
    if blind is None and kinds is None:
        _nothing(axes, "With images and without", why_not)
        return
    bars: dict[str, tuple[Share, str]] = {}
    if blind is not None:
        bars["with images"] = blind.with_images, SEEN
        bars["without images"] = blind.without_images, UNSEEN
    else:
        bars["rows with images"] = kinds.with_images, SEEN
    if kinds is not None:
        bars["text-only rows"] = kinds.text_only, TEXT
    for place, (each, colour) in enumerate(bars.values()):
        axes.bar(place, each.value, 0.6, color=mixed(colour, 0.35))
        _intervals(axes, [place], [each], colour)
    _guessing(axes)
    labels = [f"{name}\n{percent(each.value)}\n{counted(each.of, 'pair')}" for name, (each, _) in bars.items()]
    axes.set_xticks(range(len(bars)), labels, fontsize=SMALL)
    _head(axes, *_images_head(blind, why_not))
    _name(axes, "", "share of pairs right")
    axes.set(xlim=(-0.6, max(len(bars), 2) + 0.1))
    _percents(axes)


def _images_head(blind: Blind | None, why_not: str) -> tuple[str, str]:
    if blind is None:
        return "rows with images and without", f"whether the images matter was not measured: {why_not}"
    found = blind.difference
    bounds = f"95 % interval {signed(100 * found.low, 1)} to {points(found.high)}, {chance(found.p)}"
    return verdicts.of_images(blind), f"{points(found.difference)} ({bounds})"


def _intervals(axes: Any, places: Sequence[float], shares: Sequence[Share], colour: str) -> None:
    middles = [each.value for each in shares]
    reach = [[each.value - each.low for each in shares], [each.high - each.value for each in shares]]
    axes.errorbar(places, middles, reach, fmt="o", color=colour, markersize=5, elinewidth=1.4, capsize=3)


def _guessing(axes: Any) -> None:
    axes.axhline(0.5, color=PROMPT, linestyle=":", linewidth=1)
    right_edge = axes.get_yaxis_transform()
    axes.text(1, 0.505, "guessing", ha="right", va="bottom", fontsize=SMALL, color=FAINT, transform=right_edge)


def _percents(axes: Any) -> None:
    axes.set(ylim=(0, 1.14))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[["top", "right"]].set_visible(False)


def _head(axes: Any, first: str, second: str) -> None:
    lines = [line for words in (first, second) for line in textwrap.wrap(words, WIDE)]
    axes.set_title("\n".join([lines[0][:1].upper() + lines[0][1:], *lines[1:]]), fontsize=10)


def _name(axes: Any, below: str, beside: str) -> None:
    axes.set_xlabel(below, fontsize=9)
    axes.set_ylabel(beside, fontsize=9)
    axes.tick_params(labelsize=SMALL)


def _broken(group: MarginGroup) -> str:
    words = span(group.low, group.high)
    return words if len(words) <= 10 else words.replace(" to ", "\nto ")


def _nothing(axes: Any, heading: str, why: str) -> None:
    axes.set_title(heading, fontsize=10)
    axes.set_axis_off()
    words = "\n".join(textwrap.wrap(f"Nothing to draw: {why}.", 44))
    axes.text(0.5, 0.5, words, ha="center", va="center", color=FAINT, fontsize=10, transform=axes.transAxes)
