"""What became of a row of candidates: a reward for each, or what is wrong with the row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """The rewards of one row's responses.

    Attributes:
        place: of the row among all that were given, from 0.
        rewards: R floats, in the row's order of responses; empty if the row could not be scored.
        error: why it could not; empty if it was.
        pairs: P (preferred, rejected) responses, as far as the row says who is better.
        margins: P floats, how much better the preferred one is; None if the row does not say.
        lengths: R ints. Tokens of each response.
        images: in the prompt.
        image_tokens: tokens of the prompt that stand for pixels.
    """

    place: int
    rewards: tuple[float, ...] = ()
    error: str = ""
    pairs: tuple[tuple[int, int], ...] = ()
    margins: tuple[float, ...] | None = None
    lengths: tuple[int, ...] = ()
    images: int = 0
    image_tokens: int = 0
