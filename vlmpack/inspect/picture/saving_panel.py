"""What a pack saved as bars: every response on its own, and packed."""

from vlmpack.inspect.account import Account
from vlmpack.inspect.palette import FAINT, INK, PROMPT, mixed
from vlmpack.inspect.picture.sheet import Sheet

HEADING, SIZE, SMALL = 8.0, 6.5, 6.0  # of letters, points
TOP = 27.0  # from the heading's upper edge to the first bar
BAR, PAIR, GROUP = 7.0, 8.0, 23.0  # a bar, from one to the next of a pair, from one pair to the next
NAMES, NUMBERS, RATIOS = 58.0, 34.0, 30.0  # widths beside the bars
NAME = 10.0  # height of a name above its bars
APART = 14.0  # between neighbours
BESIDE = 400.0  # so wide, the amounts stand side by side
BEFORE, AFTER = mixed(PROMPT, 0.6), INK


def height(account: Account, width: float) -> float:
    """Points that `put` takes.

    Args:
        account: what was saved.
        width: as for `put`.
    """
    return TOP + (NAME + 2 * PAIR if width >= BESIDE else GROUP * len(_amounts(account)))


def put(sheet: Sheet, account: Account, x: float, y: float, width: float) -> None:
    """Draw the bars.

    Args:
        sheet: to be drawn on.
        account: what was saved.
        x, y: of the upper left corner.
        width: points.
    """
    sheet.write(x, y + 5, "What it saves", HEADING, bold=True)
    start = x
    for colour, words in ((BEFORE, "each response on its own"), (AFTER, "packed")):
        sheet.boxes([(start, y + 14, start + 6, y + 20)], [colour])
        sheet.write(start + 9, y + 17, words, SMALL, colour=FAINT)
        start += 9 + sheet.lettering.width(words, SMALL) + APART
    amounts = _amounts(account)
    share = (width + APART) / len(amounts)
    for place, (name, alone, packed) in enumerate(amounts):
        if width >= BESIDE:
            left = x + place * share
            sheet.write(left, y + TOP + 4, name, SIZE)
            _pair(sheet, alone, packed, left, y + TOP + NAME, share - APART)
        else:
            top = y + TOP + place * GROUP
            sheet.write(x, top + PAIR, name, SIZE)
            _pair(sheet, alone, packed, x + NAMES, top, width - NAMES)


def _amounts(account: Account) -> list[tuple[str, int, int]]:
    named = [("tokens", account.tokens), ("vision passes", account.passes), ("query-key pairs", account.cells)]
    return [(name, alone, packed) for name, (alone, packed) in named if alone]


def _pair(sheet: Sheet, alone: int, packed: int, x: float, y: float, width: float) -> None:
    """Two bars with their amounts, and how many times the first is the second."""
    full = width - NUMBERS - RATIOS
    for row, (amount, colour) in enumerate(((alone, BEFORE), (packed, AFTER))):
        top, long = y + row * PAIR, full * amount / max(alone, packed)
        sheet.boxes([(x, top, x + long, top + BAR)], [colour])
        sheet.write(x + long + 3, top + BAR / 2, _short(amount), SMALL)
    ratio = f"{alone / packed:.2f}×" if packed else "–"
    sheet.write(x + width, y + PAIR, ratio, SIZE + 1.5, across="right", bold=True)


def _short(amount: int) -> str:
    """An amount in a few characters: all digits of small ones, three of large ones.

    Example:
        >>> _short(6492), _short(123456), _short(37_100_000)
        ('6,492', '123,456', '37.1 M')
    """
    for unit, name in ((10**9, "G"), (10**6, "M")):
        if amount >= unit:
            return f"{amount / unit:.3g} {name}"
    return f"{amount:,}"
