"""Where the panels of a picture stand: forest and mask side by side, or one panel below the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vlmpack.inspect.exhibit import Exhibit
from vlmpack.inspect.picture import forest_panel, mask_panel, saving_panel
from vlmpack.inspect.picture.forest_rows import Row, rows
from vlmpack.inspect.picture.lettering import Lettering
from vlmpack.inspect.picture.mask_notes import Note, notes
from vlmpack.inspect.picture.mask_panel import fill
from vlmpack.inspect.picture.sheet import Picture, Sheet
from vlmpack.inspect.picture.weights import MOST, leaks, legend, shade
from vlmpack.inspect.weights_given import checked

PAGE, COLUMN = 518.0, 252.0  # of a paper's page and of one of its two columns, points
EDGE, GUTTER, APART = 6.0, 18.0, 16.0  # around all, between panels side by side, between one above the other
TITLE, LETTERS = 20.0, 9.0  # heights of the title and of its letters
SMALLEST, LARGEST = 130.0, 232.0  # of a mask beside a forest: its side


@dataclass(frozen=True)
class Place:
    """Where a panel stands.

    Attributes:
        x, y: of its upper left corner.
        width, height: points.
    """

    x: float
    y: float
    width: float
    height: float


def composed(
    exhibit: Exhibit, panels: Sequence[str], title: str | None, weights: Float[Tensor, "T T"] | None
) -> Picture:
    """The figure.

    Args:
        exhibit: what there is to see.
        panels: those that are drawn.
        title: above them; None for none.
        weights: in the mask's place; None for the mask.
    """
    lettering = Lettering()
    table = None if weights is None else checked(weights, exhibit, MOST)
    panel = _Panels(exhibit, rows(exhibit), notes(exhibit) if table is None else leaks(table, exhibit), lettering)
    top = EDGE + (TITLE if title else 0)
    beside = {"forest", "mask"} <= set(panels)
    places = panel.beside(top, "saving" in panels) if beside else panel.below(top, panels)
    width = PAGE if beside else COLUMN
    sheet = Sheet(width, max(place.y + place.height for place in places.values()) + EDGE, lettering)
    if title:
        sheet.write(
            EDGE, EDGE + LETTERS / 2, lettering.fitted(title, width - 2 * EDGE, LETTERS, True), LETTERS, bold=True
        )
    if "forest" in places:
        forest_panel.put(sheet, exhibit, panel.rows, *_corner(places["forest"]))
    if "saving" in places:
        saving_panel.put(sheet, exhibit.account, *_corner(places["saving"]))
    if "mask" in places:
        axes = mask_panel.put(sheet, exhibit, panel.notes, *_corner(places["mask"]))
        if table is None:
            fill(axes, exhibit)
        else:
            shade(axes, exhibit, table)
            legend(sheet, places["mask"].x + places["mask"].width, places["mask"].y + 5)
    return sheet.figure


def _corner(place: Place) -> tuple[float, float, float]:
    return place.x, place.y, place.width


@dataclass(frozen=True)
class _Panels:
    exhibit: Exhibit
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]
    lettering: Lettering

    def below(self, top: float, panels: Sequence[str]) -> dict[str, Place]:
        """One panel below the other, in a paper's column."""
        width = COLUMN - 2 * EDGE
        heights = {
            "forest": forest_panel.height(self.rows),
            "mask": mask_panel.height(self.lettering, self.exhibit, self.notes, width),
            "saving": saving_panel.height(self.exhibit.account, COLUMN),
        }
        places = {}
        for name, height in heights.items():
            if name in panels:
                places[name] = Place(EDGE, top, width, height)
                top += height + APART
        return places

    def beside(self, top: float, saving: bool) -> dict[str, Place]:
        """The forest beside the mask; what was saved below the forest or below both, whichever is lower."""
        tall = forest_panel.height(self.rows)
        short = saving_panel.height(self.exhibit.account, COLUMN)
        wide, high = self._mask(tall + (APART + short if saving else 0))
        left = PAGE - 2 * EDGE - GUTTER - wide
        places = {"forest": Place(EDGE, top, left, tall), "mask": Place(PAGE - EDGE - wide, top, wide, high)}
        if not saving:
            return places
        strip = saving_panel.height(self.exhibit.account, PAGE - 2 * EDGE)
        bottom = max(tall + APART + short, high - mask_panel.UNDER)
        if bottom < max(tall, high) + APART + strip:
            places["saving"] = Place(EDGE, top + bottom - short, left, short)
        else:
            places["saving"] = Place(EDGE, top + max(tall, high) + APART, PAGE - 2 * EDGE, strip)
        return places

    def _mask(self, wanted: float) -> tuple[float, float]:
        """Width and height of a mask whose lower edge stands so far below the upper end, if it can be so large."""
        edge = mask_panel.margin(self.lettering, self.exhibit)
        above = mask_panel.height(self.lettering, self.exhibit, self.notes, LARGEST + edge) - LARGEST
        side = min(LARGEST, max(SMALLEST, wanted - above + mask_panel.UNDER))
        return side + edge, mask_panel.height(self.lettering, self.exhibit, self.notes, side + edge)
