"""PreferenceProcessor: a row of preference data in, a `vlmpack.Sample` out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin

from vlmpack import ImageInputs, Lengths, Sample
from vlmpack.families import shares_whole_prompts_only
from vlmpack.processors.chat import TemplateError, place_images, render_prompt, render_response
from vlmpack.processors.images import ImageError, fingerprint, open_image
from vlmpack.processors.messages import Message, RowError, has_images
from vlmpack.processors.rows import PreferenceRow, read_row
from vlmpack.sample import overlaps

TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
IMAGE_INPUTS = {"pixel_values"}  # what LLaVA-1.5-style processors make of an image


@dataclass(frozen=True)
class PreferenceProcessorConfig:
    """How rows are read.

    Attributes:
        image_root: folder that image paths are relative to; nothing outside it is opened. None: any path.
        max_image_pixels: width times height of the largest image that is decoded.
        metadata_columns: columns that describe a row and are not read; any other unknown column is an error.
    """

    image_root: str | Path | None = None
    max_image_pixels: int = 50_000_000
    metadata_columns: tuple[str, ...] = field(
        default=("id", "category", "source", "dataset", "split", "language", "model", "models", "tags")
    )


class PreferenceProcessor:
    """Turns a row of preference data into tokens and pixels, the prompt and its images once.

    The prompt is rendered by the chat template and processed with its images; each response is tokenized as
    the prompt's continuation, so that its tokens are those it has in the whole conversation.

    Args:
        processor: any transformers processor of a LLaVA-1.5-style model, or a tokenizer for text only; both
            need a chat template.
        config: how rows are read.

    Example:
        processor = PreferenceProcessor.from_pretrained("llava-hf/llava-1.5-7b-hf")
        sample = processor({"images": ["cat.png"], "prompt": "What is this?", "chosen": "A cat", "rejected": "A dog"})
    """

    def __init__(
        self,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        config: PreferenceProcessorConfig = PreferenceProcessorConfig(),
    ) -> None:
        self.processor = processor
        self.config = config
        self.tokenizer = getattr(processor, "tokenizer", processor)
        sees = getattr(processor, "image_processor", None) is not None  # a tokenizer may know the token all the same
        self.image_token = processor.image_token if sees else None
        self.image_token_id = processor.image_token_id if sees else None

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        config: PreferenceProcessorConfig = PreferenceProcessorConfig(),
        **options: Any,
    ) -> "PreferenceProcessor":
        """Load the model's own processor or tokenizer from a folder or the hub.

        Args:
            path: folder or hub name.
            config: how rows are read.
            options: as for `AutoProcessor.from_pretrained`; remote code stays off unless asked for by name.
        """
        return cls(AutoProcessor.from_pretrained(path, **options), config)

    def save_pretrained(self, path: str | Path) -> None:
        """Save the transformers processor, so that the folder loads anywhere."""
        self.processor.save_pretrained(path)

    def __call__(self, row: Mapping[str, Any]) -> Sample:
        """Process a row.

        Args:
            row: in one of the formats of `vlmpack.processors.formats`.

        Raises:
            RowError, ImageError, TemplateError: what is wrong, and what to do.
        """
        with _named(row):
            read, prompt, images = self._read(row)
            unexpanded, responses = self._texts(read, prompt)
            prompt_ids, inputs, image_of = torch.tensor(unexpanded), (), None
            if images:
                prompt_ids, inputs = self._with_images(render_prompt(self.processor, prompt), images, unexpanded)
                image_of = self._image_of(prompt_ids, images)
            return Sample(
                prompt_ids,
                tuple(map(torch.tensor, responses)),
                read.pairs,
                read.margins,
                inputs,
                image_of,
                shares_whole_prompts_only(self.processor),
            )

    def measure(self, row: Mapping[str, Any]) -> Lengths:
        """What a row will cost. Checks all that `__call__` checks, but resizes and normalizes no pixels.

        Args:
            row: as for `__call__`.

        Raises:
            RowError, ImageError, TemplateError: what is wrong, and what to do.
        """
        with _named(row):
            read, prompt, images = self._read(row)
            prompt_ids, responses = self._texts(read, prompt)
            tokens = len(prompt_ids) - len(images) + sum(self._image_tokens(images))
            return Lengths(
                prompt=tokens,
                responses=tuple(map(len, responses)),
                images=tuple(map(fingerprint, images)),
                pairs=read.pairs,
                margins=read.margins is not None,
                overlaps=overlaps(responses),
            )

    def _read(self, row: Mapping[str, Any]) -> tuple[PreferenceRow, list[Message], list[Image.Image]]:
        """The row, its prompt with image blocks in place, and its images decoded."""
        read = read_row(row, self.config.metadata_columns)
        if self.image_token is None and (read.images or has_images(read.prompt)):
            raise RowError(f"the row has images, and {type(self.processor).__name__} reads text only; load a processor")
        for place, response in enumerate(read.responses):
            if self.image_token and self.image_token in str(response):
                raise RowError(f"response {place} holds an image, which only prompts may; remove it from the response")
        prompt = read.prompt
        if self.image_token is not None:
            prompt = place_images(prompt, len(read.images), self.image_token)
        root = Path(self.config.image_root) if self.config.image_root is not None else None
        return (
            read,
            prompt,
            [open_image(source, root, self.config.max_image_pixels) for source in read.images],
        )

    def _texts(self, read: PreferenceRow, prompt: list[Message]) -> tuple[list[int], list[list[int]]]:
        """Tokens of the prompt, each image still one token, and of every response after it."""
        text = render_prompt(self.processor, prompt)
        prompt_ids = self._tokens(text)
        places = prompt_ids.count(self.image_token_id) if self.image_token_id is not None else 0
        if places != len(read.images):
            raise TemplateError(f"the chat template writes {places} image tokens for {len(read.images)} images")
        responses = []
        for place, response in enumerate(read.responses):
            ids = self._tokens(render_response(self.processor, prompt, text, response))
            if ids[: len(prompt_ids)] != prompt_ids:
                raise TemplateError(_merged(place, self.tokenizer, ids, prompt_ids))
            responses.append(ids[len(prompt_ids) :])
        return prompt_ids, responses

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=self._adds_special_tokens(text))["input_ids"]

    def _adds_special_tokens(self, text: str) -> bool:
        """As transformers does: a tokenizer's template writes its own, a processor's may leave out the first."""
        bos = self.tokenizer.bos_token
        return isinstance(self.processor, ProcessorMixin) and not (bos and text.startswith(bos))

    def _with_images(
        self, text: str, images: list[Image.Image], unexpanded: list[int]
    ) -> tuple[Tensor, tuple[ImageInputs, ...]]:
        """The prompt's tokens with every image's own, and each image's tensors."""
        special = self._adds_special_tokens(text)
        inputs = self.processor(text=[text], images=images, add_special_tokens=special, return_tensors="pt")
        prompt_ids = inputs.pop("input_ids")[0].tolist()
        tensors = {name: value for name, value in inputs.items() if name not in TEXT_INPUTS}
        if set(tensors) != IMAGE_INPUTS or len(tensors["pixel_values"]) != len(images):
            raise TemplateError(
                f"{type(self.processor).__name__} makes {sorted(tensors)} of {len(images)} images; only LLaVA-1.5-"
                f"style processors, with one pixel_values row an image, are supported so far"
            )
        plain = [token for token in prompt_ids if token != self.image_token_id]
        if plain != [token for token in unexpanded if token != self.image_token_id]:
            raise TemplateError(f"{type(self.processor).__name__} changes the text's tokens when there are images")
        rows = [{name: value[row : row + 1] for name, value in tensors.items()} for row in range(len(images))]
        return torch.tensor(prompt_ids), tuple(map(ImageInputs, rows))

    def _image_of(self, prompt_ids: Tensor, images: list[Image.Image]) -> Tensor:
        """For each token of the prompt, the image whose features it receives; -1 for text."""
        places = prompt_ids == self.image_token_id
        if len(images) == 1:
            return places.long() - 1
        counts = torch.tensor(self._image_tokens(images))
        if counts.sum() != places.sum():
            raise TemplateError(
                f"{type(self.processor).__name__} wrote {places.sum()} image tokens and foretold {counts.tolist()}"
            )
        numbers = torch.arange(len(images)).repeat_interleave(counts)
        return torch.full_like(prompt_ids, -1).masked_scatter(places, numbers)

    def _image_tokens(self, images: list[Image.Image]) -> list[int]:
        if not images:
            return []
        sizes = [[image.height, image.width] for image in images]
        return self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]


class _named:
    """Begin every error with the row's id, where it has one."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row

    def __enter__(self) -> None:
        if not isinstance(self.row, Mapping):
            raise RowError(f"a row is a {type(self.row).__name__}; give a dict of columns")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ValueError) and self.row.get("id") is not None:
            kind = type(error) if isinstance(error, RowError | ImageError | TemplateError) else RowError
            raise kind(f"row {self.row['id']!r}: {error}") from error


def _merged(place: int, tokenizer: PreTrainedTokenizerBase, ids: list[int], prompt_ids: list[int]) -> str:
    first = next((i for i, (a, b) in enumerate(zip(ids, prompt_ids, strict=False)) if a != b), len(ids))
    return (
        f"the prompt's tokens are not a prefix of prompt + response {place}: the prompt ends in "
        f"{tokenizer.convert_ids_to_tokens(prompt_ids[first:])}, with the response it goes on "
        f"{tokenizer.convert_ids_to_tokens(ids[first : first + 3])}; strip white space where they meet, or use a "
        f"template that ends the prompt on a token"
    )
