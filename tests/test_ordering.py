from itertools import pairwise

import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import TrainerState

from vlmpack.ordering import ByImage, EpochOrder

IMAGES = st.lists(st.sampled_from([(), ("a",), ("b",), ("a", "b"), ("c",), ("d",)]), min_size=1, max_size=60)


@given(IMAGES, st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_holds_every_row_once(images, size, epoch):
    order = ByImage(images, size)
    order.set_epoch(epoch)
    assert sorted(order) == list(range(len(images))) == list(range(len(order)))


@given(IMAGES, st.integers(1, 9))
def test_an_order_is_the_same_again_for_the_same_seed_and_epoch(images, size):
    one, other = ByImage(images, size, seed=3), ByImage(images, size, seed=3)
    assert list(one) == list(other)


def test_epochs_and_seeds_differ():
    images = [(n // 3,) for n in range(60)]
    order = ByImage(images, 6)
    first = list(order)
    order.set_epoch(1)
    assert first != list(order)
    assert first != list(ByImage(images, 6, seed=1))


def passes(images, order, size) -> int:
    """Vision passes of an epoch: distinct images, batch by batch."""
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    return sum(len({images[row] for row in batch}) for batch in batches)


@pytest.mark.parametrize(("size", "fewest"), [(3, 80), (4, 120), (8, 100), (16, 90)])
def test_rows_on_one_image_meet_in_one_batch(size, fewest):
    images = [(n // 3,) for n in range(240)]  # three questions on each of 80 images
    order = list(ByImage(images, size))
    assert passes(images, order, size) <= fewest  # a batch is filled exactly, so groups that do not fit are cut
    assert passes(images, list(range(0, 240, 3)) + list(range(1, 240, 3)) + list(range(2, 240, 3)), size) == 240


def test_batches_stay_mixed_where_images_do_not_force_them():
    images = [(n // 2,) for n in range(200)]
    order = list(ByImage(images, 10))
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert neighbours < 120  # pairs stand together, but not in the order of the rows


def test_every_row_comes_into_full_batches_sooner_or_later():
    images = [(n // 4,) for n in range(40)] + [("alone",)]
    order = ByImage(images, 4)
    seen = set()
    for epoch in range(20):
        order.set_epoch(epoch)
        seen |= set(list(order)[:40])  # the last row would be dropped
    assert seen == set(range(41))


def test_the_epoch_reaches_the_order_through_what_accelerate_wraps_around_it():
    """Two ranks, resumed in the middle of epoch 1."""
    images = [(n // 3,) for n in range(48)]
    expected = ByImage(images, 4)
    expected.set_epoch(1)
    rows = list(expected)
    for rank in (0, 1):
        order = ByImage(images, 4)
        loader = DataLoader(list(range(48)), batch_size=4, sampler=order, collate_fn=list)
        loader = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        loader = skip_first_batches(loader, 2)
        EpochOrder(order).on_epoch_begin(None, TrainerState(epoch=1 + 2 / 6), None)
        batches = [rows[at : at + 4] for at in range(0, 48, 4)][rank::2]
        assert list(loader) == batches[2:]


def test_rows_that_share_their_first_image_meet_and_equal_ones_stand_side_by_side():
    images = [("a",), ("a", "b"), ("a",), ("a", "b"), ("c",), ("d",), ("e",), ("f",)]
    order = list(ByImage(images, 4))
    batch = next(order[at : at + 4] for at in (0, 4) if 0 in order[at : at + 4])
    assert [images[row] for row in batch] == [("a",), ("a",), ("a", "b"), ("a", "b")]
