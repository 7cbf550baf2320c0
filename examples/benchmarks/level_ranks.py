"""How level the work of ranks is when rows are dealt by predicted FLOPs, and when not. Nothing is trained.

    python examples/benchmarks/level_ranks.py --dataset preferences.jsonl --output-dir outputs/level_ranks

Made-up batches: 256 prompts for 8 ranks, lengths lognormal, prompts of an image geometric, four responses each. And
the rows of a data set as one batch, for 2, 4 and 8 ranks. Work is the forward FLOPs of LLaVA-1.5-7B with what rows of
one image share counted once a rank. "busiest / mean" says how long ranks wait for the busiest; "busiest / level" sets
the busiest against all work evenly spread with each tree computed once, so that what is computed twice counts too.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import LlavaConfig, LlavaForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent.parent))

import inputs

from vlmpack.costs.saving import Cost, cost_of, packed_flops, shared_flops
from vlmpack.lengths import Lengths, LengthTable
from vlmpack.training.dealing import deal, loads, spread

BATCHES, PROMPTS, RANKS, RESPONSES, TRUNK = 100, 256, 8, 4, 581  # five tokens stand before the image's 576
Dealer = Callable[[LengthTable, Cost, int], list[list[int]]]


def level(table: LengthTable, cost: Cost, ranks: int) -> list[list[int]]:
    """Level in predicted FLOPs."""
    return deal(packed_flops(table, cost), table.roots, ranks, shared_flops(table, cost))


def consecutive(table: LengthTable, cost: Cost, ranks: int) -> list[list[int]]:
    """As many consecutive rows for each rank."""
    return [part.tolist() for part in np.array_split(np.arange(len(table)), ranks)]


def round_robin(table: LengthTable, cost: Cost, ranks: int) -> list[list[int]]:
    """A row for each rank in turn."""
    return [list(range(rank, len(table), ranks)) for rank in range(ranks)]


DEALERS: dict[str, Dealer] = {
    "level in predicted FLOPs": level,
    "consecutive rows": consecutive,
    "rows in turn": round_robin,
}


def seven_billion() -> Cost:
    """The cost of LLaVA-1.5-7B, from its configuration alone."""
    with torch.device("meta"):
        return cost_of(LlavaForConditionalGeneration(LlavaConfig()))


def made_up(random: np.random.Generator, by_image: bool) -> LengthTable:
    """A batch of long-tailed prompts and responses, two and a half prompts an image on average."""
    images = np.repeat(np.arange(PROMPTS), random.geometric(0.4, PROMPTS))[:PROMPTS]
    order = np.arange(PROMPTS) if by_image else random.permutation(PROMPTS)
    prompts = TRUNK + 1 + random.lognormal(4.0, 1.0, PROMPTS).astype(int)
    responses = 1 + random.lognormal(5.0, 0.8, (PROMPTS, RESPONSES)).astype(int)
    names = [int(image).to_bytes(16) for image in images]
    return LengthTable.of(
        Lengths(int(prompts[row]), tuple(responses[row].tolist()), (names[row],), trunk=TRUNK, root=names[row])
        for row in order
    )


def measured(tables: Sequence[LengthTable], cost: Cost, ranks: int) -> dict[str, dict[str, float]]:
    """For each way to deal, over all batches: busiest over mean and over level; milliseconds a batch."""
    found = {}
    for name, dealer in DEALERS.items():
        over_mean, over_level, seconds = [], [], []
        for table in tables:
            work, shared = packed_flops(table, cost), shared_flops(table, cost)
            everything = loads(work, table.roots, [range(len(table))], shared)[0]
            start = time.perf_counter()
            parts = dealer(table, cost, ranks)
            seconds.append(time.perf_counter() - start)
            over_mean.append(spread(work, table.roots, parts, shared))
            over_level.append(max(loads(work, table.roots, parts, shared)) * ranks / everything)
        found[name] = {
            "busiest over mean, median": statistics.median(over_mean),
            "busiest over mean, worst": max(over_mean),
            "busiest over level, median": statistics.median(over_level),
            "busiest over level, worst": max(over_level),
            "milliseconds": 1e3 * statistics.median(seconds),
        }
    return found


def from_dataset(args: argparse.Namespace) -> LengthTable:
    """The rows of a data set, or of drawn scenes."""
    args.eval_dataset = args.eval_dataset or args.dataset  # nothing is held out
    rows, _ = inputs.rows(args)
    _, processor = inputs.model_and_processor(args, rows)
    return LengthTable.of(processor(row).lengths for row in tqdm(rows, desc="reading rows", unit="row"))


def table_of(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| batch | dealt | busiest / mean: median | worst | busiest / level: median | worst | milliseconds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for batch, found in results.items():
        for name, each in found.items():
            *ratios, milliseconds = each.values()
            columns = [batch, name, *(f"{ratio:.3f}" for ratio in ratios), f"{milliseconds:.1f}"]
            lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = inputs.flags(__doc__, "outputs/level_ranks", learning_rate=0.0, epochs=0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    args = parser.parse_args()
    cost, random = seven_billion(), np.random.default_rng(args.seed)
    results = {}
    for by_image, how in ((False, "in random order"), (True, "images side by side")):
        tables = [made_up(random, by_image) for _ in tqdm(range(BATCHES), desc=how, unit="batch")]
        results[f"{BATCHES} made-up batches, {PROMPTS} prompts {how}, {RANKS} ranks"] = measured(tables, cost, RANKS)
    rows = from_dataset(args)
    trees = len(set(rows.roots.tolist()))
    for ranks in (2, 4, 8):
        results[f"data set, {len(rows)} prompts on {trees} trees, {ranks} ranks"] = measured([rows], cost, ranks)
    text = table_of(results)
    print(text)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "level_ranks.json").write_text(json.dumps(results, indent=1))
    (folder / "level_ranks.md").write_text(text + "\n")
    print(f"result: {folder / 'level_ranks.md'}")


if __name__ == "__main__":
    main()
