"""What the segments of a pack are called: prompts are lettered, responses numbered."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from vlmpack.forest import Forest
from vlmpack.pack import Pack


@dataclass(frozen=True)
class Response:
    """A response of a pack.

    Attributes:
        name: its prompt's letter and its number among that prompt's responses, from 1: "A2".
        prompt: the letter.
        row: of its sample in the list that was packed.
        hue: its number among its prompt's responses, from 0; for colours.
        path: the segments from a root to where it ends.
        prompt_tokens: those of its path that are its prompt's.
        tokens: its own.
        beats: rows of the pack's responses to which it is preferred.
    """

    name: str
    prompt: str
    row: int
    hue: int
    path: tuple[int, ...]
    prompt_tokens: int
    tokens: int
    beats: tuple[int, ...]


def responses(pack: Pack) -> tuple[Response, ...]:
    """The responses of a pack by name, in its order.

    Args:
        pack: on any device.
    """
    rows, ends = pack.sample_of.tolist(), pack.ends.tolist()
    lengths = pack.response_lengths.tolist()
    beaten: dict[int, list[int]] = {}
    for preferred, rejected in pack.pairs.tolist():
        beaten.setdefault(preferred, []).append(rejected)
    letters = {row: letter(number) for number, row in enumerate(dict.fromkeys(rows))}
    first: dict[int, int] = {}  # of each row's responses
    found = []
    for number, (row, end) in enumerate(zip(rows, ends, strict=True)):
        hue = number - first.setdefault(row, number)
        path = path_to(pack.forest, end)
        found.append(
            Response(
                name=f"{letters[row]}{hue + 1}",
                prompt=letters[row],
                row=row,
                hue=hue,
                path=path,
                prompt_tokens=pack.forest.depths[path[-1]] + end + 1 - pack.forest.starts[path[-1]] - lengths[number],
                tokens=lengths[number],
                beats=tuple(beaten.get(number, ())),
            )
        )
    return tuple(found)


def leaves(forest: Forest) -> tuple[Response, ...]:
    """The leaves of a forest as if each were the response to all before it.

    Args:
        forest: of a pack, or by itself.
    """
    roots: dict[int, list[int]] = {}
    continued = set(forest.parents)
    for segment in range(len(forest.parents)):
        if segment not in continued:
            roots.setdefault((*forest.ancestors(segment), segment)[0], []).append(segment)
    found = []
    for number, ends in enumerate(roots.values()):
        for hue, end in enumerate(ends):
            path = (*forest.ancestors(end), end)
            own = forest.lengths[end] if len(path) > 1 else 0
            before = forest.depths[end] + forest.lengths[end] - own
            found.append(Response(f"segment {end}", letter(number), number, hue, path, before, own, ()))
    return tuple(found)


def path_to(forest: Forest, token: int) -> tuple[int, ...]:
    """The segments from a root to the one in which a token stands.

    Args:
        forest: of a pack.
        token: its index.
    """
    segment = bisect_right(forest.starts, token) - 1
    return (*forest.ancestors(segment), segment)


def letter(number: int) -> str:
    """A, B, ... Z, AA, AB, ...

    Args:
        number: from 0.

    Example:
        >>> letter(0), letter(25), letter(26)
        ('A', 'Z', 'AA')
    """
    name = ""
    while number >= 0:
        name, number = chr(ord("A") + number % 26) + name, number // 26 - 1
    return name


def listed(names: Sequence[str], known: Sequence[str], most: int = 4) -> str:
    """Names one after the other, or the first and the last; and how many, if not all between them are meant.

    Args:
        names: one or more, in order; doubles are named once.
        known: all there are, in order.
        most: so many are named one by one.

    Example:
        >>> known = ["A1", "A2", "A3", "A4", "A5", "A6"]
        >>> listed(["A1", "A1", "A3"], known), listed(known, known), listed(known[:3] + known[4:], known)
        ('A1, A3', 'A1 … A6', 'A1 … A6 (5)')
    """
    once = list(dict.fromkeys(names))
    if len(once) <= most:
        return ", ".join(once)
    between = known.index(once[-1]) - known.index(once[0]) + 1
    return f"{once[0]} … {once[-1]}" + (f" ({len(once)})" if len(once) < between else "")
