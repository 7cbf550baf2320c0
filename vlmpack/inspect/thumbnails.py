"""Small pictures of what the vision tower is shown, of its own arguments: scaled, cropped and cut as they are."""

from collections.abc import Sequence
from math import ceil, isqrt
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vlmpack.pack import Pack

SIDE = 192  # pixels of a thumbnail's longer side, at most
GAP = 2  # pixels between tiles


def thumbnails(pack: Pack, image_processor: Any = None) -> tuple[Image.Image | None, ...]:
    """For each image that runs through the vision tower, what it is shown.

    Args:
        pack: on the CPU.
        image_processor: of transformers; undoes its normalization and knows its patches. Without it, brightness is
            stretched from the darkest value to the brightest.

    Returns:
        Pictures of at most `SIDE` pixels a side, the tiles of an image that is cut side by side; None where the layout
        of the tower's arguments is not known.
    """
    return tuple(_picture(tiles, image_processor) for tiles in _tiles(pack, image_processor))


def _tiles(pack: Pack, image_processor: Any) -> list[Float[Tensor, "tiles 3 height width"] | None]:
    pixels = pack.images.get("pixel_values")
    if pixels is None or len(pack.pixel_shapes) != len(pack.contents):
        return [None] * len(pack.contents)
    grids = pack.images.get("image_grid_thw")
    parts = _parted(pixels, pack.pixel_shapes)
    if grids is not None:
        return [_from_patches(part, grid, image_processor) for part, grid in zip(parts, grids.tolist(), strict=True)]
    return [part.flatten(0, -4) if part.ndim >= 4 and part.shape[-3] == 3 else None for part in parts]


def _parted(pixels: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Each image's own part: images are joined along the axis on which their sizes add up, and filled up on others."""
    axes = range(pixels.ndim)
    axis = next((a for a in axes if sum(shape[a] for shape in shapes) == pixels.shape[a]), 0)
    parts = pixels.split([shape[axis] for shape in shapes], dim=axis)
    return [part[tuple(slice(size) for size in shape)] for part, shape in zip(parts, shapes, strict=True)]


def _from_patches(patches: Tensor, grid: Sequence[int], image_processor: Any) -> Tensor | None:
    """A picture put together of the patches that Qwen-VL's processors cut it into, merged neighbours first."""
    side = getattr(image_processor, "patch_size", None)
    near = getattr(image_processor, "merge_size", None)
    times, height, width = grid
    if patches.ndim != 2 or not isinstance(side, int) or not isinstance(near, int) or times != 1:
        return None
    if patches.shape[1] % (3 * side * side) or height % near or width % near or len(patches) != height * width:
        return None
    return rearrange(
        patches,
        "(y x a b) (c t p q) -> t c (y a p) (x b q)",
        y=height // near, x=width // near, a=near, b=near, c=3, p=side, q=side,
    )[:1]  # fmt: skip


def _picture(tiles: Float[Tensor, "tiles 3 height width"] | None, image_processor: Any) -> Image.Image | None:
    if tiles is None or not tiles.numel():
        return None
    bright = _brightness(tiles.float(), image_processor)
    across = isqrt(len(bright) - 1) + 1
    down = ceil(len(bright) / across)
    pictures = [_small(tile, SIDE // max(across, down)) for tile in bright]
    width, height = pictures[0].size
    if len(pictures) == 1:
        return pictures[0]
    sheet = Image.new("RGB", (across * (width + GAP) - GAP, down * (height + GAP) - GAP), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % across * (width + GAP), number // across * (height + GAP)))
    return sheet


def _brightness(tiles: Tensor, image_processor: Any) -> Float[Tensor, "tiles 3 height width"]:
    """Values from 0 to 1 as they were before normalization."""
    mean, std = (getattr(image_processor, name, None) for name in ("image_mean", "image_std"))
    if image_processor is None or (getattr(image_processor, "do_normalize", False) and (mean is None or std is None)):
        least, most = tiles.min(), tiles.max()
        return (tiles - least) / (most - least).clamp(min=1e-6)
    if getattr(image_processor, "do_normalize", False):
        tiles = tiles * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    if not getattr(image_processor, "do_rescale", True):
        tiles = tiles / 255
    return tiles.clamp(0, 1)


def _small(tile: Float[Tensor, "3 height width"], side: int) -> Image.Image:
    picture = Image.fromarray((tile * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((side, side))
    return picture
