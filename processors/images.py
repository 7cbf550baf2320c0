"""Opening an image from wherever a row has it, safely."""

import warnings
from collections.abc import Mapping
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError


class ImageError(ValueError):
    """An image cannot be opened, or may not be; the message names it and says what to do."""


def open_image(source: Any, root: Path | None = None, max_pixels: int = 50_000_000) -> Image.Image:
    """Open and decode an image, upright and in RGB.

    Args:
        source: a PIL image, a path, bytes, or a `datasets` Image feature `{"bytes": ..., "path": ...}`.
        root: folder that paths are relative to; none outside it is opened. None: this process's folder, any path.
        max_pixels: width times height; a larger image is refused before it is decoded.

    Raises:
        ImageError: missing, not an image, cut off, too large, or outside the root.
    """
    if isinstance(source, Mapping):
        source = source["bytes"] if source.get("bytes") is not None else source.get("path")
    name = _name(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = source if isinstance(source, Image.Image) else Image.open(_file(source, root))
        if image.width * image.height > max_pixels:
            raise ImageError(_too_large(name, f"{image.width}x{image.height} pixels", max_pixels))
        return ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, str(error), max_pixels)) from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image that Pillow can read; convert it to PNG, JPEG or WebP") from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist under {root or Path.cwd()}; check image_root") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ImageError(f"{name} is damaged or cut off ({error}); replace the file or drop the row") from None


def fingerprint(image: Image.Image) -> bytes:
    """A digest of an opened image's pixels: equal for equal images only, whatever file they came from."""
    return blake2b(image.tobytes(), digest_size=16, key=str((image.size, image.mode)).encode()).digest()


def _file(source: Any, root: Path | None) -> Any:
    """Something that Pillow can open, checked to lie inside the root."""
    if isinstance(source, bytes | bytearray):
        return BytesIO(source)
    if not isinstance(source, str | Path):
        raise ImageError(
            f"an image is a {type(source).__name__}; give a PIL image, a path, bytes or a datasets Image feature"
        )
    if "://" in str(source):
        raise ImageError(
            f"{str(source)[:80]} is a URL; nothing is downloaded here, so save the image and give its path"
        )
    if root is None:
        return Path(source)
    path = (root / source).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ImageError(f"{source} lies outside image_root={root}; move it inside, or widen image_root")
    return path


def _name(source: Any) -> str:
    if isinstance(source, str | Path):
        return f"image {source}"
    return f"image of {len(source)} bytes" if isinstance(source, bytes | bytearray) else "image"


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name} is too large to decode safely: {size}, and max_image_pixels is {max_pixels}; "
        f"scale it down, or raise max_image_pixels if you trust it"
    )
