"""One row of preference data as the model meets it: a prompt with its images, and its responses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vlmpack.image import ImageInputs


class SampleError(ValueError):
    """A sample's parts do not fit together, or it cannot be used as asked."""


@dataclass(frozen=True)
class Lengths:
    """What a sample will cost, known before any pixel is processed.

    Attributes:
        prompt: tokens of the prompt, image tokens included.
        responses: R ints. Tokens of each response.
        images: a digest of each image in the prompt, equal for equal images.
        pairs: P (preferred, rejected) responses.
        margins: whether it is known how much better the preferred ones are.
        overlaps: R - 1 ints, or none. Tokens that a response has in common with the next one in sorted order, which
            is what it need not repeat; see `overlaps`.
    """

    prompt: int
    responses: tuple[int, ...]
    images: tuple[bytes, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    margins: bool = False
    overlaps: tuple[int, ...] = ()

    @property
    def packed(self) -> int:
        """Tokens when the prompt stands once, and what responses begin with alike."""
        return self.prompt + sum(self.responses) - sum(self.overlaps)

    @property
    def unpacked(self) -> int:
        """Tokens when the prompt is repeated for every response."""
        return self.prompt * len(self.responses) + sum(self.responses)

    def truncated(self, max_length: int | None) -> "Lengths":
        """The lengths after `Sample.truncated(max_length)`.

        Raises:
            SampleError: the prompt leaves no room for a response.
        """
        room = _room(self.prompt, max_length)
        cut = {name: tuple(min(n, room) for n in getattr(self, name)) for name in ("responses", "overlaps")}
        return replace(self, **cut)


def overlaps(responses: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """How many tokens each response has in common with the next one in sorted order.

    In sorted order the longest beginning that a response shares with any before it is that shared with its neighbour,
    so the sum is what a tree of all responses saves. Cutting tails at one length cuts these at that length.

    Example:
        >>> overlaps([[7, 1], [7, 2, 2], [9], [7, 2, 2]])
        (1, 3, 0)
    """
    ordered = sorted(responses)
    return tuple(
        next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        for one, other in pairwise(ordered)
    )


@dataclass(frozen=True, eq=False)
class Sample:
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
        responses = tuple(len(response) for response in self.response_ids)
        images = tuple(image.content for image in self.images)
        return Lengths(
            prompt=len(self.prompt_ids),
            responses=responses,
            images=images,
            pairs=self.pairs,
            margins=self.margins is not None,
            overlaps=overlaps([response.tolist() for response in self.response_ids]),
        )

    def truncated(self, max_length: int | None) -> "Sample":
        """Cut response tails so that prompt + response is at most `max_length` tokens; never the prompt.

        Raises:
            SampleError: the prompt leaves no room for a response.
        """
        room = _room(len(self.prompt_ids), max_length)
        if all(len(response) <= room for response in self.response_ids):
            return self
        return replace(self, response_ids=tuple(response[:room] for response in self.response_ids))


def _room(prompt: int, max_length: int | None) -> int:
    """Tokens that a response may have after a prompt of so many."""
    if max_length is None:
        return torch.iinfo(torch.int64).max
    if prompt >= max_length:
        raise SampleError(
            f"the prompt has {prompt} tokens, which leaves no room for a response in max_length={max_length}; "
            f"raise max_length or drop the row (a prompt is never cut)"
        )
    return max_length - prompt
