"""A mask in a picture: a row for each token that looks, a column for each that is seen, names along both sides."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MaxNLocator

from vlmpack.inspect.exhibit import Exhibit
from vlmpack.inspect.palette import FAINT, INK, RULE, WRONG, mixed, paint
from vlmpack.inspect.picture.lettering import Lettering
from vlmpack.inspect.picture.mask_cells import Looking, astray, lookings, regions, stretches
from vlmpack.inspect.picture.mask_notes import Note
from vlmpack.inspect.picture.sheet import Sheet
from vlmpack.inspect.picture.spreading import apart, thinned

HEADING, SIZE, SMALL = 8.0, 6.0, 5.5  # of letters, points
TOP, NOTE, UNDER = 16.0, 9.0, 12.0  # heights: of the heading, of a line below it, of the numbers below the mask
BAND, LEADER, APART = 6.0, 9.0, 7.0  # the coloured band's width, from it to the names, from one name to the next
NAME = 36.0  # the widest
MEASURED = 20  # names of the most characters, of which the widest is looked for
PALE = 0.4  # of a colour where earlier segments are seen


def margin(lettering: Lettering, exhibit: Exhibit) -> float:
    """Points between the names' far end and the mask, on the left and at the top.

    Args:
        lettering: of the names.
        exhibit: what there is to see.
    """
    longest = sorted({name for _, name, _ in _names(exhibit)}, key=len)[-MEASURED:]
    widest = max(lettering.width(lettering.clean(name), SIZE) for name in longest)
    return min(widest, NAME) + LEADER + BAND + 1


def height(lettering: Lettering, exhibit: Exhibit, notes: Sequence[Note], width: float) -> float:
    """Points that `put` takes.

    Args:
        lettering: of the names.
        exhibit: what there is to see.
        notes: lines below the heading.
        width: as for `put`.
    """
    return TOP + NOTE * len(_lines(lettering, notes, width)) + width + UNDER


def put(sheet: Sheet, exhibit: Exhibit, notes: Sequence[Note], x: float, y: float, width: float) -> Axes:
    """Draw the mask's frame: heading, notes, names, bands, numbers.

    Args:
        sheet: to be drawn on.
        exhibit: what there is to see.
        notes: lines below the heading.
        x, y: of the upper left corner.
        width: of the mask and its margin, points.

    Returns:
        Axes for the mask, in tokens.
    """
    sheet.write(x, y + 5, "Who sees whom", HEADING, bold=True)
    lines = _lines(sheet.lettering, notes, width)
    for line, (words, wrong) in enumerate(lines):
        sheet.write(x, y + TOP + NOTE * line + 1, words, SMALL, colour=WRONG if wrong else FAINT, bold=wrong)
    edge = margin(sheet.lettering, exhibit)
    left, top, side = x + edge, y + TOP + NOTE * len(lines) + edge, width - edge
    _bands(sheet, exhibit, left, top, side)
    _labels(sheet, exhibit, left, top, side)
    axes = sheet.axes(left, top, side, side)
    axes.set_label("mask")
    axes.set(xlim=(0, exhibit.tokens), ylim=(exhibit.tokens, 0), xticks=[], yticks=[])
    axes.spines[:].set(color=RULE, linewidth=0.6, visible=True)
    _numbers(sheet, exhibit, left, top + side, side)
    return axes


def _numbers(sheet: Sheet, exhibit: Exhibit, left: float, bottom: float, side: float) -> None:
    """Indices of tokens, below the mask."""
    for index in MaxNLocator(nbins=6, integer=True).tick_values(0, exhibit.tokens):
        if 0 <= index <= exhibit.tokens:
            x = left + side * index / exhibit.tokens
            sheet.lines([[(x, bottom), (x, bottom + 2)]])
            across = "center" if x < left + side - 6 else "right"
            sheet.write(x, bottom + 7, f"{index:.0f}", SMALL, colour=FAINT, across=across)


def _lines(lettering: Lettering, notes: Sequence[Note], width: float) -> list[tuple[str, bool]]:
    return [(line, note.wrong) for note in notes for line in lettering.wrapped(note.words, width, SMALL, 3, note.wrong)]


def fill(axes: Axes, exhibit: Exhibit) -> None:
    """Fill the mask in the colours of those that look: full within a segment, pale where they see earlier ones.

    Args:
        axes: in tokens.
        exhibit: what there is to see.
    """
    found = [*regions(exhibit), *stretches(exhibit)]
    colours = [_paint(exhibit, region.looking) for region in found]
    faces = [colour if region.own else mixed(colour, PALE) for region, colour in zip(found, colours, strict=True)]
    axes.add_collection(PolyCollection([region.corners for region in found], facecolors=faces, linewidths=0))
    axes.add_collection(PolyCollection(astray(exhibit), facecolors=WRONG, edgecolors=WRONG, linewidths=0.6))


def _paint(exhibit: Exhibit, looking: Looking) -> str:
    segment = exhibit.segments[looking.segment]
    return paint(segment.kind, segment.hue, looking.image)


def _bands(sheet: Sheet, exhibit: Exhibit, left: float, top: float, side: float) -> None:
    scale = side / exhibit.tokens
    parts = lookings(exhibit)
    colours = [_paint(exhibit, part) for part in parts]
    spans = [(part.start * scale, part.stop * scale) for part in parts]
    near, far = 1, 1 + BAND
    sheet.boxes([(left + a, top - far, left + b, top - near) for a, b in spans], colours)
    sheet.boxes([(left - far, top + a, left - near, top + b) for a, b in spans], colours)


def _names(exhibit: Exhibit) -> list[tuple[float, str, bool]]:
    """(its middle token, a name, whether it comes first where there is no room for all), in token order."""
    found = []
    for segment in exhibit.segments:
        texts = [part for part in segment.parts if part.place < 0]
        name = segment.name.removeprefix("prompts ").removeprefix("prompt ").removeprefix("segment ")
        for part in segment.parts:
            if part.place >= 0:
                found.append(((part.start + part.stop) / 2, f"image {exhibit.images[part.place].image + 1}", True))
            elif part is max(texts, key=lambda each: each.stop - each.start):
                found.append(((part.start + part.stop) / 2, name, segment.kind == "prompt"))
    return found


def _labels(sheet: Sheet, exhibit: Exhibit, left: float, top: float, side: float) -> None:
    names = _names(exhibit)
    kept = thinned([first for *_, first in names], int(0.9 * side / APART))
    wanted = [names[place][0] * side / exhibit.tokens for place in kept]
    near, far = 1 + BAND, BAND + LEADER
    for place, start, end in zip(kept, wanted, apart(wanted, APART, 3.0, side - 3.0), strict=True):
        name = sheet.lettering.fitted(names[place][1], NAME, SIZE)
        bend = [(near, start), (near + 2, start), (far - 2, end), (far, end)]
        sheet.lines([[(left + across, top - out) for out, across in bend]], RULE)
        sheet.lines([[(left - out, top + across) for out, across in bend]], RULE)
        sheet.write(left + end, top - far - 1, name, SIZE, colour=INK, upward=True)
        sheet.write(left - far - 1, top + end, name, SIZE, colour=INK, across="right")
