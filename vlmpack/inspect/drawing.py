"""A pack as a picture: its forest with texts and images, its mask, and what it saved."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.inspect.exhibit import InspectError, exhibit
from vlmpack.pack import Pack
from vlmpack.sample import Sample

PANELS = ("forest", "mask", "saving")


def draw(
    shown: Pack | Sample | Forest,
    processor: Any = None,
    *,
    panels: Sequence[str] = PANELS,
    title: str | None = None,
    weights: Float[Tensor, "T T"] | None = None,
) -> "matplotlib.figure.Figure":  # noqa: F821
    """What there is to see of a pack, a sample or a forest, as a figure for a paper, a log or a README.

    The mask is the pack's own, `reach` and `blocks`; if it is not what the forest asks for, the picture says so in red.
    A figure with "forest" and "mask" fills a page of 7.2 inches, others a column of 3.5. Fonts are those of
    matplotlib's settings. Nothing of pyplot's is touched: the figure is the caller's alone, and notebooks show it.

    Args:
        shown: what to look at.
        processor: a `PreferenceProcessor`, a transformers processor or a tokenizer that reads the tokens back; without
            it the one that made the samples.
        panels: any of "forest", a tree of what stands once, with texts, images and lengths; "mask", who sees whom;
            "saving", tokens, vision passes and query-key pairs of every response on its own against packed.
        title: a line above them; None for none, as in papers, which have captions.
        weights: of one layer and head as `attention_weights` returns them, of a pack of at most 1,024 tokens, to be
            shown in the mask's place, white where they are exactly 0; those outside the mask are red.

    Returns:
        For `figure.savefig("pack.pdf")`.

    Raises:
        InspectError: `shown` is none of the three, there is no such panel, the weights are not the pack's or too many,
            or matplotlib is not installed.

    Example:
        vlmpack.inspect.draw(pack, panels=("mask",)).savefig("mask.pdf")
    """
    unknown = [panel for panel in panels if panel not in PANELS]
    if unknown or not panels:
        raise InspectError(f"panels={panels!r} must be one or more of {PANELS}")
    if weights is not None and "mask" not in panels:
        raise InspectError(f'weights are shown in the mask\'s place and panels={panels!r} has no "mask"; add it')
    seen = exhibit(shown, processor)
    try:
        import_module("matplotlib")
    except ImportError as missing:
        raise InspectError("pictures need matplotlib; install it with: pip install 'vlmpack[inspect]'") from missing
    return import_module("vlmpack.inspect.picture.composing").composed(seen, panels, title, weights)
