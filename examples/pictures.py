"""Pictures: a pack with its mask, and what a demo run found. `python examples/pictures.py` makes the README's."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure

import scenes
import vlmpack
from vlmpack import Pack, masks
from vlmpack.processors import PreferenceProcessor

IMAGE, PROMPT = "#4d4d4d", "#8c8c8c"
RESPONSES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")  # Okabe and Ito: told apart by the colour-blind


def draw_pack(pack: Pack, image_token: int, names: list[str]) -> Figure:
    """The tokens of a pack as a band, and below it the mask: who may attend to whom.

    Args:
        pack: prompts with their responses.
        image_token: id of an image's tokens, drawn darker than the rest of the prompt.
        names: one a segment, written over the band.
    """
    kinds = _kinds(pack, image_token)
    colours = [IMAGE, PROMPT, *RESPONSES]
    seen = masks.dense(pack.reach[0]).numpy()
    figure, (band, square) = plt.subplots(
        2, 1, figsize=(8, 8.6), height_ratios=[1, 22], sharex=True, layout="constrained"
    )
    band.imshow(kinds[None, :], cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1, aspect="auto")
    picture = np.ones((*seen.shape, 3))
    keys = np.array([to_rgb(colour) for colour in colours])[kinds]
    picture[seen] = np.broadcast_to(keys, picture.shape)[seen]
    square.imshow(picture, aspect="equal", interpolation="nearest")
    for start, length, name in zip(pack.forest.starts, pack.forest.lengths, names, strict=True):
        band.text(start + length / 2 - 0.5, -0.8, name, ha="center", va="bottom", fontsize=9)
        for line in (square.axvline, square.axhline):
            line(start - 0.5, color="black", linewidth=0.4)
    band.set(xticks=[], yticks=[])
    band.spines[:].set_visible(False)
    square.set(xlabel="key: the token that is seen", ylabel="query: the token that looks")
    square.tick_params(labelsize=8)
    return figure


def _kinds(pack: Pack, image_token: int) -> np.ndarray:
    """[T] 0 image, 1 prompt, 2 and up the prompt's first, second, ... response."""
    kinds, sibling = [], 0
    for parent, length in zip(pack.forest.parents, pack.forest.lengths, strict=True):
        sibling = 0 if parent < 0 else sibling + 1
        kinds += [1 if parent < 0 else 1 + sibling] * length
    return np.where(pack.input_ids[0].numpy() == image_token, 0, kinds)


def draw_demo(curve: list[tuple[int, float]], accuracies: dict[str, float], ratios: dict[str, float]) -> Figure:
    """What a demo run found: the loss while training, held-out accuracies, and a step's time by way.

    Args:
        curve: (optimizer step, reward-model loss).
        accuracies: share of held-out pairs in the right order, by what was shown.
        ratios: time of a step over the packed step's, by way of computing it.
    """
    figure, (loss, right, time) = plt.subplots(
        1, 3, figsize=(12.5, 3.6), width_ratios=[1, 1.3, 1], layout="constrained"
    )
    loss.plot(*zip(*curve, strict=True), color=RESPONSES[0])
    loss.axhline(np.log(2), color=PROMPT, linestyle=":", linewidth=1)
    loss.text(curve[-1][0], np.log(2), "guessing ", ha="right", va="bottom", fontsize=8, color=IMAGE)
    loss.set(title="Reward model: loss", xlabel="optimizer step", ylabel="nats", ylim=0)
    bars = right.bar(list(accuracies), list(accuracies.values()), color=[RESPONSES[0], RESPONSES[4]] * 2)
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
    rows = scenes.rows(2, seed=3, questions=1)
    samples = [processor(row) for row in rows]
    (pack,) = vlmpack.pack(samples)
    names = []
    for letter, row in zip("AB", rows, strict=True):
        names += [f"image and question {letter}", *(f"{letter}{place + 1}" for place in range(len(row["responses"])))]
    path = Path(__file__).parent.parent / "assets" / "pack.png"
    path.parent.mkdir(exist_ok=True)
    draw_pack(pack, processor.image_token_id, names).savefig(path, dpi=110)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
