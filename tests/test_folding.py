"""Rows of paths: each leaf in one of them, with its whole path; what is short is repeated."""

from hypothesis import example, given
from test_layout import forests, paths

from vlmpack import Forest
from vlmpack.folding import dealt, size, table


def held(forest: Forest) -> list[list[int]]:
    """The tokens of each row, without what fills it up."""
    return [[token for token in row if token >= 0] for row in table(forest)[0].tolist()]


@given(forests())
def test_folded_rows_hold_every_leaf_once_with_its_whole_path(forest):
    rows, walked = held(forest), paths(forest)
    leaves = set(range(len(forest.parents))) - set(forest.parents)
    for leaf in leaves:
        end = forest.starts[leaf] + forest.lengths[leaf] - 1
        (row,) = [row for row in rows if end in row]
        assert set(walked[end]) <= set(row)
    for row in rows:
        assert row == sorted(set(row))
        needed = {token for end in row for token in walked[end]}
        assert needed == set(row)
    assert {token for row in rows for token in row} == set(range(forest.tokens))


def test_a_short_shared_beginning_is_repeated_rather_than_making_one_long_row():
    rows = held(Forest((-1, *[0] * 8), (3, *[400] * 8)))
    assert [len(row) for row in rows] == [403] * 8
    rows = held(Forest((-1, *[0] * 8), (400, *[3] * 8)))
    assert [len(row) for row in rows] == [424]


@given(forests())
@example(Forest((-1, 0, 0), (2, 200, 150)))  # two rows, of which one is shorter
def test_the_table_of_rows_is_filled_up_and_knows_a_place_of_every_token(forest):
    rows, places = table(forest)
    spans = [range(start, start + length) for start, length in zip(forest.starts, forest.lengths, strict=True)]
    dealt_tokens = [[token for segment in row for token in spans[segment]] for row in dealt(forest)]
    assert rows.tolist() == [row + [-1] * (rows.shape[1] - len(row)) for row in dealt_tokens]
    assert rows.flatten()[places].tolist() == list(range(forest.tokens))
    assert size(forest) == tuple(rows.shape)


def test_a_short_row_is_filled_up_with_no_token():
    rows, _ = table(Forest((-1, 0, 0), (2, 200, 150)))
    assert rows[:, :2].tolist() == [[0, 1], [0, 1]]
    assert rows[1, -51:].tolist() == [351, *[-1] * 50]


def test_a_pack_is_dealt_without_laying_out_its_tokens():
    assert dealt(Forest((-1, 0, 0), (2, 10**9, 10**9))) == ((0, 1), (0, 2))
