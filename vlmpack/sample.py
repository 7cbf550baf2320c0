"""One row of preference data as the model meets it: a prompt with its images, and its responses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vlmpack.image import ImageInputs
from vlmpack.lengths import DIGEST, Lengths, SampleError, overlaps, room
from vlmpack.reading import Reading
from vlmpack.shown import Shown, enumerated


@dataclass(frozen=True, eq=False, repr=False)
class Sample(Shown):
    """A prompt and its responses in tokens, and which response is preferred to which.

    Attributes:
        prompt_ids: [L] the prompt's tokens, image placeholders expanded.
        response_ids: R tensors of one token or more. Each continues the prompt.
        pairs: P (preferred, rejected) rows of `response_ids`; empty if all are tied.
        margins: P floats, how much better the preferred one is (score units); None if unknown.
        images: in the order in which their tokens stand in the prompt.
        image_of: [L] for each token of the prompt, the image whose features it receives; -1 for text. None: no image.
        both_ways: which tokens of the prompt see each other both ways: "image" (those of an image, or of images that
            stand side by side), "prompt" (all), or None. What such a token holds depends on those after it, so other
            samples share such a stretch whole or not at all. It follows from the model: `vlmpack.families`.
        reading: how tokens and pixels are read back, for those who look at them; no result depends on it.

    Raises:
        SampleError: the prompt or a response is empty, a pair names a response that is not there, or images and
            their tokens do not fit together.
    """

    prompt_ids: Int[Tensor, " L"]
    response_ids: tuple[Int[Tensor, " _"], ...]
    pairs: tuple[tuple[int, int], ...] = ()
    margins: tuple[float, ...] | None = None
    images: tuple[ImageInputs, ...] = ()
    image_of: Int[Tensor, " L"] | None = None
    both_ways: str | None = None
    reading: Reading | None = None

    def __repr__(self) -> str:
        counts = {"prompt token": len(self.prompt_ids), "response": self.responses, "image": len(self.images)}
        return f"<Sample of {enumerated({**counts, 'pair': len(self.pairs)})}>"

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0:
            raise SampleError("the prompt has no tokens; a response needs at least one token before it")
        if not self.response_ids:
            raise SampleError("the sample has no responses")
        for row, response in enumerate(self.response_ids):
            if len(response) == 0:
                raise SampleError(f"response {row} has no tokens; leave it out instead")
        for preferred, rejected in self.pairs:
            if preferred == rejected or not {preferred, rejected} <= set(range(len(self.response_ids))):
                raise SampleError(
                    f"pair ({preferred}, {rejected}) does not name two of the {len(self.response_ids)} responses"
                )
        if self.margins is not None and len(self.margins) != len(self.pairs):
            raise SampleError(f"{len(self.margins)} margins for {len(self.pairs)} pairs; give one each")
        if self.both_ways not in (None, "image", "prompt"):
            raise SampleError(f"both_ways={self.both_ways!r} is not one of None, 'image', 'prompt'")
        self._check_images()

    def _check_images(self) -> None:
        if self.image_of is None and not self.images:
            return
        stand = self.prompt_ids[:0] if self.image_of is None else self.image_of[self.image_of >= 0]
        order = [number for number, _ in groupby(stand.tolist())]
        if order != list(range(len(self.images))):
            raise SampleError(
                f"image_of places images {order} one after the other in the prompt and there are {len(self.images)}; "
                f"give for every token its image's number, from 0 in the order in which they stand, and -1 for text"
            )

    @property
    def is_image(self) -> Bool[Tensor, " L"]:
        """Which tokens of the prompt receive an image's features."""
        return torch.zeros_like(self.prompt_ids, dtype=torch.bool) if self.image_of is None else self.image_of >= 0

    @property
    def is_seen_both_ways(self) -> Bool[Tensor, " L"]:
        """Which tokens of the prompt see those next to them both ways; each run of them is one stretch."""
        if self.both_ways == "prompt":
            return torch.ones_like(self.prompt_ids, dtype=torch.bool)
        return self.is_image & (self.both_ways == "image")

    @property
    def responses(self) -> int:
        """R, the sample's responses."""
        return len(self.response_ids)

    @property
    def lengths(self) -> Lengths:
        """What the sample costs."""
        return self.lengths_with([image.content for image in self.images])

    def lengths_with(self, images: Sequence[bytes]) -> Lengths:
        """What the sample costs, its images known by other digests than those of their pixels.

        Args:
            images: one for each image; equal for equal images only.
        """
        prompt, responses = _ids(self.prompt_ids), [_ids(response) for response in self.response_ids]
        trunk = self._trunk
        return Lengths(
            prompt=len(prompt),
            responses=tuple(map(len, responses)),
            images=tuple(images),
            pairs=self.pairs,
            margins=self.margins is not None,
            overlaps=overlaps([response.tolist() for response in responses]),
            trunk=trunk,
            root=_digest([prompt[:trunk]], images) if trunk else b"",
            content=_digest([prompt, *responses], images),
        )

    @property
    def _trunk(self) -> int:
        """Tokens up to the prompt's last image token, or all if none of them can be shared without the rest."""
        if not self.images:
            return 0
        if self.both_ways == "prompt":
            return len(self.prompt_ids)
        return int((self.image_of >= 0).nonzero().max()) + 1

    def without_images(self) -> "Sample":
        """The same sample with the images' tokens and pixels taken out of its prompt; text stays as it is.

        Raises:
            SampleError: nothing of the prompt is left.
        """
        if not self.images:
            return self
        return replace(self, prompt_ids=self.prompt_ids[~self.is_image], images=(), image_of=None)

    def truncated(self, max_length: int | None) -> "Sample":
        """Cut response tails so that prompt + response is at most `max_length` tokens; never the prompt.

        Args:
            max_length: tokens of prompt + one response. None: nothing is cut.

        Raises:
            SampleError: the prompt leaves no room for a response.
        """
        left = room(len(self.prompt_ids), max_length)
        if all(len(response) <= left for response in self.response_ids):
            return self
        return replace(self, response_ids=tuple(response[:left] for response in self.response_ids))


def _ids(tokens: Int[Tensor, " _"]) -> np.ndarray:
    return tokens.to("cpu", torch.int64).numpy()


def _digest(tokens: Sequence[np.ndarray], images: Sequence[bytes]) -> bytes:
    """A digest of stretches of tokens and of images, each after its length, so that none runs into the next."""
    digest = blake2b(str(len(images)).encode(), digest_size=DIGEST)
    for part in (*images, *(stretch.tobytes() for stretch in tokens)):
        digest.update(f" {len(part)} ".encode())
        digest.update(part)
    return digest.digest()
