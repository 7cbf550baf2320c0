import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import IMAGE, IMAGE_TOKENS, sample, samples, trees

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
@given(samples(images=True, most=6) | st.integers(1, 5).flatmap(lambda depth: trees(images=True, depth=depth)))
def test_a_pack_lays_every_sample_out_as_given(made):
    packs = pack(made, max_tokens=max(each.lengths.packed for each in made) + 5)
    seen = []
    for each in packs:
        rows = sorted(set(each.sample_of.tolist()))
        seen += rows
        assert each.sample_of.tolist() == [row for row in rows for _ in made[row].response_ids]
        assert each.tokens <= max(s.lengths.packed for s in made) + 5
        assert_laid_out([made[row] for row in rows], each)
    assert sorted(seen) == list(range(len(made)))


def assert_laid_out(made, each):
    """Follow every response backwards along `previous`: out comes prompt + response, and its pairs and images."""
    ids, before, ends = each.input_ids[0].tolist(), each.previous[0].tolist(), each.ends.tolist()
    expected = [(s.prompt_ids.tolist(), r.tolist()) for s in made for r in s.response_ids]
    owners = [s for s in made for _ in s.response_ids]
    for row, (end, (prompt, response)) in enumerate(zip(ends, expected, strict=True)):
        path = [end]
        while before[path[0]] >= 0:
            path.insert(0, before[path[0]])
        assert [ids[token] for token in path] == prompt + response
        assert each.position_ids[0, path].tolist() == list(range(len(path)))
        counted = each.terms[each.terms[:, 1] == row, 0]
        assert each.targets[counted].tolist() == path[len(prompt) :]
        assert each.response_lengths[row] == len(response)
        assert torch.equal(shown(each, path), shown_by(owners[row]))
    pairs = [(s, pair) for s in range(len(made)) for pair in made[s].pairs]
    first = [sum(len(s.response_ids) for s in made[:place]) for place in range(len(made))]
    assert each.pairs.tolist() == [[first[s] + w, first[s] + r] for s, (w, r) in pairs]
    assert each.margins.tolist() == [margin for s in made for margin in s.margins]
    assert each.vision_passes == len({image.content for s in made for image in s.images})
    assert sum(map(len, each.images.values())) == each.vision_passes


def shown(each, path) -> torch.Tensor:
    """The pixels of every image token on a path: the model fills image tokens in the order of the placements."""
    tokens = [token for token, id in enumerate(each.input_ids[0].tolist()) if id == IMAGE]
    assert len(tokens) == IMAGE_TOKENS * len(each.placements)
    image_at = {token: each.placements[place // IMAGE_TOKENS] for place, token in enumerate(tokens)}
    rows = [each.images["pixel_values"][image_at[token]] for token in path if token in image_at]
    return torch.stack(rows) if rows else torch.empty(0)


def shown_by(sample) -> torch.Tensor:
    """The same of a sample on its own."""
    rows = [image.tensors["pixel_values"][0] for image in sample.images for _ in range(IMAGE_TOKENS)]
    return torch.stack(rows) if rows else torch.empty(0)


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
