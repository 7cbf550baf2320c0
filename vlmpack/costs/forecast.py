"""What an epoch will cost, computed one way or another: foretold from lengths, before anything is trained."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vlmpack.costs.cells import Cell
from vlmpack.costs.foretold_packs import first_fit, in_order, trees_of
from vlmpack.costs.saving import Cost
from vlmpack.lengths import LengthTable
from vlmpack.ordering import Order
from vlmpack.ragged import Ragged


@dataclass(frozen=True)
class Forecast:
    """An epoch, computed in one way.

    FLOPs are those of one forward pass. Backward takes about twice as many, and a reference model that is not
    computed beforehand once as many again, in every cell alike, so ratios between cells hold for all of them.

    Attributes:
        cell: the way.
        steps: optimizer steps.
        packs: forward passes of all steps.
        tokens: through the decoder, padding included.
        padding: those that count for nothing.
        passes: images through the vision tower.
        flops: of tokens through the decoder's matrices, of query-key pairs that the mask lets through (a padded row's
            over its whole length), of predictions (response tokens), and of the vision tower.
        peak: tokens of the largest pack. More than `max_tokens`: the cell cannot run so.
    """

    cell: Cell
    steps: int
    packs: int
    tokens: int
    padding: int
    passes: int
    flops: float
    peak: int


def forecast(table: LengthTable, cost: Cost, cell: Cell, batch_size: int, max_tokens: int, seed: int = 0) -> Forecast:
    """Foretell an epoch on one rank.

    Tokens, padding, packs, vision passes and query-key pairs are those of the packs that `packing.pack` makes. With
    sharing "all", samples are taken to share only what stands up to their prompts' last image, and only where all of
    it is the same, so tokens are an upper bound: equal questions, system prompts and single images of several are
    found by `pack` alone. The bound holds where each such tree fits into a pack.

    Args:
        table: of the samples, cut to length, with the pairs that are compared.
        cost: of the model.
        cell: the way of computing.
        batch_size: prompts of an optimizer step.
        max_tokens: of a pack.
        seed: of the order of rows; the first epoch's.
    """
    images, alike = (table.first_image, table.roots) if cell.by_image else (None, None)
    table = table.take(Order(cell.strategy, table.packed, batch_size, seed, images, alike).rows())
    steps = np.arange(len(table)) // batch_size
    work = _work(table, cell.sharing)
    if cell.padding:
        packs, sizes, pairs = _padded(work, cell.sharing, batch_size, max_tokens)
    else:
        packs, sizes, pairs = _unpadded(table, work, cell.sharing, steps, max_tokens)
    tokens, predictions = int(sizes.sum()), int(work.predictions.sum())
    passes = _distinct_passes(table, packs) if cell.sharing == "all" else int(work.passes.sum())
    flops = tokens * cost.token + pairs * cost.pair + predictions * cost.prediction + passes * (cost.image or 0.0)
    padding = tokens - int(work.tokens.sum()) if cell.padding else 0
    return Forecast(cell, int(steps[-1]) + 1, len(sizes), tokens, padding, passes, flops, int(sizes.max()))


def alone(table: LengthTable, sharing: str, padding: bool) -> Int[np.ndarray, " n"]:
    """Tokens of a pack that holds one sample and no other, for each of them: none fits into a smaller one."""
    work = _work(table, sharing)
    return work.trees * work.longest if padding else work.tokens


@dataclass(frozen=True, eq=False)
class _Work:
    """What each sample takes on its own, before padding.

    Attributes:
        trees: [n] trees that it stands in: rows of a padded batch.
        tokens: [n] of all of them.
        longest: [n] tokens of the largest one.
        path: [n] tokens of the longest path.
        last: [n] tokens of the last path, which padding continues.
        pairs: [n] query-key pairs on its paths.
        predictions: [n] tokens that are predicted.
        passes: [n] images through the tower.
    """

    trees: Int[np.ndarray, " n"]
    tokens: Int[np.ndarray, " n"]
    longest: Int[np.ndarray, " n"]
    path: Int[np.ndarray, " n"]
    last: Int[np.ndarray, " n"]
    pairs: Int[np.ndarray, " n"]
    predictions: Int[np.ndarray, " n"]
    passes: Int[np.ndarray, " n"]


def _work(table: LengthTable, sharing: str) -> _Work:
    prompt = table.prompt.astype(np.int64)
    responses = _computed(table) if sharing == "pair" else table.responses
    count, predictions, images = responses.counts, responses.sums, table.images.counts
    path = prompt + np.maximum.reduceat(responses.values, responses.starts[:-1])
    last = prompt + responses.values[responses.starts[1:] - 1]
    pairs = _path_pairs(table, responses)
    if sharing in ("none", "pair"):
        tokens = prompt * count + predictions
        return _Work(count, tokens, path, path, last, pairs, predictions, images * count)
    if sharing == "all":
        pairs = pairs - _path_pairs(table, table.overlaps)
        predictions = predictions - table.overlaps.sums
        count = count - table.overlaps.counts  # paths that the prompt's own pairs are counted in
    pairs = pairs - (count - 1) * _causal(prompt)
    tokens = prompt + predictions
    return _Work(np.ones_like(prompt), tokens, tokens, path, last, pairs, predictions, table.vision_passes)


def _computed(table: LengthTable) -> Ragged:
    """The responses that are computed for pairs: two a pair, and all of a sample that has none."""
    first, count = table.responses.starts[:-1], table.pair_counts
    paired = table.responses.values[(np.repeat(first, count)[:, None] + table.pairs.values).ravel()]
    without = count == 0
    rows = np.concatenate([np.repeat(table.pairs.rows, 2), table.responses.rows[without[table.responses.rows]]])
    values = np.concatenate([paired, table.responses.values[without[table.responses.rows]]])
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(table)))])
    return Ragged(values[np.argsort(rows, kind="stable")], starts)


def _path_pairs(table: LengthTable, parts: Ragged) -> Int[np.ndarray, " n"]:
    """Query-key pairs of a sample's prompt with each of some parts behind it, each part on a path of its own."""
    return Ragged(_causal(np.repeat(table.prompt.astype(np.int64), parts.counts) + parts.values), parts.starts).sums


def _padded(
    work: _Work, sharing: str, batch_size: int, max_tokens: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], int]:
    """Each sample's pack, the tokens of each pack, and all query-key pairs."""
    packs = in_order(work.trees, work.longest, batch_size, max_tokens)
    begins = np.flatnonzero(np.diff(packs, prepend=-1))
    trees, longest = np.add.reduceat(work.trees, begins), np.maximum.reduceat(work.longest, begins)
    if sharing != "prompt":  # a tree is one path, and padding continues it
        return packs, trees * longest, int((trees * _causal(longest)).sum())
    path = np.maximum.reduceat(work.path, begins)[packs]
    missing = longest[packs] - work.tokens
    below = np.minimum(missing, path - work.last)
    beside, rest = np.divmod(missing - below, path)
    filled = _causal(work.last + below) - _causal(work.last) + beside * _causal(path) + _causal(rest)
    return packs, trees * longest, int((work.pairs + filled).sum())


def _unpadded(
    table: LengthTable, work: _Work, sharing: str, steps: Int[np.ndarray, " n"], max_tokens: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], int]:
    """Likewise."""
    trees, once = np.arange(len(table)), np.zeros(len(table), dtype=np.int64)
    if sharing == "all":
        trees, once = trees_of(table, steps, max_tokens)
    first = np.unique(trees, return_index=True)[1]
    repeated = np.delete(np.arange(len(table)), first)  # samples whose beginning stands there already
    sizes = np.bincount(trees, work.tokens).astype(np.int64) - np.bincount(
        trees[repeated], once[repeated], minlength=len(first)
    ).astype(np.int64)
    packs = first_fit(sizes, steps[first], max_tokens)
    tokens = np.bincount(packs, sizes).astype(np.int64)
    return packs[trees], tokens, int(work.pairs.sum() - _causal(once[repeated]).sum())


def _distinct_passes(table: LengthTable, packs: Int[np.ndarray, " n"]) -> int:
    """Different images of each pack."""
    return len(np.unique(packs[table.images.rows] * max(1, len(table.image_digests)) + table.images.values))


def _causal(tokens: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Query-key pairs of plain causal attention."""
    return tokens * (tokens + 1) // 2
