"""Verdicts on rows, and every kind of average, against numbers worked out by hand."""

import math

import pytest

from vlmpack.evaluation.verdicts import Share, Verdict, by_group, by_id, by_section, mean, share, verdict_of
from vlmpack.scored import Scored

NAN = math.nan


def judged(*rewards: float, pairs=((0, 1),)) -> tuple[int, int, int]:
    found = verdict_of(3, "name", "group", Scored(0, rewards=rewards, pairs=pairs))
    return found.right, found.pairs, found.tied


def row(name: str, group: str, right: bool = True, error: str = "") -> Verdict:
    return Verdict(0, name, group, () if error else (1.0, 0.0), int(not error), int(right and not error), error=error)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [((2.0, 1.0), (1, 1, 0)), ((1.0, 2.0), (0, 1, 0)), ((1.5, 1.5), (0, 1, 1)), ((0.0, -0.0), (0, 1, 1))],
    ids=["larger", "smaller", "tie", "tie of zeros"],
)
def test_a_pair_is_right_only_if_the_preferred_reward_is_larger(rewards, expected):
    assert judged(*rewards) == expected


@pytest.mark.parametrize("rewards", [(NAN, 0.0), (0.0, NAN), (NAN, NAN)], ids=["first", "second", "both"])
def test_a_reward_that_is_not_a_number_is_wrong_and_no_tie(rewards):
    assert judged(*rewards) == (0, 1, 0)


def test_infinite_rewards_are_compared_like_others():
    assert judged(math.inf, 0.0) == (1, 1, 0)
    assert judged(math.inf, math.inf) == (0, 1, 1)


def test_every_pair_of_a_row_counts():
    assert judged(3.0, 1.0, 1.0, pairs=((0, 1), (0, 2), (1, 2))) == (2, 3, 1)
    assert judged(1.0, 3.0, pairs=((1, 0),)) == (1, 1, 0)
    assert judged(1.0, 3.0, pairs=()) == (0, 0, 0)


def test_a_row_that_was_not_scored_has_no_pairs():
    found = verdict_of(4, "name", "group", Scored(0, error="no image", pairs=((0, 1),)))
    assert found == Verdict(4, "name", "group", error="no image")


def test_a_share_of_nothing_has_no_value():
    assert Share(3, 4).value == 0.75
    assert Share(0, 0).value is None


def test_the_micro_average_weighs_pairs_and_leaves_out_rows_that_were_not_scored():
    rows = [row("a", "x"), row("b", "x", right=False), row("c", "y", error="broken"), Verdict(0, "d", "y", pairs=2)]
    assert share(rows) == Share(1, 4)


def test_groups_come_in_the_order_asked_for_and_then_as_they_appear():
    rows = [row("1", "new"), row("2", "b"), row("3", "a", right=False), row("4", "b"), row("5", "c", error="broken")]
    found = by_group(rows, ("a", "unseen", "b"))
    assert list(found.items()) == [("a", Share(0, 1)), ("b", Share(2, 2)), ("new", Share(1, 1)), ("c", Share(0, 0))]


def test_an_id_is_right_only_if_all_its_rows_are():
    rows = [row("1", "a"), row("1", "a"), row("2", "a"), row("2", "a", right=False), row("3", "b", right=False)]
    assert by_id(rows) == (Share(1, 3), {"a": Share(1, 2), "b": Share(0, 1)})


def test_an_id_with_a_row_that_was_not_scored_does_not_count():
    rows = [row("1", "a"), row("1", "a", error="broken"), row("2", "a"), row("3", "b", error="broken"), row("", "a")]
    assert by_id(rows) == (Share(1, 1), {"a": Share(1, 1), "b": Share(0, 0)})


def test_an_id_stands_in_the_group_of_its_first_row():
    assert by_id([row("1", "a"), row("1", "b")])[1] == {"a": Share(1, 1)}


def test_sections_are_weighted_as_asked_or_by_pairs():
    groups = {"x": Share(1, 2), "y": Share(3, 3), "z": Share(1, 4), "none": Share(0, 9)}
    section_of = {"x": "first", "y": "first", "z": "second", "none": ""}.get
    # first: (1 + 3) of 5 by pairs; (0.5 * 10 + 1.0 * 30) of 40 by weights
    assert by_section(groups, section_of, {}) == {"first": 0.8, "second": 0.25}
    assert by_section(groups, section_of, {"x": 10, "y": 30}) == {"first": 0.875, "second": 0.25}


def test_a_group_in_which_nothing_was_scored_takes_its_weight_with_it():
    groups = {"x": Share(1, 2), "y": Share(0, 0), "z": Share(0, 0)}
    section_of = {"x": "first", "y": "first", "z": "second"}.get
    assert by_section(groups, section_of, {"x": 1, "y": 99}) == {"first": 0.5, "second": None}


def test_the_mean_is_of_what_is_known():
    assert mean([0.5, None, 1.0]) == 0.75
    assert mean([None]) is None
    assert mean([]) is None
