"""Images of noise in the shapes that a model takes, found from its argument names: no processor, no file.

What a family's `get_image_features` calls its arguments tells how it takes images: one picture of a fixed size, tiles
of it, its patches and their grid, and so on. Where only the order of axes is open, the first that runs is taken.
"""

import inspect

import torch
from torch import nn

from vlmpack.image import ImageInputs
from vlmpack.proof.image_shapes import Tensors, axes, facts_of, possible_tensors
from vlmpack.proof.special_tokens import parts


class MadeUpError(ValueError):
    """No image can be made up for this model."""


def images(model: nn.Module, count: int, seed: int = 0, together: int = 1) -> list[tuple[ImageInputs, int]]:
    """Different images of noise as the model takes them.

    Args:
        model: an image-text-to-text model.
        count: how many. Where the family knows several sizes, neighbours differ in size.
        seed: of the noise.
        together: images that will stand in one prompt; some families tile a picture only where it stands alone.

    Returns:
        Each image and the image tokens that it takes in the text.

    Raises:
        MadeUpError: the family's images are no tokens of the text, or its way of taking them is not known here.
    """
    owner = _owner(model)
    known = set(inspect.signature(owner.get_image_features).parameters)
    taken = set(inspect.signature(type(model).forward).parameters)
    facts = facts_of(model.config, together if "batch_num_images" in known else 1)
    reasons = []
    for shape in range(len(possible_tensors(facts, 0, known, taken, torch.Generator()))):
        generator = torch.Generator().manual_seed(seed)
        made = []
        for number in range(max(count, 2)):  # both sizes must run, whichever are asked for
            tensors = possible_tensors(facts, number, known, taken, generator)[shape]
            tensors = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in tensors.items()}
            try:
                made.append((ImageInputs(tensors, axes(tensors)), _tokens(owner, tensors, known)))
            except Exception as error:  # of any kind: a wrong shape fails wherever it is first met; all are told
                sizes = ", ".join(f"{name} {list(x.shape)}" for name, x in tensors.items())
                reasons.append(f"  {sizes}: {type(error).__name__}: {error}")
                break
        else:
            return made[:count]
    raise MadeUpError(
        f"no image could be made up for {model.config.model_type}, whose get_image_features takes "
        f"{', '.join(known)}:\n" + "\n".join(reasons)
    )


def image_token_id(model: nn.Module) -> int:
    """The id that stands in the text for a place of an image.

    Args:
        model: an image-text-to-text model.

    Raises:
        MadeUpError: the configuration names none.
    """
    for config in parts(model.config):
        for name in ("image_token_id", "image_token_index", "image_patch_id"):
            if isinstance(getattr(config, name, None), int):
                return getattr(config, name)
    raise MadeUpError(f"{model.config.model_type} names no image token: images do not enter as tokens of the text")


def token_rows(features) -> int:
    """How many image tokens `get_image_features` gave.

    Args:
        features: what it returned.
    """
    found = getattr(features, "pooler_output", None)
    if found is None and getattr(features, "deepstack_features", None):
        found = features.deepstack_features[0][-1]  # of every decoder layer that takes some, as many as of the first
    found = found if found is not None else getattr(features, "last_hidden_state", features)
    rows = found if isinstance(found, list | tuple) else [found]
    return sum(row.numel() // row.shape[-1] for row in rows)


def _owner(model: nn.Module) -> nn.Module:
    """The innermost module that turns pictures into image tokens: outer ones may pass arguments on without names."""
    if "image_token_pooling" in inspect.signature(type(model).forward).parameters:
        raise MadeUpError(
            f"{model.config.model_type}: image_token_pooling counts the patches of all images of a call, so an image "
            f"has no arguments of its own"
        )
    owners = [m for m in model.modules() if hasattr(m, "get_image_features")]
    if not owners or getattr(model.config, "is_encoder_decoder", False):
        raise MadeUpError(f"{model.config.model_type}: images do not enter as tokens of the text")
    image_token_id(model)
    if "pixel_values" not in inspect.signature(type(model).forward).parameters:
        raise MadeUpError(f"{model.config.model_type}: the model takes no pixel_values, and would leave them unread")
    return owners[-1]


def _tokens(owner: nn.Module, tensors: Tensors, known: set[str]) -> int:
    with torch.no_grad():
        return token_rows(owner.get_image_features(**{name: x for name, x in tensors.items() if name in known}))
