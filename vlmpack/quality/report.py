"""The quality of a reward model's signal: every figure of it, to be read, stored and drawn."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from vlmpack.quality import lines, sections, tables
from vlmpack.quality.blind import Blind, Kinds, blind, by_kind, why_not_blind
from vlmpack.quality.by_margin import ByMargin, by_margin
from vlmpack.quality.calibration import Calibration, calibration
from vlmpack.quality.counts import Counts, counts
from vlmpack.quality.judged import Judged
from vlmpack.quality.length_bias import LengthBias, length_bias
from vlmpack.quality.sentences import striking


@dataclass(frozen=True, eq=False)
class Quality:
    """What rewards on held-out rows say of the model that gave them.

    Attributes:
        counts: of what was judged.
        calibration: whether it is as often right as it is sure; None without pairs.
        length: whether it prefers long responses more than the data does.
        by_margin: whether it is right where the data is sure; None if no margin is known.
        blind: whether the images matter; None if that was not measured.
        why_not_blind: in that case why; else empty.
        kinds: accuracy apart for rows with and without images; None unless there are both.
    """

    counts: Counts
    calibration: Calibration | None
    length: LengthBias
    by_margin: ByMargin | None
    blind: Blind | None
    why_not_blind: str
    kinds: Kinds | None

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON: None where something is not defined, never NaN; without the points to draw."""
        return _plain(self)

    def lines(self) -> list[str]:
        """Six lines for a terminal."""
        return [
            lines.judged(self.counts),
            lines.accuracy(self.calibration),
            lines.confidence(self.calibration),
            lines.length(self.length),
            lines.margins(self.by_margin),
            lines.images(self.blind, self.why_not_blind),
        ]

    def markdown(self, title: str) -> str:
        """A report: what is striking in sentences, then every number with its unit in tables.

        Args:
            title: its heading.

        Returns:
            Markdown that ends with a newline.
        """
        said = striking(self.counts, self.calibration, self.length, self.blind, self.why_not_blind)
        return sections.joined(
            [
                [f"# {title}"],
                [f"- {each}" for each in said],
                tables.summary(self.counts, self.calibration),
                *sections.skipped(self.counts),
                *sections.confidence(self.calibration),
                *sections.length(self.length),
                *sections.margins(self.by_margin),
                *sections.images(self.blind, self.why_not_blind, self.kinds),
            ]
        )


def quality(judged: Judged, *, bins: int = 10) -> Quality:
    """Measure everything there is to measure.

    Args:
        judged: held-out responses with their rewards.
        bins: of confidence, for the calibration.

    Returns:
        What is not defined for want of pairs, margins or images is None in it.

    Raises:
        QualityError: fewer than one bin.

    Example:
        >>> no_image = np.zeros(2, dtype=bool)
        >>> rewards, lengths, pairs = np.array([0.0, 1.0]), np.array([3, 3]), np.array([[1, 0]])
        >>> quality(Judged(rewards, lengths, np.zeros(2, dtype=int), pairs, no_image)).calibration.right.value
        1.0
    """
    return Quality(
        counts=counts(judged),
        calibration=calibration(judged, bins=bins),
        length=length_bias(judged),
        by_margin=by_margin(judged),
        blind=blind(judged),
        why_not_blind=why_not_blind(judged),
        kinds=by_kind(judged),
    )


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries and tuples as lists; arrays are left out, for they are there to be drawn."""
    if is_dataclass(value):
        held = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: _plain(each) for name, each in held.items() if not isinstance(each, np.ndarray)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
