"""What is foretold of an epoch is what its packs turn out to be, and the arithmetic is worked out by hand."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import picture, sample, samples, trees, woven

from vlmpack import Lengths, Sample, pack
from vlmpack.bins import first_fit_decreasing
from vlmpack.costs.cells import CELLS, Cell
from vlmpack.costs.forecast import Forecast, forecast
from vlmpack.costs.foretold_packs import first_fit
from vlmpack.costs.saving import Cost
from vlmpack.lengths import LengthTable
from vlmpack.ordering import OrderError
from vlmpack.packing import PackingError

BY_NAME = {cell.name: cell for cell in CELLS}
APART = [cell for cell in CELLS if cell.sharing != "all"]
TOKEN, PAIR, PREDICTION, PICTURE = Cost(1, 0), Cost(0, 1), Cost(0, 0, 1), Cost(0, 0, 0, 1)

# Two prompts of three and two tokens on one image. The first pair names response 1 twice over two pairs.
ROWS = [
    Lengths(3, (2, 5, 1), (b"one",), ((0, 1), (1, 2)), overlaps=(1, 0), trunk=2, root=b"r"),
    Lengths(2, (1, 1), (b"one",), ((0, 1),), overlaps=(1,), trunk=2, root=b"r"),
]


def of(cell: str, lengths: list[Lengths], cost: Cost = TOKEN, batch_size: int = 2, max_tokens: int = 1000) -> Forecast:
    return forecast(LengthTable.of(lengths), cost, BY_NAME[cell], batch_size, max_tokens)


@pytest.mark.parametrize(
    ("cell", "tokens", "padding", "passes", "pairs", "predictions"),
    [
        # rows 5 8 8 4 and 3 3, six rows of 8; each row's pairs 36
        ("padded pairs", 48, 17, 6, 6 * 36, 2 + 5 + 5 + 1 + 1 + 1),
        # rows 5 8 4 and 3 3, five rows of 8
        ("vanilla", 40, 17, 5, 5 * 36, 10),
        ("sorting", 40, 17, 5, 5 * 36, 10),
        # trees of 11 and 4, two rows of 11: pairs 6 + 9 + 30 + 4, and 3 + 3 + 3; the 7 missing ones continue the
        # last path of 3 up to 8 (4 + ... + 8), and 2 stand beside (3)
        ("packing", 22, 7, 2, 49 + 9 + 30 + 3, 10),
        ("bins", 15, 0, 2, 49 + 9, 10),
        # 10 and 3, of which 2 are the same: pairs less 4 and 3 of overlaps, and 3 of the common beginning
        ("trees", 11, 0, 1, 45 + 6 - 3, 8),
        ("trees, by image", 11, 0, 1, 45 + 6 - 3, 8),
    ],
)
def test_two_prompts_worked_out_by_hand(cell, tokens, padding, passes, pairs, predictions):
    found = of(cell, ROWS)
    assert (found.tokens, found.padding, found.passes) == (tokens, padding, passes)
    assert (found.steps, found.packs, found.peak) == (1, 1, tokens)
    assert of(cell, ROWS, PAIR).flops == pairs
    assert of(cell, ROWS, PREDICTION).flops == predictions
    assert of(cell, ROWS, PICTURE).flops == passes
    assert of(cell, ROWS, Cost(10, 1, 100, 1000)).flops == 10 * tokens + pairs + 100 * predictions + 1000 * passes


def test_a_tower_that_cannot_be_foretold_adds_nothing():
    assert of("bins", ROWS, Cost(1, 0, image=None)).flops == 15


def test_sorting_leaves_less_to_pad_where_packs_are_cut():
    short, long = Lengths(2, (1, 1), pairs=((0, 1),)), Lengths(20, (1, 1), pairs=((0, 1),))
    rows = [short, long] * 4
    vanilla, sorting = (of(cell, rows, batch_size=8, max_tokens=84) for cell in ("vanilla", "sorting"))
    assert (sorting.tokens, sorting.padding, sorting.packs) == (4 * 42 + 4 * 6, 0, 3)
    assert vanilla.padding > 0
    assert vanilla.tokens - vanilla.padding == sorting.tokens


def test_padding_that_no_path_can_take_stands_beside_as_trees_of_its_own():
    rows = [Lengths(1, (3,) * 5, pairs=((0, 1),)), Lengths(1, (1, 1), pairs=((0, 1),))]
    # trees of 16 and 3; of the 13 missing tokens 2 continue a path up to 4 tokens, the longest, and 4, 4, 3 are left
    assert of("packing", rows).padding == 13
    assert of("packing", rows, PAIR).flops == (1 + 5 * 9) + (1 + 2 * 2) + (3 + 4) + 2 * 10 + 6


def test_a_sample_larger_than_a_pack_is_alone_in_it_and_shows_as_the_peak():
    rows = [Lengths(2, (1, 1), pairs=((0, 1),)), Lengths(20, (1, 1), pairs=((0, 1),))]
    for cell in CELLS:
        found = of(cell.name, rows, max_tokens=10)
        assert found.packs == 2
        assert found.peak > 20


def test_a_tree_larger_than_a_pack_repeats_its_beginning_in_each_part():
    rows = [Lengths(12, (2, 3), (b"one",), ((0, 1),), overlaps=(0,), trunk=10, root=b"r")] * 4
    assert of("trees", rows, batch_size=4, max_tokens=38).tokens == 10 + 4 * 7
    split = of("trees", rows, batch_size=4, max_tokens=37)  # 10 + 3 * 7, and 10 + 7
    assert (split.tokens, split.packs, split.passes, split.peak) == (31 + 17, 2, 2, 31)


def test_rows_of_one_image_meet_where_that_is_asked_for():
    rows = [
        Lengths(12, (2, 3), (name,), ((0, 1),), overlaps=(0,), trunk=10, root=name)
        for name in (b"one", b"two", b"three", b"four") * 4
    ]
    assert of("trees, by image", rows, batch_size=4).passes == 4
    assert of("trees", rows, batch_size=4).passes > 4


def test_no_rows_are_refused():
    with pytest.raises(OrderError, match="there are no rows"):
        of("bins", [])


def made(cell: Cell, table: LengthTable, rows: list[Sample], batch_size: int, max_tokens: int) -> list[list]:
    """The packs of each step, in the order that the cell asks for."""
    from vlmpack.ordering import Order

    images = table.first_image if cell.by_image else None
    order = Order(cell.strategy, table.packed, batch_size, 0, images).rows()
    steps = np.split(order, range(batch_size, len(order), batch_size))
    return [pack([rows[row] for row in step], max_tokens, sharing=cell.sharing, padding=cell.padding) for step in steps]


def seen(each) -> int:
    """Query-key pairs of a pack."""
    forest = each.forest
    return sum(
        length * depth + length * (length + 1) // 2 for length, depth in zip(forest.lengths, forest.depths, strict=True)
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(samples(images=True, most=7), st.integers(1, 4), st.sampled_from(APART), st.sampled_from([0, 7, 40, 200]))
def test_what_is_foretold_without_sharing_across_prompts_is_what_is_packed(rows, batch_size, cell, more):
    table = LengthTable.of(each.lengths for each in rows)
    alone = forecast(table, TOKEN, cell, 1, 1).peak  # the largest sample
    steps = made(cell, table, rows, batch_size, alone + more)
    packs = [each for step in steps for each in step]
    found = forecast(table, PAIR, cell, batch_size, alone + more)
    assert found.tokens == sum(each.tokens for each in packs)
    assert found.padding == sum(each.padding for each in packs)
    assert found.passes == sum(each.vision_passes for each in packs)
    assert (found.packs, found.steps) == (len(packs), len(steps))
    assert found.peak == max(each.tokens for each in packs)
    assert found.flops == sum(map(seen, packs))
    predictions = sum(int(each.response_lengths.sum()) for each in packs)
    assert forecast(table, PREDICTION, cell, batch_size, alone + more).flops == predictions


@settings(max_examples=40, deadline=None, derandomize=True)
@given(trees(images=True, depth=3), st.integers(1, 4), st.sampled_from([0, 7, 200]))
def test_what_is_foretold_of_trees_is_an_upper_bound(rows, batch_size, more):
    table = LengthTable.of(each.lengths for each in rows)
    cell = BY_NAME["trees"]
    max_tokens = int(table.packed.max()) + more
    own = forecast(table, TOKEN, cell, batch_size, 10_000)
    whole = [each for step in made(cell, table, rows, batch_size, 10_000) for each in step]
    assert sum(each.tokens for each in whole) <= own.tokens
    assert sum(each.vision_passes for each in whole) == own.passes
    assume(own.tokens == forecast(table, TOKEN, cell, batch_size, max_tokens).tokens)  # each tree fits into a pack
    packs = [each for step in made(cell, table, rows, batch_size, max_tokens) for each in step]
    assert sum(each.tokens for each in packs) <= own.tokens


@pytest.mark.parametrize("max_tokens", [40, 60, 1000])
@pytest.mark.parametrize("name", ["trees", "trees, by image"])
def test_rows_with_an_image_before_a_question_of_their_own_are_foretold_exactly(name, max_tokens):
    rows = [
        woven([picture(number % 3), number, 5], [[1, 2, 3], [2, 1], [1, 4]], [(0, 1), (1, 2)]) for number in range(11)
    ]
    table = LengthTable.of(each.lengths for each in rows)
    packs = [each for step in made(BY_NAME[name], table, rows, 6, max_tokens) for each in step]
    found = forecast(table, PAIR, BY_NAME[name], 6, max_tokens)
    assert found.tokens == sum(each.tokens for each in packs)
    assert found.passes == sum(each.vision_passes for each in packs)
    assert found.packs == len(packs)
    assert found.peak == max(each.tokens for each in packs)
    assert found.flops == sum(map(seen, packs))


def test_a_cell_whose_peak_is_too_large_is_one_that_cannot_be_packed():
    rows = [sample([1, 2, 3], [[1], [2, 2]], [(0, 1)])]
    table = LengthTable.of(each.lengths for each in rows)
    for cell in CELLS:
        peak = forecast(table, TOKEN, cell, 1, 1).peak
        pack(rows, peak, sharing=cell.sharing, padding=cell.padding)
        with pytest.raises(PackingError):
            pack(rows, peak - 1, sharing=cell.sharing, padding=cell.padding)


def test_packs_of_all_steps_are_those_of_each():
    sizes, steps = np.array([3, 6, 4, 2, 5, 5, 9]), np.array([0, 0, 0, 0, 1, 1, 2])
    assert first_fit_decreasing([3, 6, 4, 2], 9) == [[0, 1], [2, 3]]
    assert first_fit(sizes, steps, 9).tolist() == [0, 0, 1, 1, 2, 3, 4]
