"""Rows that turn out bad while they are read: counted, named, and an error if they are many."""

from types import SimpleNamespace

import pytest

from vlmpack.costs.survey import DatasetError
from vlmpack.training.left_out import LeftOut


def test_a_few_bad_rows_are_told_at_the_end_with_the_first_of_them():
    left_out = LeftOut(allowed=0.01)
    left_out.add([1, 0, 30], [{"left_out": {17: "cat.png is cut off"}}, {"left_out": {}}])
    left_out.add([0, 2, 30], [])
    assert left_out.note().splitlines() == [
        "of 60 rows that were read, 1 could not be read and 2 had nothing to compare or too long a prompt; they were left out:",
        "  row 17: cat.png is cut off",
    ]


def test_more_than_the_allowed_share_is_an_error_that_names_them():
    left_out = LeftOut(allowed=0.01)
    left_out.add([2, 0, 250], [{"left_out": {3: "no prompt", 4: "no response"}}])
    with pytest.raises(
        DatasetError, match="3 of the 260 rows read so far cannot be read, more than max_bad_rows=0.01"
    ) as error:
        left_out.add([1, 0, 10], [{"left_out": {155: "no image"}}])
    assert "row 155: no image" in str(error.value)


def test_nothing_left_out_says_nothing():
    assert LeftOut(0.0).note() == ""


def test_with_none_allowed_the_first_bad_row_is_an_error():
    with pytest.raises(DatasetError, match="1 of the 5 rows"):
        LeftOut(0.0).add([1, 0, 5], [{"left_out": {0: "x"}}])


def test_rows_are_named_as_the_data_set_numbers_them():
    left_out = LeftOut(allowed=0.5)
    left_out.add([1, 0, 30], [{"left_out": {1: "cut off"}}], SimpleNamespace(kept=[0, 7, 9]))
    assert "  row 7: cut off" in left_out.note()
