"""What an image processor does to images: how many pixels of them a model gets to see."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

SETTINGS = ("do_resize", "size", "do_center_crop", "crop_size", "min_pixels", "max_pixels")
TILES = ("crop_to_patches", "min_patches", "max_patches", "image_grid_pinpoints")
PATCHES = ("patch_size", "merge_size")


def pixel_budget(image_processor: Any) -> dict[str, Any] | None:
    """The settings of an image processor that say how large its images are.

    Args:
        image_processor: of a transformers processor; None if it has none.

    Returns:
        Plain values by name, as far as it has them; None for text only.
    """
    if image_processor is None:
        return None
    found = {name: _plain(getattr(image_processor, name, None)) for name in (*SETTINGS, *TILES, *PATCHES)}
    return {name: value for name, value in found.items() if value is not None}


def budget_line(budget: Mapping[str, Any] | None) -> str:
    """A pixel budget in words.

    Args:
        budget: as `pixel_budget` gives it.

    Returns:
        One line.

    Example:
        >>> budget_line({"do_resize": True, "size": {"height": 384, "width": 384}})
        'images: size 384 x 384'
    """
    if budget is None:
        return "images: none, the model reads text only"
    size = budget.get("size")
    if isinstance(size, Mapping) and "merge_size" in budget and {"shortest_edge", "longest_edge"} <= set(size):
        return _area_line(size["shortest_edge"], size["longest_edge"], budget)
    off = {"size": "do_resize", "crop_size": "do_center_crop"}
    shown = [name for name in (*SETTINGS, *TILES) if budget.get(off.get(name, name)) is not False]
    parts = [f"{name} {_short(budget[name])}" for name in shown if name in budget and budget[name] is not True]
    return f"images: {', '.join(parts) or 'as they are'}"


def _area_line(least: int, most: int, budget: Mapping[str, Any]) -> str:
    """Qwen2-VL and its like call pixels of area edges; a token is a square of merged patches."""
    line = f"images: {least:,} to {most:,} pixels"
    if isinstance(patch := budget.get("patch_size"), int):
        line += f", at most {most // (patch * budget['merge_size']) ** 2:,} tokens"
    return line


def _plain(value: Any) -> Any:
    """A value as JSON has it, without what is None."""
    if is_dataclass(value) and not isinstance(value, type):  # as transformers keeps a size
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: each for name, each in value.items() if each is not None} or None
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str) else None


def _short(value: Any) -> str:
    """A size as "336 x 336", a list of grids by its largest, else as it is."""
    if isinstance(value, Mapping):
        if set(value) == {"height", "width"}:
            return f"{value['height']} x {value['width']}"
        return ", ".join(f"{name} {each:,}" for name, each in value.items())
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        largest = max(value, key=lambda each: each[0] * each[1])
        return f"{len(value)}, up to {largest[0]} x {largest[1]}"
    return f"{value:,}" if isinstance(value, int) else str(value)
