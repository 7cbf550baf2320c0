"""Opening an image from wherever a row has it, safely; or only looking at it, without decoding it."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

LOOKED_AT = ("PNG", "JPEG", "WEBP")  # formats in which size, orientation and a cut are seen without decoding
LYING = (5, 6, 7, 8)  # EXIF orientations in which width and height change places
PNG_NOTES = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")  # what may say how a PNG is turned


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
    source = _of_feature(source)
    with _explained(_name(source), root, max_pixels):
        return _decoded(_opened(source if isinstance(source, Image.Image) else _file(source, root), max_pixels))


def look_at(source: Any, root: Path | None = None, max_pixels: int = 50_000_000) -> tuple[Image.Image, bytes]:
    """An image of the size that `open_image` would give, and a digest of the real one; nothing is decoded.

    A PNG, JPEG or WebP file is read but not decoded, and refused if its end is missing; of other formats only
    decoding tells, so they are decoded, unless pixels are at hand already. Digests are of files, or of the pixels of
    images in memory: the same picture in two different files has two digests.

    Args:
        source: as for `open_image`.
        root: likewise.
        max_pixels: likewise.

    Returns:
        An image whose pixels mean nothing, and 16 bytes.

    Raises:
        ImageError: as `open_image`.
    """
    source = _of_feature(source)
    with _explained(_name(source), root, max_pixels):
        if isinstance(source, Image.Image) and not _is_waiting(source):
            image = _decoded(_opened(source, max_pixels))
            return image, fingerprint(image)
        data = _data(source, root)
        image = _opened(BytesIO(data), max_pixels)
        if image.format not in LOOKED_AT or _is_turned_behind(image, data):
            size = _decoded(image).size
        else:
            size = _upright(image)
            _refuse_cut(image, data)
        return Image.new("RGB", size, None), blake2b(data, digest_size=16).digest()


def fingerprint(image: Image.Image) -> bytes:
    """A digest of an opened image's pixels: equal for equal images only, whatever file they came from."""
    return blake2b(image.tobytes(), digest_size=16, key=str((image.size, image.mode)).encode()).digest()


@contextmanager
def _explained(name: str, root: Path | None, max_pixels: int) -> Iterator[None]:
    """Say in our own words what Pillow finds wrong with an image."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, str(error), max_pixels)) from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image that Pillow can read; convert it to PNG, JPEG or WebP") from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist under {root or Path.cwd()}; check image_root") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ImageError(f"{name} is damaged or cut off ({error}); replace the file or drop the row") from None


def _opened(file: Any, max_pixels: int) -> Image.Image:
    """An image with its header read, not larger than allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = file if isinstance(file, Image.Image) else Image.open(file)
    if image.width * image.height > max_pixels:
        raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
    return image


def _decoded(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image).convert("RGB")


def _upright(image: Image.Image) -> tuple[int, int]:
    """Width and height once the image is turned; a PNG's own `getexif` would decode it."""
    lies = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in LYING
    return (image.height, image.width) if lies else image.size


def _is_turned_behind(image: Image.Image, data: bytes) -> bool:
    """Whether a PNG may say only behind its pixels how it is turned."""
    return image.format == "PNG" and any(data.find(note, data.rfind(b"IDAT")) >= 0 for note in PNG_NOTES)


def _refuse_cut(image: Image.Image, data: bytes) -> None:
    """Raise OSError if the end of a file is missing; a PNG's checksums are looked at too. A cut WebP does not open."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        return
    if image.format == "PNG":
        image.verify()
    if image.format == "JPEG" and data.find(b"\xff\xd9", image.fp.tell()) < 0:  # behind its header and thumbnail
        raise OSError("its end is missing")


def _is_waiting(image: Image.Image) -> bool:
    """Whether an image was opened and not decoded yet."""
    return isinstance(image, ImageFile.ImageFile) and bool(image.tile) and image.fp is not None


def _data(source: Any, root: Path | None) -> bytes:
    """The bytes of an image's file."""
    if isinstance(source, ImageFile.ImageFile):
        place = source.fp.tell()
        source.fp.seek(0)
        data = source.fp.read()
        source.fp.seek(place)
        return data
    file = _file(source, root)
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()


def _file(source: Any, root: Path | None) -> Path | BytesIO:
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


def _of_feature(source: Any) -> Any:
    """What a `datasets` Image feature holds; other sources as they are."""
    if not isinstance(source, Mapping):
        return source
    return source["bytes"] if source.get("bytes") is not None else source.get("path")


def _name(source: Any) -> str:
    if isinstance(source, str | Path):
        return f"image {source}"
    return f"image of {len(source)} bytes" if isinstance(source, bytes | bytearray) else "image"


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name} is too large to decode safely: {size}, and max_image_pixels is {max_pixels}; "
        f"scale it down, or raise max_image_pixels if you trust it"
    )
