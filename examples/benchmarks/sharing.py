"""Count what a data set costs in tokens and vision passes, by how much is shared. Nothing is trained.

    python examples/benchmarks/sharing.py --dataset preferences.jsonl --output-dir outputs/sharing

All rows make one optimizer batch. Counted are: every response on its own; pairs as toolkits expand K responses, each
pair two sequences; one tree a prompt; and one tree an image, with everything shared that begins alike.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

import inputs

import vlmpack
from vlmpack import Pack, Sample
from vlmpack.preferences import Pairs, compared


def count(samples: Sequence[Sample], max_tokens: int) -> dict[str, dict[str, int]]:
    """Tokens and vision passes by way of computing the same batch."""
    whole = sum(each.lengths.packed for each in samples)
    return {
        "every response on its own": _unpacked(samples),
        "pairs, a best against the rest": _as_pairs(samples, [_one_best(each) for each in samples]),
        "all pairs": _as_pairs(samples, [each.pairs for each in samples]),
        "a tree a prompt": _total([pack for each in samples for pack in vlmpack.pack([each], whole)]),
        "a tree an image": _total(vlmpack.pack(samples, whole)),
        f"a tree an image, in packs of {max_tokens}": _total(vlmpack.pack(samples, max_tokens)),
    }


def _unpacked(samples: Sequence[Sample]) -> dict[str, int]:
    return {
        "sequences": sum(each.responses for each in samples),
        "tokens": sum(each.lengths.unpacked for each in samples),
        "vision passes": sum(len(each.images) * each.responses for each in samples),
    }


def _one_best(sample: Sample) -> Pairs:
    """One response of the best score against all of a lower one, as toolkits that want pairs are fed."""
    pairs = compared(sample, "best").pairs
    return tuple(pair for pair in pairs if pair[0] == pairs[0][0])


def _as_pairs(samples: Sequence[Sample], pairs: Sequence[Pairs]) -> dict[str, int]:
    """Each pair as two sequences, its prompt and images in both."""
    return {
        "sequences": sum(2 * len(each) for each in pairs),
        "tokens": sum(
            len(sample.prompt_ids) + len(sample.response_ids[response])
            for sample, each in zip(samples, pairs, strict=True)
            for pair in each
            for response in pair
        ),
        "vision passes": sum(2 * len(each) * len(sample.images) for sample, each in zip(samples, pairs, strict=True)),
    }


def _total(packs: Sequence[Pack]) -> dict[str, int]:
    return {
        "sequences": len(packs),
        "tokens": sum(pack.tokens for pack in packs),
        "vision passes": sum(pack.vision_passes for pack in packs),
    }


def table(counts: dict[str, dict[str, int]], samples: Sequence[Sample]) -> str:
    """The counts as Markdown; ratios are to every response on its own."""
    images = {image.content for each in samples for image in each.images}
    base = counts["every response on its own"]
    lines = [
        f"{len(samples)} prompts on {len(images)} images, {base['sequences']} responses",
        "",
        "| computed as | sequences | tokens | less than unpacked | vision passes | less than unpacked |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, each in counts.items():
        tokens, passes = (base[what] / max(1, each[what]) for what in ("tokens", "vision passes"))
        lines.append(
            f"| {name} | {each['sequences']:,} | {each['tokens']:,} | {tokens:.2f}x | {each['vision passes']:,} "
            f"| {passes:.2f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = inputs.flags(__doc__, "outputs/sharing", learning_rate=0.0, epochs=0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rows", type=int, help="how many rows; without it all")
    args = parser.parse_args()
    args.eval_dataset = args.eval_dataset or args.dataset  # nothing is held out
    rows, _ = inputs.rows(args)
    rows = list(rows)[: args.rows] if args.dataset is None else rows.select(range(args.rows or len(rows)))
    _, processor = inputs.model_and_processor(args, rows)
    samples = [processor(row) for row in tqdm(rows, desc="reading rows", unit="row")]
    counts = count(samples, args.max_tokens)
    text = table(counts, samples)
    print(text)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sharing.json").write_text(json.dumps(counts, indent=1))
    (folder / "sharing.md").write_text(text + "\n")
    print(f"result: {folder / 'sharing.md'}")


if __name__ == "__main__":
    main()
