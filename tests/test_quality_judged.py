"""What may be judged: rows as they were scored, laid end to end, and what is refused at the door."""

from dataclasses import replace

import numpy as np
import pytest
from typecheck import unchecked

from vlmpack.quality import Judged, QualityError
from vlmpack.scored import Scored

NAN, INFINITE = float("nan"), float("inf")
ROWS = [
    Scored(4, (0.5, 2.0, -1.0), pairs=((1, 0), (1, 2)), margins=(1.0, 3.0), lengths=(7, 4, 9), images=2),
    Scored(1, error="no such image\n  look at its path"),
    Scored(6, (3.0, 1.0), pairs=((0, 1),), lengths=(2, 2)),
]
GOOD = Judged(
    rewards=np.array([0.5, 2.0, -1.0, 3.0, 1.0]),
    lengths=np.array([7, 4, 9, 2, 2]),
    row_of=np.array([4, 4, 4, 6, 6]),
    pairs=np.array([[1, 0], [1, 2], [3, 4]]),
    shows_image=np.array([True, True, True, False, False]),
)


def test_rows_are_laid_end_to_end_and_those_with_an_error_are_counted():
    judged = Judged.from_scored(ROWS)
    assert judged.rewards.tolist() == [0.5, 2.0, -1.0, 3.0, 1.0]
    assert judged.lengths.tolist() == [7, 4, 9, 2, 2]
    assert judged.row_of.tolist() == [4, 4, 4, 6, 6]
    assert judged.pairs.tolist() == [[1, 0], [1, 2], [3, 4]]
    assert judged.shows_image.tolist() == [True, True, True, False, False]
    assert judged.blind_rewards is None
    assert (judged.skipped, judged.reasons) == (1, ("row 1: no such image",))
    assert judged.gaps.tolist() == [1.5, 3.0, 2.0]
    assert judged.row_of_pair.tolist() == [4, 4, 6]


def test_the_reasons_of_the_first_rows_are_kept_and_do_nothing_to_a_terminal():
    bad = [Scored(place, error=f"\x1b[31mbad {place}") for place in range(1, 6)]
    judged = Judged.from_scored([*bad, ROWS[2]])
    assert judged.skipped == 5
    assert judged.reasons == ("row 1: [31mbad 1", "row 2: [31mbad 2", "row 3: [31mbad 3")


def test_margins_are_unknown_where_a_row_does_not_say_and_none_if_no_row_says():
    assert str(Judged.from_scored(ROWS).margins.tolist()) == "[1.0, 3.0, nan]"
    assert Judged.from_scored(ROWS[1:]).margins is None


def test_rewards_without_images_are_matched_by_place_and_unknown_where_there_are_none():
    blind = [Scored(6, (7.0, 8.0), lengths=(2, 2)), Scored(4, error="no room"), Scored(1, error="no such image")]
    assert str(Judged.from_scored(ROWS, blind).blind_rewards.tolist()) == "[nan, nan, nan, 7.0, 8.0]"
    seen = [Scored(4, (1.0, 2.0, 3.0), lengths=(7, 4, 9))]
    assert str(Judged.from_scored(ROWS, seen).blind_rewards.tolist()) == "[1.0, 2.0, 3.0, nan, nan]"


REFUSED = {
    "no rows": ([], None, "none of 0 rows has a reward"),
    "nothing scored": (ROWS[1:2], None, "none of 1 rows has a reward: nothing to judge\nrow 1: no such image"),
    "a row twice": ([*ROWS, ROWS[0]], None, "row 4 stands 2 times in scored; give each row once"),
    "a row twice without images": (ROWS, [ROWS[2], ROWS[2]], "row 6 stands 2 times in blind"),
    "another row without images": (ROWS, [Scored(9, (1.0,), lengths=(1,))], "row 9 was scored without images and not"),
    "other responses": (ROWS, [Scored(6, (1.0,), lengths=(1,))], "row 6 has 2 rewards with its images and 1 without"),
    "lengths": ([replace(ROWS[2], lengths=(2,))], None, "row 6 has 2 rewards and 1 lengths; give one each"),
    "margins": ([replace(ROWS[2], margins=(1.0, 2.0))], None, "row 6 has 1 pairs and 2 margins; give one each"),
    "a pair": ([replace(ROWS[2], pairs=((0, 2),))], None, "row 6 has a pair (0, 2) of responses 0 to 1; mend the pair"),
    "a pair from behind": ([ROWS[0], replace(ROWS[2], pairs=((0, -1),))], None, "row 6 has a pair (0, -1)"),
    "not a number": ([replace(ROWS[2], rewards=(3.0, NAN))], None, "the reward of response 1, of row 6, is nan"),
    "not a number without images": (
        ROWS,
        [Scored(6, (NAN, 1.0), lengths=(2, 2))],
        "row 6 has rewards (nan, 1.0) without its images",
    ),
}


@pytest.mark.parametrize("scored, blind, message", REFUSED.values(), ids=REFUSED)
def test_rows_that_cannot_be_judged_are_refused_with_their_number(scored, blind, message):
    with pytest.raises(QualityError) as caught:
        Judged.from_scored(scored, blind)
    assert message in str(caught.value)


BROKEN = {
    "a list": ({"rewards": [1.0] * 5}, "rewards is a list; give a numpy array of float64 [R], here with R=5"),
    "nothing": ({"lengths": None}, "lengths is a NoneType; give a numpy array of whole numbers [R]"),
    "narrow": ({"rewards": GOOD.rewards.astype(np.float32)}, "rewards is float32 [5]; give a numpy array of float64"),
    "lengths": ({"lengths": GOOD.lengths[:4]}, "lengths is int64 [4]; give a numpy array of whole numbers [R], here"),
    "rows": ({"row_of": GOOD.row_of + 0.5}, "row_of is float64 [5]"),
    "pairs": ({"pairs": GOOD.pairs[:, :1]}, "pairs is int64 [3, 1]; give a numpy array of whole numbers [P, 2]"),
    "images": ({"shows_image": GOOD.row_of}, "shows_image is int64 [5]; give a numpy array of booleans [R]"),
    "margins": ({"margins": np.ones(2)}, "margins is float64 [2]; give a numpy array of float64 [P], here with R=5"),
    "blind": ({"blind_rewards": np.ones(3)}, "blind_rewards is float64 [3]"),
    "infinite": ({"rewards": np.array([0, INFINITE, 0, -INFINITE, 0])}, "response 1, of row 4, is inf (so are 1 more)"),
    "infinite without images": ({"blind_rewards": np.full(5, INFINITE)}, "without images the reward of response 0"),
    "negative": ({"lengths": GOOD.lengths - 3}, "response 3, of row 6, has length -1; give its tokens, 0 or more"),
    "some": ({"shows_image": GOOD.lengths > 4}, "row 4 shows an image to only 2 of its 3 responses"),
    "outside": ({"pairs": GOOD.pairs + 1}, "pair 2 is [4, 5]; give two of the responses, 0 to 4"),
    "before": ({"pairs": GOOD.pairs - 1}, "pair 0 is [0, -1]; give two of the responses, 0 to 4"),
    "two rows": (
        {"pairs": np.array([[0, 1], [1, 3]])},
        "pair 1 is [1, 3], of rows [4, 6]; give two different responses",
    ),
    "with itself": ({"pairs": np.array([[2, 2]])}, "pair 0 is [2, 2], of rows [4, 4]; give two different responses"),
    "endless": ({"margins": np.array([1, NAN, INFINITE])}, "the margin of pair 2, of row 6, is inf; give a finite"),
}


@pytest.mark.parametrize("changes, message", BROKEN.values(), ids=BROKEN)
def test_broken_arrays_are_refused_and_say_what_is_wrong(changes, message):
    with unchecked(), pytest.raises(QualityError) as caught:
        replace(GOOD, **changes)
    assert message in str(caught.value)


def test_no_responses_are_nothing_to_judge():
    none = np.zeros(0)
    with unchecked(), pytest.raises(QualityError, match="there are no rewards, so there is nothing to judge"):
        Judged(none, none.astype(int), none.astype(int), np.zeros((0, 2), dtype=int), none.astype(bool))
