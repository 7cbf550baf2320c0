"""Colours of pictures and pages: Okabe and Ito's, told apart by the colour-blind; a label always says it too."""

RESPONSES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")  # a prompt's first, second, ... and around again
SHARED = "#f0e442"  # what several responses of a prompt begin with
PROMPT = "#8c8c8c"
IMAGE = "#4d4d4d"
PADDING = "#e4e4e4"
WRONG = "#d40000"  # what must not be there
INK, FAINT, RULE = "#1a1a1a", "#6b6b6b", "#cfcfcf"

KINDS = {"prompt": PROMPT, "shared": SHARED, "padding": PADDING}


def paint(kind: str, hue: int = 0, image: bool = False) -> str:
    """The colour of a segment's tokens.

    Args:
        kind: as in `exhibit.Segment`.
        hue: its response's number among its prompt's, from 0.
        image: whether they are an image's.

    Returns:
        "#rrggbb".

    Example:
        >>> paint("response", hue=0), paint("response", hue=5), paint("prompt", image=True)
        ('#0072b2', '#0072b2', '#4d4d4d')
    """
    if image:
        return IMAGE
    return RESPONSES[hue % len(RESPONSES)] if kind == "response" else KINDS[kind]


def mixed(colour: str, share: float, ground: str = "#ffffff") -> str:
    """A colour laid thinly over another.

    Args:
        colour: "#rrggbb".
        share: of the colour, 0 to 1.
        ground: what lies below.

    Example:
        >>> mixed("#0072b2", 0.5)
        '#80b9d9'
    """
    pairs = zip(channels(colour), channels(ground), strict=True)
    return "#" + "".join(f"{int(share * above + (1 - share) * below + 0.5):02x}" for above, below in pairs)


def ink(colour: str) -> str:
    """What is readable on a colour: white or nearly black.

    Args:
        colour: "#rrggbb".

    Example:
        >>> ink("#0072b2"), ink("#f0e442")
        ('#ffffff', '#1a1a1a')
    """
    red, green, blue = channels(colour)
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 130 else INK


def channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255.

    Args:
        colour: "#rrggbb".
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
