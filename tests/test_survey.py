"""Every row is looked at before training; what cannot be used is named and counted, the others stay."""

import pytest
import torch
from tiny import sample

from vlmpack import Lengths
from vlmpack.survey import DatasetError, survey

GOOD = Lengths(10, (3, 4), images=(b"one",), pairs=((0, 1),))


def look(rows, **settings):
    def measure(row):
        if isinstance(row, str):
            raise ValueError(row)
        return row

    return survey(rows, measure, name="training", quiet=True, **settings)


def test_usable_rows_are_kept_in_order():
    rows = [GOOD, Lengths(5, (2, 2), pairs=()), GOOD, "broken", Lengths(50, (2, 2), pairs=((0, 1),))]
    surveyed = look(rows, max_length=20, max_bad_rows=0.5)
    assert surveyed.kept == [0, 2]
    assert [surveyed[0], surveyed[1]] == [GOOD, GOOD]
    assert surveyed.notes[0] == "1 training rows cannot be read and are left out: rows 3 (broken)"
    assert "1 training rows have no preference pair and are left out: rows 1" in surveyed.notes[1]
    assert "1 training rows are dropped for length (max_length=20): rows 4 (the prompt has 50" in surveyed.notes[2]


def test_lengths_are_those_after_truncation():
    assert look([GOOD], max_length=12).lengths == [Lengths(10, (2, 2), images=(b"one",), pairs=((0, 1),))]


def test_more_bad_rows_than_allowed_are_an_error_that_names_them_and_the_remedy():
    rows = [GOOD] * 86 + [f"image {k}.png does not exist" for k in range(14)]
    with pytest.raises(DatasetError) as error:
        look(rows, max_bad_rows=0.01)
    text = str(error.value)
    assert "14 of 100 rows of the training data set cannot be read, more than max_bad_rows=0.01" in text
    assert "row 86: image 0.png does not exist" in text
    assert "and 4 more" in text
    assert "set max_bad_rows=0.15 to leave them out" in text


def test_a_row_larger_than_a_pack_is_an_error_that_names_it_and_the_remedy():
    with pytest.raises(
        DatasetError,
        match=r"1 of the training rows .* max_tokens=40: rows 1\. .*row 1, has 44, 40 of them in its prompt\. Set max_tokens=44",
    ):
        look([GOOD, Lengths(40, (2, 2), pairs=((0, 1),))], max_tokens=40)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the training data set is empty"),
        (iter([GOOD]), r"is a stream \(list_iterator\); load it as a map-style data set"),
        (
            [Lengths(5, (2, 2))] * 2,
            "(?s)nothing is left of the training data set's 2 rows.*2 training rows have no preference pair",
        ),
    ],
)
def test_when_nothing_is_left_it_is_an_error(rows, message):
    with pytest.raises(DatasetError, match=message):
        look(rows)


def test_samples_need_no_processor():
    made = sample([1], [[2], [3]], [(0, 1)], images=1)
    surveyed = survey([made], None, name="training", quiet=True)
    assert surveyed.lengths == [Lengths(5, (1, 1), (made.images[0].content,), ((0, 1),), True, (0,))]
    assert torch.equal(surveyed[0].prompt_ids[-1:], torch.tensor([1]))


def test_workers_measure_the_same():
    rows = [GOOD] * 40 + ["broken"]
    assert look(rows, workers=2, max_bad_rows=0.1).kept == look(rows, max_bad_rows=0.1).kept
