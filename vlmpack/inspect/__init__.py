"""Looking at packs: in a notebook, as a picture, in a terminal; and at what a model really attends to."""

from vlmpack.inspect.exhibit import InspectError
from vlmpack.inspect.text import text

__all__ = ["InspectError", "text"]
