"""Parts of a forest: never too large, as few as can be, little repeated; held against every way there is."""

from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import sample

import vlmpack
from vlmpack import Forest
from vlmpack.splitting import split


def size(forest: Forest, homes, needs, part) -> int:
    """Tokens of a part: all segments on the way to and below its items' homes, once."""
    above = {s for item in part if homes[item] >= 0 for s in (*forest.ancestors(homes[item]), homes[item])}
    return sum(forest.lengths[s] for s in above.union(*(needs[item] for item in part)))


def descendants(forest: Forest, home: int) -> list[int]:
    """The segments below one, or all of them."""
    return [s for s in range(len(forest.parents)) if home < 0 or home in forest.ancestors(s)]


def closed(forest: Forest, home: int, segments) -> frozenset[int]:
    """Segments with all that lies between them and the home."""
    return frozenset(s for each in segments for s in (*forest.ancestors(each), each) if s in descendants(forest, home))


def random_items(random: Random, most: int = 5):
    """A forest, items that need overlapping parts of it, and a capacity that each of them fits into."""
    parents, path = [], []
    for segment in range(random.randint(2, 7)):
        path = path[: random.randint(0, len(path))]
        parents.append(path[-1] if path else -1)
        path.append(segment)
    forest = Forest(tuple(parents), tuple(random.randint(1, 8) for _ in parents))
    homes, needs = [], []
    for _ in range(random.randint(2, most)):
        home = random.choice([-1, *(s for s in range(len(parents)) if s in parents)])
        below = descendants(forest, home)
        homes.append(home)
        needs.append(closed(forest, home, random.sample(below, random.randint(1, min(3, len(below))))))
    largest = max(size(forest, homes, needs, [item]) for item in range(len(homes)))
    return forest, homes, needs, random.randint(largest, 2 * largest)


@given(st.integers(0, 10**9))
def test_every_item_lies_in_one_part_and_no_part_is_too_large(seed):
    forest, homes, needs, capacity = random_items(Random(seed), most=12)
    parts = split(forest, homes, needs, capacity)
    assert sorted(item for part in parts for item in part) == list(range(len(homes)))
    assert all(size(forest, homes, needs, part) <= capacity for part in parts)


def fewest(forest, homes, needs, capacity) -> tuple[int, int]:
    """Parts and tokens of the best of all ways: fewest parts, then fewest tokens."""

    @cache
    def best(left: frozenset) -> tuple[int, int]:
        if not left:
            return 0, 0
        first, *others = sorted(left)
        found = (len(left) + 1, 0)
        for chosen in range(1 << len(others)):
            part = [first, *(item for bit, item in enumerate(others) if chosen >> bit & 1)]
            tokens = size(forest, homes, needs, part)
            if tokens <= capacity:
                parts, more = best(left - frozenset(part))
                found = min(found, (parts + 1, more + tokens))
        return found

    return best(frozenset(range(len(homes))))


def test_nearly_always_the_fewest_parts_and_then_nearly_the_fewest_tokens():
    """400 random forests, each against every way there is to deal its items."""
    random, fewest_parts, mine, least = Random(0), 0, 0, 0
    for _ in range(400):
        forest, homes, needs, capacity = random_items(random)
        found = split(forest, homes, needs, capacity)
        parts, tokens = fewest(forest, homes, needs, capacity)
        assert len(found) <= parts + 1
        if len(found) == parts:
            fewest_parts += 1
            mine += sum(size(forest, homes, needs, part) for part in found)
            least += tokens
    assert fewest_parts >= 390
    assert mine <= 1.02 * least


CASES = {
    "a tree that fits stays whole": ((-1, 0, 0), (5, 2, 2), [0, 0], [{1}, {2}], 9, [[0, 1]]),
    "an image stands in both parts": ((-1, 0, 0, 0), (5, 3, 3, 3), [0, 0, 0], [{1}, {2}, {3}], 11, [[0, 1], [2]]),
    "a small tree fills the room a large one leaves": (
        (-1, 0, 0, 0, -1), (5, 3, 3, 3, 3), [0, 0, 0, -1], [{1}, {2}, {3}, {4}], 11, [[0, 1], [2, 3]],
    ),
    "questions stay with their image": (
        (-1, 0, 0, -1, 3, 3), (5, 2, 2, 5, 2, 2), [0, 3, 0, 3], [{1}, {4}, {2}, {5}], 9, [[0, 2], [1, 3]],
    ),
    "items that need the same are counted once": (
        (-1, 0, 0, 0), (4, 9, 2, 3), [0, 0, 0], [{1, 2}, {3}, {1, 2}], 15, [[0, 2], [1]],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parents", "lengths", "homes", "needs", "capacity", "parts"), CASES.values(), ids=CASES)
def test_literal_forests_are_split_as_expected(parents, lengths, homes, needs, capacity, parts):
    assert split(Forest(parents, lengths), homes, list(map(frozenset, needs)), capacity) == parts


def test_pairs_of_one_ranking_share_their_responses_in_every_pack():
    """A ranking that comes as pairs, one row each: (A, B), (A, C), (A, D)."""
    made = [sample([1] * 20, [[2] * 10, [other] * 10], [(0, 1)]) for other in (3, 4, 5)]
    packs = vlmpack.pack(made, max_tokens=50)
    assert sorted(pack.tokens for pack in packs) == [40, 50]
    packs = vlmpack.pack([*made[:1] * 3, made[1]], max_tokens=45)
    assert sorted(pack.tokens for pack in packs) == [40, 40]
