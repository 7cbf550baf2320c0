"""An image is known by its content, and several are joined as image processors join them."""

import pytest
import torch

from vlmpack import ImageInputs
from vlmpack.image import join


def test_the_content_of_an_image_does_not_depend_on_how_its_tensors_lie_in_memory():
    tensor = torch.arange(12.0).reshape(3, 4)
    turned = tensor.mT.contiguous().mT  # the same values, in another order in memory
    assert ImageInputs({"pixel_values": turned}).content == ImageInputs({"pixel_values": tensor}).content
    parts = {"pixel_values": tensor, "sizes": torch.tensor([3, 4])}
    assert ImageInputs(dict(reversed(parts.items()))).content == ImageInputs(parts).content


def test_images_stand_one_after_the_other_along_the_first_axis():
    one, two = (ImageInputs({"pixel_values": torch.full((n, 2), float(n))}) for n in (1, 2))
    assert join([one, two])["pixel_values"].tolist() == [[1, 1], [2, 2], [2, 2]]
    assert join([two, one])["pixel_values"].tolist() == [[2, 2], [2, 2], [1, 1]]
    assert join([]) == {}


def test_smaller_images_are_filled_up_with_zeros_behind_and_below():
    wide = ImageInputs({"pixel_values": torch.full((1, 1, 1, 3), 5.0), "sizes": torch.tensor([[1, 3]])})
    high = ImageInputs({"pixel_values": torch.full((1, 1, 2, 1), 7.0), "sizes": torch.tensor([[2, 1]])})
    joined = join([wide, high])
    assert joined["pixel_values"].tolist() == [[[[5, 5, 5], [0, 0, 0]]], [[[7, 0, 0], [7, 0, 0]]]]
    assert joined["sizes"].tolist() == [[1, 3], [2, 1]]


TILES = {
    "tiles in the prompt's row": (1, [[[1, 1], [0, 0]], [[2, 0], [2, 0]], [[2, 0], [2, 0]]], (1, 3, 2, 2)),
    "tiles of its own": (0, [[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[2, 0], [2, 0]], [[2, 0], [2, 0]]], (2, 2, 2, 2)),
}


@pytest.mark.parametrize(("axis", "rows", "shape"), TILES.values(), ids=TILES)
def test_the_axis_that_is_joined_is_not_filled_up_and_every_other_one_is(axis, rows, shape):
    one = ImageInputs({"pixel_values": torch.full((1, 1, 1, 2), 1.0)}, {"pixel_values": axis})
    two = ImageInputs({"pixel_values": torch.full((1, 2, 2, 1), 2.0)}, {"pixel_values": axis})
    joined = join([one, two])["pixel_values"]
    assert joined.shape == shape
    assert joined.reshape(-1, 2, 2).tolist() == rows


def test_joining_keeps_types_and_passes_gradients_on():
    pixels = [torch.ones(1, n, dtype=torch.float64, requires_grad=True) for n in (1, 3)]
    joined = join([ImageInputs({"pixel_values": each, "mask": each.detach().bool()}) for each in pixels])
    assert (joined["pixel_values"].dtype, joined["mask"].dtype) == (torch.float64, torch.bool)
    joined["pixel_values"].sum().backward()
    assert [each.grad.tolist() for each in pixels] == [[[1]], [[1, 1, 1]]]


def test_an_argument_that_some_images_lack_is_joined_of_those_that_have_it():
    whole, cut = (
        ImageInputs({"pixel_values": torch.zeros(1, 1)}),
        ImageInputs({"pixel_values": torch.zeros(1, 1), "parts": torch.ones(2, 1)}),
    )
    assert {name: tensor.shape[0] for name, tensor in join([whole, cut, cut]).items()} == {
        "pixel_values": 3,
        "parts": 4,
    }
