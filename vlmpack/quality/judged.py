"""Held-out responses with their rewards, and which of them the data prefers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from vlmpack.quality.checking import QualityError, check_pairs, check_responses, check_rewards, check_shapes
from vlmpack.quality.laid_out import blind_rewards_of, check_rows, margins_of, reasons_of
from vlmpack.scored import Scored


@dataclass(frozen=True, eq=False)
class Judged:
    """The rewards of R responses, and P pairs of them of which the data prefers one.

    Attributes:
        rewards: [R] Bradley-Terry logits: the difference of two is the log-odds that the first is preferred.
        lengths: [R] tokens of each response.
        row_of: [R] the row whose prompt each response answers; any numbers that differ between rows.
        pairs: [P, 2] two responses of a row as (preferred, rejected).
        shows_image: [R] whether the row has an image.
        margins: [P] how much better the preferred one is, in score units of the data; NaN where the row does not say.
            None if no row says.
        blind_rewards: [R] rewards of the same responses with the images taken out of the prompt; NaN where they were
            not scored so. None if none were.
        skipped: rows that could not be scored and are not among these.
        reasons: why, of the first few of them.

    Raises:
        QualityError: an array has the wrong type or shape, a reward is not finite, or a pair is not one of a row.

    Example:
        >>> rewards, lengths, row_of = np.array([0.5, 2.0]), np.array([7, 4]), np.array([0, 0])
        >>> Judged(rewards, lengths, row_of, np.array([[1, 0]]), shows_image=row_of > 0).gaps.tolist()
        [1.5]
    """

    rewards: Float64[np.ndarray, " R"]
    lengths: Int[np.ndarray, " R"]
    row_of: Int[np.ndarray, " R"]
    pairs: Int[np.ndarray, "P 2"]
    shows_image: Bool[np.ndarray, " R"]
    margins: Float64[np.ndarray, " P"] | None = None
    blind_rewards: Float64[np.ndarray, " R"] | None = None
    skipped: int = 0
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shapes(vars(self))
        check_rewards(self.rewards, self.blind_rewards, self.row_of)
        check_responses(self.lengths, self.row_of, self.shows_image)
        check_pairs(self.pairs, self.row_of, self.margins)

    @classmethod
    def from_scored(cls, scored: Sequence[Scored], blind: Sequence[Scored] | None = None) -> "Judged":
        """The rows of a data set as they were scored, without those that could not be.

        Args:
            scored: of each row. Those with an error are skipped and counted.
            blind: of the same rows with their images taken out, matched by `place`. Rows may be missing: those that
                have no image need not be scored again. None: no row was scored so.

        Returns:
            All responses of the first row, then those of the second, and so on.

        Raises:
            QualityError: no row has a reward, a row stands twice, `blind` has a row or a number of responses that
                `scored` has not, or what the class itself refuses.
        """
        good, bad = ([each for each in scored if bool(each.error) is failed] for failed in (False, True))
        reasons = reasons_of(bad)
        if not any(each.rewards for each in good):
            raise QualityError("\n".join([f"none of {len(scored)} rows has a reward: nothing to judge", *reasons]))
        check_rows(scored, "scored")
        check_rows(blind or (), "blind")
        if strange := {each.place for each in blind or ()} - {each.place for each in scored}:
            raise QualityError(f"row {min(strange)} was scored without images and not with them; score the same rows")
        counts = [len(each.rewards) for each in good]
        starts = np.cumsum([0, *counts]).tolist()
        pairs = [(start + a, start + b) for start, each in zip(starts, good, strict=False) for a, b in each.pairs]
        return cls(
            rewards=np.array([reward for each in good for reward in each.rewards], dtype=np.float64),
            lengths=np.array([length for each in good for length in each.lengths], dtype=np.int64),
            row_of=np.repeat(np.array([each.place for each in good], dtype=np.int64), counts),
            pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
            shows_image=np.repeat(np.array([each.images > 0 for each in good]), counts),
            margins=margins_of(good),
            blind_rewards=None if blind is None else blind_rewards_of(good, blind),
            skipped=len(bad),
            reasons=reasons,
        )

    @property
    def gaps(self) -> Float64[np.ndarray, " P"]:
        """Reward of each pair's preferred response minus that of its rejected one."""
        return self.rewards[self.pairs[:, 0]] - self.rewards[self.pairs[:, 1]]

    @property
    def right(self) -> Bool[np.ndarray, " P"]:
        """Whether the model prefers what the data prefers; a tie is wrong."""
        return self.gaps > 0

    @property
    def row_of_pair(self) -> Int[np.ndarray, " P"]:
        """The row of each pair."""
        return self.row_of[self.pairs[:, 0]]
