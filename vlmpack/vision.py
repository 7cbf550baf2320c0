"""The vision tower's part of a pack: each distinct image once, its features wherever its tokens stand."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from vlmpack.frozen_tower import remembered
from vlmpack.image_counts import COUNTS
from vlmpack.pack import Pack


@contextmanager
def placed(model: nn.Module, pack: Pack) -> Iterator[None]:
    """While inside, the model's image features are put in place as a pack needs them.

    An image whose tokens cannot be shared, for they stand after different texts, still runs through the tower once:
    what the tower returned is handed on several times, and its gradients are summed by autograd. A tower that keeps
    what it makes of images runs on those only that it does not know.

    Args:
        model: a transformers model whose `get_image_features` returns the features of all images one after the other.
        pack: what the model is called with.
    """
    with remembered(model, pack), _handed_on(model, pack):
        yield


@contextmanager
def _handed_on(model: nn.Module, pack: Pack) -> Iterator[None]:
    """While inside, features stand wherever their image does."""
    if list(pack.placements) == sorted(set(pack.placements)) and COUNTS not in pack.images:
        yield  # every image in one place, in order
        return
    owner = feature_maker(model)
    features_of = owner.get_image_features
    rows = _rows(pack)

    @wraps(features_of)
    def get_image_features(*arguments: Any, **options: Any) -> Any:
        features = features_of(*arguments, **options)
        features.pooler_output = _gathered(features.pooler_output, rows)
        if getattr(features, "deepstack_features", None) is not None:  # what goes to several layers of the decoder
            features.deepstack_features = [_gathered(layer, rows) for layer in features.deepstack_features]
        return features

    owner.get_image_features = get_image_features
    try:
        yield
    finally:
        del owner.get_image_features


def feature_maker(model: nn.Module) -> nn.Module | None:
    """The innermost module that makes image features, for those around it only call it; None in text-only models."""
    makers = [module for module in model.modules() if hasattr(type(module), "get_image_features")]
    return makers[-1] if makers else None


def _rows(pack: Pack) -> Tensor:
    """For each image token in the pack, the row of its features among those of the distinct images."""
    lengths = torch.bincount(pack.image_of[pack.image_of >= 0], minlength=len(pack.placements)).tolist()
    of_image = dict(zip(pack.placements, lengths, strict=True))  # an image has as many tokens in every place
    first, starts = 0, {}
    for image in sorted(of_image):
        starts[image], first = first, first + of_image[image]
    rows = [torch.arange(starts[image], starts[image] + of_image[image]) for image in pack.placements]
    return torch.cat(rows).to(pack.input_ids.device)


def _gathered(features: Tensor | Sequence[Tensor], rows: Tensor) -> Tensor | list[Tensor]:
    """Features of each image token, in the form in which the model gave those of the distinct images.

    Args:
        features: [..., H] of all images, or one such tensor an image.
        rows: as from `_rows`.
    """
    if not isinstance(features, Tensor):
        return [torch.cat([each.flatten(0, -2) for each in features]).index_select(0, rows)]
    gathered = features.flatten(0, -2).index_select(0, rows)
    if features.shape[0] == 1:
        return gathered[None]  # all images in one row
    return gathered.unflatten(0, (-1, *features.shape[1:-1]))  # tiles or images of equally many tokens
