"""The vision tower's part of a pack: each distinct image once, its features wherever its tokens stand."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn


@contextmanager
def placed(model: nn.Module, placements: Sequence[int]) -> Iterator[None]:
    """While inside, the model's image features are put in place as a pack needs them.

    An image whose tokens cannot be shared, for they stand after different texts, still runs through the tower once:
    what the tower returned is handed on several times, and its gradients are summed by autograd.

    Args:
        model: a transformers model whose `get_image_features` returns one tensor an image as `pooler_output`.
        placements: for each place of an image, in token order, the number of the image.
    """
    if list(placements) == sorted(set(placements)):
        yield  # every image in one place, in order
        return
    owner = _feature_maker(model)
    features_of = owner.get_image_features

    @wraps(features_of)
    def get_image_features(*arguments: Any, **options: Any) -> Any:
        features = features_of(*arguments, **options)
        features.pooler_output = [features.pooler_output[number] for number in placements]
        return features

    owner.get_image_features = get_image_features
    try:
        yield
    finally:
        del owner.get_image_features


def _feature_maker(model: nn.Module) -> nn.Module:
    """The innermost module that makes image features; those around it only call it."""
    return [module for module in model.modules() if hasattr(type(module), "get_image_features")][-1]
