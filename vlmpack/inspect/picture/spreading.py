"""Labels beside what they name: moved apart as little as possible, and thinned where there are too many."""

from collections.abc import Sequence


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to those wanted as neighbours allow, by the sum of squares.

    Isotonic regression: where neighbours would come too near, they form a group that moves as one.

    Args:
        wanted: rising.
        gap: the least distance between two.
        low, high: between which all lie; there is room for them.

    Example:
        >>> apart([1.0, 1.0, 9.0], gap=2.0, low=-5.0, high=10.0)
        [0.0, 2.0, 9.0]
    """
    groups: list[tuple[float, int]] = []  # mean place of the first member, and how many there are
    for number, place in enumerate(wanted):
        mean, size = place - number * gap, 1
        while groups and groups[-1][0] > mean:
            before, others = groups.pop()
            mean, size = (before * others + mean * size) / (others + size), others + size
        groups.append((mean, size))
    firsts = [mean for mean, size in groups for _ in range(size)]
    highest = high - gap * (len(wanted) - 1)
    return [min(max(first, low), highest) + number * gap for number, first in enumerate(firsts)]


def thinned(important: Sequence[bool], most: int) -> list[int]:
    """Which labels stay where there is room for fewer: important ones first, evenly among equals.

    Args:
        important: whether each is.
        most: so many stay.

    Returns:
        Their places in the list, rising.

    Example:
        >>> thinned([True, False, False, False, True, False], 4)
        [0, 1, 4, 5]
    """
    first = [place for place, each in enumerate(important) if each]
    others = [place for place, each in enumerate(important) if not each]
    kept = _evenly(first, most)
    return sorted(kept + _evenly(others, most - len(kept)))


def _evenly(places: list[int], most: int) -> list[int]:
    if len(places) <= most:
        return places
    if most < 2:
        return places[:most]
    return [places[round(number * (len(places) - 1) / (most - 1))] for number in range(most)]
