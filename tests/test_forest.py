import pytest

from vlmpack import Forest, ForestError


def test_starts_stops_and_depths_of_a_tree_of_three_levels():
    forest = Forest((-1, 0, 1, 1, 0, -1), (6, 2, 3, 1, 4, 2))
    assert forest.starts == (0, 6, 8, 11, 12, 16)
    assert forest.stops == (16, 12, 11, 12, 16, 18)
    assert forest.depths == (0, 6, 8, 8, 6, 0)
    assert forest.tokens == 18
    assert forest.ancestors(3) == (0, 1)


@pytest.mark.parametrize(
    ("parents", "lengths", "message"),
    [
        ((), (), "at least one segment"),
        ((-1,), (0,), "segment 0 has length 0; leave it out"),
        ((-1, 0), (3,), "2 parents for 1 lengths"),
        ((-1, 0, -1, 0), (1, 1, 1, 1), "segment 3 continues segment 0, which is not open"),
        ((-1, 2, 0), (1, 1, 1), "segment 1 continues segment 2"),
        ((0,), (1,), "segment 0 continues segment 0"),
    ],
)
def test_a_broken_forest_is_refused(parents, lengths, message):
    with pytest.raises(ForestError, match=message):
        Forest(parents, lengths)


def test_a_forest_is_hashable_and_equal_by_shape():
    assert len({Forest((-1, 0), (2, 1)), Forest((-1, 0), (2, 1)), Forest((-1, 0), (1, 2))}) == 2
