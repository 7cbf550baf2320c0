"""Text from data as a picture can show it: measured, cut to its room, and never taken for a formula."""

import unicodedata
from collections.abc import Callable
from functools import cached_property

from vlmpack.inspect.text import shortened

LONGEST = 300  # characters that are measured at all
MISSING = "▯?"  # what stands for a character that the font lacks: the first of these that it has
BREAKS = "⏎↵¶"  # what stands for the end of a line
LINE_ENDS = "\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
DOTS = (150, 720)  # an inch, of a screen and of a printer: letters are fitted to dots, and the widest counts


class Lettering:
    """The user's font, `font.family` of matplotlib's settings: what it has, and how wide its letters run."""

    def __init__(self) -> None:
        self._widths: dict[tuple[str, float, bool], float] = {}

    @cached_property
    def regular(self):
        """Of running text: matplotlib's `FontProperties` of one font file."""
        return self._found("normal")

    @cached_property
    def bold(self):
        """Of headings."""
        return self._found("bold")

    def _found(self, weight: str):
        from matplotlib.font_manager import FontProperties, findfont

        return FontProperties(fname=str(findfont(FontProperties(weight=weight))))

    def clean(self, words: str) -> str:
        """One line of what the font has; the ends of lines, and what it lacks, are shown as marks.

        Marks above and below letters, and what steers the direction of writing, are left out: they would reach into
        the neighbours.

        Args:
            words: from anywhere.
        """
        words = shortened(words, LONGEST)
        return "".join(map(self._shown, unicodedata.normalize("NFC", words.replace("\r\n", "\n"))))

    def width(self, words: str, size: float, bold: bool = False) -> float:
        """How far words reach.

        Args:
            words: as `clean` returns them.
            size: of the font, points.
            bold: in the font of headings.

        Returns:
            Points.
        """
        if (words, size, bold) not in self._widths:
            font = (self.bold if bold else self.regular).copy()
            font.set_size(size)
            reached = [each.get_text_width_height_descent(words, font, False)[0] for each in self._renderers]
            self._widths[words, size, bold] = max(72 / dots * width for dots, width in zip(DOTS, reached, strict=True))
        return self._widths[words, size, bold]

    def fitted(self, words: str, room: float, size: float, bold: bool = False) -> str:
        """Clean words, with their middle left out where they are too wide.

        Args:
            words: from anywhere.
            room: points.
            size: of the font, points.
            bold: in the font of headings.

        Returns:
            "" if there is no room even for the mark of what is left out.
        """
        words = self.clean(words)
        most = self._most(words, room, size, bold, shortened)
        return shortened(words, most) if most else ""

    def wrapped(self, words: str, room: float, size: float, lines: int, bold: bool = False) -> list[str]:
        """Clean words on several lines, broken at spaces where there are any; the last one has its middle left out.

        Args:
            words: from anywhere.
            room: of a line, points.
            size: of the font, points.
            lines: at most.
            bold: in the font of headings.
        """
        words, found = self.clean(words), []
        while len(found) < lines - 1 and self.width(words, size, bold) > room:
            most = self._most(words, room, size, bold, _begun)
            stop = words.rfind(" ", 0, most + 1) + 1 or most
            found.append(words[:stop].rstrip())
            words = words[stop:].lstrip()
        return [*found, self.fitted(words, room, size, bold)]

    def _most(self, words: str, room: float, size: float, bold: bool, cut: Callable[[str, int], str]) -> int:
        """The most characters to which words can be cut so that there is room for them."""
        if self.width(words, size, bold) <= room:
            return len(words)
        fits, not_yet = 0, len(words)
        while not_yet - fits > 1:
            middle = (fits + not_yet) // 2
            if self.width(cut(words, middle), size, bold) <= room:
                fits = middle
            else:
                not_yet = middle
        return fits

    @cached_property
    def _renderers(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        return [FigureCanvasAgg(Figure(figsize=(1, 1), dpi=dots)).get_renderer() for dots in DOTS]

    @cached_property
    def _characters(self) -> frozenset[int]:
        from matplotlib.font_manager import get_font

        regular, bold = (get_font(font.get_file()).get_charmap().keys() for font in (self.regular, self.bold))
        return frozenset(regular & bold)

    def _first_of(self, marks: str) -> str:
        return next((mark for mark in marks if ord(mark) in self._characters), "?")

    def _shown(self, character: str) -> str:
        kind = unicodedata.category(character)
        if character in LINE_ENDS:
            return self._first_of(BREAKS)
        if kind == "Zs" or character in "\t\r":
            return " "
        if kind in ("Mn", "Me", "Cf"):
            return ""
        return character if kind[0] != "C" and ord(character) in self._characters else self._first_of(MISSING)


def _begun(words: str, most: int) -> str:
    return words[:most]
