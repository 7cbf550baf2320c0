"""What a transformers processor makes of a prompt's images, divided into one `ImageInputs` an image.

Processors return the tensors of all images in one piece, each family in its own layout. So each image is processed on
its own too, and the whole must be what the images give when joined: then an image is the same whatever stands beside
it, and may be shared between prompts.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ProcessorMixin

from vlmpack.families import family_read_by
from vlmpack.image import ImageInputs, join
from vlmpack.image_counts import COUNTS
from vlmpack.processors.chat import TemplateError

TEXT_OUTPUTS = {"attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}  # derived again from a sample


def company_of(processor: ProcessorMixin, images: int) -> int:
    """How many copies of an image must stand together for it to be processed as it is beside the others."""
    return images if family_read_by(processor).counts_images else 1


def divide(
    processor: ProcessorMixin, together: dict[str, Any], alone: Sequence[dict[str, Any]]
) -> tuple[ImageInputs, ...]:
    """One `ImageInputs` for each image of a prompt.

    Args:
        processor: what has processed the images.
        together: its outputs for the whole prompt.
        alone: for each image, its outputs for `company_of` copies of the image.

    Raises:
        TemplateError: an output is unknown, or the whole is not what the images give when joined.
    """
    axes = family_read_by(processor).axes
    if len(alone) == 1:
        return (ImageInputs(_of_images(processor, together), axes),)
    company = company_of(processor, len(alone))
    parts = [_first(_of_images(processor, outputs), axes, company) for outputs in alone]
    images = tuple(ImageInputs(part, axes) for part in parts)
    whole = _of_images(processor, together)
    if COUNTS in whole:
        whole[COUNTS] = whole[COUNTS].repeat(len(images))  # said once for a prompt; an image says it for itself
    joined = join(images)
    for name in joined.keys() | whole.keys():
        if not _equal(joined.get(name), whole.get(name)):
            raise TemplateError(
                f"{type(processor).__name__} makes {name!r} {_shape(whole.get(name))} of {len(images)} images together "
                f"and {_shape(joined.get(name))} of each on its own, with other sizes or values: it processes an image "
                f"otherwise when others stand beside it; give prompts of one image"
            )
    return images


def _of_images(processor: ProcessorMixin, outputs: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs that its image processor names; what else there is must be of the text."""
    named = set(processor.image_processor.model_input_names)
    for name, value in outputs.items():
        if name not in named | TEXT_OUTPUTS or (name in named and not isinstance(value, Tensor)):
            raise TemplateError(
                f"{type(processor).__name__} makes {name!r} ({type(value).__name__}) of a prompt with images, which is "
                f"no tensor that its image processor names ({', '.join(sorted(named))}); this family is not supported"
            )
    return {name: value for name, value in outputs.items() if name in named}


def _first(tensors: dict[str, Tensor], axes: Any, company: int) -> dict[str, Tensor]:
    """The part of the first of several equal images."""
    if company == 1:
        return tensors
    return {
        name: tensor if name == COUNTS else tensor.chunk(company, axes.get(name, 0))[0].clone()
        for name, tensor in tensors.items()
    }


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(list(tensor.shape))
