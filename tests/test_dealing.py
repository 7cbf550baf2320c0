import time
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmpack.training.dealing import DealingError, deal, loads, spread

ROWS = st.lists(
    st.tuples(st.floats(0, 100), st.integers(-1, 4), st.floats(0, 50)),
    min_size=1,
    max_size=40,
)


def columns(rows) -> tuple[list[float], list[int], list[float]]:
    """Works, trees and shared parts; rows of one tree share as much as the first of them."""
    first = {tree: shared for _, tree, shared in reversed(rows)}
    common = [shared if tree == -1 else first[tree] for _, tree, shared in rows]
    return [own + part for (own, *_), part in zip(rows, common, strict=True)], [tree for _, tree, _ in rows], common


def whole_work(work, trees, shared) -> list[float]:
    """The work of each tree, on one rank."""
    kin = defaultdict(list)
    for row, tree in enumerate(trees):
        kin[("row", row) if tree == -1 else tree].append(row)
    return [sum(work[row] - shared[row] for row in rows) + shared[rows[0]] for rows in kin.values()]


@given(ROWS, st.integers(1, 9))
def test_every_row_is_dealt_once_the_same_way_each_time(rows, ranks):
    work, trees, shared = columns(rows)
    parts = deal(work, trees, ranks, shared)
    assert sorted(row for part in parts for row in part) == list(range(len(rows)))
    assert len(parts) == ranks and all(part == sorted(part) for part in parts)
    assert parts == deal(np.array(work), np.array(trees), ranks, np.array(shared))


@given(ROWS, st.integers(1, 9))
def test_no_tree_within_the_level_share_is_cut(rows, ranks):
    work, trees, shared = columns(rows)
    rank_of = {row: rank for rank, part in enumerate(deal(work, trees, ranks, shared)) for row in part}
    share = sum(whole_work(work, trees, shared)) / ranks
    for tree in set(trees) - {-1}:
        kin = [row for row in range(len(trees)) if trees[row] == tree]
        size = sum(work[row] - shared[row] for row in kin) + shared[kin[0]]
        assert size > share or len({rank_of[row] for row in kin}) == 1


@given(ROWS, st.integers(1, 9))
def test_the_busiest_rank_stays_within_the_bound_of_longest_first(rows, ranks):
    """List scheduling: at most the level share, and the largest tree but for its part of it (Graham, 1966)."""
    work, trees, shared = columns(rows)
    whole = whole_work(work, trees, shared)
    bound = sum(whole) / ranks + (1 - 1 / ranks) * max(whole)
    assert max(loads(work, trees, deal(work, trees, ranks, shared), shared)) <= bound * (1 + 1e-9)


@pytest.mark.parametrize(("rows", "ranks"), [(6, 2), (7, 3), (8, 3), (7, 4)])
def test_dealing_is_close_to_the_best_of_all(rows, ranks):
    generator = np.random.default_rng(rows * ranks)
    ways = np.array(list(product(range(ranks), repeat=rows)))
    ratios = []
    for _ in range(100):
        work = generator.uniform(1, 10, rows)
        best = np.stack([(ways == rank) @ work for rank in range(ranks)]).max(axis=0).min()
        ratios.append(max(loads(work, [-1] * rows, deal(work, [-1] * rows, ranks))) / best)
    assert np.mean(np.array(ratios) <= 1.05) >= 0.95
    assert max(ratios) <= 4 / 3


def test_swaps_find_what_longest_first_misses():
    work = [3.0, 3.0, 2.0, 2.0, 2.0]  # longest first leaves 3 + 2 + 2 against 3 + 2
    assert sorted(deal(work, [-1] * 5, ranks=2)) == [[0, 1], [2, 3, 4]]


def test_whole_trees_pay_what_they_share_once():
    work, trees, shared = [6.0, 6.0, 6.0, 6.0], [1, 2, 1, 2], [5.0] * 4
    assert deal(work, trees, 2, shared) == [[0, 2], [1, 3]]
    assert loads(work, trees, [[0, 2], [1, 3]], shared) == [7.0, 7.0]
    assert loads(work, trees, [[0, 1], [2, 3]], shared) == [12.0, 12.0]
    assert spread(work, trees, [[0, 1, 2], [3]], shared) == 13 / 9.5


def test_rows_without_a_tree_are_free():
    assert sorted(deal([4.0] * 4, [-1] * 4, 4)) == [[0], [1], [2], [3]]
    assert loads([4.0, 4.0], [-1, -1], [[0, 1]], [3.0, 3.0]) == [8.0]


def test_a_tree_larger_than_the_level_share_is_cut_and_each_piece_pays():
    work, trees, shared = [3.0] * 8 + [1.0] * 3, [0] * 8 + [-1] * 3, [1.0] * 8 + [0.0] * 3
    parts = deal(work, trees, 2, shared)  # a tree of 17, then 1, 1, 1: level would be 10
    assert sorted(loads(work, trees, parts, shared)) == [10.0, 11.0]


def test_a_tree_is_cut_into_as_few_pieces_as_help():
    work, trees = [10.0] * 4 + [12.0] * 2, [0, 0, 0, 0, -1, -1]
    shared = [9.0] * 4 + [0.0] * 2  # a tree of 13 above the level share of 12.33; each cut would cost 9
    parts = deal(work, trees, 3, shared)
    assert sorted(loads(work, trees, parts, shared)) == [12.0, 12.0, 13.0]
    assert [0, 1, 2, 3] in parts


def test_one_tree_is_cut_for_all_ranks():
    work, trees, shared = [3.0] * 8, [5] * 8, [1.0] * 8
    assert loads(work, trees, deal(work, trees, 4, shared), shared) == [5.0, 5.0, 5.0, 5.0]


def test_ranks_without_rows_are_empty():
    assert sorted(deal([1.0, 2.0], [-1, -1], 4)) == [[], [], [0], [1]]
    assert deal([], [], 2) == [[], []]
    assert spread([], [], [[], []]) == 1.0


def test_a_batch_of_256_rows_is_dealt_in_milliseconds():
    generator = np.random.default_rng(0)
    work, trees = 2 + generator.lognormal(0, 0.6, 256), np.repeat(np.arange(256), generator.geometric(0.4, 256))[:256]
    start = time.process_time()
    for _ in range(10):
        deal(work, trees, 8, np.full(256, 2.0))
    assert (time.process_time() - start) / 10 < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [-1], 0), "there are 0 ranks to deal to"),
        (([1.0], [-1, -1], 2), "1 works, 2 trees, 1 shared"),
        (([1.0, 1.0], [0, 0], 2, [0.0, 2.0]), "row 1 has work 1.0 of which it shares 2.0"),
        (([float("nan")], [0], 2), "row 0 has work nan"),
    ],
)
def test_what_cannot_be_dealt_is_said(arguments, message):
    with pytest.raises(DealingError, match=message):
        deal(*arguments)
