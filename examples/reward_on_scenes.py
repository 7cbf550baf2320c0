"""A reward model on drawn scenes, used: held-out accuracy, without its pictures, and best of 16 answers.

    python examples/reward_on_scenes.py

Trains as `train_reward.py` does, on more pictures, and then asks the saved model, loaded anew. Every question has one
right answer, and whoever reads only text orders half of the pairs right.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from random import Random

import train_reward

import scenes
from vlmpack import RewardModel

OUTPUT = Path(__file__).parent.parent / "assets" / "reward_model"


def candidates_of(row: dict, count: int, random: Random) -> tuple[dict, int]:
    """The row's question with `count` different answers, or all that there are, and the place of the right one.

    Args:
        row: of `scenes.rows`.
        count: of answers.
        random: draws the wrong ones.
    """
    first, second = (scenes.ATTRIBUTES[asked] for asked in scenes.QUESTIONS[row["prompt"]])
    right = row["responses"][row["scores"].index(max(row["scores"]))]
    wrong = [answer for a, b in product(first, second) if (answer := f"{a} {b}") != right]
    answers = [right, *random.sample(wrong, min(count - 1, len(wrong)))]
    random.shuffle(answers)
    return {"images": row["images"], "prompt": row["prompt"], "responses": answers}, answers.index(right)


def best_of(model: RewardModel, rows: list[dict], count: int, seed: int = 0) -> dict[str, float]:
    """How often the highest reward is the right answer's, for each question and over all.

    Args:
        model: a trained reward model.
        rows: of pictures it has not seen.
        count: answers to choose from.
        seed: of the draw.
    """
    random = Random(seed)
    asked = [candidates_of(row, count, random) for row in rows]
    rewards = model.score([row for row, _ in asked])
    found: dict[str, list[bool]] = {}
    for (row, right), each in zip(asked, rewards, strict=True):
        chosen = max(range(len(each)), key=each.__getitem__) == right
        found.setdefault("all", []).append(chosen)
        found.setdefault(f"{row['prompt']} ({len(each)} answers)", []).append(chosen)
    return {name: sum(chosen) / len(chosen) for name, chosen in found.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--output-dir", default="outputs/reward_on_scenes", help="where the model and its report are written")
    add("--epochs", type=float, default=4, help="passes over the training data")
    add("--pictures", type=int, default=300, help="held-out pictures, four questions each")
    add("--candidates", type=int, default=16, help="answers to choose the best of")
    add("--keep", action="store_true", help="copy the report into assets/reward_model")
    args = parser.parse_args(arguments)
    print(f"training a reward model on {scenes.TRAINING_IMAGES:,} drawn pictures, then asking it about {args.pictures}")
    trainer = train_reward.main(
        ["--output-dir", args.output_dir, "--epochs", str(args.epochs), "--workers", "1", "--normalize"]
    )
    held_out = scenes.rows(args.pictures, seed=20_000)
    found = trainer.measured(held_out)
    model = RewardModel.from_pretrained(args.output_dir)
    best = best_of(model, held_out, args.candidates)
    for line in found.lines():
        print(line)
    print(f"best of {args.candidates} is right:")
    for name, share in best.items():
        print(f"  {share:6.1%}  {name}")
    result = {"quality": found.to_dict(), f"best of {args.candidates}": best, "rows": len(held_out)}
    folder = Path(args.output_dir)
    (folder / "scenes.json").write_text(json.dumps(result, indent=1))
    if args.keep:
        from vlmpack.training.quality_files import write_quality

        print(write_quality(found, OUTPUT, "scenes"))
        (OUTPUT / "scenes_best_of.json").write_text(json.dumps(best, indent=1) + "\n")
    print(f"result: {folder / 'scenes.json'}")


if __name__ == "__main__":
    main()
