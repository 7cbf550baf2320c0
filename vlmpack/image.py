"""One image as the vision tower takes it, known by its content."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """The model's arguments for one image.

    Attributes:
        tensors: by the model's argument names, e.g. `pixel_values` [1, 3, height, width]; images are joined along
            the first axis.
    """

    tensors: dict[str, Tensor]

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
    """The model's arguments for several images: each one's tensors after those of the one before."""
    names = dict.fromkeys(name for image in images for name in image.tensors)
    return {name: torch.cat([image.tensors[name] for image in images if name in image.tensors]) for name in names}
