"""Which samples will share a pack, found from lengths alone and for all steps of an epoch."""

import numpy as np
from jaxtyping import Int

from vlmpack.bins import first_fit_decreasing
from vlmpack.lengths import LengthTable


def in_order(
    trees: Int[np.ndarray, " n"], longest: Int[np.ndarray, " n"], batch_size: int, max_tokens: int
) -> Int[np.ndarray, " n"]:
    """The packs of padded samples: one ends where the next sample would not fit, as in `padding.rows_in_order`.

    All steps advance together, a sample at a time.

    Args:
        trees: [n] rows of a padded batch that each sample takes, in the order in which samples come.
        longest: [n] tokens of its longest one.
        batch_size: samples of a step.
        max_tokens: of a pack; a sample that takes more alone has a pack to itself.

    Returns:
        [n] the number of each sample's pack, ascending.
    """
    steps = -(-len(trees) // batch_size)
    rows, widths = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
    begins = np.zeros(len(trees), dtype=np.bool_)
    for place in range(min(batch_size, len(trees))):
        here = slice(place, None, batch_size)
        open_ = slice(0, len(trees[here]))  # the last step may hold fewer samples
        united, wider = rows[open_] + trees[here], np.maximum(widths[open_], longest[here])
        begins[here] = (place == 0) | (united * wider > max_tokens)
        rows[open_] = np.where(begins[here], trees[here], united)
        widths[open_] = np.where(begins[here], longest[here], wider)
    return np.cumsum(begins) - 1


def first_fit(sizes: Int[np.ndarray, " n"], steps: Int[np.ndarray, " n"], max_tokens: int) -> Int[np.ndarray, " n"]:
    """The packs of what is not padded: first-fit-decreasing within each step, as in `packing.pack`.

    Args:
        sizes: [n] tokens of each item.
        steps: [n] the step of each, ascending.
        max_tokens: of a pack; an item that is larger has a pack to itself.

    Returns:
        [n] the number of each item's pack.
    """
    begins = np.flatnonzero(np.diff(steps, prepend=-1))
    fits = np.add.reduceat(sizes, begins) <= max_tokens
    held = np.minimum(sizes, max_tokens)
    packs, count = np.empty(len(sizes), dtype=np.int64), 0
    for begin, stop, whole in zip(begins, [*begins[1:], len(sizes)], fits, strict=True):
        parts = [range(stop - begin)] if whole else first_fit_decreasing(held[begin:stop].tolist(), max_tokens)
        for number, part in enumerate(parts, count):
            packs[begin:stop][part] = number
        count += len(parts)
    return packs


def trees_of(
    table: LengthTable, steps: Int[np.ndarray, " n"], max_tokens: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Which samples stand in one tree: those of a step whose prompts begin with the same images and tokens.

    A tree that is larger than a pack is dealt into several, each with that beginning, as in `splitting.split`.

    Args:
        table: samples in the order in which they come.
        steps: [n] the step of each.
        max_tokens: of a pack.

    Returns:
        [n] the number of each sample's tree, numbered by steps, and [n] the tokens that the tree has once.
    """
    places = np.arange(len(table))
    shares = table.roots >= 0
    once = np.where(shares, table.trunk, 0).astype(np.int64)
    trees = _numbered(np.where(shares, steps * (1 + table.roots.max()) + table.roots, -1 - places))
    own = table.packed - once
    sizes = np.bincount(trees, own) + _first(once, trees)
    part = np.zeros(len(table), dtype=np.int64)
    order = np.argsort(trees, kind="stable")
    stops = np.cumsum(np.bincount(trees))
    for tree in np.flatnonzero(sizes > max_tokens):
        rows = order[stops[tree - 1] if tree else 0 : stops[tree]]
        room = max(1, max_tokens - int(once[rows[0]]))
        for number, chosen in enumerate(first_fit_decreasing(np.minimum(own[rows], room).tolist(), room)):
            part[rows[chosen]] = number
    return np.unique(trees * len(table) + part, return_inverse=True)[1], once


def _numbered(keys: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Numbers for keys, in the order in which they first occur."""
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return ranks[numbers]


def _first(values: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> Int[np.ndarray, " g"]:
    """The value that all members of a group have."""
    found = np.empty(groups.max() + 1, dtype=np.int64)
    found[groups] = values
    return found
