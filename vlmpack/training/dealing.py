"""Which rank computes which rows of a batch, so that none waits for another."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np

LEVEL = 1.001  # busiest over mean from which on moving trees gains nothing that could be measured


class DealingError(ValueError):
    """Rows cannot be dealt as asked."""


@dataclass(frozen=True)
class _Piece:
    """Rows of one tree that stay together: all of them, or one cut of a tree that is too large for a rank."""

    rows: tuple[int, ...]
    work: float


def deal(
    work: Sequence[float] | np.ndarray,
    trees: Sequence[int] | np.ndarray,
    ranks: int,
    shared: Sequence[float] | np.ndarray | None = None,
) -> list[list[int]]:
    """Deal rows to ranks so that the busiest has as little work as a quick search finds.

    Rows of one tree (an image, or the beginning of a prompt) share it only on one rank, so whole trees are dealt: the
    longest first, each to the rank with the least work, at most 4/3 of the best dealing (Graham, 1969), and then moved
    and swapped between the busiest rank and others while that helps. The one exception: a tree with more work than
    the level share, all work over all ranks, would keep its rank busy while the others wait. It is cut into as few
    pieces as level the work, and what its rows share is computed once for each piece.

    Args:
        work: [n] predicted FLOPs of each row alone, its images included.
        trees: [n] rows with the same number share a tree; -1: a tree of its own.
        ranks: how many there are.
        shared: [n] the part of `work` that rows of the tree share, which a rank pays once; where they differ, the
            largest. None: nothing.

    Returns:
        For each rank its rows, ascending. Ranks are empty where there are fewer trees. The same for the same input.

    Raises:
        DealingError: no ranks, or numbers that do not fit together.

    Example:
        >>> deal([5.0, 3.0, 3.0, 2.0], [-1, 7, 7, -1], ranks=2, shared=[0.0, 2.0, 2.0, 0.0])
        [[0], [1, 2, 3]]
    """
    own, common = _checked(work, trees, ranks, shared)
    whole = [_piece(rows, own, common) for rows in _rows_of(trees)]
    dealt = _level(whole, ranks)
    if len(pieces := _cut(whole, ranks, own, common)) > len(whole):
        dealt = min(dealt, _level(pieces, ranks), key=_busiest)
    return [sorted(row for piece in rank for row in piece.rows) for rank in dealt]


def loads(
    work: Sequence[float] | np.ndarray,
    trees: Sequence[int] | np.ndarray,
    parts: Sequence[Sequence[int]],
    shared: Sequence[float] | np.ndarray | None = None,
) -> list[float]:
    """The work of each rank, what rows of a tree share counted once a rank; arguments as for `deal`."""
    own, common = _checked(work, trees, len(parts), shared)
    kin = _rows_of(trees)
    tree_of = {row: number for number, rows in enumerate(kin) for row in rows}
    found = []
    for rows in parts:
        most: dict[int, float] = defaultdict(float)
        for row in rows:
            most[tree_of[row]] = max(most[tree_of[row]], common[row])
        found.append(sum(own[row] for row in rows) + sum(most.values()))
    return found


def spread(
    work: Sequence[float] | np.ndarray,
    trees: Sequence[int] | np.ndarray,
    parts: Sequence[Sequence[int]],
    shared: Sequence[float] | np.ndarray | None = None,
) -> float:
    """The busiest rank's work over the mean of all, 1 for a level dealing; arguments as for `deal`."""
    found = loads(work, trees, parts, shared)
    return max(found) * len(found) / sum(found) if sum(found) else 1.0


def _checked(work, trees, ranks: int, shared) -> tuple[list[float], list[float]]:
    """Each row's own work and what it shares, if they fit together."""
    if ranks < 1:
        raise DealingError(f"there are {ranks} ranks to deal to; give one or more")
    common = np.zeros(len(work)) if shared is None else np.asarray(shared, dtype=float)
    if not len(work) == len(trees) == len(common):
        raise DealingError(f"{len(work)} works, {len(trees)} trees, {len(common)} shared; give one for each row")
    own = np.asarray(work, dtype=float) - common
    wrong = np.flatnonzero(~(np.isfinite(own) & (own >= 0) & (common >= 0)))
    if len(wrong):
        row = wrong[0]
        raise DealingError(
            f"row {row} has work {work[row]} of which it shares {common[row]}; give finite numbers, 0 <= shared <= work"
        )
    return own.tolist(), common.tolist()


def _rows_of(trees: Sequence[int] | np.ndarray) -> list[list[int]]:
    """Rows of each tree, by the first."""
    kin: dict[tuple[int, int], list[int]] = {}
    for row, tree in enumerate(np.asarray(trees).tolist()):
        kin.setdefault((tree, row if tree == -1 else -1), []).append(row)
    return list(kin.values())


def _piece(rows: Sequence[int], own: Sequence[float], common: Sequence[float]) -> _Piece:
    return _Piece(tuple(rows), sum(own[row] for row in rows) + max(common[row] for row in rows))


def _busiest(dealt: Sequence[Sequence[_Piece]]) -> float:
    return max(sum(piece.work for piece in rank) for rank in dealt)


def _cut(whole: Sequence[_Piece], ranks: int, own: Sequence[float], common: Sequence[float]) -> list[_Piece]:
    """Trees larger than the level share cut further and further; the first state with the least bound on the busiest.

    The bound is the larger of the largest piece and the level share, which grows with every cut.
    """
    share = sum(piece.work for piece in whole) / ranks
    small = [piece for piece in whole if piece.work <= share]
    large = {piece.rows: [piece] for piece in whole if piece.work > share}
    best, least = list(whole), float("inf")
    while large:
        pieces = [*small, *(piece for cuts in large.values() for piece in cuts)]
        level = sum(piece.work for piece in pieces) / ranks
        tallest = {rows: max(piece.work for piece in cuts) for rows, cuts in large.items()}
        rows = max(tallest, key=tallest.__getitem__)
        if (bound := max(level, tallest[rows])) < least:
            best, least = pieces, bound
        count = len(large[rows]) + 1
        if tallest[rows] <= level or count > min(ranks, len(rows)):
            break
        cut_of = _longest_first(np.array([own[row] for row in rows]), count)
        cuts = [[row for row, cut in zip(rows, cut_of, strict=True) if cut == number] for number in range(count)]
        if not all(cuts):
            break  # only rows without work of their own are left to part
        large[rows] = [_piece(cut, own, common) for cut in cuts]
    return best


def _level(pieces: Sequence[_Piece], ranks: int) -> list[list[_Piece]]:
    """Pieces for each rank: longest first, then improved."""
    works = np.array([piece.work for piece in pieces])
    rank_of = _improved(works, _longest_first(works, ranks), ranks)
    return [[pieces[place] for place in np.flatnonzero(rank_of == rank)] for rank in range(ranks)]


def _longest_first(works: np.ndarray, ranks: int) -> np.ndarray:
    """[n] the rank of each piece: the longest first, each to the rank with the least work so far."""
    rank_of = np.zeros(len(works), dtype=np.int64)
    heap = [(0.0, rank) for rank in range(ranks)]
    order = np.argsort(-works, kind="stable")
    for place, work in zip(order.tolist(), works[order].tolist(), strict=True):
        load, rank = heap[0]
        rank_of[place] = rank
        heapreplace(heap, (load + work, rank))
    return rank_of


def _improved(works: np.ndarray, rank_of: np.ndarray, ranks: int) -> np.ndarray:
    """[n] ranks after moves and swaps of pieces between the busiest rank and others, each of which levels the two.

    A move is a swap with nothing: a piece of no work on every rank.
    """
    works = np.concatenate([works, np.zeros(ranks)])
    rank_of = np.concatenate([rank_of, np.arange(ranks)])
    load = np.bincount(rank_of, works, ranks)
    for _ in range(len(works)):
        busy = load.argmax()
        if load[busy] <= LEVEL * load.mean():
            break
        given, taken = np.flatnonzero(rank_of == busy), np.flatnonzero(rank_of != busy)
        moved = works[given][:, None] - works[taken]
        gain = np.minimum(moved, load[busy] - load[rank_of[taken]] - moved)  # of the higher of the two ranks
        best = gain.argmax() if gain.size else 0
        if not gain.size or gain.flat[best] <= 1e-9 * load[busy]:
            break
        one, other = given[best // len(taken)], taken[best % len(taken)]
        rank_of[one], rank_of[other] = rank_of[other], busy
        load = np.bincount(rank_of, works, ranks)
    return rank_of[: len(rank_of) - ranks]
