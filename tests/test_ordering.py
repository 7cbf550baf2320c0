import random
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import TrainerState

from vlmpack.bins import first_fit_decreasing
from vlmpack.ordering import Order, OrderError, _first_fit_decreasing
from vlmpack.training.epoch_order import EpochOrder

WITH_IMAGES = ("random", "length_sorted", "group_by_length")
ROWS = st.lists(st.tuples(st.integers(1, 20), st.integers(-1, 5), st.integers(0, 2)), min_size=1, max_size=60)


def in_batches(order, size) -> list[list[int]]:
    rows = list(order)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def of_epoch(epoch, *arguments, **options) -> list[int]:
    order = Order(*arguments, **options)
    order.set_epoch(epoch)
    return list(order)


@given(ROWS, st.integers(1, 9), st.integers(0, 3), st.sampled_from(WITH_IMAGES), st.sampled_from([0, 1, 2]))
def test_an_epoch_holds_every_row_once(rows, size, epoch, strategy, keys):
    lengths, *others = (list(each) for each in zip(*rows, strict=True))
    order = Order(strategy, lengths, size, 7, *others[:keys])
    order.set_epoch(epoch)
    assert sorted(order) == list(range(len(lengths))) == list(range(len(order)))


@pytest.mark.parametrize("images", [None, [row // 3 for row in range(60)]], ids=["alone", "by image"])
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_an_order_follows_from_seed_and_epoch_alone(strategy, images):
    lengths = [1 + row % 7 for row in range(60)]
    first = of_epoch(1, strategy, lengths, 6, 3, images)
    for each in (random.seed, np.random.seed, torch.manual_seed):
        each(99)
    used = Order(strategy, lengths, 6, 3, images)
    list(used)
    used.set_epoch(1)
    assert first == list(used)
    assert first not in (of_epoch(2, strategy, lengths, 6, 3, images), of_epoch(0, strategy, lengths, 6, 4, images))


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_an_order_leaves_the_global_random_state_as_it_was(strategy):
    np.random.seed(0)
    torch.manual_seed(0)
    expected = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    list(Order(strategy, [1] * 40, 4, 0, [0] * 40))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == expected


def test_sequential_is_as_given_and_length_sorted_longest_first_with_ties_by_row():
    lengths = [3, 9, 5, 9, 1]
    assert list(Order("sequential", lengths, 2, 0)) == [0, 1, 2, 3, 4]
    assert list(Order("length_sorted", lengths, 2, 0)) == [1, 3, 2, 0, 4]
    assert of_epoch(5, "length_sorted", lengths, 2, 1) == [1, 3, 2, 0, 4]


def test_length_sorted_lays_images_by_their_longest_row():
    lengths = [3, 9, 5, 8, 1, 8]
    images = [0, 1, 2, 0, 1, -1]
    assert list(Order("length_sorted", lengths, 2, 0, images)) == [1, 4, 3, 0, 5, 2]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=700), st.integers(1, 5), st.integers(0, 9))
def test_the_batch_with_the_longest_row_comes_first_and_the_incomplete_one_last(lengths, size, epoch):
    order = of_epoch(epoch, "group_by_length", lengths, size, 0)
    batches = in_batches(order, size)
    assert max(lengths) == lengths[batches[0][0]] or len(lengths) < size
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert all(lengths[a] >= lengths[b] for batch in batches for a, b in pairwise(batch))


def test_batches_hold_rows_of_similar_length_in_random_order():
    lengths = np.random.default_rng(0).permutation(1000)
    batches = lengths[np.array(in_batches(Order("group_by_length", lengths, 4, 0), 4))]
    assert np.median(batches.max(1) - batches.min(1)) < 25  # 50 batches of a megabatch cut 1000 lengths into 50 parts
    rising = np.mean(np.diff(batches.mean(1)) > 0)
    assert 0.4 < rising < 0.6
    assert batches.max(1).argmax() == 0


def test_a_megabatch_is_fifty_batches():
    lengths = list(range(200))  # two megabatches of 50 batches of 2
    batches = in_batches(Order("group_by_length", lengths, 2, 0), 2)
    megabatch = {frozenset(batch) for batch in batches if max(batch) - min(batch) > 1}
    assert len(megabatch) > 50  # 100 random rows of 200 have gaps, all 200 would have none


@pytest.mark.parametrize("strategy", WITH_IMAGES)
def test_rows_on_one_image_stand_together_but_at_the_edges_of_batches(strategy):
    images = [row % 80 for row in range(240)]
    lengths = [1 + (row * 7919) % 101 for row in range(240)]
    order = list(Order(strategy, lengths, 12, 0, images))
    changes = sum(images[a] != images[b] for a, b in pairwise(order))
    assert changes <= 79 + 2 * 19  # 80 runs, and a cut image at each edge of the 20 shuffled batches


def passes(images, order, size) -> int:
    """Vision passes of an epoch: distinct images, batch by batch."""
    return sum(len({images[row] for row in batch}) for batch in in_batches(order, size))


@pytest.mark.parametrize(("size", "fewest"), [(3, 80), (4, 120), (8, 100), (16, 90)])
def test_rows_on_one_image_meet_in_one_batch(size, fewest):
    images = [row // 3 for row in range(240)]  # three questions on each of 80 images
    order = Order("random", [1] * 240, size, 0, images)
    assert passes(images, order, size) <= fewest  # a batch is filled exactly, so groups that do not fit are cut
    assert passes(images, [*range(0, 240, 3), *range(1, 240, 3), *range(2, 240, 3)], size) == 240


def test_rows_without_an_image_do_not_meet_because_of_that():
    images = [-1] * 100
    rows = list(Order("random", [1] * 100, 10, 0, images, list(range(100))))
    assert sum(a < b for a, b in pairwise(rows)) < 70  # one group of 100 would be cut into sorted batches


def test_batches_stay_mixed_where_images_do_not_force_them():
    images = [row // 2 for row in range(200)]
    order = list(Order("random", [1] * 200, 10, 0, images))
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert neighbours < 120  # pairs stand together, but not in the order of the rows


def test_batches_come_in_random_order_however_they_were_filled():
    images = [0, 0, 0, 1, 1, 1, 2, 2, 2, *[-1] * 9]
    firsts = [of_epoch(epoch, "random", [1] * 18, 3, 0, images)[0] for epoch in range(20)]
    assert 3 < sum(row < 9 for row in firsts) < 17


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_row_comes_into_full_batches_sooner_or_later(strategy, grouped):
    images = [row // 4 for row in range(40)] + [10] if grouped else None
    epochs = [of_epoch(epoch, strategy, list(range(1, 42)), 4, 0, images) for epoch in range(20)]
    assert {row for order in epochs for row in order[:40]} == set(range(41))  # the last row would be dropped


def test_rows_that_share_their_first_image_meet_and_equal_ones_stand_side_by_side():
    images = [0, 0, 0, 0, 1, 2, 3, 4]
    alike = [5, 6, 5, 6, 0, 0, 0, 0]
    order = Order("random", [1] * 8, 4, 0, images, alike)
    batch = next(batch for batch in in_batches(order, 4) if 0 in batch)
    assert [alike[row] for row in batch] == [5, 5, 6, 6]


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(12, 20))
def test_many_items_of_few_sizes_are_dealt_as_one_by_one(sizes, capacity):
    bins = _first_fit_decreasing(np.array(sizes, dtype=np.int64), capacity)
    dealt = [np.flatnonzero(bins == number).tolist() for number in range(bins.max(initial=-1) + 1)]
    assert sorted(dealt) == first_fit_decreasing(sizes, capacity)


@pytest.mark.parametrize("strategy", WITH_IMAGES)
def test_a_million_rows_are_ordered_in_seconds(strategy):
    generator = np.random.default_rng(0)
    lengths, images = generator.integers(1, 4000, 1_000_000), generator.integers(0, 300_000, 1_000_000)
    start = time.process_time()
    Order(strategy, lengths, 256, 0, images).rows()
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("sequential", {"images": [0, 0]}, "order of its own and does not go with groups"),
        ("batch_rebalance", {}, "'batch_rebalance' is not one of random, sequential, length_sorted, group_by_length"),
        ("random", {"images": [0]}, "1 images for 2 rows"),
        ("random", {"images": [0, 0], "alike": [0]}, "1 alike for 2 rows"),
        ("random", {"alike": [0, 0]}, "give images too"),
        ("random", {"batch_size": 0}, "batch_size=0 holds no row"),
        ("random", {"lengths": []}, "no rows to order"),
    ],
)
def test_what_cannot_be_ordered_is_said(strategy, options, message):
    with pytest.raises(OrderError, match=message):
        Order(**{"strategy": strategy, "lengths": [1, 2], "batch_size": 1, "seed": 0} | options)


@pytest.mark.parametrize("strategy", WITH_IMAGES)
def test_the_epoch_reaches_the_order_through_what_accelerate_wraps_around_it(strategy):
    """Two ranks, resumed in the middle of epoch 1."""
    arguments = (strategy, list(range(1, 49)), 4, 0, [row // 3 for row in range(48)])
    expected = in_batches(of_epoch(1, *arguments), 4)
    for rank in (0, 1):
        order = Order(*arguments)
        loader = DataLoader(list(range(48)), batch_size=4, sampler=order, collate_fn=list)
        loader = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        loader = skip_first_batches(loader, 2)
        EpochOrder(order).on_epoch_begin(None, TrainerState(epoch=1 + 2 / 6), None)
        assert list(loader) == expected[rank::2][2:]
