"""What arrays of rewards must be like to be judged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

_WANTED = {  # kind of numbers, shape, and both in words
    "rewards": ("f", "R", "float64 [R]"),
    "lengths": ("iu", "R", "whole numbers [R]"),
    "row_of": ("iu", "R", "whole numbers [R]"),
    "pairs": ("iu", "P2", "whole numbers [P, 2]"),
    "shows_image": ("b", "R", "booleans [R]"),
    "margins": ("f", "P", "float64 [P]"),
    "blind_rewards": ("f", "R", "float64 [R]"),
}
_OPTIONAL = ("margins", "blind_rewards")


class QualityError(ValueError):
    """Rewards cannot be judged as they are given; says which row and what to do."""


def check_shapes(arrays: Mapping[str, Any]) -> None:
    """Every array is there, of its type and shape.

    Args:
        arrays: those of `Judged` by name; others are passed over.

    Raises:
        QualityError: one is not.
    """
    sizes = {"R": len(np.atleast_1d(arrays["rewards"])), "P": len(np.atleast_1d(arrays["pairs"])), "2": 2}
    for name, (kinds, axes, words) in _WANTED.items():
        array = arrays[name]
        if array is None and name in _OPTIONAL:
            continue
        asked = f"give a numpy array of {words}, here with R={sizes['R']} rewards and P={sizes['P']} pairs"
        if not isinstance(array, np.ndarray):
            raise QualityError(f"{name} is a {type(array).__name__}; {asked}")
        fits = array.dtype.kind in kinds and (kinds != "f" or array.dtype == np.float64)
        if not fits or array.shape != tuple(sizes[axis] for axis in axes):
            raise QualityError(f"{name} is {array.dtype} {list(array.shape)}; {asked}")
    if not sizes["R"]:
        raise QualityError("there are no rewards, so there is nothing to judge; give at least one response")


def check_rewards(
    rewards: Float64[np.ndarray, " R"], blind_rewards: Float64[np.ndarray, " R"] | None, row_of: Int[np.ndarray, " R"]
) -> None:
    """Every reward is a number; without images it may be unknown.

    Args:
        rewards: [R] with images.
        blind_rewards: [R] without.
        row_of: [R] the row of each.

    Raises:
        QualityError: one is not; says which row.
    """
    unseen = np.zeros(len(rewards)) if blind_rewards is None else blind_rewards
    for what, values, broken in (
        ("the reward", rewards, ~np.isfinite(rewards)),
        ("without images the reward", unseen, np.isinf(unseen)),
    ):
        if broken.any():
            place = broken.argmax()
            more = f" (so are {broken.sum() - 1} more)" if broken.sum() > 1 else ""
            raise QualityError(
                f"{what} of response {place}, of row {row_of[place]}, is {values[place]}{more}. Look at that row and "
                f"at the model's weights; a row that cannot be scored belongs among those with an error"
            )


def check_responses(
    lengths: Int[np.ndarray, " R"], row_of: Int[np.ndarray, " R"], shows_image: Bool[np.ndarray, " R"]
) -> None:
    """Lengths are tokens, and a row has an image for all its responses or for none.

    Args:
        lengths: [R] of each response.
        row_of: [R] the row of each.
        shows_image: [R] whether that row has an image.

    Raises:
        QualityError: one is not so; says which row.
    """
    if (lengths < 0).any():
        place = lengths.argmin()
        raise QualityError(
            f"response {place}, of row {row_of[place]}, has length {lengths[place]}; give its tokens, 0 or more"
        )
    rows, number, counts = np.unique(row_of, return_inverse=True, return_counts=True)
    shown = np.bincount(number, shows_image)
    if len(mixed := np.flatnonzero((shown > 0) & (shown < counts))):
        raise QualityError(
            f"row {rows[mixed[0]]} shows an image to only {int(shown[mixed[0]])} of its {counts[mixed[0]]} responses; "
            f"a row has one prompt: set shows_image alike, or number the rows apart in row_of"
        )


def check_pairs(
    pairs: Int[np.ndarray, "P 2"], row_of: Int[np.ndarray, " R"], margins: Float64[np.ndarray, " P"] | None
) -> None:
    """Pairs are two responses of one row, and margins are numbers or unknown.

    Args:
        pairs: [P, 2] (preferred, rejected).
        row_of: [R] the row of each response.
        margins: [P] how much better the preferred one is.

    Raises:
        QualityError: one is not; says which pair.
    """
    outside = ((pairs < 0) | (pairs >= len(row_of))).any(axis=1)
    if outside.any():
        place = outside.argmax()
        raise QualityError(
            f"pair {place} is {pairs[place].tolist()}; give two of the responses, 0 to {len(row_of) - 1}"
        )
    rows = row_of[pairs]
    strange = (rows[:, 0] != rows[:, 1]) | (pairs[:, 0] == pairs[:, 1])
    if strange.any():
        place = strange.argmax()
        raise QualityError(
            f"pair {place} is {pairs[place].tolist()}, of rows {rows[place].tolist()}; give two different responses to "
            f"one prompt"
        )
    if margins is not None and (endless := np.isinf(margins)).any():
        place = endless.argmax()
        raise QualityError(
            f"the margin of pair {place}, of row {rows[place, 0]}, is {margins[place]}; give a finite number, or NaN "
            f"where it is not known"
        )
