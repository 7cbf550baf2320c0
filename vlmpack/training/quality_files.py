"""How good a trained reward model is, written beside it: numbers, a report and a picture."""

import json
from pathlib import Path

from vlmpack.quality import Quality, QualityError, draw

TITLE = "How good the rewards are"


def write_quality(found: Quality, folder: Path, name: str) -> str:
    """Write `name.json`, `name.md` and `name.png`.

    Args:
        found: what was measured.
        folder: made if it is not there.
        name: of the files.

    Returns:
        Where they are, and why there is no picture if there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    report, picture = folder / f"{name}.md", folder / f"{name}.png"
    said, image = f"report: {report}", f"\n![{TITLE}]({picture.name})\n"
    try:
        draw(found).savefig(picture, dpi=100)
    except QualityError as error:  # a picture is not worth a training
        said, image = f"{said} (without its picture: {error})", ""
    report.write_text(found.markdown(TITLE) + image, encoding="utf-8")
    return said
