"""PreferenceProcessor: a row of preference data in, a `vlmpack.Sample` out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin

from vlmpack import Lengths, Sample
from vlmpack.families import family_read_by
from vlmpack.processors.chat import TemplateError, place_images, render_prompt, render_response
from vlmpack.processors.expansion import (
    BlankImages,
    Expansion,
    adds_special_tokens,
    continuations,
    expand,
    feature_token_id,
    image_marker,
    pixel_tokens,
)
from vlmpack.processors.identity import identity
from vlmpack.processors.image_inputs import company_of, divide
from vlmpack.processors.images import ImageError, look_at, open_image
from vlmpack.processors.messages import Message, RowError, has_images
from vlmpack.processors.rows import PreferenceRow, read_candidates, read_row
from vlmpack.reading import Reading


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
        processor: the transformers processor of a vision-language model, or a tokenizer for text only; both
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
        self.image_token = image_marker(processor) if sees else None
        self.image_token_id = feature_token_id(processor) if sees else None
        self.pixel_tokens = pixel_tokens(processor) if sees else ()
        self.blank = BlankImages(processor.image_processor) if sees else None
        self.reading = Reading(self.tokenizer, processor.image_processor if sees else None)

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
        """Save the transformers processor, so that the folder loads anywhere.

        Args:
            path: folder; made if it is not there.
        """
        self.processor.save_pretrained(path)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that differ when rows may be read otherwise: see `vlmpack.processors.identity`."""
        reader = f"{type(self).__module__}.{type(self).__qualname__}"
        return identity(self.processor, {**asdict(self.config), "read by": reader})

    def __call__(self, row: Mapping[str, Any]) -> Sample:
        """Process a row.

        Args:
            row: in one of the formats of `vlmpack.processors.formats`.

        Raises:
            RowError, ImageError, TemplateError: what is wrong, and what to do.
        """
        with _named(row):
            return self._processed(read_row(row, self.config.metadata_columns))

    def candidates(self, row: Mapping[str, Any]) -> Sample:
        """Process a row whose responses are to be judged: it may lack scores, and hold a single `response`.

        Args:
            row: as for `__call__`, or without `scores` and `ranks`.

        Raises:
            RowError, ImageError, TemplateError: what is wrong, and what to do.
        """
        with _named(row):
            return self._processed(read_candidates(row, self.config.metadata_columns))

    def measure(self, row: Mapping[str, Any]) -> Lengths:
        """What a row will cost. Checks what `__call__` checks and that image files are whole, but decodes no pixels.

        Equal pictures in different files count as different here, and as the same when rows are processed.

        Args:
            row: as for `__call__`.

        Raises:
            RowError, ImageError, TemplateError: what is wrong, and what to do.
        """
        with _named(row):
            read = read_row(row, self.config.metadata_columns)
            prompt = self._prompt(read)
            seen = [look_at(source, *self._limits) for source in read.images]
            sample = self._sample(read, prompt, [image for image, _ in seen], self.blank)
            return sample.lengths_with([digest for _, digest in seen])

    def _processed(self, read: PreferenceRow) -> Sample:
        prompt = self._prompt(read)
        return self._sample(read, prompt, [open_image(source, *self._limits) for source in read.images])

    def _prompt(self, read: PreferenceRow) -> list[Message]:
        """A row's prompt with image blocks in place."""
        if self.image_token is None and (read.images or has_images(read.prompt)):
            raise RowError(f"the row has images, and {type(self.processor).__name__} reads text only; load a processor")
        prompt = read.prompt
        if self.image_token is not None:
            prompt = place_images(prompt, len(read.images), self.image_token)
        self._check_texts({"the prompt": prompt, **{f"response {i}": each for i, each in enumerate(read.responses)}})
        return prompt

    @property
    def _limits(self) -> tuple[Path | None, int]:
        """Which images may be opened."""
        root = self.config.image_root
        return Path(root) if root is not None else None, self.config.max_image_pixels

    def _sample(
        self,
        read: PreferenceRow,
        prompt: list[Message],
        images: list[Image.Image],
        blank: BlankImages | None = None,
    ) -> Sample:
        """A row's sample; with `blank`, only the images' sizes count and the sample's pixels are zeros."""
        text = render_prompt(self.processor, prompt)
        wholes = [render_response(self.processor, prompt, text, response) for response in read.responses]
        expanded = self._expand(text, images, blank)
        responses = continuations(
            self.tokenizer, expanded, [whole[len(text) :] for whole in wholes], self.image_token_id
        )
        alone = [expanded] if len(images) == 1 else self._alone(images, blank)
        return Sample(
            torch.tensor(expanded.ids),
            tuple(map(torch.tensor, responses)),
            read.pairs,
            read.margins,
            divide(self.processor, expanded.outputs, [each.outputs for each in alone]) if images else (),
            self._image_of(expanded, alone) if images else None,
            family_read_by(self.processor).both_ways,
            self.reading,
        )

    def _check_texts(self, conversations: dict[str, list[Message]]) -> None:
        """No text holds a token for pixels; those that say where the prompt's images stand are blocks by now."""
        for where, conversation in conversations.items():
            if self.image_token and where != "the prompt" and self.image_token in str(conversation):
                raise RowError(f"{where} holds an image, which only prompts may; remove it from the response")
            for token in self.pixel_tokens:
                if token in str(conversation):
                    raise RowError(
                        f"{where} holds {token!r}, a token that stands for pixels and has none here; remove it, or "
                        f"give the image in the prompt"
                    )

    def _expand(self, text: str, images: list[Image.Image], blank: BlankImages | None) -> Expansion:
        if self.image_token is not None:
            return expand(self.processor, text, images, blank=blank)
        options = {"add_special_tokens": adds_special_tokens(self.processor, text)}
        return Expansion(self.tokenizer(text, **options)["input_ids"], text, options)

    def _alone(self, images: list[Image.Image], blank: BlankImages | None) -> list[Expansion]:
        """Each image in a prompt of its own."""
        if not images:
            return []
        company = company_of(self.processor, len(images))
        content = [*({"type": "image"} for _ in range(company)), {"type": "text", "text": "?"}]
        text = render_prompt(self.processor, [{"role": "user", "content": content}])
        return [self._expand(text, [image] * company, blank) for image in images]

    def _image_of(self, expanded: Expansion, alone: list[Expansion]) -> Tensor:
        """For each token of the prompt, the image whose features it receives; -1 for text."""
        prompt_ids, company = torch.tensor(expanded.ids), company_of(self.processor, len(alone))
        counts = [each.ids.count(self.image_token_id) // company for each in alone]
        places = prompt_ids == self.image_token_id
        if places.sum() != sum(counts):
            raise TemplateError(
                f"{type(self.processor).__name__} writes {places.sum()} image tokens for {len(alone)} images, and "
                f"{counts} for each on its own; use a chat template that writes each image once"
            )
        numbers = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return torch.full_like(prompt_ids, -1).masked_scatter(places, numbers)


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
