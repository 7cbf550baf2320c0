"""Time and count the scoring of K candidates of one prompt: packed, all K as a padded batch, one by one.

    python examples/benchmarks/scoring.py                              # on generated pictures
    python examples/benchmarks/scoring.py --dataset preferences.jsonl  # on rows of your own

The picture stands in all K sequences of the padded batch and in each that is scored alone; packed it is encoded once.
See `paired` for how it is measured. Samples are ready in memory, so that reading pictures, which packing does once too
instead of K times, counts for nothing.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import paired
import report
import torch
from packed_vs_unpacked import padded_scores
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import inputs
import small_models

import scenes
import vlmpack
from vlmpack import RewardModel, Sample, unpacked
from vlmpack.processors import PreferenceProcessor
from vlmpack.scoring import scored

OUTPUT = Path(__file__).parent.parent.parent / "assets" / "benchmarks" / "scoring"


def candidates(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Each prompt with so many candidates: its own responses, then those of the prompts that follow.

    Args:
        samples: at least as many responses in all as candidates are wanted.
        count: K.
    """
    made = []
    for place, sample in enumerate(samples):
        others = [response for other in samples[place + 1 :] + samples[:place] for response in other.response_ids]
        responses = [*sample.response_ids, *others][:count]
        made.append(replace(sample, response_ids=tuple(responses), pairs=(), margins=None))
    return made


def ways(model: RewardModel, samples: Sequence[Sample], max_tokens: int) -> dict[str, paired.Step]:
    """Three ways of scoring, as functions of nothing; each returns a sum in which every reward weighs differently."""

    def whole(rewards: Tensor) -> float:
        return float((rewards.double() * torch.linspace(1, 2, len(rewards), dtype=torch.float64)).sum())

    def packed() -> float:
        found = scored(model, samples, None, max_tokens=max_tokens)
        return whole(torch.tensor([reward for each in found for reward in each.rewards]))

    @torch.inference_mode()
    def padded() -> float:
        return whole(torch.cat([padded_scores(model, [sample]) for sample in samples]))

    @torch.inference_mode()
    def alone() -> float:
        return whole(unpacked.rewards(model, samples))

    return {"packed": packed, "padded batch": padded, "one by one": alone}


def compare(model: RewardModel, samples: Sequence[Sample], *, max_tokens: int = 8192, rounds: int = 7) -> dict:
    """Measure the three ways; rewards agree or this raises."""
    found = paired.measure(ways(model, samples, max_tokens), rounds=rounds, peaks=False, tolerance=1e-4)
    against = {name: paired.against(each, found["packed"]) for name, each in found.items()}
    return {
        "prompts": len(samples),
        "candidates": samples[0].responses,
        "prompt tokens": statistics.mean(len(each.prompt_ids) for each in samples),
        "response tokens": statistics.mean(len(r) for each in samples for r in each.response_ids),
        "flops": {name: each.flops for name, each in found.items()},
        "seconds": {name: statistics.median(each.seconds) for name, each in found.items()},
        "flop ratio": {name: each.ideal for name, each in against.items()},
        "time ratio": {name: each.measured for name, each in against.items()},
        "of ideal": {name: each.of_ideal for name, each in against.items()},
        "rounds": rounds,
        **report.conditions(next(model.parameters()).device),
    }


def table(results: Sequence[dict]) -> str:
    """The results as Markdown, a line for each K and way."""
    first = results[0]
    lines = [
        f"{first['prompts']} prompts of {first['prompt tokens']:.0f} tokens, picture included; "
        f"{first['device']}, torch {first['torch']}, transformers {first['transformers']}, {first['date']}, median of "
        f"{first['rounds']} rounds",
        "",
        "| candidates | tokens each | scored | FLOPs / packed | seconds | time / packed | of FLOPs' ratio |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    for result in results:
        for name in result["seconds"]:
            flops, seconds, time = (result[column][name] for column in ("flop ratio", "seconds", "time ratio"))
            lines.append(
                f"| {result['candidates']} | {result['response tokens']:.0f} | {name} | {flops:.2f} | {seconds:.2f} | "
                f"{time:.2f} | {result['of ideal'][name]:.0%} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", help="rows with pictures; without it scenes are drawn")
    add("--rows", type=int, default=4, help="prompts that are scored")
    add("--candidates", type=int, nargs="+", default=[2, 8, 16], help="of each prompt")
    add("--hidden", type=int, default=256, help="width of the model")
    add("--rounds", type=int, default=7, help="repetitions of each way")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="that computes")
    add("--output-dir", default=str(OUTPUT), help="where the table is written")
    args = parser.parse_args()
    torch.manual_seed(0)
    rows, root = scenes.rows(max(4, args.rows), seed=0), None
    if args.dataset:
        rows = inputs.undecoded(inputs.load_rows(args.dataset))
        root = str(Path(args.dataset).parent)
    tokenizer = small_models.train_tokenizer(text for row in rows for text in inputs.strings(row))
    backbone, processor = small_models.llava(tokenizer, hidden=args.hidden)
    reader = PreferenceProcessor(processor, inputs.PreferenceProcessorConfig(image_root=root))
    samples = [reader(rows[place]) for place in range(max(args.rows, 5))]
    model = vlmpack.enable(RewardModel.from_backbone(backbone).eval().to(args.device))
    results = []
    for count in args.candidates:
        with report.announced(f"{args.rows} prompts, {count} candidates each"):
            results.append(compare(model, candidates(samples, count)[: args.rows], rounds=args.rounds))
    text = table(results)
    print(text)
    name = "gpu" if args.device.startswith("cuda") else "cpu"
    print(f"result: {report.write(args.output_dir, name, {'results': results}, text)}")


if __name__ == "__main__":
    main()
