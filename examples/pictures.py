"""Pictures: a pack with its mask, and what a demo run found. `python examples/pictures.py` makes the README's."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import scenes
import vlmpack
from vlmpack.inspect.palette import FAINT, PROMPT, RESPONSES
from vlmpack.processors import PreferenceProcessor


def draw_demo(curve: list[tuple[int, float]], accuracies: dict[str, float], ratios: dict[str, float]) -> Figure:
    """What a demo run found: the loss while training, held-out accuracies, and a step's time by way.

    Args:
        curve: (optimizer step, reward-model loss).
        accuracies: share of held-out pairs in the right order, by what was shown.
        ratios: time of a step over the packed step's, by way of computing it.
    """
    figure = Figure(figsize=(12.5, 3.6), layout="constrained")
    loss, right, time = figure.subplots(1, 3, width_ratios=[1, 1.3, 1])
    loss.plot(*zip(*curve, strict=True), color=RESPONSES[0])
    loss.axhline(np.log(2), color=PROMPT, linestyle=":", linewidth=1)
    loss.text(curve[-1][0], np.log(2), "guessing ", ha="right", va="bottom", fontsize=8, color=FAINT)
    loss.set(title="Reward model: loss", xlabel="optimizer step", ylabel="nats", ylim=0)
    bars = right.bar(list(accuracies), list(accuracies.values()), color=[RESPONSES[0], RESPONSES[1]] * 2)
    right.bar_label(bars, fmt=lambda value: f"{value:.1%}", fontsize=9)
    right.axhline(0.5, color=PROMPT, linestyle=":", linewidth=1)
    right.set(title="Held-out pairs in the right order", ylim=(0, 1.1), yticks=[0, 0.5, 1])
    right.tick_params(axis="x", labelsize=8)
    bars = time.barh(list(ratios), list(ratios.values()), color=[RESPONSES[2], PROMPT, PROMPT])
    time.bar_label(bars, fmt=lambda value: f" {value:.2f}x", fontsize=9)
    time.set(title="Time of a step, packed = 1", xlim=(0, 1.2 * max(ratios.values())))
    time.invert_yaxis()
    for axes in (loss, right, time):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    processor = PreferenceProcessor(scenes.processor())
    rows = scenes.rows(2, seed=133, questions=2)[:3]  # two questions on one picture, one on another
    (pack,) = vlmpack.pack([processor(row) for row in rows])
    path = Path(__file__).parent.parent / "assets" / "pack.png"
    path.parent.mkdir(exist_ok=True)
    vlmpack.inspect.draw(pack).savefig(path, dpi=200, pil_kwargs={"optimize": True})
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
