import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import IMAGE, sample, samples

from vlmpack import PackingError, pack
from vlmpack.bins import first_fit_decreasing


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 200))
def test_every_item_lies_in_exactly_one_bin_and_no_bin_overflows(sizes, capacity):
    bins = first_fit_decreasing(sizes, capacity)
    assert sorted(row for rows in bins for row in rows) == list(range(len(sizes)))
    assert all(sum(sizes[row] for row in rows) <= capacity for rows in bins)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 200))
def test_bins_are_those_of_first_fit_decreasing_written_out(sizes, capacity):
    naive = []
    for row in sorted(range(len(sizes)), key=lambda row: -sizes[row]):
        place = next((b for b in naive if sum(sizes[r] for r in b) + sizes[row] <= capacity), None)
        if place is None:
            naive.append(place := [])
        place.append(row)
    assert first_fit_decreasing(sizes, capacity) == sorted(sorted(b) for b in naive)


def test_bin_packing_grows_about_linearly():
    sizes = [37 + row * 7919 % 900 for row in range(100_000)]
    start = time.perf_counter()
    first_fit_decreasing(sizes, 8192)
    assert time.perf_counter() - start < 20


@settings(deadline=None)
@given(samples(images=True, most=6))
def test_a_pack_lays_every_sample_out_as_given(made):
    packs = pack(made, max_tokens=max(each.lengths.packed for each in made) + 5)
    seen = []
    for each in packs:
        rows = sorted(set(each.sample_of.tolist()))
        seen += rows
        assert each.sample_of.tolist() == [row for row in rows for _ in made[row].response_ids]
        assert_laid_out([made[row] for row in rows], each)
    assert sorted(seen) == list(range(len(made)))


def assert_laid_out(made, each):
    """Follow every response backwards along `previous`: out comes prompt + response, and its pairs and images."""
    ids, before, ends = each.input_ids[0].tolist(), each.previous[0].tolist(), each.ends.tolist()
    expected = [(s.prompt_ids.tolist(), r.tolist()) for s in made for r in s.response_ids]
    for row, (end, (prompt, response)) in enumerate(zip(ends, expected, strict=True)):
        path = [end]
        while before[path[0]] >= 0:
            path.insert(0, before[path[0]])
        assert [ids[token] for token in path] == prompt + response
        assert each.position_ids[0, path].tolist() == list(range(len(path)))
        assert each.targets[each.target_of == row].tolist() == path[len(prompt) :]
    pairs = [(s, pair) for s in range(len(made)) for pair in made[s].pairs]
    first = [sum(len(s.response_ids) for s in made[:place]) for place in range(len(made))]
    assert each.pairs.tolist() == [[first[s] + w, first[s] + r] for s, (w, r) in pairs]
    assert each.margins.tolist() == [margin for s in made for margin in s.margins]
    pixels = [s.images["pixel_values"] for s in made if s.images]
    assert ("pixel_values" in each.images) == bool(pixels)
    if pixels:
        assert torch.equal(each.images["pixel_values"], torch.cat(pixels))
        assert (each.input_ids == IMAGE).sum() == 4 * len(torch.cat(pixels))


@pytest.mark.parametrize(
    ("made", "max_tokens", "message"),
    [
        ([], 10, "no samples"),
        ([sample([1], [[2], [3]], [])], 0, "max_tokens=0 holds nothing"),
        ([sample([1], [[2], [3]], [])], -5, "max_tokens=-5 holds nothing"),
        ([sample([1], [[2]], []), sample([1] * 9, [[2], [3, 3]], [])], 11, "sample 1 has 12 tokens .* raise max_tokens to 12"),
    ],
)  # fmt: skip
def test_what_cannot_be_packed_is_refused(made, max_tokens, message):
    with pytest.raises(PackingError, match=message):
        pack(made, max_tokens)


def test_to_moves_every_tensor():
    moved = pack([sample([1], [[2], [3]], [(0, 1)], images=1)])[0].to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert {t.device.type for t in [*tensors, *moved.images.values()]} == {"meta"}
