"""Which rows a rank computes in each step: every row once, the same steps whatever the number of ranks."""

from itertools import chain, islice

import pytest

from vlmpack.training.batches import BatchError, GlobalBatches, Numbered, NumberedRows, Share, StreamedBatches


def test_a_single_rank_takes_the_rows_in_order_and_the_last_batch_is_what_is_left():
    batches = GlobalBatches(range(7), Share(batch_size=3))
    assert list(batches) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches) == 3


def test_the_batches_of_a_step_come_as_empty_ones_and_a_full_one():
    batches = GlobalBatches(range(10), Share(batch_size=2, accumulation=3))
    assert list(batches) == [[], [], [0, 1, 2, 3, 4, 5], [], [6, 7, 8, 9]]
    assert len(batches) == 5


def test_ranks_share_a_step_and_repeat_no_row():
    parts = [list(GlobalBatches(range(9), Share(2, 1, ranks=2, rank=rank))) for rank in (0, 1)]
    assert parts == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], []]]
    assert [len(GlobalBatches(range(9), Share(2, 1, ranks=2, rank=rank))) for rank in (0, 1)] == [3, 3]


def test_a_step_holds_the_same_rows_on_one_rank_and_on_several():
    one = [sorted(step) for step in GlobalBatches(range(11), Share(6)) if step]
    ranks = [[step for step in GlobalBatches(range(11), Share(1, 2, 3, rank)) if step or rank < 3] for rank in range(3)]
    steps = [sorted(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert [step for step in steps if step] == one


def test_rows_are_dealt_as_they_are_told():
    def deal(step):
        return [[step[-1]], list(step[:-1])]

    assert list(GlobalBatches([5, 6, 7, 8], Share(2, 1, 2, rank=0), deal)) == [[8]]
    assert list(GlobalBatches([5, 6, 7, 8], Share(2, 1, 2, rank=1), deal)) == [[5, 6, 7]]


def test_rows_that_fill_no_batch_can_be_left_out():
    batches = GlobalBatches(range(7), Share(3), drop_last=True)
    assert list(batches) == [[0, 1, 2], [3, 4, 5]]
    assert len(batches) == 2


def test_a_stream_is_cut_into_steps_of_which_each_rank_keeps_its_part_and_begins_anew():
    rows = (lambda: "abcde")()
    first = list(islice(StreamedBatches(rows, Share(2, 1, 2, rank=0)), 3))
    second = list(islice(StreamedBatches(rows, Share(2, 1, 2, rank=1)), 3))
    assert [[each.row for each in batch] for batch in first] == [list("ac"), list("eb"), list("da")]
    assert [[each.row for each in batch] for batch in second] == [list("bd"), list("ac"), list("eb")]
    assert [each.place for each in first[2]] == [8, 10]


def test_each_pass_over_a_stream_is_told_its_number():
    class Shuffled:
        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            yield from (f"{self.epoch}{name}" for name in "xy")

    batches = islice(StreamedBatches(Shuffled(), Share(1)), 4)
    assert [batch[0].row for batch in batches] == ["0x", "0y", "1x", "1y"]


def test_a_stream_without_rows_is_an_error_and_not_an_endless_loop():
    with pytest.raises(BatchError, match="gives no rows"):
        next(iter(StreamedBatches([], Share(1))))


def test_rows_are_numbered_by_place_and_streamed_ones_passed_on():
    rows = NumberedRows(["a", "b"])
    assert rows[1] == Numbered(1, "b") and len(rows) == 2
    assert NumberedRows()[Numbered(7, "c")] == Numbered(7, "c")
