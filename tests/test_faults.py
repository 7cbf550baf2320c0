"""Faults planted on purpose: the equivalence tests must find each of them."""

from dataclasses import replace

import pytest
import torch
from test_equivalence import CASES, check_logps_and_dpo, check_rewards_and_bradley_terry
from tiny import picture, sample, woven

from vlmpack import layout, masks, model, plan, prefix, vision

MADE = [sample([1, 2], [[3, 1], [2, 4, 0], [1]], [(0, 1), (1, 2)]), sample([5, 1], [[3, 2], [4, 4]], [(0, 1)])]


def leak_siblings(monkeypatch):
    """`q < reach[k]` removed: a response sees the responses before it."""
    monkeypatch.setattr(masks, "path_causal", lambda reach: lambda b, h, q, k: k <= q)
    monkeypatch.setattr(plan, "runs", lambda forest: (plan.Run(tuple(range(len(forest.parents))), ()),))


def shift_plainly(monkeypatch):
    """Every token predicted from the index before it, as in an unpacked sequence."""
    monkeypatch.setattr(layout, "previous", lambda forest: torch.arange(forest.tokens) - 1)


def count_positions_on(monkeypatch):
    """Positions that do not restart after the prompt."""
    monkeypatch.setattr(layout, "position", lambda forest: torch.arange(forest.tokens))


@pytest.mark.parametrize(("name", "backend"), CASES)
@pytest.mark.parametrize("fault", [leak_siblings, shift_plainly, count_positions_on])
def test_the_log_probability_tests_find(fault, name, backend, monkeypatch):
    check_logps_and_dpo(name, backend, MADE, tight=False)
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_logps_and_dpo(name, backend, MADE, tight=False)


@pytest.mark.parametrize(("name", "backend"), CASES)
@pytest.mark.parametrize("fault", [leak_siblings, count_positions_on])
def test_the_reward_tests_find(fault, name, backend, monkeypatch):
    check_rewards_and_bradley_terry(name, backend, MADE, tight=False)
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_rewards_and_bradley_terry(name, backend, MADE, tight=False)


ALIKE = [woven([1, picture(seed), 2], [[3, 1], [2, 4]], [(0, 1)]) for seed in (1, 2)]
OUT_OF_ORDER = [
    woven([*words, picture(seed), 2], [[3], [4]], [(0, 1)]) for words, seed in (([1], 1), ([2], 2), ([3], 1))
]


def merge_by_token_id(monkeypatch):
    """Image tokens compared by their ids, which are the same for all images."""
    monkeypatch.setattr(prefix._Keys, "_stretch", lambda keys, content, ids, tokens: 22)


def place_in_another_order(monkeypatch):
    """The features of an image that stands twice put elsewhere."""
    swapped = lambda pack: replace(pack, placements=tuple(1 - place for place in pack.placements))  # noqa: E731
    monkeypatch.setattr(model, "placed", lambda base, pack: vision.placed(base, swapped(pack)))


@pytest.mark.parametrize(("name", "backend"), [case for case in CASES if case[0] == "llava"])
@pytest.mark.parametrize(("fault", "made"), [(merge_by_token_id, ALIKE), (place_in_another_order, OUT_OF_ORDER)])
def test_the_image_tests_find(fault, made, name, backend, monkeypatch):
    check_logps_and_dpo(name, backend, made, tight=False)
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_logps_and_dpo(name, backend, made, tight=False)
