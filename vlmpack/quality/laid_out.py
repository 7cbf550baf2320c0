"""Rows as they were scored, laid end to end."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from vlmpack.quality.checking import QualityError
from vlmpack.scored import Scored

SHOWN = 3  # reasons that are kept of rows that could not be scored


def reasons_of(bad: Sequence[Scored]) -> tuple[str, ...]:
    """Why the first few rows could not be scored, a line each that does nothing to a terminal.

    Args:
        bad: rows with an error.
    """
    said = ((each.place, each.error.strip().split("\n")[0]) for each in bad[:SHOWN])
    return tuple(f"row {place}: {''.join(filter(str.isprintable, line))}" for place, line in said)


def check_rows(rows: Sequence[Scored], name: str) -> None:
    """Every row stands once, and has as many of each thing as it must.

    Args:
        rows: as they were scored.
        name: of them all, for messages.

    Raises:
        QualityError: one does not; says which row.
    """
    places, counts = np.unique([each.place for each in rows], return_counts=True)
    if (counts > 1).any():
        raise QualityError(f"row {places[counts.argmax()]} stands {counts.max()} times in {name}; give each row once")
    for each in rows:
        if each.error:
            continue
        found, place = len(each.rewards), each.place
        if len(each.lengths) != found:
            raise QualityError(f"row {place} has {found} rewards and {len(each.lengths)} lengths; give one each")
        if each.margins is not None and len(each.margins) != len(each.pairs):
            raise QualityError(
                f"row {place} has {len(each.pairs)} pairs and {len(each.margins)} margins; give one each"
            )
        for pair in each.pairs:
            if not all(0 <= response < found for response in pair):
                raise QualityError(f"row {place} has a pair {tuple(pair)} of responses 0 to {found - 1}; mend the pair")


def margins_of(rows: Sequence[Scored]) -> Float64[np.ndarray, " P"] | None:
    """How much better the preferred response of each pair is.

    Args:
        rows: as they were scored.

    Returns:
        NaN where a row does not say; None if no row says.
    """
    if all(each.margins is None for each in rows):
        return None
    said = [(float("nan"),) * len(each.pairs) if each.margins is None else each.margins for each in rows]
    return np.array([margin for margins in said for margin in margins], dtype=np.float64)


def blind_rewards_of(rows: Sequence[Scored], blind: Sequence[Scored]) -> Float64[np.ndarray, " R"]:
    """The rewards of the same responses without images.

    Args:
        rows: as they were scored with images, without errors.
        blind: those of them that were scored without, in any order.

    Returns:
        NaN for rows that were not scored without images, or could not be.

    Raises:
        QualityError: a row has other responses without images than with them, or a reward is not finite.
    """
    found = {each.place: each.rewards for each in blind if not each.error}
    rewards: list[float] = []
    for each in rows:
        unseen = found.get(each.place)
        if unseen is None:
            rewards += [float("nan")] * len(each.rewards)
            continue
        if len(unseen) != len(each.rewards):
            raise QualityError(
                f"row {each.place} has {len(each.rewards)} rewards with its images and {len(unseen)} without; score "
                f"the same responses"
            )
        if not np.isfinite(unseen).all():
            raise QualityError(
                f"row {each.place} has rewards {unseen} without its images; look at that row, or give it an error"
            )
        rewards += unseen
    return np.array(rewards, dtype=np.float64)
