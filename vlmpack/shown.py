"""What can be looked at shows itself: in a notebook, in a terminal."""

from collections.abc import Mapping
from importlib import import_module


class Shown:
    """Shows itself by `vlmpack.inspect`, which stands above and is imported when it is first asked."""

    def __str__(self) -> str:
        return import_module("vlmpack.inspect").text(self)

    def _repr_html_(self) -> str:
        """What Jupyter and VS Code show: one piece of HTML that asks for nothing from outside."""
        return import_module("vlmpack.inspect").html(self)


def enumerated(counts: Mapping[str, int]) -> str:
    """Amounts in words.

    Args:
        counts: by what is counted, in the singular.

    Example:
        >>> enumerated({"prompt": 1, "leaf": 2, "token": 1500})
        '1 prompt, 2 leaves, 1,500 tokens'
    """
    plurals = {"leaf": "leaves"}
    return ", ".join(f"{n:,} {one if n == 1 else plurals.get(one, one + 's')}" for one, n in counts.items())
