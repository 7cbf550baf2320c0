"""What is said of an image processor's settings."""

from types import SimpleNamespace

import pytest
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor

from vlmpack.evaluation import budget_line, pixel_budget


def test_a_model_without_an_image_processor_reads_text_only():
    assert pixel_budget(None) is None
    assert budget_line(None) == "images: none, the model reads text only"


def test_clip_cuts_images_to_one_size():
    processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    budget = pixel_budget(processor)
    assert budget["size"] == {"shortest_edge": 336}
    assert budget_line(budget) == "images: size shortest_edge 336, crop_size 336 x 336"


def test_qwen_bounds_the_pixels_and_so_the_tokens():
    processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    assert budget_line(pixel_budget(processor)) == "images: 3,136 to 1,003,520 pixels, at most 1,280 tokens"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"do_resize": False, "size": {"height": 9, "width": 9}}, "images: as they are"),
        ({"size": {"height": 384, "width": 448}}, "images: size 384 x 448"),
        (
            {"crop_size": {"height": 9, "width": 9}, "do_center_crop": False, "min_pixels": 3136},
            "images: min_pixels 3,136",
        ),
        ({"size": {"longest_edge": 1456}}, "images: size longest_edge 1,456"),
        ({"image_grid_pinpoints": [[336, 672], [672, 672]]}, "images: image_grid_pinpoints 2, up to 672 x 672"),
        ({"crop_to_patches": False, "max_patches": 12}, "images: max_patches 12"),
        ({"size": [7, 8]}, "images: size [7, 8]"),
        ({"resample": 3, "size": object()}, "images: as they are"),
    ],
    ids=["not resized", "fixed", "not cropped", "long edge", "tiles", "patches", "a list", "unknown"],
)
def test_whatever_an_image_processor_has_is_said_shortly(settings, line):
    assert budget_line(pixel_budget(SimpleNamespace(**settings))) == line
