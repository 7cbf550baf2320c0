"""A forest as a tree in a picture: a row for each segment, with what it says, its tokens and what it stands for."""

from collections.abc import Sequence

from vlmpack.inspect.exhibit import Exhibit, Segment
from vlmpack.inspect.palette import FAINT, RULE, ink, paint
from vlmpack.inspect.picture.forest_rows import PLAIN, Row
from vlmpack.inspect.picture.lettering import Lettering
from vlmpack.inspect.picture.sheet import Sheet

HEADING, SIZE, SMALL = 8.0, 6.5, 5.5  # of letters, points
TOP = 24.0  # from the heading's upper edge to the first row
TOKENS, TIMES = 25.0, 31.0  # widths of the columns on the right
INDENT, DEEPEST = 9.0, 54.0  # by which a segment stands right of its parent; of all together
PILL, INSIDE, NAME = 9.0, 3.0, 64.0  # a name's height, room beside it, the widest
LINES, LINE = 3, 8.2  # of text beside a thumbnail: at most; from one to the next, points
THINNEST = 0.6  # of a bar: so long, it is still seen
SIDE, GAP = 26.0, 4.0  # a thumbnail's longer side; between what stands in a row


def height(rows: Sequence[Row]) -> float:
    """Points that `put` takes.

    Args:
        rows: to be drawn.
    """
    return TOP + sum(row.height for row in rows)


def put(sheet: Sheet, exhibit: Exhibit, rows: Sequence[Row], x: float, y: float, width: float) -> None:
    """Draw the tree.

    Args:
        sheet: to be drawn on.
        exhibit: what there is to see.
        rows: to be drawn.
        x, y: of the upper left corner.
        width: points.
    """
    right = x + width
    sheet.write(x, y + 5, "What stands once", HEADING, bold=True)
    sheet.write(right - TIMES, y + 17, "tokens", SMALL, colour=FAINT, across="right")
    sheet.write(right, y + 17, "shared by", SMALL, colour=FAINT, across="right")
    indent = min(INDENT, DEEPEST / max(1, *(row.depth for row in rows)))
    bars = x + max(
        row.depth * indent + _pill(sheet.lettering, row.segment) + GAP for row in rows if row.segment is not None
    )
    open_at: dict[int, float] = {}  # by depth, the lower edge of the latest segment's name
    top = y + TOP
    for row in rows:
        middle, left = top + row.height / 2, x + row.depth * indent
        if row.depth:
            knee = left - indent + 4
            sheet.lines([[(knee, open_at[row.depth - 1]), (knee, middle), (left, middle)]], RULE)
        open_at[row.depth] = middle + PILL / 2
        _row(sheet, exhibit, row, left, middle, right, bars)
        top += row.height


def _row(sheet: Sheet, exhibit: Exhibit, row: Row, x: float, middle: float, right: float, bars: float) -> None:
    """What stands in a row; `bars` is where bars begin."""
    end = right - TOKENS - TIMES
    if row.segment is None:
        tokens = sum(exhibit.forest.lengths[segment.number] for segment in row.left_out)
        words = sheet.lettering.fitted(f"… {len(row.left_out):,} more segments", end - x, SIZE)
        sheet.write(x + INSIDE, middle, words, SIZE, colour=FAINT)
        sheet.write(right - TIMES, middle, f"{tokens:,}", SIZE, colour=FAINT, across="right")
        return
    name, colour = _name(sheet.lettering, row.segment), paint(row.segment.kind, row.segment.hue)
    wide = _pill(sheet.lettering, row.segment)
    sheet.pill(x, middle - PILL / 2, wide, PILL, colour)
    sheet.write(x + wide / 2, middle, name, SIZE, colour=ink(colour), across="center")
    start = _thumbnails(sheet, exhibit, row.segment, x + wide + GAP, middle, end)
    words = _says(exhibit, row.segment)
    if words:
        _paragraph(sheet, words, start, middle, end, LINES if row.height > PLAIN else 1)
    elif exhibit.pieces is None:
        _bar(sheet, exhibit, row.segment, bars, middle, end)
    times = row.segment.stands_for
    sheet.write(right - TIMES, middle, f"{exhibit.forest.lengths[row.segment.number]:,}", SIZE, across="right")
    sheet.write(right, middle, f"{times}", SIZE, across="right", bold=times > 1)


def _name(lettering: Lettering, segment: Segment) -> str:
    return lettering.fitted(segment.name, NAME, SIZE)


def _pill(lettering: Lettering, segment: Segment) -> float:
    """How wide the colour behind a name is."""
    return lettering.width(_name(lettering, segment), SIZE) + 2 * INSIDE


def _bar(sheet: Sheet, exhibit: Exhibit, segment: Segment, left: float, middle: float, end: float) -> None:
    """Where the segment stands on its path, if there is nothing to read."""
    depths, lengths = exhibit.forest.depths, exhibit.forest.lengths
    scale = (end - left) / max(map(sum, zip(depths, lengths, strict=True)))
    first = left + scale * depths[segment.number]
    stop = first + max(THINNEST, scale * lengths[segment.number])
    sheet.boxes([(first, middle - 2.5, stop, middle + 2.5)], [paint(segment.kind, segment.hue)])


def _says(exhibit: Exhibit, segment: Segment) -> str:
    """Texts, and images by their numbers, in the order in which they stand."""
    said = []
    for part in segment.parts:
        if part.place >= 0:
            placed = exhibit.images[part.place]
            said.append(f"[image {placed.image + 1}: {placed.tokens:,} tokens]")
        else:
            said.append((exhibit.text(part.start, part.stop) or "").strip(" "))
    return " ".join(words for words in said if words)


def _paragraph(sheet: Sheet, words: str, start: float, middle: float, end: float, lines: int) -> None:
    """Lines around a height."""
    found = sheet.lettering.wrapped(words, end - start, SIZE, lines)
    for number, line in enumerate(found):
        sheet.write(start, middle + LINE * (number - (len(found) - 1) / 2), line, SIZE)


def _thumbnails(sheet: Sheet, exhibit: Exhibit, segment: Segment, start: float, middle: float, end: float) -> float:
    """The segment's images, as many as half of the room holds; returns where the text begins."""
    shown = [exhibit.thumbnails[exhibit.images[part.place].image] for part in segment.parts if part.place >= 0]
    middle_of_room = (start + end) / 2
    for image in shown:
        if image is None or (start + SIDE > middle_of_room and image is not shown[0]):
            break
        scale = SIDE / max(image.size)
        wide, high = image.width * scale, image.height * scale
        sheet.picture(image, start, middle - high / 2, wide, high)
        start += wide + GAP
    return start
