"""One image as the vision tower takes it, known by its content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """The model's arguments for one image.

    Attributes:
        tensors: by the model's argument names, e.g. `pixel_values` [1, 3, height, width]; not padded to other images.
        axes: along which axis the tensors of several images are joined, by name; the first where nothing is said.
    """

    tensors: dict[str, Tensor]
    axes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def content(self) -> bytes:
        """A digest of every value that the model will see: equal for equal images only.

        Token ids cannot tell images apart, for the placeholders of all images are alike.
        """
        digest = blake2b(digest_size=16)
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.digest()


def join(images: Sequence[ImageInputs]) -> dict[str, Tensor]:
    """The model's arguments for several images: each one's tensors after those of the one before.

    Images of other sizes are filled up with zeros, as transformers' image processors do.
    """
    names = dict.fromkeys(name for image in images for name in image.tensors)
    return {name: _joined(name, [image for image in images if name in image.tensors]) for name in names}


def _joined(name: str, images: Sequence[ImageInputs]) -> Tensor:
    axis = images[0].axes.get(name, 0)
    tensors = [image.tensors[name] for image in images]
    largest = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    return torch.cat([_filled(tensor, largest, axis) for tensor in tensors], dim=axis)


def _filled(tensor: Tensor, largest: Sequence[int], axis: int) -> Tensor:
    """The tensor with zeros behind it on every axis but the one that is joined."""
    missing = [
        0 if place == axis else most - has for place, (most, has) in enumerate(zip(largest, tensor.shape, strict=True))
    ]
    if not any(missing):
        return tensor
    return F.pad(tensor, [amount for most in reversed(missing) for amount in (0, most)])
