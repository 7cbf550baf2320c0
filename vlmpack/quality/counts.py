"""How much was judged, and how the rewards are spread."""

from dataclasses import dataclass

import numpy as np

from vlmpack.quality.judged import Judged


@dataclass(frozen=True)
class Counts:
    """What there was to judge.

    Attributes:
        rows: scored.
        rows_with_pairs: of these, those that say which of two responses is better.
        responses: scored.
        pairs: of which the data prefers one.
        skipped: rows that could not be scored.
        reasons: why, of the first few of them.
        reward_mean: over all responses, Bradley-Terry logits.
        reward_deviation: standard deviation over all responses, the same unit.
    """

    rows: int
    rows_with_pairs: int
    responses: int
    pairs: int
    skipped: int
    reasons: tuple[str, ...]
    reward_mean: float
    reward_deviation: float


def counts(judged: Judged) -> Counts:
    """Count.

    Args:
        judged: whatever was scored.
    """
    return Counts(
        rows=len(np.unique(judged.row_of)),
        rows_with_pairs=len(np.unique(judged.row_of_pair)),
        responses=len(judged.rewards),
        pairs=len(judged.pairs),
        skipped=judged.skipped,
        reasons=judged.reasons,
        reward_mean=float(judged.rewards.mean()),
        reward_deviation=float(judged.rewards.std()),
    )
