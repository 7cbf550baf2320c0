"""Images that are cut into tiles only where they stand alone: the model is told so for each, whatever shares a pack."""

import pytest
import torch

from vlmpack import ImageInputs
from vlmpack.image_counts import COUNTS, joined


def told(name: float, together: int) -> ImageInputs:
    """An image that stands in a prompt with so many, itself included."""
    return ImageInputs({"pixel_values": torch.tensor([[name]]), COUNTS: torch.tensor([together])})


# (name, images in its prompt) of each distinct image, placements; names as told, counts, placements as told
CASES = {
    "alone": ([(7, 1)], (0,), [7], [1], (0,)),
    "two prompts of one": ([(7, 1), (8, 1)], (0, 1, 0), [7, 8], [1, 1], (0, 1, 0)),
    "a prompt of two": ([(7, 2), (8, 2)], (0, 1), [7, 8], [2], (0, 1)),
    "cut ones are told first": ([(7, 2), (8, 1), (9, 2)], (0, 2, 1), [8, 7, 9], [1, 2], (1, 2, 0)),
    "prompts of two and of three": ([(5, 3), (6, 3), (7, 2), (8, 3), (9, 2)], (0, 1, 3, 2, 4), [5, 6, 7, 8, 9], [5], (0, 1, 3, 2, 4)),
    "the same image twice in a prompt": ([(7, 2)], (0, 0), [7, 7], [2], (0, 0)),
    "the same image twice beside one alone": ([(7, 2), (8, 1)], (0, 0, 1), [8, 7, 7], [1, 2], (1, 1, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("images", "placements", "names", "counts", "places"), CASES.values(), ids=CASES)
def test_images_are_told_in_groups_and_found_where_they_stand(images, placements, names, counts, places):
    tensors, found = joined([told(float(name), together) for name, together in images], placements)
    assert tensors["pixel_values"][:, 0].tolist() == names
    assert tensors[COUNTS].tolist() == counts
    assert found == places
    assert sum(counts) == len(names)
    assert [names[place] for place in found] == [images[number][0] for number in placements]


def test_families_that_are_not_told_keep_their_order():
    images = [ImageInputs({"pixel_values": torch.tensor([[name]])}) for name in (7.0, 8.0)]
    tensors, places = joined(images, [1, 0, 1])
    assert ({name: x.tolist() for name, x in tensors.items()}, places) == ({"pixel_values": [[7], [8]]}, (1, 0, 1))


def test_a_pack_without_images_has_no_arguments():
    assert joined([], []) == ({}, ())
