"""Attention weights in a mask's place: white is exactly 0, and red is where no weight may be."""

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from vlmpack.inspect.exhibit import Exhibit
from vlmpack.inspect.mask_faults import named
from vlmpack.inspect.palette import FAINT, RULE, WRONG, channels
from vlmpack.inspect.picture.mask_cells import rectangle, regions, table
from vlmpack.inspect.picture.mask_notes import AXES, Note
from vlmpack.inspect.picture.sheet import Sheet

MOST = 1024  # tokens
DARKEST = "#08306b"
LEAST = 0.07  # how dark the smallest weight is that is not 0
STEPS = (0.0, 0.01, 0.1, 1.0)  # of the legend
SIZE, BOX, APART = 5.5, 5.5, 5.0  # of the legend: letters, boxes, between steps: points
FRAMED = 100  # leaks, up to which each gets a frame that shows it however small a cell is

Weights = Float[np.ndarray, "rows columns"]


def leaks(weights: Weights, exhibit: Exhibit) -> tuple[Note, ...]:
    """What the rows and columns are, and how much of the weights lies outside the mask.

    Args:
        weights: as `weights_given.checked` returns them.
        exhibit: what there is to see.
    """
    axes = Note(AXES, False)
    outside = np.where(table(exhibit), 0.0, weights)
    count = int((outside > 0).sum())
    if not count:
        return axes, Note("no weight outside the mask", False)
    query, key = divmod(int(outside.argmax()), exhibit.tokens)
    most = f"{count:,} weight{'s' * (count > 1)} outside the mask (red), up to {outside.max():.2g}"
    return axes, Note(f"leak: {most}: token {named(exhibit, query)} sees token {named(exhibit, key)}", True)


def shade(axes: Axes, exhibit: Exhibit, weights: Weights) -> None:
    """Fill the mask's axes with the weights.

    Args:
        axes: in tokens.
        exhibit: what there is to see.
        weights: as `weights_given.checked` returns them.
    """
    wrong = ~table(exhibit) & (weights > 0)
    colours = _shades(weights)
    colours[wrong] = channels(WRONG)
    size = exhibit.tokens
    axes.imshow(colours, extent=(0, size, size, 0), aspect="auto", interpolation="nearest", origin="upper")
    few = np.argwhere(wrong).tolist() if wrong.sum() <= FRAMED else []
    frames = [rectangle(key, key + 1, query, query + 1) for query, key in few]
    axes.add_collection(PolyCollection(frames, facecolors="none", edgecolors=WRONG, linewidths=1))
    outlines = [region.corners for region in regions(exhibit)]
    axes.add_collection(PolyCollection(outlines, facecolors="none", edgecolors=RULE, linewidths=0.3, zorder=0.9))


def legend(sheet: Sheet, right: float, y: float) -> None:
    """How dark some weights are.

    Args:
        sheet: to be drawn on.
        right: where it ends.
        y: the middle of its height.
    """
    for step in reversed(STEPS):
        words = f"{step:g}"
        sheet.write(right, y, words, SIZE, colour=FAINT, across="right")
        right -= sheet.lettering.width(words, SIZE) + 2 + BOX
        shade = _shades(np.array([[step]]))[0, 0].tolist()
        sheet.boxes([(right - 0.4, y - BOX / 2 - 0.4, right + BOX + 0.4, y + BOX / 2 + 0.4)], [RULE])
        sheet.boxes([(right, y - BOX / 2, right + BOX, y + BOX / 2)], ["#{:02x}{:02x}{:02x}".format(*shade)])
        right -= APART


def _shades(weights: Weights) -> UInt8[np.ndarray, "rows columns 3"]:
    """White for 0; others by their cube root, by which one of a thousandth is a tenth as dark as one of 1."""
    dark = np.where(weights > 0, np.maximum(np.cbrt(np.minimum(weights, 1)), LEAST), 0)[..., None]
    return np.rint(255 + dark * (np.array(channels(DARKEST)) - 255)).astype(np.uint8)
