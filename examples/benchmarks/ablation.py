"""Measure the cells of an ablation: how much faster each is than padded training, foretold, counted and timed.

    python examples/benchmarks/ablation.py --llava-bench preferences.jsonl --harmless test.jsonl.gz

A step is forward and backward over all packs of one optimizer batch with a small model of random weights (and the
reference's forward with `--kind dpo`). Cells alternate A B C A B C in one process; ratios are taken round by round, and
their median is reported. Every cell computes the same loss, or this raises.

Besides two data sets that are read from files there are six profiles: random tokens as long as those of data sets in
use, by the median of a sequence's length and the ratio of prompt to response; see `made_up`. Lengths are scaled by
`--scale`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import made_up
import numpy as np
import paired
import report
import torch
from packed_step import as_before, packed_step
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent.parent))

import inputs
import small_models

import vlmpack
from vlmpack import RewardModel, Sample
from vlmpack.costs.cells import CELLS, Cell
from vlmpack.costs.forecast import forecast
from vlmpack.costs.forecast_table import BASES, speed_up
from vlmpack.costs.saving import Cost, cost_of
from vlmpack.lengths import LengthTable
from vlmpack.ordering import Order
from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig, load_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = ("sorting", "packing", "both", "bins", "trees")  # the table has the others too


def read(path: str, args: argparse.Namespace) -> tuple[torch.nn.Module, list[Sample]]:
    """Rows of a file up to as many tokens as are asked for, and a small model for them."""
    rows = load_rows(path)
    tokenizer = small_models.train_tokenizer(text for row in rows for text in inputs.strings(row))
    if {"images", "image"} & set(rows.column_names):
        model, reader = small_llava(tokenizer, args)
    else:
        model, reader = small_models.llama(tokenizer, hidden=args.hidden, layers=args.layers)
    processor = PreferenceProcessor(reader, PreferenceProcessorConfig(image_root=Path(path).parent))
    samples, tokens = [], 0
    for row in rows:
        try:
            sample = processor(row)
        except ValueError:  # a few rows of HH-RLHF have an empty response
            continue
        if sample.pairs:
            samples.append(sample)
            tokens += sample.lengths.unpacked
        if tokens >= args.tokens:
            break
    return model, samples


def small_llava(tokenizer, args: argparse.Namespace):
    """A LLaVA whose pictures are small too, so that they can be computed on a CPU, and its processor."""
    model, processor = small_models.llava(tokenizer, hidden=args.hidden, layers=args.layers)
    config, side = model.config, args.image_side
    config.vision_config.image_size, config.image_seq_length = side, (side // 14) ** 2
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    return LlavaForConditionalGeneration(config), processor


def small_llama(args: argparse.Namespace) -> torch.nn.Module:
    """A Llama for the profiles."""
    heads = max(1, args.hidden // 64)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=made_up.VOCABULARY,
            hidden_size=args.hidden,
            intermediate_size=2 * args.hidden,
            num_hidden_layers=args.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
        )
    )


def data(args: argparse.Namespace) -> Iterator[tuple[str, torch.nn.Module, list[Sample]]]:
    """Each data set with a model for it."""
    for name, path in {"llava_bench_wild": args.llava_bench, "hh_rlhf_harmless_test": args.harmless}.items():
        if path is not None:
            yield name, *read(path, args)
    for name in args.profiles:
        mean = made_up.PROFILES[name][0] * args.scale * np.exp(made_up.SPREAD**2 / 2)
        rows = max(4, round(args.tokens / (2 * mean)))
        yield name, small_llama(args), made_up.profile(name, rows, args.seed, args.scale)


def limit(table: LengthTable, cell: Cell, args: argparse.Namespace) -> int:
    """Tokens of a pack: as asked for, or of the largest prompt, all of whose pairs stand in one pack."""
    return max(args.max_tokens, forecast(table, Cost(1.0, 0.0), cell, batch_size=1, max_tokens=1).peak)


def steps(model: torch.nn.Module, cells: Sequence[Cell], samples: Sequence[Sample], args: argparse.Namespace) -> dict:
    """For each cell, its packs, and a function that computes the optimizer batch and returns its loss."""
    reference = None if isinstance(model, RewardModel) else deepcopy(model).requires_grad_(False)
    table = LengthTable.of(sample.lengths for sample in samples)

    found = {}
    for cell in cells:
        images = table.first_image if cell.by_image else None
        order = Order(cell.strategy, table.packed, len(samples), args.seed, images)
        ordered = [samples[row] for row in order]
        packs = vlmpack.pack(ordered, limit(table, cell, args), sharing=cell.sharing, padding=cell.padding)
        found[cell.name] = (packs, lambda packs=packs: packed_step(model, reference, packs))
    return found


def measure(name: str, model: torch.nn.Module, samples: Sequence[Sample], args: argparse.Namespace) -> dict:
    """All cells of one data set: what is foretold of each, what is counted, and how long it takes."""
    model = vlmpack.enable(RewardModel.from_backbone(model) if args.kind == "reward" else model)
    table = LengthTable.of(sample.lengths for sample in samples)
    cells = [cell for cell in CELLS if len(table.images.values) or not cell.by_image]
    cost = cost_of(model)
    foretold = [forecast(table, cost, each, len(samples), limit(table, each, args), args.seed) for each in cells]
    ways = steps(model, cells, samples, args)
    found = paired.measure(
        {cell: step for cell, (_, step) in ways.items()}, rounds=args.rounds, before=lambda: as_before([model])
    )
    result = {
        each.cell.name: {
            "tokens": {"foretold": each.tokens, "packed": sum(pack.tokens for pack in ways[each.cell.name][0])},
            "padding": each.padding,
            "vision passes": each.passes,
            "packs": each.packs,
            "peak": each.peak,
            "forward FLOPs foretold": each.flops,
            "step FLOPs counted": found[each.cell.name].flops,
            "step peak bytes": found[each.cell.name].peak,
            "seconds": list(found[each.cell.name].seconds),
        }
        for each in foretold
    }
    for base in BASES:
        for each, predicted in zip(foretold, speed_up(foretold, base), strict=True):
            cell = each.cell.name
            ratio = paired.against(found[base], found[cell])
            result[cell][f"x {base}"] = {
                "foretold": predicted,
                "counted": ratio.ideal,
                "measured": ratio.measured,
                "of ideal": ratio.of_ideal,
                "foretold off by": abs(predicted / ratio.measured - 1),
            }
    return {"prompts": len(samples), "unpacked tokens": int(table.unpacked.sum()), "cells": result}


def markdown(results: dict[str, dict], about: str) -> str:
    """All data sets as tables."""
    lines = [about, ""]
    for name, result in results.items():
        lines += [
            f"## {name}",
            "",
            f"{result['prompts']} prompts in one step, {result['unpacked tokens']:,} tokens unpacked. Speed-ups are "
            f"foretold by forward FLOPs / counted / measured, and how far the first is off the last. A pack holds more "
            f"tokens than asked for where one prompt does.",
            "",
            "| cell | tokens | padding | images | packs | largest | seconds | x padded pairs | off | x vanilla | off |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [_line(cell, each) for cell, each in result["cells"].items()]
        lines.append("")
    return "\n".join(lines)


def _line(cell: str, each: dict) -> str:
    ratios = " | ".join(
        f"{ratio['foretold']:.2f} / {ratio['counted']:.2f} / **{ratio['measured']:.2f}** "
        f"| {ratio['foretold off by']:.0%}"
        for ratio in (each[f"x {base}"] for base in BASES)
    )
    tokens = each["tokens"]["foretold"]
    return (
        f"| {cell} | {tokens:,} | {each['padding'] / tokens:.0%} | {each['vision passes']} | {each['packs']} "
        f"| {each['peak']:,} | {statistics.median(each['seconds']):.2f} | {ratios} |"
    )


def draw(results: dict[str, dict], title: str) -> "Figure":
    """A group of bars a data set: how many times faster than vanilla each cell is, and what FLOPs foretell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, cell in enumerate(DRAWN):
        at = [row + (place - (len(DRAWN) - 1) / 2) * 0.17 for row in range(len(results))]
        ratios = [found["cells"][cell]["x vanilla"] for found in results.values()]
        axes.bar(at, [ratio["measured"] for ratio in ratios], 0.15, color=report.COLOURS[place], label=cell)
        foretold = [ratio["foretold"] for ratio in ratios]
        axes.plot(at, foretold, "D", color="white", markeredgecolor="black", markersize=4)
    axes.plot([], [], "D", color="white", markeredgecolor="black", markersize=4, label="foretold by FLOPs")
    axes.axhline(1, color="0.5", linewidth=0.8)
    axes.set_xticks(range(len(results)), [name.replace("_", " ") for name in results], fontsize=8)
    axes.set(ylabel="times faster than vanilla", title=title)
    axes.legend(fontsize=8, ncols=2)
    return figure


def flags() -> argparse.Namespace:
    """What is measured, and on what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--llava-bench", help="file of LLaVA-Bench-in-the-wild preferences; without it they are left out")
    add("--harmless", help="file of HH-RLHF's harmless test set; without it it is left out")
    add(
        "--profiles",
        nargs="*",
        default=list(made_up.PROFILES),
        choices=list(made_up.PROFILES),
        help="which of the profiles; all",
    )
    add("--kind", default="reward", choices=["reward", "dpo"], help="which step")
    add("--tokens", type=int, default=12_000, help="of the optimizer batch, every response on its own, about")
    add("--max-tokens", type=int, default=2048, help="of a pack, or of a padded batch")
    add("--scale", type=float, default=0.25, help="of a profile's lengths")
    add("--image-side", type=int, default=112, help="pixels; 112 make 64 tokens where LLaVA-1.5 has 576")
    add("--hidden", type=int, default=256, help="width of the model")
    add("--layers", type=int, default=4, help="of the model")
    add("--rounds", type=int, default=3, help="repetitions of each cell")
    add("--seed", type=int, default=0, help="of weights, profiles and orders")
    add("--output-dir", default="outputs/ablation", help="where the result is written")
    return parser.parse_args()


def main() -> None:
    args = flags()
    torch.manual_seed(args.seed)
    folder, results, start = Path(args.output_dir), {}, time.perf_counter()
    settings = {name: value for name, value in vars(args).items() if name not in ("llava_bench", "harmless")}
    settings = {name: value for name, value in settings.items() if name not in ("output_dir", "profiles")}
    settings |= report.conditions()
    about = report.in_words(settings)
    for name, model, samples in data(args):
        print(f"measuring {name}: {len(samples)} prompts ({time.perf_counter() - start:.0f} s so far)", flush=True)
        results[name] = measure(name, model, samples, args)
        print(markdown({name: results[name]}, about), flush=True)
        title = f"A {args.kind} step, {settings['device']}"
        report.write(
            folder,
            args.kind,
            {"settings": settings, "data": results},
            markdown(results, about),
            lambda title=title: draw(results, title),
        )
    print(f"result: {folder / f'{args.kind}.md'} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
