"""A DPO step as others compute it and as vlmpack does: the same pairs, model, reference and loss.

    python examples/benchmarks/peers.py --llava-bench preferences.jsonl --harmless test.jsonl.gz

A step is forward and backward of the policy and forward of the reference, on batches that are ready; how long it takes
to make them from rows is told apart. The ways alternate in one process and must find the same loss:

- TRL: its `DPOTrainer`'s loss on its own collator's batch: the pairs of the whole step at once, or a few at a time,
  which is kinder to caches and padding. A pair is two rows of a padded batch. Its head scores response tokens only on
  a GPU; on the CPU it scores every position, prompt and image tokens too, and that is in its figures here.
- padded pairs: the same padded rows through vlmpack, so that the head scores response tokens only.
- nothing shared: every response once, after a prompt of its own, without padding: the strongest of the baselines.
- vlmpack, a tree a prompt: what there is to share if no two rows are on one image.
- vlmpack: everything that begins alike stands once, here also an image that several rows are on.

FLOPs are counted, and attention over packs is that of the query-key pairs that are seen; a padded batch of TRL's has
its squares computed whole. Without a file, rows of random tokens and pictures of noise stand for it; see `peer_cases`.
Where TRL is not installed, its rows are left out, and the tables say so.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paired
import report
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import peer_cases
import trl_step
from packed_step import BETA, as_before, needed, packed_step_by

import vlmpack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRL, TRL_IN_PARTS, PADDED, UNSHARED = "TRL", "TRL, micro-batches", "padded pairs", "nothing shared"
BY_PROMPT, VLMPACK = "vlmpack, a tree a prompt", "vlmpack"
OURS = {PADDED: ("pair", True), UNSHARED: ("none", False), BY_PROMPT: ("prompt", False), VLMPACK: ("all", False)}
BASELINES = (TRL, TRL_IN_PARTS, PADDED, UNSHARED)


def measure(case: peer_cases.Case, args: argparse.Namespace) -> dict:
    """All ways of one case: steps side by side, then what makes their batches side by side."""
    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model, reference = (each.to(device, dtype) for each in (case.model, case.reference))
    reference.requires_grad_(False)
    missing = trl_step.MISSING or ("" if case.pairs else "it takes pictures, not tensors")
    peer = None if missing else trl_step.TrlStep(model, reference, case.processing_class, BETA)
    packs = {
        name: [pack.to(device) for pack in vlmpack.pack(case.samples, args.max_tokens, sharing=stands, padding=filled)]
        for name, (stands, filled) in OURS.items()
    }
    others = {} if peer is None else _trl_ways(peer, case, args.trl_pairs)
    vlmpack.enable(model), vlmpack.enable(reference)
    timed, counted = (others | _our_ways(backend, model, reference, packs) for backend in ("auto", "paths"))
    found = paired.measure(
        timed,
        rounds=args.rounds,
        before=lambda: as_before([model] if peer is None else [model, peer.model]),
        device=device,
        counted=None if device.type == "cpu" else counted,  # torch cannot count what it compiles
        tolerance=1e-3 if dtype == torch.float32 else 5e-2,
    )
    found |= {name: needed(found[name], model, own) for name, own in packs.items()}
    return {
        "prompts": len(case.samples),
        "responses": sum(sample.responses for sample in case.samples),
        "pairs": sum(len(sample.pairs) for sample in case.samples),
        "left out": {TRL: missing} if missing else {},
        "ways": paired.record(found, BASELINES),
        "seconds to make the batch": paired.alternate(_makers(peer, case, args.max_tokens), rounds=args.rounds),
    }


def _trl_ways(peer: trl_step.TrlStep, case: peer_cases.Case, at_once: int) -> dict[str, paired.Step]:
    """TRL's step on all pairs at once, and on a few at a time if there are more."""
    rows = case.pairs()
    whole = [peer.collate(rows)]
    ways = {TRL: lambda: peer(whole)}
    if 0 < at_once < len(rows):
        split = [peer.collate(rows[start : start + at_once]) for start in range(0, len(rows), at_once)]
        ways[TRL_IN_PARTS] = lambda: peer(split)
    return ways


def _our_ways(backend: str, model: nn.Module, reference: nn.Module, packs: dict) -> dict[str, paired.Step]:
    return {name: lambda own=own: packed_step_by(backend, model, reference, own) for name, own in packs.items()}


def _makers(peer: trl_step.TrlStep | None, case: peer_cases.Case, max_tokens: int) -> dict[str, Callable[[], Any]]:
    """What makes the step's batch from rows: pictures are opened and decoded, words become tokens."""
    theirs = {} if peer is None else {TRL: lambda: peer.collate(case.pairs())}
    ours = {VLMPACK: lambda: vlmpack.pack(case.read(), max_tokens)} if case.read else {}
    return theirs | ours if ours else {}


def markdown(results: dict[str, dict], about: str) -> str:
    """All cases as tables."""
    lines = [about, ""]
    for name, result in results.items():
        lines += [
            f"## {name}",
            "",
            f"{result['prompts']} prompts, {result['responses']} responses, {result['pairs']} pairs in one step.",
            "",
        ]
        lines += [f"{way} is left out: {why}.\n" for way, why in result["left out"].items()]
        lines += _table(result["ways"])
        if result["seconds to make the batch"]:
            made = (
                f"{way} {statistics.median(each):.2f} s" for way, each in result["seconds to make the batch"].items()
            )
            lines += ["", "To make the batch from rows: " + ", ".join(made) + "."]
        lines.append("")
    return "\n".join(lines)


def _table(ways: dict[str, dict]) -> list[str]:
    """A line a way; ratios are how many times less vlmpack does than that way, with a tree an image or a prompt."""
    lines = [
        f"| a step | FLOPs | seconds | peak | FLOPs / {VLMPACK}'s | time / {VLMPACK}'s | of ideal | peak / {VLMPACK}'s "
        "| FLOPs / a tree a prompt's | time / a tree a prompt's | of ideal |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, way in ways.items():
        by_image, by_prompt = (ways[own]["against"].get(name) for own in (VLMPACK, BY_PROMPT))
        ratios = (
            " | " * 6
            if by_image is None
            else (
                f"{by_image['ideal']:.2f} | **{by_image['measured']:.2f}** | {by_image['of ideal']:.0%} "
                f"| {by_image['memory']:.2f} "
                f"| {by_prompt['ideal']:.2f} | **{by_prompt['measured']:.2f}** | {by_prompt['of ideal']:.0%}"
            )
        )
        lines.append(
            f"| {name} | {way['FLOPs']:.2e} | {statistics.median(way['seconds']):.2f} "
            f"| {report.amount(way['peak bytes'])} | {ratios} |"
        )
    return lines


def draw(results: dict[str, dict], title: str) -> "Figure":
    """A panel a case: how many times as long as vlmpack each way takes, and how many times its FLOPs."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, len(results), figsize=(1.2 + 2.6 * len(results), 2.8), squeeze=False, sharey=True, layout="constrained"
    )
    for (name, result), panel in zip(results.items(), panels[0], strict=True):
        for place, way in enumerate(BASELINES):
            if ratio := result["ways"][VLMPACK]["against"].get(way):
                panel.barh(place, ratio["measured"], 0.6, color=report.COLOURS[0], label="time")
                told = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
                panel.annotate(f"{ratio['measured']:.1f}", (max(ratio["measured"], ratio["ideal"]), place), **told)
                panel.plot(ratio["ideal"], place, "D", color=report.COLOURS[1], markeredgecolor="black", label="FLOPs")
        panel.axvline(1, color="0.5", linewidth=0.8)
        panel.set_title("\n".join(name.split(", ", 1)), fontsize=8)
        panel.set_xlabel("times vlmpack's", fontsize=8)
        panel.margins(x=0.2)
    panels[0][0].set_yticks(range(len(BASELINES)), BASELINES, fontsize=8)
    panels[0][0].invert_yaxis()
    marks = dict(zip(*reversed(panels[0][-1].get_legend_handles_labels()), strict=True))
    panels[0][-1].legend(marks.values(), marks, fontsize=7, loc="lower right")
    figure.suptitle(title, fontsize=9)
    return figure


def flags() -> argparse.Namespace:
    """What is measured, and on what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="*", default=["llava", "text"], choices=["llava", "text"], help="which cases")
    add("--llava-bench", help="file of LLaVA-Bench-in-the-wild preferences; without it pictures of noise")
    add("--harmless", help="file of HH-RLHF's harmless test set; without it tokens of its lengths")
    add("--tokenizer", help="folder, hub name or SentencePiece file; without it 8,000 words of the data")
    add("--rows", type=int, default=4, help="prompts in a step; of HH-RLHF, which is short, twice as many")
    add("--trl-pairs", type=int, default=4, help="pairs in TRL's micro-batches, where it has them; 0 for none")
    add("--max-tokens", type=int, default=16_384, help="of a pack, or of a padded batch")
    add("--hidden", type=int, default=128, help="width of the model")
    add("--layers", type=int, default=4, help="of the model")
    add("--rounds", type=int, default=3, help="repetitions of each way")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where; bf16 on a GPU")
    add("--seed", type=int, default=0, help="of weights and of what is made up")
    add("--output-dir", default="outputs/peers", help="where the result is written")
    return parser.parse_args()


def main() -> None:
    args = flags()
    torch.manual_seed(args.seed)
    shown = ("rows", "trl_pairs", "max_tokens", "hidden", "layers", "rounds", "seed")
    settings = report.conditions(args.device) | {name: getattr(args, name) for name in shown}
    about, results = report.in_words(settings), {}
    for case in peer_cases.cases(args):
        with report.announced(case.name):
            results[case.name] = measure(case, args)
        print(markdown({case.name: results[case.name]}, about), flush=True)
    title = f"A DPO step on the same pairs, {settings['device']}"
    on_cpu, result = args.device == "cpu", {"settings": settings, "data": results}
    text = markdown(results, about) + (report.on_gpu(args.output_dir, "dpo_gpu") if on_cpu else "")
    path = report.write(args.output_dir, "dpo" if on_cpu else "dpo_gpu", result, text, lambda: draw(results, title))
    print(f"result: {path}")


if __name__ == "__main__":
    main()
