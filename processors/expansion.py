"""A prompt's text with each image's marker expanded to its tokens, by the model's own transformers processor.

What an image is written as depends on its size, on the images beside it and on the processor: rows of tiles, breaks
between rows, words around. So nothing is foretold here. The processor is called, and what it hands to its tokenizer is
heard, since a response continues exactly that text. Where only lengths matter, its image processor is replaced by one
that remembers what it made of a blank image of that size; the text is still the processor's.
"""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from vlmpack.processors.chat import TemplateError

REMEMBERED = 4096  # sizes of images; pixels are not kept, so each takes a few kilobytes
COMPARED = 4  # sizes for which an image without pixels must give what a black one gives, before it may replace it


@dataclass(frozen=True)
class Expansion:
    """What a processor makes of a prompt.

    Attributes:
        ids: the prompt's tokens.
        text: what the tokenizer was given to make them.
        options: how it was told to.
        outputs: everything else the processor returns, by name.
    """

    ids: list[int]
    text: str
    options: dict[str, Any]
    outputs: dict[str, Any] = field(default_factory=dict)


def expand(
    processor: ProcessorMixin,
    text: str,
    images: Sequence[Image.Image],
    *,
    blank: "BlankImages | None" = None,
) -> Expansion:
    """Process a prompt and its images, and hear what the tokenizer is given.

    Args:
        processor: of any vision-language family.
        text: as the chat template renders it, one marker an image.
        images: in the order of the markers.
        blank: takes the place of the image processor where the pixels do not matter.

    Raises:
        TemplateError: the text has not one marker an image, or the processor refuses it.
    """
    if (written := text.count(image_marker(processor))) != len(images):
        raise TemplateError(f"the chat template writes {written} image tokens for {len(images)} images")
    listening = copy(processor)
    listening.tokenizer = tokenizer = _Listening(processor.tokenizer)
    if blank is not None:
        listening.image_processor = blank
    options = {"add_special_tokens": adds_special_tokens(processor, text), "return_tensors": "pt"}
    if images:
        options["images"] = [list(images)]  # as transformers' apply_chat_template does: a list for each text
    try:
        outputs = dict(listening(text=[text], **options))
    except Exception as error:  # whatever a processor raises, in its own words
        sizes = ", ".join(f"{image.width}x{image.height}" for image in images) or "none"
        raise TemplateError(
            f"{type(processor).__name__} refuses the prompt with its images ({sizes}): {error}"
        ) from error
    return Expansion(outputs.pop("input_ids")[0].tolist(), *tokenizer.heard(processor), outputs)


def image_marker(processor: ProcessorMixin) -> str:
    """What an image's place is written as in a prompt's text.

    Raises:
        TemplateError: the processor does not say.
    """
    marker = getattr(processor, "image_token", None)
    if marker is None or getattr(processor, "image_token_id", None) is None:
        raise TemplateError(
            f"{type(processor).__name__} does not say by image_token and image_token_id how an image's place is "
            f"written; this family is not supported"
        )
    return str(marker)


def feature_token_id(processor: ProcessorMixin) -> int:
    """The token that receives an image's features: not always the marker (Gemma 3), nor all that is written."""
    own = processor.image_token_id
    written = getattr(processor, "image_token_ids", [own])
    return own if own in written else written[0]


def pixel_tokens(processor: ProcessorMixin) -> tuple[str, ...]:
    """The tokens that no text may hold, since they would ask for pixels or sound that are not there."""
    ids = [feature_token_id(processor), *(getattr(processor, f"{kind}_token_id", None) for kind in ("video", "audio"))]
    known = [number for number in ids if number is not None and number != processor.tokenizer.unk_token_id]
    return tuple(processor.tokenizer.convert_ids_to_tokens(known))


def adds_special_tokens(processor: ProcessorMixin | PreTrainedTokenizerBase, text: str) -> bool:
    """As transformers does: a tokenizer's template writes its own, a processor's may leave out the first."""
    bos = getattr(processor, "tokenizer", processor).bos_token
    return isinstance(processor, ProcessorMixin) and not (bos and text.startswith(bos))


def continuations(
    tokenizer: PreTrainedTokenizerBase, prompt: Expansion, responses: Sequence[str], feature: int | None
) -> tuple[list[int], ...]:
    """The tokens of each response, as they are in the whole conversation.

    Args:
        tokenizer: the processor's.
        prompt: its text and tokens.
        responses: texts that follow it.
        feature: the token that receives images' features. None: there are no images.

    Raises:
        TemplateError: prompt and response meet inside a token.
    """
    text, ids = _shortened(tokenizer, prompt, feature)
    again, *wholes = tokenizer([text, *(text + response for response in responses)], **prompt.options)["input_ids"]
    if again != ids:
        raise TemplateError(
            f"{type(tokenizer).__name__} was heard to make {len(again)} tokens of the prompt (runs of image tokens "
            f"count as one) and the processor returned {len(ids)}, so responses cannot be told apart from it"
        )
    for place, whole in enumerate(wholes):
        if whole[: len(again)] != again:
            raise TemplateError(_merged(place, tokenizer, whole, again))
    return tuple(whole[len(again) :] for whole in wholes)


def _shortened(tokenizer: PreTrainedTokenizerBase, prompt: Expansion, feature: int | None) -> tuple[str, list[int]]:
    """Text and tokens with one image token for each run of them; nothing merges with one, so the rest stays alike."""
    if feature is None:
        return prompt.text, prompt.ids
    token = re.escape(tokenizer.convert_ids_to_tokens(feature))
    before = [None, *prompt.ids]
    ids = [number for number, last in zip(prompt.ids, before, strict=False) if number != feature or last != feature]
    return re.sub(f"({token})(?:{token})+", r"\1", prompt.text), ids


class BlankImages:
    """An image processor that looks at sizes only: what it would return, with zeros for pixels.

    A tensor on torch's meta device has a size and no pixels, so processing it is nearly free. Not every processor can,
    so black images are processed until it is seen that both give the same, and whenever the tensor cannot be.

    Args:
        image_processor: what is asked, once for all images of one size that stand alike.
    """

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor
        self.remembered: dict[str, dict[str, Any]] = {}
        self.same = True

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        key = f"{_each(images, lambda image: image.size)} {options}"
        if key not in self.remembered:
            if len(self.remembered) >= REMEMBERED:
                self.remembered.pop(next(iter(self.remembered)))
            self.remembered[key] = self._shapes(images, options)
        return BatchFeature(dict(self.remembered[key]))

    def __getattr__(self, name: str) -> Any:
        if name in ("image_processor", "remembered", "same"):  # asked for while unpickled, before they are there
            raise AttributeError(name)
        return getattr(self.image_processor, name)

    def _shapes(self, images: Any, options: dict[str, Any]) -> dict[str, Any]:
        bodiless = None
        if self.same:
            try:
                bodiless = self._processed(_each(images, _bodiless), options)
            except Exception:  # of any kind: a black image shows whether it is the size or the tensor that does not fit
                bodiless = None
        if bodiless is not None and len(self.remembered) >= COMPARED:
            return bodiless
        black = self._processed(_each(images, lambda image: Image.new("RGB", image.size)), options)
        self.same = self.same and bodiless is not None and _equal(black, bodiless)
        return black

    def _processed(self, images: Any, options: dict[str, Any]) -> dict[str, Any]:
        return {name: _each(value, _without_pixels) for name, value in self.image_processor(images, **options).items()}


class _Listening:
    """A tokenizer that keeps what it was last called with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, text: Any = None, **options: Any) -> Any:
        self.calls.append((text, options))
        return self.tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def heard(self, processor: ProcessorMixin) -> tuple[str, dict[str, Any]]:
        """The one text, and the options that decide about tokens."""
        text, options = self.calls[-1] if self.calls else (None, {})
        text = text[0] if isinstance(text, list) and len(text) == 1 else text
        if not isinstance(text, str):
            raise TemplateError(
                f"{type(processor).__name__} does not make its tokens by one call of its tokenizer on a text, so a "
                f"response's cannot be made in the same way; this family is not supported"
            )
        return text, {name: options[name] for name in ("add_special_tokens",) if name in options}


def _each(value: Any, change: Any) -> Any:
    """A value, or every value of a list of lists, changed."""
    return [_each(each, change) for each in value] if isinstance(value, list | tuple) else change(value)


def _bodiless(image: Image.Image) -> Tensor:
    return torch.empty((3, image.height, image.width), dtype=torch.uint8, device="meta")


def _without_pixels(value: Any) -> Any:
    """Zeros of the same shape that take no memory; sizes and counts stay what they are."""
    if not isinstance(value, Tensor) or value.dim() < 2 or not (value.is_floating_point() or value.dim() > 2):
        return value
    return torch.zeros((), dtype=torch.uint8).expand(value.shape)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and not other.is_meta and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _merged(place: int, tokenizer: PreTrainedTokenizerBase, ids: list[int], prompt_ids: list[int]) -> str:
    first = next((i for i, (a, b) in enumerate(zip(ids, prompt_ids, strict=False)) if a != b), len(ids))
    return (
        f"the prompt's tokens are not a prefix of prompt + response {place}: the prompt ends in "
        f"{tokenizer.convert_ids_to_tokens(prompt_ids[first:])}, with the response it goes on "
        f"{tokenizer.convert_ids_to_tokens(ids[first : first + 3])}; strip white space where they meet, or use a "
        f"template that ends the prompt on a token"
    )
