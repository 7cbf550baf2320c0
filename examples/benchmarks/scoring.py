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
from itertools import product
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
from vlmpack.costs.saving import cost_of, saving
from vlmpack.processors import PreferenceProcessor
from vlmpack.scoring import scored

PADDED = 8  # candidates up to which a padded batch of all of them is measured too: it takes the most memory
OUTPUT = Path(__file__).parent.parent.parent / "assets" / "benchmarks" / "scoring"


def candidates(samples: Sequence[Sample], count: int, tokens: int | None = None) -> list[Sample]:
    """Each prompt with so many candidates: its own responses, then those of the prompts that follow.

    Args:
        samples: at least as many responses in all as candidates are wanted.
        count: K.
        tokens: of a response; longer ones are cut. None: none is.
    """
    made = []
    for place, sample in enumerate(samples):
        others = [response for other in samples[place + 1 :] + samples[:place] for response in other.response_ids]
        responses = [response[:tokens] for response in [*sample.response_ids, *others][:count]]
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

    few = samples[0].responses <= PADDED
    return {"packed": packed, **({"padded batch": padded} if few else {}), "one by one": alone}


def compare(model: RewardModel, samples: Sequence[Sample], *, max_tokens: int = 8192, rounds: int = 7) -> dict:
    """Measure the three ways; rewards agree or this raises."""
    found = paired.measure(ways(model, samples, max_tokens), rounds=rounds, peaks=False, tolerance=1e-4)
    against = {name: paired.against(each, found["packed"]) for name, each in found.items()}
    unpacked_flops, packed_flops = saving([each.lengths for each in samples], cost_of(model)).flops
    return {
        "prompts": len(samples),
        "candidates": samples[0].responses,
        "width": model.config.get_text_config().hidden_size,
        "prompt tokens": statistics.mean(len(each.prompt_ids) for each in samples),
        "response tokens": statistics.mean(len(r) for each in samples for r in each.response_ids),
        "flops": {name: each.flops for name, each in found.items()},
        "seconds": {name: statistics.median(each.seconds) for name, each in found.items()},
        "flop ratio": {name: each.ideal for name, each in against.items()},
        "time ratio": {name: each.measured for name, each in against.items()},
        "of ideal": {name: each.of_ideal for name, each in against.items()},
        "needed ratio": unpacked_flops / packed_flops,  # cells that masks hide left out, both ways
        "rounds": rounds,
        **report.conditions(next(model.parameters()).device),
    }


def table(results: Sequence[dict]) -> str:
    """The results as Markdown, a line for each K and way."""
    first = results[0]
    lines = [
        f"{first['prompts']} x {first['prompt tokens']:.0f} tokens of prompt and picture; a LLaVA {first['width']} "
        f"wide; {first['device']}, torch {first['torch']}, transformers {first['transformers']}, {first['date']}, "
        f"median of {first['rounds']} rounds",
        "",
        "| K | tokens each | scored | FLOPs / packed | needed / packed | seconds | time / packed | of FLOPs "
        "| of needed |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        for name in result["seconds"]:
            flops, seconds, time = (result[column][name] for column in ("flop ratio", "seconds", "time ratio"))
            needed = result["needed ratio"] if name == "one by one" else 1.0 if name == "packed" else None
            least = ["", ""] if needed is None else [f"{needed:.2f}", f"{time / needed:.0%}"]
            lines.append(
                f"| {result['candidates']} | {result['response tokens']:.0f} | {name} | {flops:.2f} | {least[0]} | "
                f"{seconds:.2f} | {time:.2f} | {result['of ideal'][name]:.0%} | {least[1]} |"
            )
    lines += ["", "FLOPs: counted, attention as whole squares. Needed: predicted, without what masks hide."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", help="rows with pictures; without it scenes are drawn")
    add("--rows", type=int, default=2, help="prompts that are scored")
    add("--step", type=int, default=7, help="every so many-th row of the data is one, so that they show other pictures")
    add("--candidates", type=int, nargs="+", default=[2, 8, 32], help="of each prompt")
    add("--response-tokens", type=int, nargs="+", default=[100], help="of a response; longer ones are cut. 0: none is")
    add("--hidden", type=int, default=512, help="width of the model")
    add("--rounds", type=int, default=7, help="repetitions of each way")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="that computes")
    add("--output-dir", default=str(OUTPUT), help="where the table is written")
    args = parser.parse_args()
    torch.manual_seed(0)
    rows, root = scenes.rows(10, seed=0), None
    if args.dataset:
        rows = inputs.undecoded(inputs.load_rows(args.dataset))
        root = str(Path(args.dataset).parent)
    tokenizer = small_models.train_tokenizer(text for row in rows for text in inputs.strings(row))
    backbone, processor = small_models.llava(tokenizer, hidden=args.hidden)
    reader = PreferenceProcessor(processor, inputs.PreferenceProcessorConfig(image_root=root))
    samples = [reader(rows[place]) for place in range(0, min(len(rows), 40), args.step)]
    model = vlmpack.enable(RewardModel.from_backbone(backbone).eval().to(args.device))
    results = []
    for count, tokens in product(args.candidates, args.response_tokens):
        with report.announced(f"{args.rows} prompts, {count} candidates of {tokens or 'all their'} tokens each"):
            made = candidates(samples, count, tokens or None)[: args.rows]
            results.append(compare(model, made, rounds=args.rounds))
    text = table(results)
    print(text)
    name = f"{'gpu' if args.device.startswith('cuda') else 'cpu'}_{args.hidden}"
    print(f"result: {report.write(args.output_dir, name, {'results': results}, text)}")


if __name__ == "__main__":
    main()
