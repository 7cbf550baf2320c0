"""What a picture of a mask says in words: what is what, and where it is not what the forest asks for."""

from dataclasses import dataclass

from vlmpack.inspect.exhibit import Exhibit
from vlmpack.inspect.mask_faults import faults

AXES = "row: the token that looks · column: the token that is seen"


@dataclass(frozen=True)
class Note:
    """A line below the mask's heading.

    Attributes:
        words: what it says.
        wrong: whether something is not as it must be.
    """

    words: str
    wrong: bool


def notes(exhibit: Exhibit) -> tuple[Note, ...]:
    """What rows and columns are, and where the mask is not the forest's: cells beside the path seen, on it not seen.

    Args:
        exhibit: what there is to see.
    """
    axes = Note(AXES + " · pale: earlier on its path", False)
    return (axes, *(Note(words, True) for words in faults(exhibit, " (red)")))
