"""Merging against the naive count: one token for every distinct beginning of a path."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import paths
from test_plan import pictured, stretches
from tiny import IMAGE, IMAGE_TOKENS, picture, trees, woven

from vlmpack import ImageInputs, Sample
from vlmpack.prefix import merge


def keyed(sample: Sample) -> list[tuple]:
    """A prompt's tokens as what makes them the same: id, image, place in the image."""
    image_of = [-1] * len(sample.prompt_ids) if sample.image_of is None else sample.image_of.tolist()
    seen: dict[int, int] = {}
    keys = []
    for token, image in zip(sample.prompt_ids.tolist(), image_of, strict=True):
        place = seen[image] = seen.get(image, -1) + 1
        pixels = sample.images[image].tensors["pixel_values"].numpy().tobytes() if image >= 0 else b""
        keys.append((token, pixels, place if image >= 0 else 0))
    return keys


def beginnings(samples: list[Sample]) -> set[tuple]:
    """Every distinct beginning of every path."""
    paths = [
        [*keyed(sample), *((t, b"", 0) for t in response.tolist())]
        for sample in samples
        for response in sample.response_ids
    ]
    return {tuple(path[: end + 1]) for path in paths for end in range(len(path))}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_merged_forest_has_one_token_for_every_distinct_beginning(data):
    made = data.draw(trees(images=True, depth=data.draw(st.integers(1, 5))))
    merged = merge(made)
    assert merged.forest.tokens == len(beginnings(made))
    for sample, prompt, leaves in zip(made, merged.prompts, merged.leaves, strict=True):
        assert path_to(merged, prompt) == sample.prompt_ids.tolist()
        for response, leaf in zip(sample.response_ids, leaves, strict=True):
            assert path_to(merged, leaf) == sample.prompt_ids.tolist() + response.tolist()


def path_to(merged, segment) -> list[int]:
    forest = merged.forest
    spans = [
        slice(forest.starts[s], forest.starts[s] + forest.lengths[s]) for s in (*forest.ancestors(segment), segment)
    ]
    return np.concatenate([merged.input_ids[span] for span in spans]).tolist()


def test_a_simple_sample_is_a_prompt_and_its_responses():
    merged = merge([woven([1, 2, 3], [[4, 5], [6]], [(0, 1)])])
    assert (merged.forest.parents, merged.forest.lengths) == ((-1, 0, 0), (3, 2, 1))


def test_responses_that_begin_alike_share_their_beginning_and_equal_ones_cost_nothing():
    merged = merge([woven([1, 2], [[4, 5, 6], [4, 5, 7], [4, 5, 6], [4]], [(0, 1)])])
    assert (merged.forest.parents, merged.forest.lengths) == ((-1, 0, 1, 2, 2), (2, 1, 1, 1, 1))
    assert merged.leaves == ((3, 4, 3, 1),)  # the last response ends where the others go on


def test_two_questions_on_one_image_share_its_tokens_and_its_vision_pass():
    merged = merge([woven([picture(7), 1, 2], [[3]], []), woven([9], [[3]], []), woven([picture(7), 4], [[5]], [])])
    assert merged.forest.tokens == IMAGE_TOKENS + 3 + 2 + 2
    assert (len(merged.images), merged.placements) == (1, (0,))


def test_images_that_differ_in_one_pixel_never_merge():
    other = picture(7).tensors["pixel_values"].clone()
    other[0, 1, 3, 5] = torch.nextafter(other[0, 1, 3, 5], torch.tensor(9.0, dtype=torch.float64))
    one = woven([1, picture(7), 2], [[3], [4]], [(0, 1)])
    two = woven([1, ImageInputs({"pixel_values": other}), 2], [[3], [4]], [(0, 1)])
    assert torch.equal(one.prompt_ids, two.prompt_ids)
    merged = merge([one, two])
    assert merged.forest.tokens == 1 + 2 * (IMAGE_TOKENS + 1 + 2)  # only the token before the images is the same
    assert (len(merged.images), merged.placements) == (2, (0, 1))


def test_images_of_the_same_bytes_but_another_shape_or_type_are_others():
    whole = torch.zeros(1, 3, 4, 4)
    others = [whole, whole.reshape(1, 3, 2, 8), whole.view(torch.int32)]
    assert len({ImageInputs({"pixel_values": tensor}).content for tensor in others}) == 3
    assert len({ImageInputs({name: whole}).content for name in ("pixel_values", "pixels")}) == 2


def test_an_image_after_another_text_stands_twice_and_is_encoded_once():
    merged = merge([woven([1, picture(7), 2], [[3]], []), woven([5, picture(8), picture(7), 2], [[3]], [])])
    assert merged.forest.tokens == (IMAGE_TOKENS + 3) + (2 * IMAGE_TOKENS + 3)
    assert (len(merged.images), merged.placements) == (2, (0, 1, 0))


def test_an_image_token_is_not_a_text_token_of_the_same_id():
    merged = merge([woven([picture(7), 2], [[3]], []), woven([IMAGE] * IMAGE_TOKENS + [2], [[3]], [])])
    assert merged.forest.tokens == 2 * (IMAGE_TOKENS + 2)


def test_an_image_whose_tokens_are_broken_by_text_is_shared_whole_or_not_at_all():
    """As where a row of an image ends in a token of its own; prompts may not part inside it."""
    image_of = torch.tensor([0, 0, -1, 0, 0, -1])
    made = [
        Sample(torch.tensor([IMAGE, IMAGE, between, IMAGE, IMAGE, 5]), (torch.tensor([3]),), images=(picture(7),), image_of=image_of)
        for between in (1, 2, 1)
    ]  # fmt: skip
    merged = merge(made)
    assert merged.forest.tokens == 2 * 7
    assert merged.placements == (0, 0)


def test_ids_may_be_of_any_integer_type():
    short = Sample(torch.tensor([1, 2], dtype=torch.int32), (torch.tensor([3], dtype=torch.int16),))
    merged = merge([short, woven([1, 2], [[3]], [])])
    assert (merged.forest.tokens, merged.input_ids.dtype) == (3, np.int64)


@pytest.mark.parametrize("images", [True, False])
def test_prompts_seen_both_ways_are_shared_whole_or_not_at_all(images):
    beginning = [picture(7), 1] if images else [6, 1]
    made = [woven([*beginning, end], [[3, 4], [3, 5]], [(0, 1)]) for end in (2, 2, 8)]
    whole = [Sample(s.prompt_ids, s.response_ids, s.pairs, s.margins, s.images, s.image_of, "prompt") for s in made]
    prompt = len(made[0].prompt_ids)
    assert merge(made).forest.tokens == prompt + 1 + 2 * 3
    assert merge(whole).forest.tokens == 2 * prompt + 2 * 3


def test_an_image_seen_both_ways_and_broken_by_text_is_shared_whole_or_not_at_all():
    image_of = torch.tensor([0, 0, -1, 0, 0, -1])
    made = [
        Sample(torch.tensor([IMAGE, IMAGE, between, IMAGE, IMAGE, 5]), (torch.tensor([3]),), (), None, (picture(7),), image_of, "image")
        for between in (1, 2, 1)
    ]  # fmt: skip
    merged = merge(made)
    assert merged.placements == (0, 0)
    assert merged.forest.tokens == 2 * 7
    assert merged.image_of.tolist() == [0, 0, -1, 0, 0, -1, -1, 1, 1, -1, 1, 1, -1, -1]
    assert merged.blocks.tolist() == [0, 0, -1, 1, 1, -1, -1, 2, 2, -1, 3, 3, -1, -1]


def test_images_side_by_side_are_one_stretch_and_are_shared_together_or_not_at_all():
    made = [woven([1, *images, 2], [[3], [4]], [(0, 1)]) for images in SIDE_BY_SIDE]
    assert merge(made).forest.tokens == 1 + 3 * IMAGE_TOKENS + 3 * (1 + 2)
    both = [replace(sample, both_ways="image") for sample in made]
    merged = merge(both)
    assert merged.forest.tokens == 1 + IMAGE_TOKENS * (2 + 2 + 1) + 3 * (1 + 2)
    assert merged.placements == (0, 1, 0, 2, 0)
    pair = [0] * 2 * IMAGE_TOKENS
    assert merged.blocks.tolist() == [
        -1,
        *pair,
        -1,
        -1,
        -1,
        *[1] * len(pair),
        -1,
        -1,
        -1,
        *[2] * IMAGE_TOKENS,
        -1,
        -1,
        -1,
    ]


SIDE_BY_SIDE = [(picture(1), picture(2)), (picture(1), picture(3)), (picture(1),), (picture(1), picture(2))]


@pytest.mark.parametrize("both_ways", [None, "image", "prompt"])
@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data())
def test_every_path_keeps_its_tokens_images_and_stretches_whatever_it_shares(both_ways, data):
    made = data.draw(pictured(both_ways, separators=st.integers(5, 6)))
    merged = merge(made)
    walked = paths(merged.forest)
    ids, image_of, blocks = merged.input_ids, merged.image_of, merged.blocks
    for sample, leaves in zip(made, merged.leaves, strict=True):
        for response, leaf in zip(sample.response_ids, leaves, strict=True):
            path = walked[merged.forest.starts[leaf] + merged.forest.lengths[leaf] - 1]
            assert ids[path].tolist() == sample.prompt_ids.tolist() + response.tolist()
            shown = [
                merged.images[merged.placements[place]].content if place >= 0 else None for place in image_of[path]
            ]
            own = [-1] * len(sample.prompt_ids) if sample.image_of is None else sample.image_of.tolist()
            own += [-1] * len(response)
            assert shown == [sample.images[number].content if number >= 0 else None for number in own]
            assert renumbered(image_of[path]) == own
            assert renumbered(blocks[path]) == renumbered(
                [-1 if s is None else s for s in stretches(sample, len(path))]
            )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data())
def test_an_image_has_as_many_tokens_in_every_place(data):
    merged = merge(data.draw(pictured("image", separators=st.integers(5, 6), images=st.just(3))))
    tokens = np.bincount(merged.image_of[merged.image_of >= 0], minlength=len(merged.placements))
    assert tokens.tolist() == [3] * len(merged.placements)


def renumbered(numbers) -> list[int]:
    """Numbers from 0 in the order in which they first stand; -1 stays."""
    order = list(dict.fromkeys(int(number) for number in numbers if number >= 0))
    return [order.index(number) if number >= 0 else -1 for number in numbers]
