"""Time and count one training step three ways: packed, every response in a padded batch, every response alone.

    python examples/benchmarks/packed_vs_unpacked.py --dataset preferences.jsonl --kind reward

A step is forward and backward over the same rows with the same model (and the reference's forward for DPO); see
`paired` for how it is measured.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import paired
import report
import torch
from packed_step import as_before
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import inputs

import vlmpack
from vlmpack import RewardModel, Sample, losses, unpacked
from vlmpack.image import join


def padded_scores(model: torch.nn.Module, samples: Sequence[Sample]) -> Tensor:
    """[R] scores from one right-padded batch, prompt and images repeated for every response: what is usual."""
    paths = [torch.cat([s.prompt_ids, r]) for s in samples for r in s.response_ids]
    prompts = [len(s.prompt_ids) for s in samples for _ in s.response_ids]
    ids = torch.nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(path) for path in paths])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    images = join([image for s in samples for _ in s.response_ids for image in s.images])
    with unpacked.own_attention(model):
        if isinstance(model, RewardModel):
            hidden = model.model(input_ids=ids, attention_mask=mask.long(), use_cache=False, **images).last_hidden_state
            return model.reward_head(hidden[torch.arange(len(ids)), lengths - 1])
        logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False, **images).logits[:, :-1]
    logps = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    response = mask[:, 1:] & (torch.arange(ids.shape[1] - 1) >= torch.tensor(prompts)[:, None] - 1)
    return (logps * response).sum(1)


def steps(model: torch.nn.Module, samples: Sequence[Sample], max_tokens: int, group: int) -> dict[str, paired.Step]:
    """The three ways as functions of nothing: gradients are left on the model, the loss is returned.

    Args:
        model: a reward model or a policy, enabled.
        samples: one optimizer batch.
        max_tokens: of a pack.
        group: prompts in one padded batch.
    """
    reference = None if isinstance(model, RewardModel) else deepcopy(model).requires_grad_(False)
    packs = vlmpack.pack(samples, max_tokens)
    groups = [samples[i : i + group] for i in range(0, len(samples), group)]

    def packed(model, pack):
        return model(pack) if isinstance(model, RewardModel) else vlmpack.response_logps(model, pack)

    def alone(model, some):
        return (unpacked.rewards if isinstance(model, RewardModel) else unpacked.response_logps)(model, some)

    def run(score, units, pairs_of) -> float:
        total = 0.0
        for unit in units:
            loss = _loss(score, model, reference, unit, pairs_of(unit)).sum()
            loss.backward()
            total += loss.item()
        return total

    return {
        "packed": lambda: run(packed, packs, lambda pack: pack.pairs),
        "padded batch": lambda: run(padded_scores, groups, _pairs),
        "one by one": lambda: run(alone, [[sample] for sample in samples], _pairs),
    }


def _loss(score, model, reference, unit, pairs) -> Tensor:
    if reference is None:
        return losses.bradley_terry(score(model, unit), pairs)
    with torch.no_grad():
        reference_logps = score(reference, unit)
    return losses.dpo(score(model, unit), reference_logps, pairs)


def _pairs(samples: Sequence[Sample]) -> Tensor:
    pairs, first = [], 0
    for sample in samples:
        pairs += [(first + w, first + r) for w, r in sample.pairs]
        first += len(sample.response_ids)
    return torch.tensor(pairs)


def compare(model, samples: Sequence[Sample], *, max_tokens: int = 8192, group: int = 4, rounds: int = 5) -> dict:
    """Measure the three ways.

    Returns:
        tokens, vision passes, and by way: counted FLOPs, peak memory, median seconds, and how many times more
        FLOPs and time it takes than the packed step; the losses agree or this raises.
    """
    ways = steps(model, samples, max_tokens, group)
    found = paired.measure(ways, rounds=rounds, before=lambda: as_before([model]))
    ratios = {name: paired.against(each, found["packed"]) for name, each in found.items()}
    lengths, packs = [sample.lengths for sample in samples], vlmpack.pack(samples, max_tokens)
    return {
        "prompts": len(samples),
        "responses": sum(len(each.responses) for each in lengths),
        "pairs": sum(len(each.pairs) for each in lengths),
        "tokens": {"packed": sum(p.tokens for p in packs), "unpacked": sum(e.unpacked for e in lengths)},
        "vision passes": {
            "packed": sum(p.vision_passes for p in packs),
            "unpacked": sum(len(e.images) * len(e.responses) for e in lengths),
        },
        "flops": {name: each.flops for name, each in found.items()},
        "peak bytes": {name: each.peak for name, each in found.items()},
        "seconds": {name: statistics.median(each.seconds) for name, each in found.items()},
        "time ratio": {name: ratio.measured for name, ratio in ratios.items()},
        "flop ratio": {name: ratio.ideal for name, ratio in ratios.items()},
        "of ideal": {name: ratio.of_ideal for name, ratio in ratios.items()},
        "rounds": rounds,
        **report.conditions(),
    }


def table(result: dict) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['prompts']} prompts, {result['responses']} responses, {result['pairs']} pairs; "
        f"{result['device']}, torch {result['torch']}, transformers {result['transformers']}, {result['date']}, "
        f"median of {result['rounds']} rounds",
        "",
        "| a step | tokens | vision passes | counted FLOPs | FLOPs / packed | seconds | time / packed | of it | peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in result["seconds"]:
        kind = "packed" if name == "packed" else "unpacked"
        lines.append(
            f"| {name} | {result['tokens'][kind]:,} | {result['vision passes'][kind]} | {result['flops'][name]:.2e} "
            f"| {result['flop ratio'][name]:.2f} | {result['seconds'][name]:.2f} | {result['time ratio'][name]:.2f} "
            f"| {result['of ideal'][name]:.0%} | {report.amount(result['peak bytes'][name])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = inputs.flags(__doc__, "outputs/benchmark", learning_rate=0.0, epochs=0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kind", default="reward", choices=["reward", "dpo"], help="which step")
    parser.add_argument("--rows", type=int, default=8, help="rows in the step")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each way")
    parser.add_argument("--group", type=int, default=2, help="prompts in one padded batch")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    train, _ = inputs.rows(args)
    model, processor = inputs.model_and_processor(args, train)
    model = vlmpack.enable(RewardModel.from_backbone(model) if args.kind == "reward" else model, args.attention)
    samples = [sample for row in list(train)[: 2 * args.rows] if (sample := processor(row)).pairs][: args.rows]
    print(f"measuring {len(samples)} rows, {args.rounds} rounds of three ways")
    result = compare(model, samples, max_tokens=args.max_tokens, group=args.group, rounds=args.rounds)
    print(table(result))
    print(f"result: {report.write(args.output_dir, args.kind, result, table(result))}")


if __name__ == "__main__":
    main()
