"""Quality as a picture: reliability, reward against length, accuracy by margin, and with images against without."""

from vlmpack.quality import panels
from vlmpack.quality.checking import QualityError
from vlmpack.quality.report import Quality


def draw(quality: Quality, *, title: str | None = None) -> "matplotlib.figure.Figure":  # noqa: F821
    """Four panels, for a report, a log or a README; one that has no data says so.

    Nothing of pyplot's is touched: the figure is the caller's alone, and notebooks show it.

    Args:
        quality: what was measured.
        title: a line above them; None for none.

    Returns:
        For `figure.savefig("quality.png")`.

    Raises:
        QualityError: matplotlib is not installed.
    """
    try:
        from vlmpack.inspect.picture.sheet import Picture
    except ImportError as missing:
        raise QualityError("pictures need matplotlib; install it with: pip install 'vlmpack[inspect]'") from missing
    figure = Picture(figsize=(11, 8.4), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    if title:
        figure.suptitle(title)
    (reliability, length), (margins, images) = figure.subplots(2, 2)
    panels.reliability(reliability, quality.calibration)
    panels.length(length, quality.length)
    panels.margins(margins, quality.by_margin)
    panels.images(images, quality.blind, quality.why_not_blind, quality.kinds)
    return figure
