"""How many images stand together in a prompt, for the models that cut an image into tiles if it stands alone.

LLaVA-OneVision is told with `batch_num_images`: [2, 1] is a prompt with two images, not cut, and one with one image,
cut. In a pack an image may stand in several prompts, so those that are not cut are told as one group of their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmpack.image import ImageInputs, join

COUNTS = "batch_num_images"


def joined(images: Sequence[ImageInputs], placements: Sequence[int]) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """The model's arguments for a pack's images, and where they stand.

    Args:
        images: distinct; where the model is to be told, each says how many stand in its prompt.
        placements: for each place of an image, the number of the image.

    Returns:
        tensors by name, and the placements after images have been put into the order in which they are told.
    """
    order = running(images)
    tensors = join([images[number] for number in order])
    if COUNTS in tensors:
        cut = sum(bool(image.tensors[COUNTS] == 1) for image in images)
        tensors[COUNTS] = torch.tensor([1] * cut + ([len(order) - cut] if len(order) > cut else []))
    return tensors, tuple(order.index(number) for number in placements)


def running(images: Sequence[ImageInputs]) -> list[int]:
    """The numbers of a pack's images in the order in which they run; a spare one may run twice.

    Args:
        images: as for `joined`.
    """
    if not any(COUNTS in image.tensors for image in images):
        return list(range(len(images)))
    order = sorted(range(len(images)), key=lambda number: bool(images[number].tensors[COUNTS] > 1))
    alone = sum(bool(image.tensors[COUNTS] > 1) for image in images) == 1
    return [*order, order[-1]] if alone else order  # a group of one would be cut; nobody reads the second's features
