"""The shapes in which families of models take an image, told apart by the names of their arguments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Facts:
    """What the shapes of images follow from.

    Attributes:
        side: pixels of a square picture's side.
        patch: pixels of a patch's side.
        channels: colours.
        frames: pictures in a patch; a still picture is repeated.
        merge: patches that make an image token, along one side.
        pinpoints: sizes into which the family tiles pictures.
        high: pixels of a square picture's side for a second tower, where there is one.
        together: images that stand in a prompt with this one, itself included.
    """

    side: int
    patch: int
    channels: int
    frames: int
    merge: int
    pinpoints: tuple[tuple[int, int], ...]
    high: int
    together: int


def _number(config, names: str, default: int) -> int:
    for name in names.split():
        value = getattr(config, name, None)
        value = value[0] if isinstance(value, list | tuple) and value else value
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return default


def facts_of(config, together: int) -> Facts:
    """What a model's configuration says about pictures.

    Args:
        config: of an image-text-to-text model.
        together: images that stand in a prompt with one, itself included.
    """
    vision = getattr(config, "vision_config", None) or getattr(config, "vq_config", None) or config
    patch = _number(vision, "patch_size", 4)
    merge = _number(vision, "spatial_merge_size merge_kernel_size pooling_kernel_size merge_size adapter_merge_size", 0)
    return Facts(
        side=_number(vision, "image_size resolution", 4 * patch),
        patch=patch,
        channels=_number(vision, "num_channels in_channels in_chans", 3),
        frames=_number(vision, "temporal_patch_size patch_temporal", 1),
        merge=merge or _number(config, "spatial_merge_size downsample_factor", 2),
        pinpoints=tuple(map(tuple, getattr(config, "image_grid_pinpoints", None) or ())),
        high=_number(getattr(config, "high_res_vision_config", None), "image_size", 0),
        together=together,
    )


def possible_tensors(
    facts: Facts, number: int, known: set[str], taken: set[str], generator: torch.Generator
) -> list[Tensors]:
    """Possible shapes for one image, likelier ones first.

    Args:
        facts: of the model.
        number: of the image; neighbours differ in size.
        known: arguments of `get_image_features`.
        taken: arguments of the model itself.
        generator: of the noise.
    """

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    extra = {}
    if "batch_num_images" in known:
        extra["batch_num_images"] = torch.tensor([facts.together])
    if "image_merge_sizes" in taken:
        extra["image_merge_sizes"] = torch.tensor([facts.merge])
    if "qformer_input_ids" in known:  # the Q-Former reads a question of its own beside each picture
        extra["qformer_input_ids"] = torch.tensor([[1, 2, 3]])
    if "high_res_pixel_values" in known:
        extra["high_res_pixel_values"] = noise(1, facts.channels, facts.high, facts.high)
    grid = (2, 3) if number % 2 else (2, 2)
    make = next((make for names, make in CONVENTIONS if set(names.split()) <= known), _plain)
    shapes = [{**tensors, **extra} for tensors in chain(make(facts, grid, noise), _plain(facts, grid, noise))]
    return [{name: x for name, x in tensors.items() if name in known | taken} for tensors in shapes]


Noise = Callable[..., Tensor]
Grid = tuple[int, int]


def _patches(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """Patches of one picture after each other, and their grid."""
    height, width = grid[0] * facts.merge, grid[1] * facts.merge
    still = facts.channels * facts.patch**2
    thw = {"image_grid_thw": torch.tensor([[1, height, width]])}
    yield {"pixel_values": noise(height * width, still * facts.frames), **thw}
    yield {"pixel_values": noise(height * width, facts.channels, facts.patch, facts.patch), **thw}
    yield {"pixel_values": noise(height * width, still), **thw}
    large = facts.patch * facts.merge  # one patch a token, and the grid counts tokens
    thw = {"image_grid_thw": torch.tensor([[1, *grid]])}
    yield {"pixel_values": noise(prod(grid), large, large, facts.channels), **thw}


def _patches_without_frames(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    height, width = grid[0] * 2, grid[1] * 2
    values = noise(height * width, facts.channels * facts.patch**2)
    yield {"pixel_values": values, "image_grid_hw": torch.tensor([[height, width]])}


def _padded_patches(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """A row of patches for each picture, and which of them there are."""
    height, width = grid[0] * facts.merge, grid[1] * facts.merge
    yield {
        "pixel_values": noise(1, height * width, facts.channels * facts.patch**2),
        "spatial_shapes": torch.tensor([[height, width]]),
        "pixel_attention_mask": torch.ones(1, height * width, dtype=torch.long),
    }


def _placed_patches(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """Patches and their places; all pictures have as many, for places that are filled up are -1 and not 0."""
    most = 6 * facts.merge**2
    for patch in (facts.patch, facts.patch * facts.merge):
        height, width = (side * facts.merge * facts.patch // patch for side in grid)
        count = most * facts.patch**2 // patch**2
        places = torch.full((1, count, 2), -1)
        places[0, : height * width] = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(-1)
        values = noise(1, count, facts.channels * patch**2) * (places[..., :1] >= 0)
        yield {"pixel_values": values, "image_position_ids": places}


def _strip(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """All patches side by side in one picture of a patch's height."""
    for side in (2 * facts.merge, 4 * facts.merge):
        height, width = grid[0] * side, grid[1] * side
        values = noise(1, facts.channels, facts.patch, height * width * facts.patch)
        yield {"pixel_values": values, "target_sizes": torch.tensor([[height, width]], dtype=torch.int32)}


def _tiles_of_any_resolution(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """The whole picture small, then its tiles; or, without such tiles, a picture of its own size."""
    if facts.pinpoints:
        height, width = facts.pinpoints[grid[1] % 2 % len(facts.pinpoints)]
        tiles = 1 if facts.together > 1 else 1 + height * width // facts.side**2
        values = noise(1, tiles, facts.channels, facts.side, facts.side)
        yield {"pixel_values": values, "image_sizes": torch.tensor([[height, width]])}
    for unit in (facts.patch * facts.merge, facts.side):
        height, width = grid[0] * unit, grid[1] * unit
        yield {"pixel_values": noise(1, facts.channels, height, width), "image_sizes": torch.tensor([[height, width]])}


def _tiles(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """Several tiles of a picture in the row of their prompt, and which pixels, or which tiles, there are."""
    tiles = grid[1] - 1
    values = noise(1, tiles, facts.channels, facts.side, facts.side)
    mask = torch.ones(1, tiles, facts.side, facts.side, dtype=torch.bool)
    yield {"pixel_values": values, "pixel_attention_mask": mask}
    yield {"pixel_values": values, "pixel_attention_mask": mask[..., 0, 0]}


def _views(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """The whole picture, and every other one cut into parts as well."""
    parts = (grid[1] - 2) * 2
    for side in (facts.side, 2 * facts.side):
        whole = {"pixel_values": noise(1, facts.channels, side, side)}
        if parts:
            whole["pixel_values_local"] = noise(parts, facts.channels, facts.side, facts.side)
        yield {**whole, "num_local_patches": torch.tensor([parts]), "patches_grid": torch.tensor([[parts, 1]])}


def _plain(facts: Facts, grid: Grid, noise: Noise) -> Iterator[Tensors]:
    """A square picture, or its patches."""
    yield {"pixel_values": noise(1, facts.channels, facts.side, facts.side)}
    yield {"pixel_values": noise(1, 1, facts.channels, facts.side, facts.side)}
    yield {"pixel_values": noise(1, prod(grid), facts.channels * facts.patch**2)}


CONVENTIONS: list[tuple[str, Callable[[Facts, Grid, Noise], Iterator[Tensors]]]] = [
    ("image_grid_thw", _patches),
    ("image_grid_hw", _patches_without_frames),
    ("spatial_shapes", _padded_patches),
    ("image_position_ids", _placed_patches),
    ("target_sizes", _strip),
    ("image_sizes", _tiles_of_any_resolution),
    ("pixel_attention_mask", _tiles),
    ("patches_grid", _plain),  # beside views, which it takes as lists only
    ("num_local_patches", _views),
]


def axes(tensors: Tensors) -> dict[str, int]:
    """Along which axis images are joined, where the first is something else: the prompt, or the model's only row.

    Args:
        tensors: of one image.
    """
    if "target_sizes" in tensors:
        return {"pixel_values": 3}
    if "pixel_attention_mask" in tensors and "spatial_shapes" not in tensors:
        return {"pixel_values": 1, "pixel_attention_mask": 1}
    return {"pixel_values": 1} if set(tensors) == {"pixel_values"} and tensors["pixel_values"].ndim == 3 else {}
