"""What a page is told of an exhibit: small enough for a notebook, and nothing in it is more than text and numbers."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from math import isqrt, prod
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vlmpack.inspect.exhibit import Exhibit
from vlmpack.inspect.text import counted
from vlmpack.inspect.weights_given import checked

MOST_WEIGHED = 512  # tokens of a pack whose attention weights are shown
PICTURES = 240_000  # bytes for all thumbnails
SHARP = 4_000  # bytes up to which a thumbnail is kept as it is, without JPEG's traces
SIDES = (192, 128, 96, 64, 48, 32)  # pixels, the most that PICTURES leaves room for is taken


def data(exhibit: Exhibit, weights: Float[Tensor, "T T"] | None = None) -> dict[str, Any]:
    """An exhibit as JSON holds it: token arrays as runs, pictures as data URLs.

    Args:
        exhibit: what there is to see.
        weights: [T, T] how much the token in each row attends to each other one; of at most 512 tokens.

    Raises:
        InspectError: weights do not fit the pack, or it is too long for them.
    """
    vocabulary, words = _words(exhibit)
    return {
        "title": counted(exhibit),
        "account": {name: getattr(exhibit.account, name) for name in ("tokens", "passes", "cells")},
        "segments": [
            {
                "name": each.name,
                "kind": each.kind,
                "hue": each.hue,
                "parent": exhibit.forest.parents[each.number],
                "for": each.stands_for,
                "parts": [[part.start, part.stop, part.place] for part in each.parts],
            }
            for each in exhibit.segments
        ],
        "responses": [
            {"name": each.name, "path": each.path, "tokens": each.tokens, "beats": each.beats}
            for each in exhibit.responses
        ],
        "images": [
            {"image": each.image, "tokens": each.tokens, "grid": grid(exhibit, place)}
            for place, each in enumerate(exhibit.images)
        ],
        "pictures": pictures(exhibit.thumbnails),
        "reach": equal_runs(exhibit.reach),
        "position": rising_runs(exhibit.position),
        "previous": rising_runs(exhibit.previous),
        "blocks": equal_runs(exhibit.blocks),
        "vocabulary": vocabulary,
        "words": words,
        "weights": None if weights is None else _bytes(checked(weights, exhibit, MOST_WEIGHED)),
    }


def equal_runs(array: Int[np.ndarray, " T"]) -> list[int]:
    """Runs of one value, as value, length, value, length, ...

    Args:
        array: [T] one or more.

    Example:
        >>> equal_runs(np.array([7, 7, 7, 5, 7]))
        [7, 3, 5, 1, 7, 1]
    """
    return _runs(array, np.diff(array) != 0)


def rising_runs(array: Int[np.ndarray, " T"]) -> list[int]:
    """Runs in which each value is one more than the one before, as first value, length, ...

    Args:
        array: [T] one or more.

    Example:
        >>> rising_runs(np.array([0, 1, 2, 3, 4, 3, 4]))
        [0, 5, 3, 2]
    """
    return _runs(array, np.diff(array) != 1)


def _runs(array: np.ndarray, breaks: np.ndarray) -> list[int]:
    first = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    return np.stack([array[first], np.diff(first, append=len(array))], axis=1).ravel().tolist()


def _words(exhibit: Exhibit) -> tuple[list[list[int | str | None]], list[int]]:
    """Each (token id, text) once, and which of them each token is; nothing of a forest alone."""
    if exhibit.pack is None:
        return [], []
    ids = exhibit.pack.input_ids[0].tolist()
    each = list(zip(ids, exhibit.pieces or [None] * len(ids), strict=True))
    rows = {word: row for row, word in enumerate(dict.fromkeys(each))}
    return [list(word) for word in rows], equal_runs(np.array([rows[word] for word in each]))


def grid(exhibit: Exhibit, place: int) -> tuple[int, int] | None:
    """Rows and columns in which an image's tokens lie over its thumbnail; None where that is not known.

    Known where the image processor says how many patches stand in a row, and where the vision tower is shown one
    square picture, which a square number of tokens stands for.

    Args:
        exhibit: of a pack.
        place: the image's row in `exhibit.images`.
    """
    placed = exhibit.images[place]
    stands = np.flatnonzero(exhibit.image_of == place)
    if stands[-1] + 1 - stands[0] != placed.tokens:
        return None  # something stands between them, a row's end for one
    patches, near = exhibit.pack.images.get("image_grid_thw"), _merged(exhibit)
    if patches is not None and near:
        times, height, width = patches[placed.image].tolist()
        shape = (height // near, width // near)
        return shape if times == 1 and prod(shape) == placed.tokens else None
    side = isqrt(placed.tokens)
    return (side, side) if side * side == placed.tokens and _is_one_square(exhibit, placed.image) else None


def _merged(exhibit: Exhibit) -> int | None:
    """How many neighbouring patches a side become one token, where the image processor says it."""
    return getattr(exhibit.reading and exhibit.reading.image_processor, "merge_size", None)


def _is_one_square(exhibit: Exhibit, image: int) -> bool:
    shapes = exhibit.pack.pixel_shapes
    shape = shapes[image] if image < len(shapes) else ()
    return len(shape) >= 3 and shape[-3] == 3 and shape[-2] == shape[-1] and prod(shape[:-3]) == 1


def pictures(thumbnails: Sequence[Image.Image | None]) -> list[dict[str, Any] | None]:
    """Thumbnails as data URLs with their sizes; the more there are, the fewer pixels each has.

    Args:
        thumbnails: as in `Exhibit.thumbnails`.
    """
    made = []
    for side in SIDES:
        made = [None if each is None else _picture(each, side) for each in thumbnails]
        if sum(len(each["url"]) for each in made if each) <= PICTURES:
            break
    return made


def _picture(thumbnail: Image.Image, side: int) -> dict[str, Any]:
    small = thumbnail.copy()
    small.thumbnail((side, side))
    files = {kind: BytesIO() for kind in ("jpeg", "png")}
    small.convert("RGB").save(files["jpeg"], "JPEG", quality=80)
    small.save(files["png"], "PNG")
    sizes = {kind: file.tell() for kind, file in files.items()}
    kind = "png" if sizes["png"] <= max(SHARP, sizes["jpeg"]) else "jpeg"
    url = f"data:image/{kind};base64,{b64encode(files[kind].getvalue()).decode()}"
    return {"url": url, "width": thumbnail.width, "height": thumbnail.height}


def _bytes(weights: Float[np.ndarray, "T T"]) -> str:
    """Each weight as a byte, base64: 0 only for exactly 0, however small the others are; 255 for 1 and above."""
    levels = np.where(weights > 0, np.clip(np.rint(weights * 255), 1, 255), 0)
    return b64encode(levels.astype(np.uint8).tobytes()).decode()
