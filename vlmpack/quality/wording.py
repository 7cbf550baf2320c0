"""Numbers as they stand in sentences and tables."""

from vlmpack.quality.shares import Share


def percent(value: float) -> str:
    """A share.

    Args:
        value: 0 to 1.

    Example:
        >>> percent(0.8096)
        '81.0 %'
    """
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of two shares, in percentage points.

    Args:
        value: -1 to 1.

    Example:
        >>> points(-0.042), points(0.0)
        ('-4.2 points', '+0.0 points')
    """
    return f"{signed(100 * value, 1)} points"


def signed(value: float, digits: int) -> str:
    """A number with its sign; what rounds to 0 is +0.

    Args:
        value: any.
        digits: after the point.
    """
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def interval(share: Share) -> str:
    """Where a share may lie.

    Args:
        share: with its bounds.

    Example:
        >>> interval(Share(1, 2, 0.5, 0.0945, 0.9055))
        '9.4 to 90.5 %'
    """
    return f"{100 * share.low:.1f} to {100 * share.high:.1f} %"


def chance(p: float) -> str:
    """A p-value.

    Args:
        p: 0 to 1.

    Example:
        >>> chance(0.7), chance(0.00002)
        ('p = 0.7', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def counted(count: int, noun: str) -> str:
    """A number of things.

    Args:
        count: of them.
        noun: for one of them; more have an s.

    Example:
        >>> counted(1, "pair"), counted(1200, "pair")
        ('1 pair', '1,200 pairs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(low: float, high: float) -> str:
    """A range of margins, or the one there is.

    Args:
        low, high: smallest and largest.

    Example:
        >>> span(1.0, 1.0), span(0.5, 1250.0)
        ('1', '0.5 to 1,250')
    """
    ends = [f"{end:,.0f}" if abs(end) >= 1000 else f"{end:.3g}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def coefficient(value: float | None) -> str:
    """A correlation, or that there is none.

    Args:
        value: -1 to 1.

    Example:
        >>> coefficient(0.314), coefficient(None)
        ('+0.31', 'not defined')
    """
    return "not defined" if value is None else signed(value, 2)
