"""What a pack says of its tokens beyond the forest: images, stretches seen both ways, and what goes to a device."""

from dataclasses import replace

import pytest
import torch
from tiny import IMAGE_TOKENS, picture, woven

import vlmpack
from vlmpack import SampleError


def test_images_and_stretches_are_numbered_in_token_order():
    made = [woven([1, picture(1), picture(2), 2], [[3], [4]], [(0, 1)]), woven([1, picture(1), 5], [[3]], [])]
    (pack,) = vlmpack.pack([replace(sample, both_ways="image") for sample in made])
    tokens = [-1, *[0] * IMAGE_TOKENS, *[1] * IMAGE_TOKENS, -1, -1, -1, *[2] * IMAGE_TOKENS, -1, -1]
    assert pack.image_of.tolist() == [tokens]
    assert pack.blocks.tolist() == [[-1, *[0] * 2 * IMAGE_TOKENS, -1, -1, -1, *[1] * IMAGE_TOKENS, -1, -1]]
    assert (pack.placements, pack.vision_passes, pack.both_ways) == ((0, 1, 0), 2, "image")
    assert len(pack.images["pixel_values"]) == 2


def test_a_prompt_seen_both_ways_is_one_stretch_and_its_responses_are_none():
    made = [woven([1, picture(1)], [[3], [4, 4]], [(0, 1)]), woven([2], [[3], [5]], [(0, 1)])]
    (pack,) = vlmpack.pack([replace(sample, both_ways="prompt") for sample in made])
    assert pack.blocks.tolist() == [[*[0] * (1 + IMAGE_TOKENS), -1, -1, -1, 1, -1, -1]]


def test_without_images_and_both_ways_there_is_neither():
    (pack,) = vlmpack.pack([woven([1, 2], [[3], [4]], [(0, 1)])])
    assert pack.image_of.tolist() == pack.blocks.tolist() == [[-1] * 4]
    assert (pack.images, pack.placements, pack.both_ways) == ({}, (), None)


def test_samples_of_different_families_are_refused():
    one = woven([1], [[3], [4]], [(0, 1)])
    with pytest.raises(
        SampleError, match=r"both_ways of \['None', 'prompt'\] are of different families; pack each alone"
    ):
        vlmpack.pack([one, replace(one, both_ways="prompt")])


def test_every_tensor_goes_to_the_device():
    (pack,) = vlmpack.pack([woven([1, picture(1)], [[3], [4]], [(0, 1)])])
    moved = pack.to("meta")
    tensors = [value for value in (*vars(moved).values(), *moved.images.values()) if isinstance(value, torch.Tensor)]
    assert len(tensors) == 13
    assert all(tensor.is_meta for tensor in tensors)
