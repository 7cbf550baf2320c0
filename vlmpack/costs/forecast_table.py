"""Forecasts to read in a terminal: a table, what must be known to read it, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlmpack.costs.cells import CELLS, PADDED_PAIRS, TREES, VANILLA
from vlmpack.costs.forecast import Forecast
from vlmpack.costs.saving import Cost
from vlmpack.lengths import LengthTable

BASES = (PADDED_PAIRS, VANILLA)
HEADS = ("cell", "tokens", "padding", "vision", "FLOPs", "packs/step", "peak", *(f"x {name}" for name in BASES))


def speed_up(found: Sequence[Forecast], base: str) -> list[float]:
    """How many times as many FLOPs a cell takes as each of them.

    Args:
        found: of several cells, that one among them.
        base: a cell's name.
    """
    (flops,) = (each.flops for each in found if each.cell.name == base)
    return [flops / each.flops for each in found]


def forecast_table(found: Sequence[Forecast]) -> str:
    """Forecasts as lines of columns: cells down, what they cost across.

    Args:
        found: of several cells, those of `BASES` among them.
    """
    ratios = zip(*(speed_up(found, base) for base in BASES), strict=True)
    lines = [HEADS, *(_line(each, shares) for each, shares in zip(found, ratios, strict=True))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def _line(each: Forecast, ratios: Sequence[float]) -> tuple[str, ...]:
    return (
        each.cell.name,
        f"{each.tokens:,}",
        f"{each.padding / each.tokens:.0%}",
        f"{each.passes:,}",
        f"{each.flops:.2e}",
        f"{each.packs / each.steps:.1f}",
        f"{each.peak:,}",
        *(f"{ratio:.2f}" for ratio in ratios),
    )


def remarks(found: Sequence[Forecast], table: LengthTable, cost: Cost, max_tokens: int) -> list[str]:
    """What the table is about, and what it does not show.

    Args:
        found: of several cells.
        table: of the samples.
        cost: by which they were foretold.
        max_tokens: of a pack.
    """
    images = f", {len(table.images.values):,} images" if len(table.images.values) else ""
    lines = [
        f"one epoch of {len(table):,} prompts, {table.responses.counts.sum():,} responses, "
        f"{table.pair_counts.sum():,} pairs{images}; {found[0].steps:,} optimizer steps; FLOPs of forward passes"
    ]
    if cost.image is None and images:
        lines.append("FLOPs leave out the vision tower: it takes pictures of any size, so that it cannot be foretold")
    if not cost.pair:
        lines.append("no --model was given: FLOPs stand for tokens alone")
    if large := [each for each in found if each.peak > max_tokens]:
        least = max(each.peak for each in large)
        names = ", ".join(f"{each.cell.name!r}" for each in large)
        lines.append(f"{names}: a prompt alone is larger than max_tokens={max_tokens}; {least} would do for all")
    return lines


def advice(found: Sequence[Forecast], max_tokens: int, given: Mapping[str, Any]) -> str:
    """The cheapest cell that can run, and the trainers' settings for it.

    Of cells that cost the same to a hundredth, it is the one with the fewest settings to make.

    Args:
        found: of several cells, those of `BASES` among them.
        max_tokens: of a pack.
        given: settings of the trainers that hold for all cells.

    Returns:
        One line.
    """
    least = min(each.flops for each in found if each.peak <= max_tokens)
    best = min(
        (each for each in found if each.peak <= max_tokens),
        key=lambda each: (round(each.flops / least, 2), len(_changed(each))),
    )
    settings = ", ".join(f"{name}={value!r}" for name, value in {**given, **_changed(best)}.items())
    ratios = " and ".join(f"{speed_up(found, base)[found.index(best)]:.2f} times {base}" for base in BASES)
    moved = "; it changes which rows meet in a step" if best.cell.by_image or best.cell.strategy != "random" else ""
    return f"best: {best.cell.name} ({ratios}{moved}), with DPOConfig({settings})"


def _changed(each: Forecast) -> dict[str, Any]:
    """The settings that are not the trainers' own, which are those of trees."""
    (own,) = (cell.settings for cell in CELLS if cell.name == TREES)
    return {name: value for name, value in each.cell.settings.items() if value != own[name]}
