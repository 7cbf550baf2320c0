"""A million samples' lengths in a few arrays, the same as one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import picture, samples, trees, woven

from vlmpack import Lengths, Sample, SampleError, pack
from vlmpack.lengths import LengthTable
from vlmpack.preferences import compared, mean_preferred_length

ONE = Lengths(10, (3, 4), (b"one", b"two", b"one"), ((0, 1),), True, (2,), 8, b"root", bytes(range(16)))
TWO = Lengths(20, (5,), (b"two",))
TEXT = Lengths(7, (1, 2, 3), (), ((0, 1), (2, 1)), overlaps=(0, 1))
ROWS = [ONE, TWO, TEXT, ONE]
DIGESTS = ("root", "content")


def same(one: Lengths, other: Lengths) -> bool:
    """Digests too, which do not count when lengths are compared."""
    return one == other and all(getattr(one, name) == getattr(other, name) for name in DIGESTS)


def test_a_table_gives_back_the_lengths_it_was_made_of():
    table = LengthTable.of(iter(ROWS))
    assert len(table) == 4
    assert all(map(same, table, ROWS))
    assert same(table[-1], ONE)
    with pytest.raises(IndexError):
        table[4]


def test_columns_hold_what_the_lengths_say():
    table = LengthTable.of(ROWS)
    assert table.packed.tolist() == [15, 25, 12, 15]
    assert table.unpacked.tolist() == [27, 25, 27, 27]
    assert table.responses_of_row.tolist() == [2, 1, 3, 2]
    assert table.pair_counts.tolist() == [1, 0, 2, 1]
    assert table.first_image.tolist() == [0, 1, -1, 0]
    assert table.roots.tolist() == [0, -1, -1, 0]
    assert table.trunk.tolist() == [8, 0, 0, 8]
    assert table.vision_passes.tolist() == [2, 1, 0, 2]
    assert table.margins.tolist() == [True, False, False, True]


def test_no_sample_is_a_table_too():
    table = LengthTable.of([])
    assert list(table) == []
    assert table.packed.tolist() == table.first_image.tolist() == table.vision_passes.tolist() == []
    assert list(table.truncated(3).take([])) == []


def test_taking_some_keeps_their_order_and_their_numbers():
    taken = LengthTable.of(ROWS).take([2, 1, 1])
    assert list(taken) == [TEXT, TWO, TWO]
    assert taken.first_image.tolist() == [-1, 1, 1]


@pytest.mark.parametrize("max_length", [None, 21, 22, 10**12])
def test_truncation_is_that_of_each(max_length):
    table = LengthTable.of(ROWS).truncated(max_length)
    assert all(map(same, table, [each.truncated(max_length) for each in ROWS]))


def test_a_prompt_that_leaves_no_room_is_known_and_refused():
    table = LengthTable.of(ROWS)
    assert table.fits(None).tolist() == [True] * 4
    assert table.fits(10).tolist() == [False, False, True, False]
    with pytest.raises(SampleError, match="the prompt has 20 tokens, .* max_length=10"):
        table.truncated(10)
    assert list(table.take(np.flatnonzero(table.fits(10))).truncated(9)) == [TEXT.truncated(9)]


def test_a_table_is_saved_whole_and_read_again(tmp_path):
    path = tmp_path / "new" / "lengths.npz"
    LengthTable.of(ROWS).save(path)
    assert all(map(same, LengthTable.load(path), ROWS))
    assert [each.name for each in path.parent.iterdir()] == ["lengths.npz"]


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "lengths.npz"
    LengthTable.of(ROWS).save(path)
    monkeypatch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LengthTable.of([TWO]).save(path)
    assert list(LengthTable.load(path)) == ROWS
    assert [each.name for each in tmp_path.iterdir()] == ["lengths.npz"]


def test_a_digest_of_another_size_is_refused():
    with pytest.raises(ValueError, match="content has 3 bytes; give a digest of 16, or none"):
        LengthTable.of([Lengths(1, (1,), content=b"abc")])


def test_a_sample_of_four_responses_and_six_pairs_takes_less_than_200_bytes():
    pairs = tuple((i, j) for i in range(4) for j in range(i + 1, 4))
    rows = (
        Lengths(10, (3,) * 4, (b"%16d" % k,), pairs, True, (1,) * 3, 8, b"%16d" % k, b"%16d" % k) for k in range(1000)
    )
    assert sum(each.nbytes for each in LengthTable.of(rows).columns().values()) < 200 * 1000


@settings(deadline=None, max_examples=30)
@given(samples(images=True))
def test_a_table_of_samples_says_what_each_says(made):
    lengths = [each.lengths for each in made]
    table = LengthTable.of(lengths)
    assert all(map(same, table, lengths))
    assert table.packed.tolist() == [each.packed for each in lengths]
    assert table.unpacked.tolist() == [each.unpacked for each in lengths]


def test_the_trunk_ends_with_the_last_image_token():
    assert woven([7, picture(1), 5, picture(2), 6], [[1]], []).lengths.trunk == 1 + 4 + 1 + 4
    assert woven([7], [[1]], []).lengths.trunk == 0


def test_a_prompt_that_is_seen_both_ways_is_one_trunk():
    made = woven([picture(1), 5, 6], [[1]], [])
    whole = Sample(made.prompt_ids, made.response_ids, images=made.images, image_of=made.image_of, both_ways="prompt")
    assert whole.lengths.trunk == 6


ROOTS = {
    "another question": ([7, picture(1), 6, 2], [[1], [2]], True, False),
    "another answer": ([7, picture(1), 5], [[1], [3]], True, False),
    "answers in another order": ([7, picture(1), 5], [[2], [1]], True, False),
    "answers cut elsewhere": ([7, picture(1)], [[5, 1], [5, 2]], True, False),
    "an answer that is the prompt's": ([7, picture(1), 5, 1], [[2]], True, False),
    "another image": ([7, picture(2), 5], [[1], [2]], False, False),
    "another beginning": ([8, picture(1), 5], [[1], [2]], False, False),
    "the same": ([7, picture(1), 5], [[1], [2]], True, True),
}


@pytest.mark.parametrize(("prompt", "responses", "root", "content"), ROOTS.values(), ids=ROOTS)
def test_roots_are_equal_for_equal_trunks_and_content_for_equal_samples(prompt, responses, root, content):
    first, other = woven([7, picture(1), 5], [[1], [2]], []).lengths, woven(prompt, responses, []).lengths
    assert (first.root == other.root) is root
    assert (first.content == other.content) is content
    assert len(first.root) == len(first.content) == 16


@settings(deadline=None, max_examples=30)
@given(trees(images=True, depth=2))
def test_samples_of_one_root_share_their_trunk(made):
    for one in made:
        for other in made:
            if one.lengths.root and one.lengths.root == other.lengths.root:
                assert pack([one, other])[0].tokens <= one.lengths.packed + other.lengths.packed - one.lengths.trunk


RANKINGS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=5), min_size=1, max_size=6)


@given(RANKINGS, st.sampled_from(["all", "best", "adjacent"]))
def test_pairs_of_a_table_are_chosen_as_those_of_each(rankings, pairing):
    rows = [
        Lengths(
            3,
            (1,) * len(scores),
            pairs=tuple((i, j) for i, a in enumerate(scores) for j, b in enumerate(scores) if a > b),
        )
        for scores in rankings
    ]
    assert list(compared(LengthTable.of(rows), pairing)) == [compared(each, pairing) for each in rows]


@pytest.mark.parametrize(
    ("prompt_weight", "expected"), [("pairs", (3 + 1 + 3 + 3) / 4), ("one", (3 + (1 + 3) / 2 + 3) / 3)]
)
def test_the_mean_preferred_length_of_a_table_is_that_of_its_rows(prompt_weight, expected):
    assert mean_preferred_length(LengthTable.of(ROWS), prompt_weight) == pytest.approx(expected)
    assert mean_preferred_length(ROWS, prompt_weight) == pytest.approx(expected)
