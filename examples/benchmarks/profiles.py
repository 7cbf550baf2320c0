"""Prefix sharing on the lengths of six data sets, with and without packing: a DPO step of a whole model.

    python examples/benchmarks/profiles.py

After Wang and Hegde (2024; arXiv 2410.20305), table 2, whose speed-ups on an H100 stand beside: pairs of completions
that share their prefix, against the strongest baseline, every sequence with a prefix of its own but without padding.
"With packing" deals several prompts into a pack; without it a pack is one prompt. Samples are random tokens of the data
sets' lengths, see `made_up`. Ideal is what the arithmetic allows: counted FLOPs, in which attention is that of the
query-key pairs that are seen. On the CPU a small model and shorter sequences; on a GPU models of the shapes of
LLaVA-1.5-7B (its decoder, since there are no pictures) and Qwen2.5-7B in bf16, with as many layers as are asked for.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import made_up
import numpy as np
import paired
import report
import torch
from packed_step import as_before, needed, packed_step_by
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import vlmpack
from vlmpack import Sample, plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARED, UNSHARED = "shared", "nothing shared"
PACKED, ALONE = "packed", "a prompt a pack"
GPU_BACKENDS = ("varlen", "flex")
SEED_PAPER = {  # its table 2: with packing
    "Capybara": 1.34,
    "HH-RLHF": 1.41,
    "MetaMath-DPO": 1.57,
    "TLDR": 1.35,
    "Tulu-Helpsteer": 1.48,
    "UltraFeedback": 1.17,
}


def models(args: argparse.Namespace) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name, policy and reference; on the device."""
    dtype = torch.bfloat16 if args.device.startswith("cuda") else torch.float32
    for name in args.models:
        config, build = SHAPES[name](args.layers)
        with torch.device(args.device):
            made = [build(config).to(dtype) for _ in range(2)]
        yield name, made[0], made[1].requires_grad_(False)


def _small(layers: int | None):
    width = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
    return LlamaConfig(vocab_size=made_up.VOCABULARY, num_hidden_layers=layers or 4, **width), LlamaForCausalLM


def _llava(layers: int | None):
    width = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32}
    return LlamaConfig(vocab_size=32064, num_hidden_layers=layers or 8, **width), LlamaForCausalLM


def _qwen(layers: int | None):
    width = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
    return Qwen2Config(vocab_size=152064, num_hidden_layers=layers or 7, **width), Qwen2ForCausalLM


SHAPES = {"small": _small, "LLaVA-1.5-7B": _llava, "Qwen2.5-7B": _qwen}
GPU_SHAPES = ("LLaVA-1.5-7B", "Qwen2.5-7B")


def measure(
    model: nn.Module, reference: nn.Module, samples: Sequence[Sample], limit: int, args: argparse.Namespace
) -> dict:
    """One profile in packs of some size: shared by every backend, and the baseline by the first.

    Args:
        model, reference: on the device.
        samples: one optimizer batch.
        limit: tokens of a pack; 0 for a prompt a pack.
        args: the flags.
    """
    batches = [[each] for each in samples] if limit == 0 else [samples]
    packs = {
        name: [
            pack.to(args.device)
            for batch in batches
            for pack in vlmpack.pack(batch, limit or 1_000_000, sharing=sharing)
        ]
        for name, sharing in ((UNSHARED, "none"), (SHARED, "prompt"))
    }
    ways = {f"{UNSHARED}, {args.backends[0]}": (args.backends[0], packs[UNSHARED])}
    ways |= {f"{SHARED}, {backend}": (backend, packs[SHARED]) for backend in args.backends}

    vlmpack.enable(model), vlmpack.enable(reference)

    def step(backend: str, packs: Sequence[vlmpack.Pack]) -> float:
        return packed_step_by(backend, model, reference, packs)

    on_cpu = args.device == "cpu"
    found = paired.measure(
        {name: lambda way=way: step(*way) for name, way in ways.items()},
        rounds=args.rounds,
        before=lambda: as_before([model]),
        device=args.device,
        tolerance=1e-3 if on_cpu else 5e-2,
        counted=None if on_cpu else {name: lambda packs=own: step("paths", packs) for name, (_, own) in ways.items()},
    )
    found = {name: needed(each, model, ways[name][1]) for name, each in found.items()}
    tokens = {name: sum(pack.tokens for pack in own) for name, own in packs.items()}
    return {"tokens": tokens, "packs": len(packs[SHARED]), "ways": paired.record(found, [next(iter(ways))])}


def markdown(results: dict[str, dict]) -> str:
    """A table a model; what was not run here says so."""
    lines = []
    for model in SHAPES:
        result = results.get(model)
        lines += [f"## {model}", "", result["about"] if result else report.NOT_MEASURED, ""]
        lines += [
            f"| lengths of | seed paper, H100 | {PACKED}: ideal | measured | of ideal | {ALONE}: ideal | measured "
            "| of ideal | peak unshared → shared, packed | backend |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for name in made_up.PROFILES:
            found = result["profiles"].get(name) if result else None
            lines += _lines(name, found) if found else [f"| {name} | {SEED_PAPER[name]} {_UNKNOWN}"]
        lines.append("")
    return "\n".join(lines)


_UNKNOWN = f"| {report.NOT_MEASURED} " * 8 + "|"


def _lines(name: str, found: dict[str, dict]) -> Iterator[str]:
    """A line a backend."""
    base, *shared = found[PACKED]["ways"]
    for way in shared:
        cells = [
            f"{ratio['ideal']:.2f} | **{ratio['measured']:.2f}** | {ratio['of ideal']:.0%}"
            for kind in (PACKED, ALONE)
            for ratio in [found[kind]["ways"][way]["against"][base]]
        ]
        peaks = " → ".join(report.amount(found[PACKED]["ways"][each]["peak bytes"]) for each in (base, way))
        backend = way.removeprefix(f"{SHARED}, ")
        yield f"| {name} | {SEED_PAPER[name]} | {' | '.join(cells)} | {peaks} | {backend} |"


def draw(model: str, result: dict) -> "Figure":
    """Bars by profile: what sharing gives with and without packing, what it allows, and what the seed paper reached."""
    from matplotlib import pyplot as plt

    profiles = result["profiles"]
    figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    places = np.arange(len(profiles))
    for offset, kind, colour in ((-0.2, PACKED, report.COLOURS[0]), (0.2, ALONE, report.COLOURS[1])):
        ratios = []
        for found in profiles.values():
            base, best, *_ = found[kind]["ways"]
            ratios.append(found[kind]["ways"][best]["against"][base])
        bars = axes.bar(places + offset, [ratio["measured"] for ratio in ratios], 0.36, color=colour, label=kind)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, label_type="center", color="white" if kind == PACKED else "black")
        ideals = [ratio["ideal"] for ratio in ratios]
        axes.hlines(ideals, places + offset - 0.18, places + offset + 0.18, color="black", linewidth=1.5)
    axes.plot([], [], color="black", linewidth=1.5, label="what the arithmetic allows")
    seed = [SEED_PAPER[name] for name in profiles]
    axes.plot(places - 0.2, seed, "D", color="white", markeredgecolor="black", markersize=5, label="seed paper, H100")
    axes.axhline(1, color="0.5", linewidth=0.8)
    axes.set_xticks(places, profiles, fontsize=8)
    axes.set(ylabel="times faster than nothing shared", title=f"A DPO step, {model}: {result['device']}")
    axes.title.set_fontsize(9)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(fontsize=7, ncols=2, loc="upper left")
    return figure


def flags() -> argparse.Namespace:
    """What is measured, and on what; sizes that are not given depend on the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    profiles, gpu = list(made_up.PROFILES), torch.cuda.is_available()
    add("--models", nargs="*", choices=list(SHAPES), help="small on the CPU, both large ones on a GPU")
    add("--profiles", nargs="*", default=profiles, choices=profiles, help="which lengths; all")
    add("--layers", type=int, help="of the model, as many as fit; 4 of the small one, 8 and 7 of the large ones")
    add("--tokens", type=int, help="of the optimizer batch, every response on its own, about; 4,000, on a GPU 65,536")
    add("--max-tokens", type=int, help="of a pack; 2,048, on a GPU 8,192")
    add("--scale", type=float, help="of lengths; 0.25, on a GPU 1")
    add("--rounds", type=int, default=3, help="repetitions of each way")
    add("--device", default="cuda" if gpu else "cpu", help="where; bf16 on a GPU")
    add("--seed", type=int, default=0, help="of weights and of what is made up")
    add("--output-dir", default="outputs/profiles", help="where the result is written, beside that of other devices")
    args = parser.parse_args()
    on_gpu = args.device.startswith("cuda")
    args.models = args.models or (list(GPU_SHAPES) if on_gpu else ["small"])
    args.tokens = args.tokens or (65_536 if on_gpu else 4000)
    args.max_tokens = args.max_tokens or (8192 if on_gpu else 2048)
    args.scale = args.scale or (1.0 if on_gpu else 0.25)
    args.backends = [each for each in GPU_BACKENDS if each in plan.BACKENDS] if on_gpu else ["auto"]
    return args


def main() -> None:
    args = flags()
    torch.manual_seed(args.seed)
    folder = Path(args.output_dir)
    told = ("layers", "tokens", "max_tokens", "scale", "rounds", "seed")
    for name, model, reference in models(args):
        conditions = report.conditions(args.device)
        settings = conditions | {each: getattr(args, each) for each in told}
        settings["layers"] = model.config.num_hidden_layers
        result = {"about": report.in_words(settings), "device": conditions["device"], "profiles": {}}
        for profile in args.profiles:
            mean = made_up.PROFILES[profile][0] * args.scale * np.exp(made_up.SPREAD**2 / 2)
            samples = made_up.profile(profile, max(4, round(args.tokens / (2 * mean))), args.seed, args.scale)
            largest = max(sample.lengths.unpacked for sample in samples)
            with report.announced(f"{name}, {profile}, {len(samples)} prompts"):
                result["profiles"][profile] = {
                    PACKED: measure(model, reference, samples, max(args.max_tokens, largest), args),
                    ALONE: measure(model, reference, samples, 0, args),
                }
            print(*_lines(profile, result["profiles"][profile]), sep="\n", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        report.save(lambda name=name, result=result: draw(name, result), folder / f"{name}.png")
    known = {name: folder / f"{name}.json" for name in SHAPES if (folder / f"{name}.json").exists()}
    results = {name: json.loads(path.read_text()) for name, path in known.items()}
    (folder / "profiles.md").write_text(markdown(results))
    print(f"result: {folder / 'profiles.md'}")


if __name__ == "__main__":
    main()
