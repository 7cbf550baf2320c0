"""How long it takes, and how much memory, to foretell an epoch of very many prompts whose lengths are known.

    python examples/benchmarks/planning.py --rows 1000000

The prompts are made up: K = 4 responses each, all six pairs, four questions on each picture of 576 tokens; lengths of
questions and responses are lognormal. What is timed is all that `vlmpack plan` does with them, on one thread.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from vlmpack.costs.cells import CELLS
from vlmpack.costs.forecast import forecast
from vlmpack.costs.forecast_table import forecast_table
from vlmpack.costs.saving import Cost
from vlmpack.lengths import LengthTable
from vlmpack.ragged import Ragged

RESPONSES, QUESTIONS, IMAGE_TOKENS = 4, 4, 576
COST = Cost(token=13.2e9, pair=524e3, prediction=262e6, image=0.36e12)  # about that of LLaVA-1.5-7B


def table(rows: int, seed: int) -> LengthTable:
    """Lengths of so many prompts."""
    random = np.random.default_rng(seed)
    pairs = np.array([(i, j) for i in range(RESPONSES) for j in range(i + 1, RESPONSES)], dtype=np.int32)
    images = np.arange(rows, dtype=np.int32) // QUESTIONS
    kinds = int(images[-1]) + 1
    return LengthTable(
        prompt=(IMAGE_TOKENS + random.lognormal(np.log(40), 0.5, rows)).astype(np.int32),
        responses=_even(1 + random.lognormal(np.log(120), 0.6, rows * RESPONSES).astype(np.int32), rows),
        overlaps=_even(np.zeros(rows * (RESPONSES - 1), dtype=np.int32), rows),
        images=_even(images, rows),
        pairs=_even(np.tile(pairs, (rows, 1)), rows),
        margins=np.ones(rows, dtype=np.bool_),
        trunk=np.full(rows, IMAGE_TOKENS, dtype=np.int32),
        roots=images,
        content=np.zeros((rows, 16), dtype=np.uint8),
        image_digests=_even(np.zeros(kinds * 16, dtype=np.uint8), kinds),
        root_digests=_even(np.zeros(kinds * 16, dtype=np.uint8), kinds),
    )


def _even(values: np.ndarray, rows: int) -> Ragged:
    """Rows that are all as long."""
    return Ragged(values, np.arange(rows + 1) * (len(values) // rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="prompts")
    parser.add_argument("--batch-size", type=int, default=32, help="prompts of an optimizer step")
    parser.add_argument("--max-tokens", type=int, default=16384, help="tokens of a pack")
    parser.add_argument("--seed", type=int, default=0, help="of lengths and orders")
    parser.add_argument("--output", default="outputs/planning.json", help="where the result is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lengths = table(args.rows, args.seed)
    before, seconds, found = _gibibytes(), {}, []
    for cell in tqdm(CELLS, desc="foretelling", unit="cell"):
        start = time.process_time()
        found.append(forecast(lengths, COST, cell, args.batch_size, args.max_tokens, args.seed))
        seconds[cell.name] = time.process_time() - start
    print(forecast_table(found))
    result = {
        "prompts": args.rows,
        "seconds": {**seconds, "all": sum(seconds.values())},
        "GiB before": before,
        "GiB at most": _gibibytes(),
    }
    print(json.dumps(result, indent=1))
    path = Path(args.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))


def _gibibytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
