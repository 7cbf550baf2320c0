"""Looking at packs: in a notebook, as a picture, in a terminal; and at what a model really attends to."""

from importlib import import_module

from vlmpack.inspect.exhibit import InspectError
from vlmpack.inspect.page import html, page
from vlmpack.inspect.text import text

_LATER = {"attention_weights": "weights", "draw": "drawing"}  # which need transformers, and matplotlib

__all__ = ["InspectError", "html", "page", "text", *_LATER]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'vlmpack.inspect' has no attribute {name!r}")
    return getattr(import_module(f"vlmpack.inspect.{_LATER[name]}"), name)
