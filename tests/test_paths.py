"""The `paths` backend's blocks: whatever their size the same attention, and no mask that grows with the square of T."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention import naive, weighed
from test_layout import forests
from test_plan import WAYS, WINDOWS, pictured, planned, seen_alone

from vlmpack import Forest, layout, masks, plan
from vlmpack.kernels import paths as by_paths
from vlmpack.kernels.weighing import Settings

BLOCKS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@contextmanager
def small_blocks(sizes: tuple[int, int]):
    """Few queries to a mask, without a window and with one, so that small forests have many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_paths, "BLOCK", sizes[0])
        patch.setattr(by_paths, "WINDOW_BLOCK", sizes[1])
        yield


def made(forest: Forest) -> plan.Plan:
    return plan.make(forest, masks.reach(forest), layout.position(forest), "paths")


def heads(tokens: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(tokens)
    drawn = torch.randn(4, 1, 2, tokens, 4, generator=random, dtype=torch.float64)
    return [*(each.requires_grad_() for each in drawn[:3].clone().unbind()), drawn[3]]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(forest=forests(), window=st.none() | st.integers(1, 6), sizes=BLOCKS)
def test_in_blocks_of_any_size_a_forest_attends_as_path_by_path(forest, window, sizes):
    *learnt, weights = heads(forest.tokens)
    with small_blocks(sizes):
        packed = by_paths.attend(*learnt, made(forest), window, Settings(scale=0.3))
    alone = naive(*learnt, forest, window, 0.3)
    torch.testing.assert_close(packed, alone, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((output * weights).sum(), learnt) for output in (packed, alone)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("both_ways", WAYS[1:])
@settings(deadline=None, max_examples=12, derandomize=True)
@given(data=st.data(), window=WINDOWS, cuts=st.booleans(), sizes=BLOCKS)
def test_in_blocks_of_any_size_what_is_seen_both_ways_is_seen(both_ways, data, window, cuts, sizes):
    pack, known, responses = planned(data.draw(pictured(both_ways, most=2)), "paths", cuts)
    *learnt, weights = heads(pack.tokens)
    with small_blocks(sizes):
        packed = by_paths.attend(*learnt, known, window, Settings(scale=0.9))
    total = expected = 0
    for sample, path in responses:
        seen = seen_alone(sample, len(path), window, cuts)
        alone = weighed(*(x[0][:, path] for x in learnt), seen, scale=0.9, softcap=None, sinks=None)
        torch.testing.assert_close(packed[0][:, path], alone, rtol=1e-11, atol=1e-12)
        total = total + (packed[0][:, path] * weights[0][:, path]).sum()
        expected = expected + (alone * weights[0][:, path]).sum()
    gradients = (torch.autograd.grad(each, learnt) for each in (total, expected))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_a_windows_blocks_share_a_mask_and_keep_to_the_keys_that_they_see():
    """A prompt of 640 tokens and its first response are 6 blocks; the second response begins in the prompt's last."""
    forest = Forest((-1, 0, 0), (640, 120, 100))
    first, *middle, last, second = by_paths.calls(made(forest), 100, torch.float32)
    assert [tuple(call.mask.shape) for call in (first, last, second)] == [(128, 128), (120, 248), (100, 228)]
    assert [tuple(call.mask.shape) for call in middle] == [(128, 256)] * 4
    assert len({call.mask.data_ptr() for call in middle}) == 1


def storage(forest: Forest, window: int | None, blocks: list[int] | None) -> int:
    """Bytes of all masks of a layer."""
    known = plan.make(
        forest,
        masks.reach(forest),
        layout.position(forest),
        "paths",
        None if blocks is None else torch.tensor(blocks),
    )
    found = [call.mask for call in by_paths.calls(known, window, torch.float32) if call.mask is not None]
    return sum({mask.untyped_storage().data_ptr(): mask.untyped_storage().nbytes() for mask in found}.values())


GROWING = {
    "windowed": (lambda n: Forest((-1, 0, 0), (n, n, n)), 128, None),
    "windowless": (lambda n: Forest((-1, 0, 0), (n, n, n)), None, None),
    "windowed, with an image": (lambda n: Forest((-1, 0), (n, n)), 128, lambda n: [0] * 64 + [-1] * (2 * n - 64)),
    "a prompt seen both ways": (lambda n: Forest((-1, 0), (n, n)), None, lambda n: [0] * n + [-1] * n),
    "images in a long prompt": (
        lambda n: Forest((-1, 0), (n, n)),
        None,
        lambda n: [token // 100 if token % 100 < 50 and token < n else -1 for token in range(2 * n)],
    ),
}


@pytest.mark.parametrize(("forest", "window", "blocks"), GROWING.values(), ids=GROWING)
def test_masks_grow_no_faster_than_tokens(forest, window, blocks):
    small, large = (storage(forest(n), window, blocks and blocks(n)) for n in (1000, 4000))
    assert 0 < large <= 4.5 * small
