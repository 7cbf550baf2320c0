"""Faults planted on purpose: the equivalence tests must find each of them."""

import pytest
import torch
from test_equivalence import CASES, check_logps_and_dpo, check_rewards_and_bradley_terry
from tiny import sample

from vlmpack import layout, masks, plan

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
