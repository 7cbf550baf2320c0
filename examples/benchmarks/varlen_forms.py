"""FlashAttention over a pack in its two forms: whole paths gathered, or shared parts apart and merged.

    python examples/benchmarks/varlen_forms.py --output-dir outputs/varlen_forms

Forward and backward of one layer in bfloat16, for K responses and prompts of several lengths, the ways alternating
A B A B in one process; ratios are taken round by round, and their median is reported. Beside the two forms: `flex` on
the same plan, and every path alone in one call of the same kernel, which is what packing without sharing costs. What
the rule of `vlmpack.kernels.parts` takes, from counted bytes, is held against the times. Needs a CUDA device.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vlmpack import Forest, layout, masks, plan
from vlmpack.kernels import flex, varlen
from vlmpack.kernels.flash import KERNELS
from vlmpack.kernels.merging import merged
from vlmpack.kernels.parts import Part, apart, cheaper_form, gathered
from vlmpack.kernels.weighing import Settings

RESPONSES = (2, 4, 8, 16)
PROMPTS = (256, 1024, 4096, 16384)
Step = Callable[[], Tensor]


def pack_of(prompt: int, responses: int, response: int, tokens: int) -> Forest:
    """As many trees of a prompt and its responses as fit, one at least."""
    trees = max(1, tokens // (prompt + responses * response))
    parents = [parent for n in range(trees) for parent in (-1, *[n * (responses + 1)] * responses)]
    return Forest(tuple(parents), tuple([prompt, *[response] * responses] * trees))


def unshared(forest: Forest) -> Forest:
    """Every response with its prompt as a tree of its own."""
    leaves = [leaf for leaf, parent in enumerate(forest.parents) if parent >= 0]
    lengths = [length for leaf in leaves for length in (forest.lengths[forest.parents[leaf]], forest.lengths[leaf])]
    return Forest(tuple(parent for place in range(len(leaves)) for parent in (-1, 2 * place)), tuple(lengths))


def planned(forest: Forest) -> plan.Plan:
    return plan.make(forest, masks.reach(forest).cuda(), layout.position(forest).cuda(), "varlen")


def layer(forest: Forest, args: argparse.Namespace) -> list[Tensor]:
    """[1, heads, tokens, size] of queries, keys and values, tokens first in memory."""
    counts = (args.heads, args.key_heads, args.key_heads)
    shapes = [(1, forest.tokens, count, args.head_dim) for count in counts]
    made = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in shapes]
    return [x.transpose(1, 2).requires_grad_() for x in made]


def ways(forest: Forest, args: argparse.Namespace) -> dict[str, Step]:
    """Forward and backward of one layer, each way."""
    made, alone, settings = planned(forest), planned(unshared(forest)), Settings()
    shared, repeated = layer(forest, args), layer(alone.forest, args)
    kernel = next(each for each in KERNELS if each.refusal(shared[0], None, settings) is None)

    def step(qkv: list[Tensor], parts: tuple[Part, ...]) -> None:
        tokens = (x[0].transpose(0, 1) for x in qkv)
        merged(*tokens, parts, kernel, None, settings).sum().backward()

    parts = {"gathered": gathered(made), "apart": apart(made)}
    found = {name: lambda each=each: step(shared, each) for name, each in parts.items()}
    whole = gathered(alone)
    found["unshared"] = lambda: step(repeated, whole)
    found["flex"] = lambda: flex.attend(*shared, made, None, settings).sum().backward()
    return found


def timed(found: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way in each round, by the device's own clock; three rounds before them warm up."""
    times = {name: [] for name in found}
    for _ in range(rounds + 3):
        for name, way in found.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            way()
            stop.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(stop))
    return {name: values[3:] for name, values in times.items()}


def measure(prompt: int, responses: int, args: argparse.Namespace) -> dict:
    """One row of the table."""
    forest = pack_of(prompt, responses, args.response, args.tokens)
    times = timed(ways(forest, args), args.rounds)
    ratios = {name: [a / b for a, b in zip(values, times["apart"], strict=True)] for name, values in times.items()}
    return {
        "prompt": prompt,
        "responses": responses,
        "tokens": forest.tokens,
        "tokens unshared": unshared(forest).tokens,
        "milliseconds": {name: statistics.median(values) for name, values in times.items()},
        "time / apart": {name: statistics.median(values) for name, values in ratios.items()},
        "rule": cheaper_form(forest, args.heads, args.key_heads).__name__,
    }


def row(found: dict) -> str:
    times = " | ".join(f"{found['milliseconds'][name]:.2f}" for name in ("gathered", "apart", "unshared", "flex"))
    faster = min(("gathered", "apart"), key=found["milliseconds"].get)
    about = f"| {found['prompt']:,} | {found['responses']} | {found['tokens']:,} of {found['tokens unshared']:,} "
    return f"{about}| {times} | {faster} | {found['rule']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", default="outputs/varlen_forms", help="where the result is written")
    parser.add_argument("--heads", type=int, default=28, help="of queries")
    parser.add_argument("--key-heads", type=int, default=4, help="of keys and values")
    parser.add_argument("--head-dim", type=int, default=128, help="numbers of a head")
    parser.add_argument("--response", type=int, default=256, help="tokens of a response")
    parser.add_argument("--tokens", type=int, default=8192, help="of a pack, unless one tree is larger")
    parser.add_argument("--rounds", type=int, default=20, help="repetitions of each way")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("varlen_forms: no CUDA device, so there is nothing to measure with; not measured")
        return
    probe = layer(Forest((-1,), (8,)), args)
    if reason := varlen.refusal(*probe, planned(Forest((-1,), (8,))), None, Settings()):
        print(f"varlen_forms: {reason}; not measured")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16, milliseconds of forward and backward")
    lines = [
        "| prompt | K | tokens of unshared | gathered | apart | unshared | flex | faster | rule |",
        "|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    print("\n".join(lines))
    results = []
    for prompt in PROMPTS:
        for responses in RESPONSES:
            results.append(measure(prompt, responses, args))
            lines.append(row(results[-1]))
            print(lines[-1], flush=True)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, **vars(args)}
    (folder / "varlen_forms.json").write_text(json.dumps({"settings": about, "rows": results}, indent=1) + "\n")
    (folder / "varlen_forms.md").write_text("\n".join(lines) + "\n")
    print(f"result: {folder / 'varlen_forms.md'}")


if __name__ == "__main__":
    main()
