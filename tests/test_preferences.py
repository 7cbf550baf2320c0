import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import sample

import vlmpack
from vlmpack.preferences import compared, joined, preferences_of, preferred_tokens, selected, weight

SCORES = st.lists(st.integers(0, 3), min_size=2, max_size=6)
CPU = torch.device("cpu")


def all_pairs(scores: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple((i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j])


def chosen(scores: list[int], pairing: str) -> set[tuple[int, int]]:
    pairs = all_pairs(scores)
    return {pairs[place] for place in selected(pairs, pairing)}


@given(SCORES)
def test_the_best_are_compared_with_all_the_rest(scores):
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    assert chosen(scores, "best") == {(i, j) for i in best for j in range(len(scores)) if scores[j] < max(scores)}


@given(SCORES)
def test_adjacent_pairs_have_no_score_in_between(scores):
    levels = sorted(set(scores))
    next_below = dict(zip(levels[1:], levels, strict=False))
    expected = {(i, j) for i, j in all_pairs(scores) if next_below[scores[i]] == scores[j]}
    assert chosen(scores, "adjacent") == expected


def test_ties_make_no_pair_in_any_pairing():
    assert [chosen([2, 2, 2], pairing) for pairing in ("all", "best", "adjacent")] == [set()] * 3
    assert chosen([2, 2, 1], "best") == {(0, 2), (1, 2)}


def test_margins_stay_with_their_pairs():
    made = sample([1], [[2], [3], [4]], [(0, 1), (0, 2), (1, 2)])  # margins 0.5, 1.5, 2.5
    assert compared(made, "adjacent").pairs == ((0, 1), (1, 2))
    assert compared(made, "adjacent").margins == (0.5, 2.5)
    assert compared(made.lengths, "adjacent").pairs == ((0, 1), (1, 2))
    assert compared(made, "all").pairs == made.pairs


MADE = [
    sample([1], [[2], [3, 3], [4, 4, 4]], [(0, 1), (0, 2), (1, 2)]),
    sample([5], [[2, 2], [3]], [(0, 1)]),
    sample([6], [[2], [3]], []),
]


@pytest.mark.parametrize("max_tokens", [8192, 8])
def test_a_prompt_weighs_its_pairs_or_one(max_tokens):
    packs = vlmpack.pack(MADE, max_tokens)
    together = joined([preferences_of(pack, CPU) for pack in packs])
    assert together.pair_weights("pairs").tolist() == [1, 1, 1, 1]
    assert sorted(together.pair_weights("one").tolist()) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    assert sorted(together.list_weights("one").tolist()) == [0, 0, 1, 1, 1, 1, 1]
    assert sorted(together.list_weights("pairs").tolist()) == [0, 0, 1, 1, 3, 3, 3]
    assert [weight(each, "pairs") for each in MADE] == [3, 1, 0]
    assert [weight(each, "one") for each in MADE] == [1, 1, 0]


def test_the_mean_length_of_preferred_responses_has_the_pairs_weights():
    assert [preferred_tokens(each, "pairs") for each in MADE] == [1 + 1 + 2, 2, 0]
    assert [preferred_tokens(each, "one") for each in MADE] == pytest.approx([4 / 3, 2, 0])


def test_packs_and_single_samples_say_the_same_when_joined():
    (pack,) = vlmpack.pack(MADE)
    packed, alone = preferences_of(pack, CPU), joined([preferences_of(each, CPU) for each in MADE])
    assert torch.equal(packed.pairs, alone.pairs)
    assert torch.equal(packed.lengths, alone.lengths)
    assert torch.equal(packed.margins, alone.margins)
    assert torch.equal(packed.pair_weights("one"), alone.pair_weights("one"))
    assert torch.equal(packed.list_weights("one"), alone.list_weights("one"))
