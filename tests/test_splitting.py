"""Parts of a forest: never too large, as few as can be, little repeated; held against every way there is."""

from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_layout import forests

from vlmpack import Forest
from vlmpack.splitting import split


def size(forest: Forest, homes, weights, part) -> int:
    """Tokens of a part: every item's own, and what is above them once."""
    above = {s for item in part if homes[item] >= 0 for s in (*forest.ancestors(homes[item]), homes[item])}
    return sum(forest.lengths[s] for s in above) + sum(weights[item] for item in part)


@st.composite
def hung(draw, most: int):
    """A forest, items that hang on it, and a capacity that each of them fits into."""
    forest = draw(forests(most=5))
    homes = draw(st.lists(st.integers(-1, len(forest.parents) - 1), min_size=1, max_size=most))
    homes += [s for s in range(len(forest.parents)) if s not in forest.parents]  # no segment without a use
    weights = [draw(st.integers(1, 6)) for _ in homes]
    largest = max(size(forest, homes, weights, [item]) for item in range(len(homes)))
    return forest, homes, weights, draw(st.integers(largest, 2 * largest + 5))


@given(hung(most=12))
def test_every_item_lies_in_one_part_and_no_part_is_too_large(case):
    forest, homes, weights, capacity = case
    # items' own tokens are no segments here, so the forest is given them as leaves
    whole, items = with_leaves(forest, homes, weights)
    parts = split(whole, items, weights, capacity)
    assert sorted(item for part in parts for item in part) == list(range(len(homes)))
    assert all(size(whole, items, weights, part) <= capacity for part in parts)


def with_leaves(forest: Forest, homes, weights) -> tuple[Forest, list[int]]:
    """The forest with each item's own tokens as a leaf under its home, and the homes in it."""
    parents, lengths, number = [], [], {-1: -1}
    children = {
        s: [c for c, parent in enumerate(forest.parents) if parent == s] for s in range(-1, len(forest.parents))
    }

    def lay(segment):
        for child in children[segment]:
            number[child] = len(parents)
            parents.append(number[segment])
            lengths.append(forest.lengths[child])
            lay(child)
        for item, home in enumerate(homes):
            if home == segment:
                parents.append(number[segment])
                lengths.append(weights[item])

    lay(-1)
    return Forest(tuple(parents), tuple(lengths)), [number[home] for home in homes]


def fewest(forest, homes, weights, capacity) -> tuple[int, int]:
    """Parts and tokens of the best of all ways: fewest parts, then fewest tokens."""

    @cache
    def best(left: frozenset) -> tuple[int, int]:
        if not left:
            return 0, 0
        first, *others = sorted(left)
        found = (len(left) + 1, 0)
        for chosen in range(1 << len(others)):
            part = [first, *(item for bit, item in enumerate(others) if chosen >> bit & 1)]
            tokens = size(forest, homes, weights, part)
            if tokens <= capacity:
                parts, more = best(left - frozenset(part))
                found = min(found, (parts + 1, more + tokens))
        return found

    return best(frozenset(range(len(homes))))


def test_nearly_always_the_fewest_parts_and_then_the_fewest_tokens():
    """200 random forests, each against every way there is to deal its items."""
    random, fewest_parts = Random(0), 0
    for _ in range(200):
        forest = random_forest(random)
        homes = [s for s in range(len(forest.parents)) if s not in forest.parents]
        homes += [random.randint(-1, len(forest.parents) - 1) for _ in range(random.randint(2, 4))]
        weights = [random.randint(1, 6) for _ in homes]
        largest = max(size(forest, homes, weights, [item]) for item in range(len(homes)))
        whole, items = with_leaves(forest, homes, weights)
        capacity = random.randint(largest, 2 * largest)
        found = split(whole, items, weights, capacity)
        parts, tokens = fewest(whole, items, weights, capacity)
        assert len(found) <= parts + 1
        if len(found) == parts:
            fewest_parts += 1
            assert sum(size(whole, items, weights, part) for part in found) == tokens
    assert fewest_parts >= 196


def random_forest(random: Random) -> Forest:
    parents, path = [], []
    for segment in range(random.randint(1, 4)):
        path = path[: random.randint(0, len(path))]
        parents.append(path[-1] if path else -1)
        path.append(segment)
    return Forest(tuple(parents), tuple(random.randint(1, 8) for _ in parents))


CASES = {
    "a tree that fits stays whole": ((-1, 0, 0), (5, 2, 2), [0, 0], [2, 2], 9, [[0, 1]]),
    "an image stands in both parts": ((-1, 0, 0, 0), (5, 3, 3, 3), [0, 0, 0], [3, 3, 3], 11, [[0, 1], [2]]),
    "a small tree fills the room a large one leaves": (
        (-1, 0, 0, 0, -1), (5, 3, 3, 3, 3), [0, 0, 0, -1], [3, 3, 3, 3], 11, [[0, 1], [2, 3]],
    ),
    "questions stay with their image": (
        (-1, 0, 0, -1, 3, 3), (5, 2, 2, 5, 2, 2), [0, 3, 0, 3], [2, 2, 2, 2], 9, [[0, 2], [1, 3]],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parents", "lengths", "homes", "weights", "capacity", "parts"), CASES.values(), ids=CASES)
def test_literal_forests_are_split_as_expected(parents, lengths, homes, weights, capacity, parts):
    assert split(Forest(parents, lengths), homes, weights, capacity) == parts
