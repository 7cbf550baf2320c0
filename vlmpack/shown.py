"""What can be looked at shows itself: in a notebook, in a terminal."""

from importlib import import_module


class Shown:
    """Shows itself by `vlmpack.inspect`, which stands above and is imported when it is first asked."""

    def __str__(self) -> str:
        return import_module("vlmpack.inspect").text(self)

    def _repr_html_(self) -> str:
        """What Jupyter and VS Code show: one piece of HTML that asks for nothing from outside."""
        return import_module("vlmpack.inspect").html(self)
