"""Prefix sharing by the lengths of prefix and completion: attention alone, MLP, attention layer, whole model.

    python examples/benchmarks/grid.py

After the tables of Wang and Hegde (2024; arXiv 2410.20305): two completions after one prefix, which stands once,
against each with a prefix of its own, forward and backward. Ideal is what the arithmetic allows: counted FLOPs, in
which attention is that of the query-key pairs that are seen, whatever a kernel computes besides. Small on the CPU, as
in the paper on a GPU, and there once for each backend that it has.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import paired
import report
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from grid_parts import REPEATED, WAYS, Size, forest
from packed_step import seen_pairs

from vlmpack import plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = tuple(WAYS)
GPU_BACKENDS = ("varlen", "flex")
FORWARD_AND_BACKWARD = 14  # FLOPs of attention by query-key pair and head dimension: two products, then five
SMALL = Size((128, 512, 1024), 4, 64, 2, 1000, "cpu", torch.float32)
FULL = Size((512, 2048, 8192), 32, 128, 2, 32_000, "cuda", torch.bfloat16)


def cell(part: str, size: Size, prefix: int, completion: int, backends: Sequence[str], rounds: int) -> dict:
    """One part at one place of the grid, all backends side by side."""
    torch.manual_seed(0)
    ways = WAYS[part](size, prefix, completion, backends)
    counted = None
    if size.device != "cpu":  # torch cannot count what it compiles; matrices are the same by every backend
        repeated, shared = WAYS[part](size, prefix, completion, ["paths"]).values()
        counted = {REPEATED: repeated} | dict.fromkeys(backends, shared)
    tolerance = 1e-3 if size.dtype == torch.float32 else 2e-2
    found = paired.measure(ways, rounds=rounds, device=size.device, tolerance=tolerance, counted=counted, least=0.1)
    shapes = {name: forest(prefix, completion, repeated=name == REPEATED) for name in found}
    layers = {"MLP": 0, "whole model": size.layers}.get(part, 1)
    for name, each in found.items():
        pairs = FORWARD_AND_BACKWARD * size.width * layers * seen_pairs(shapes[name])
        found[name] = replace(each, flops=each.flops - each.attention + pairs, attention=pairs)
    return {"part": part, "prefix": prefix, "completion": completion, "ways": paired.record(found, [REPEATED])}


def markdown(cells: Sequence[dict], about: str) -> str:
    """A table a part."""
    lines = [about, ""]
    for part in dict.fromkeys(each["part"] for each in cells):
        lines += [
            f"## {part}",
            "",
            "| prefix + 2 completions | backend | FLOPs repeated → shared | ideal | measured | of ideal "
            "| peak repeated → shared |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        lines += [line for each in cells if each["part"] == part for line in _lines(each)]
        lines.append("")
    return "\n".join(lines)


def _lines(each: dict) -> Iterator[str]:
    repeated = each["ways"][REPEATED]
    peaks = {name: report.amount(way["peak bytes"]) for name, way in each["ways"].items()}
    for name, way in each["ways"].items():
        if name != REPEATED:
            ratio = way["against"][REPEATED]
            yield (
                f"| {each['prefix']} + 2 x {each['completion']} | {name} "
                f"| {repeated['FLOPs']:.2e} → {way['FLOPs']:.2e} | {ratio['ideal']:.2f} | **{ratio['measured']:.2f}** "
                f"| {ratio['of ideal']:.0%} | {peaks[REPEATED]} → {peaks[name]} |"
            )


def draw(cells: Sequence[dict], title: str) -> "Figure":
    """A panel a part: times faster by prefix, a colour a completion; dashed what the arithmetic allows."""
    from matplotlib import pyplot as plt

    parts = list(dict.fromkeys(each["part"] for each in cells))
    figure, panels = plt.subplots(
        1, len(parts), figsize=(3.4 * len(parts), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for part, panel in zip(parts, panels[0], strict=True):
        own = [each for each in cells if each["part"] == part]
        for colour, completion in zip(report.COLOURS, sorted({each["completion"] for each in own}), strict=False):
            _lines_of(panel, [each for each in own if each["completion"] == completion], colour)
        panel.set(title=part, xlabel="prefix, tokens", xscale="log", ylim=(0.5, 2.4))
        panel.set_xticks(prefixes := sorted({each["prefix"] for each in own}), map(str, prefixes))
        panel.minorticks_off()
        panel.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    panels[0][0].set_ylabel("times faster than the prefix repeated")
    panels[0][0].legend(title="completion, tokens (dashed: ideal)", fontsize=7, title_fontsize=7, loc="upper left")
    figure.suptitle(title, fontsize=9)
    return figure


def _lines_of(panel: "Axes", cells: Sequence[dict], colour: str) -> None:
    """Ideal and, by backend, measured of one completion length."""
    prefixes = [each["prefix"] for each in cells]
    for place, name in enumerate(name for name in cells[0]["ways"] if name != REPEATED):
        ratios = [each["ways"][name]["against"][REPEATED] for each in cells]
        if place == 0:
            panel.plot(prefixes, [ratio["ideal"] for ratio in ratios], "--", color=colour, linewidth=1)
        label = f"{cells[0]['completion']}" + (f", {name}" if len(cells[0]["ways"]) > 2 else "")
        measured = [ratio["measured"] for ratio in ratios]
        panel.plot(prefixes, measured, color=colour, marker="osD^"[place], linewidth=1.5, label=label)


def flags() -> argparse.Namespace:
    """What is measured, and on what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", nargs="*", default=list(PARTS), choices=PARTS, help="what is measured; all")
    add("--lengths", nargs="*", type=int, help="of prefixes and of completions; as in the paper on a GPU, else less")
    add("--rounds", type=int, default=5, help="repetitions of each way")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="bf16 and full size on a GPU")
    add("--output-dir", default="outputs/grid", help="where the result is written")
    return parser.parse_args()


def main() -> None:
    args = flags()
    on_gpu = torch.device(args.device).type == "cuda"
    size = replace(FULL, device=args.device) if on_gpu else SMALL
    size = replace(size, lengths=tuple(args.lengths)) if args.lengths else size
    backends = [name for name in GPU_BACKENDS if name in plan.BACKENDS] if on_gpu else ["auto"]
    sizes = {name: str(value) for name, value in asdict(size).items() if name != "device"}
    settings = report.conditions(args.device) | sizes | {"rounds": args.rounds}
    about, cells = report.in_words(settings), []
    for part, prefix, completion in product(args.parts, size.lengths, size.lengths):
        cells.append(cell(part, size, prefix, completion, backends, args.rounds))
        print(part, *_lines(cells[-1]), flush=True)
    kind = "gpu" if on_gpu else "cpu"
    title = f"Two completions after one prefix, forward and backward; {settings['device']}"
    text = markdown(cells, about) + ("" if on_gpu else report.on_gpu(args.output_dir, "gpu"))
    result = {"settings": settings, "cells": cells}
    path = report.write(args.output_dir, kind, result, text, lambda: draw(cells, title))
    print(f"result: {path}")


if __name__ == "__main__":
    main()
