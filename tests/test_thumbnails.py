"""Small pictures of what the vision tower is shown, out of every family's own tensors."""

from dataclasses import replace

import family_processors
import pytest
import torch
from PIL import Image
from tiny import picture, woven

import vlmpack
from vlmpack.inspect.thumbnails import GAP, thumbnails
from vlmpack.processors import PreferenceProcessor

QUARTERS = ("red", "lime", "blue", "yellow")  # read as lines are
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
ROW = {"prompt": "\nWhat is it?", "responses": ["red", "blue"], "scores": [1, 2]}


def quarters(width, height):
    whole = Image.new("RGB", (width, height))
    for number, colour in enumerate(QUARTERS):
        x, y = number % 2 * width // 2, number // 2 * height // 2
        whole.paste(colour, (x, y, x + width // 2, y + height // 2))
    return whole


def shown(family, images):
    processor = PreferenceProcessor(family_processors.processor(family))
    (pack,) = vlmpack.pack([processor({**ROW, "images": images})])
    return thumbnails(pack, processor.processor.image_processor)


def corners(image):
    places = [(image.width * x // 10, image.height * y // 10) for y in (2, 8) for x in (2, 8)]
    return [image.getpixel(place) for place in places]


def near(found, expected):
    return all(
        abs(a - b) <= 3 for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    "family", ["llava", "qwen2_vl", "qwen3_vl", "gemma3", "idefics2", "mistral3", "paligemma", "glm4v"]
)
def test_a_family_that_looks_once_shows_the_picture(family):
    (thumbnail,) = shown(family, [quarters(112, 112)])
    assert near(corners(thumbnail), COLOURS)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision", "internvl", "smolvlm", "idefics3", "aya_vision", "cohere2_vision"])  # fmt: skip
def test_a_family_that_cuts_tiles_shows_them_beside_the_whole(family):
    (sheet,) = shown(family, [quarters(112, 112)])
    side = (sheet.width - 2 * GAP) // 3
    tiles = [sheet.crop((x, y, x + side, y + side)) for y in (0, side + GAP) for x in range(0, sheet.width, side + GAP)]
    whole = [number for number, tile in enumerate(tiles) if near(corners(tile), COLOURS)]
    plain = [number for number, colour in enumerate(COLOURS) for tile in tiles if near(corners(tile), [colour] * 4)]
    assert (len(whole), plain) == (1, [0, 1, 2, 3])
    assert corners(tiles[5]) == [(255, 255, 255)] * 4  # five tiles leave one place empty


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics2", "mistral3"])
def test_images_of_other_shapes_are_parted_as_they_were_joined(family):
    wide, tall = shown(family, [quarters(112, 56), quarters(56, 112)])
    assert wide.width == 2 * wide.height
    assert tall.height == 2 * tall.width
    assert near(corners(wide), COLOURS)
    assert near(corners(tall), COLOURS)


def test_without_an_image_processor_brightness_is_stretched():
    (pack,) = vlmpack.pack([woven([1, picture(1)], [[2]], [])])
    (thumbnail,) = thumbnails(pack)
    assert thumbnail.size == (16, 16)
    assert thumbnail.getextrema() != ((0, 0), (0, 0), (0, 0))
    assert min(low for low, _ in thumbnail.getextrema()) == 0
    assert max(high for _, high in thumbnail.getextrema()) == 255


def test_a_layout_that_is_not_known_gives_no_picture():
    (pack,) = vlmpack.pack([woven([1, picture(1)], [[2]], [])])
    patches = {"pixel_values": torch.zeros(4, 192), "image_grid_thw": torch.tensor([[1, 2, 2]])}
    assert thumbnails(replace(pack, images=patches, pixel_shapes=((4, 192),))) == (None,)
    assert thumbnails(replace(pack, images={"flattened_patches": torch.zeros(4, 192)}, pixel_shapes=((),))) == (None,)
