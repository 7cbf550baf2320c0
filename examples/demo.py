"""The main job on generated pictures: train a reward model, run DPO, and check that both look at the picture.

python examples/demo.py            # under five minutes on two CPU cores
"""

import sys
import time
from copy import deepcopy
from pathlib import Path

import pictures
import train_dpo
import train_reward

import scenes

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import packed_vs_unpacked

OUTPUT = Path("outputs/demo")
TIMED_ROWS = 32


def main() -> None:
    start = time.perf_counter()
    print("demo: train a reward model from scratch, then run DPO, on drawn scenes; then time packed against unpacked")
    held_out = scenes.rows(100, seed=10_000)
    runs, accuracies = {}, {}
    for name, train in (("reward model", train_reward), ("DPO", train_dpo)):
        print(f"\n== {name}")
        folder = str(OUTPUT / name.lower().replace(" ", "_"))
        runs[name] = train.main(["--output-dir", folder, "--workers", "1"])  # which reads rows while the model trains
        accuracies |= judge(name, runs[name], held_out)
    print("\n== packed against unpacked, one step on the same rows with the same model")
    trainer = runs["reward model"]
    samples = [trainer.processor(row) for row in held_out[:TIMED_ROWS]]
    timing = packed_vs_unpacked.compare(deepcopy(trainer.model), samples, group=TIMED_ROWS)
    print(packed_vs_unpacked.table(timing))
    report(runs, accuracies, timing, time.perf_counter() - start)


def judge(name: str, trainer, held_out: list[dict]) -> dict[str, float]:
    """Accuracy on pictures never seen, and with every question asked about another picture."""
    found = {}
    for what, rows in (("its picture", held_out), ("another picture", scenes.with_other_pictures(held_out))):
        found[f"{name}:\n{what}"] = trainer.evaluate(rows)["eval_rewards/accuracies"]
    return found


def report(runs: dict, accuracies: dict[str, float], timing: dict, seconds: float) -> None:
    """Write the report and the picture, and say where everything lies."""
    history = runs["reward model"].state.log_history
    curve = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    pictures.draw_demo(curve, accuracies, timing["time ratio"]).savefig(OUTPUT / "report.png", dpi=100)
    saved = runs["reward model"].saving
    lines = ["# Demo report", "", "| held-out pairs in the right order | |", "|---|---:|"]
    lines += [f"| {what.replace(chr(10), ' ')} | {value:.1%} |" for what, value in accuracies.items()]
    lines += ["", f"Training data: {saved}", "", packed_vs_unpacked.table(timing), "", "![report](report.png)", ""]
    (OUTPUT / "report.md").write_text("\n".join(lines))
    print()
    for what, value in accuracies.items():
        print(f"{what.replace(chr(10), ' '):32} {value:6.1%} of held-out pairs in the right order")
    print(f"saving: {saved}")
    ratio, flops = timing["time ratio"], timing["flop ratio"]
    for name in ("padded batch", "one by one"):
        print(f"a step {name}: {ratio[name]:.2f}x the packed step's time, {flops[name]:.2f}x its FLOPs")
    print(f"took {seconds:.0f} s")
    print(f"reward model  {OUTPUT / 'reward_model'}\nDPO model     {OUTPUT / 'dpo'}")
    print(f"report        {OUTPUT / 'report.md'}\npicture       {OUTPUT / 'report.png'}")


if __name__ == "__main__":
    main()
