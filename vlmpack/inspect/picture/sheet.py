"""A sheet of paper measured in points from its upper left corner, on which a picture is put together."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from vlmpack.inspect.palette import INK, RULE
from vlmpack.inspect.picture.lettering import Lettering

POINTS = 72  # an inch
DOTS = 150  # an inch, where nobody asks for another resolution


class Picture(Figure):
    """A figure that notebooks show though it is none of pyplot's."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


class Sheet:
    """Where text, boxes and lines are put; y runs downwards.

    Args:
        width, height: points.
        lettering: of its text.
    """

    def __init__(self, width: float, height: float, lettering: Lettering) -> None:
        self.width, self.height, self.lettering = width, height, lettering
        self.figure = Picture(figsize=(width / POINTS, height / POINTS), dpi=DOTS, facecolor="white", layout="none")
        FigureCanvasAgg(self.figure)
        self._axes = self.axes(0, 0, width, height)
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of their own, for what is not measured in points.

        Args:
            x, y: of the upper left corner.
            width, height: points.
        """
        down = self.height - y - height
        return self.figure.add_axes(
            (x / self.width, down / self.height, width / self.width, height / self.height), facecolor="white"
        )

    def write(
        self,
        x: float,
        y: float,
        words: str,
        size: float,
        *,
        colour: str = INK,
        across: str = "left",
        bold: bool = False,
        upward: bool = False,
    ) -> None:
        """One line of text.

        Args:
            x, y: where it begins, and the middle of its height.
            words: as `Lettering.clean` returns them.
            size: of the font, points.
            colour: of the letters.
            across: whether x is its "left", its "center" or its "right".
            bold: in the font of headings.
            upward: turned so that it runs from (x, y) up; x is then the middle of its height.
        """
        font = (self.lettering.bold if bold else self.lettering.regular).copy()
        font.set_size(size)
        self._axes.text(
            x,
            y,
            words,
            color=colour,
            fontproperties=font,
            ha="center" if upward else across,
            va="bottom" if upward else "center_baseline",
            rotation=90 if upward else 0,
            rotation_mode="default",
            parse_math=False,
            usetex=False,
        )

    def boxes(self, corners: Sequence[tuple[float, float, float, float]], colours: Sequence[str]) -> None:
        """Filled rectangles.

        Args:
            corners: (left, top, right, bottom) of each.
            colours: one each.
        """
        outlines = [np.array([(a, b), (c, b), (c, d), (a, d)]) for a, b, c, d in corners]
        self._axes.add_collection(PolyCollection(outlines, facecolors=list(colours), linewidths=0), autolim=False)

    def pill(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle with round corners.

        Args:
            x, y: of the upper left corner.
            width, height: points.
            colour: it is filled with.
        """
        style = "round,pad=0,rounding_size=2"
        self._axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, linewidth=0))

    def lines(self, paths: Sequence[Sequence[tuple[float, float]]], colour: str = RULE, width: float = 0.6) -> None:
        """Lines through points.

        Args:
            paths: the points of each.
            colour: of all.
            width: points.
        """
        for path in paths:
            xs, ys = zip(*path, strict=True)
            self._axes.add_line(Line2D(xs, ys, color=colour, linewidth=width, linestyle="-", marker=""))

    def picture(self, image: Image.Image, x: float, y: float, width: float, height: float) -> None:
        """An image.

        Args:
            image: in colours.
            x, y: of the upper left corner.
            width, height: points.
        """
        axes = self.axes(x, y, width, height)
        axes.imshow(np.asarray(image), aspect="auto", interpolation="antialiased", origin="upper")
        axes.set_axis_off()
