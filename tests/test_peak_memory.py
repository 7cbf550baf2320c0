"""Peak memory is counted block by block: cases worked out by hand."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "benchmarks"))
from peak_memory import highest, peak_bytes

MEGABYTE = 1_000_000


def floats(megabytes: int) -> torch.Tensor:
    return torch.empty(megabytes * MEGABYTE // 4)


def test_the_highest_sum_counts_what_is_live_at_once():
    assert highest([(1, 100), (2, 50), (1, -100), (3, 80), (2, -50)]) == 150
    assert highest([]) == 0


def test_a_block_from_before_neither_counts_nor_takes_away():
    assert highest([(9, -500), (1, 100), (9, 30), (9, -30), (1, -100), (1, 120)]) == 130


def test_tensors_live_at_once_are_summed_and_freed_ones_are_not():
    before = floats(16)

    def step():
        first = floats(4)
        second = floats(8)  # 12 live
        del first
        third = floats(6)  # 14 live
        del second, third
        return floats(10), before

    assert peak_bytes(step) == 14 * MEGABYTE


def test_what_a_step_returns_is_live_to_its_end():
    assert peak_bytes(lambda: (floats(4), floats(8))) == 12 * MEGABYTE


def test_a_backward_pass_is_counted_as_by_hand():
    """y = w * x, z = exp(y): z is kept for backward; then z's gradient, y's, and w's, which is kept, are made."""
    x = floats(1).fill_(0.5)
    weight = torch.full_like(x, 0.5, requires_grad=True)

    def step():
        y = weight * x  # x is kept for weight's gradient: it was there before
        z = y.exp()
        del y
        z.backward(torch.ones_like(z))

    assert peak_bytes(step) == 4 * MEGABYTE  # z, the given gradient, y's and weight's
    weight.grad = None
    assert peak_bytes(step) == 4 * MEGABYTE


def test_an_operations_scratch_space_counts_too():
    """Sorting a row in place needs a copy of it and its order, which no tensor of the caller's ever holds."""
    row = torch.rand(MEGABYTE)
    assert peak_bytes(lambda: torch.median(row).item()) >= 4 * MEGABYTE


def test_devices_without_a_count_are_refused():
    with pytest.raises(ValueError, match="memory of a meta device cannot be counted exactly"):
        peak_bytes(lambda: None, "meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpus_own_count_is_taken():
    size = 16 * 2**20  # whole blocks of the allocator

    def step():
        first = torch.empty(size, device="cuda", dtype=torch.uint8)
        second = torch.empty(2 * size, device="cuda", dtype=torch.uint8)
        del first, second
        return torch.empty(size, device="cuda", dtype=torch.uint8)

    assert peak_bytes(step, "cuda") == 3 * size
