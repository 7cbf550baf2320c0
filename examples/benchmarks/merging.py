"""Time merging and packing alone: made-up samples of 1,000 tokens, K = 4, in growing numbers, on one core.

python examples/benchmarks/merging.py --output-dir outputs/merging
"""

import argparse
import gc
import json
import os
import resource
import time
from pathlib import Path

import torch

import vlmpack
from vlmpack import Sample

SYSTEM_PROMPT, PROMPT, RESPONSES, RESPONSE = 35, 600, 4, 100
COUNTS = (1_000, 10_000, 30_000, 100_000)


def samples(count: int) -> list[Sample]:
    """Random samples behind one system prompt; every fourth prompt is asked again with other responses."""
    generator, made = torch.Generator().manual_seed(0), []
    for number in range(count):
        ids = torch.randint(5, 32_000, (PROMPT + RESPONSES * RESPONSE,), generator=generator)
        ids[:SYSTEM_PROMPT] = torch.arange(SYSTEM_PROMPT)
        if number % 4 == 3:
            ids[:PROMPT] = made[-1].prompt_ids
        made.append(Sample(ids[:PROMPT], ids[PROMPT:].split(RESPONSE), ((0, 1),)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", default="outputs/merging", help="where the result is written")
    parser.add_argument("--max-tokens", type=int, default=8192, help="tokens in one pack")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="how many samples")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"merging and packing {', '.join(f'{count:,}' for count in args.counts)} samples on one core")
    lines = [
        "| samples | packs | tokens, unpacked → packed | seconds | microseconds a sample |",
        "|---:|---:|---:|---:|---:|",
    ]
    result = []
    for count in args.counts:
        made = samples(count)
        unpacked = sum(each.lengths.unpacked for each in made)
        gc.collect()
        start = time.perf_counter()
        packs = vlmpack.pack(made, args.max_tokens)
        seconds = time.perf_counter() - start
        tokens = sum(pack.tokens for pack in packs)
        result.append({"samples": count, "packs": len(packs), "tokens": tokens, "seconds": seconds})
        lines.append(
            f"| {count:,} | {len(packs):,} | {unpacked:,} → {tokens:,} | {seconds:.2f} | {1e6 * seconds / count:.0f} |"
        )
        print(lines[-1], flush=True)
        del packs, made
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GiB, samples and packs included")
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merging.json").write_text(json.dumps({"rows": result, "peak_gib": peak}, indent=1))
    (folder / "merging.md").write_text("\n".join(lines) + "\n")
    print(f"result: {folder / 'merging.md'}")


if __name__ == "__main__":
    main()
