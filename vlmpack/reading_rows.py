"""The one door from the package to `vlmpack.processors`, which stand above it: a model finds what reads its rows."""

from importlib import import_module
from typing import Any


def processor_at(path: str, **located: Any) -> Any:
    """The `PreferenceProcessor` that was saved with a model.

    Args:
        path: folder or hub name.
        located: `revision`, `cache_dir` and `token`, as for transformers' `from_pretrained`.

    Raises:
        OSError: there is none.
    """
    return import_module("vlmpack.processors").PreferenceProcessor.from_pretrained(path, **located)
