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

IMAGE, PROMPT, SHARED = "#4d4d4d", "#8c8c8c", "#f0e442"
RESPONSES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")  # Okabe and Ito: told apart by the colour-blind


def draw_pack(pack: Pack, image_token: int) -> Figure:
    """The tokens of a pack as a band, and below it the mask: who may attend to whom.

    Args:
        pack: questions with their responses; prompts are lettered, responses numbered.
        image_token: id of an image's tokens, drawn darker than the rest of the prompt.
    """
    kinds, labels = _kinds(pack, image_token), _labels(pack, image_token)
    colours = [IMAGE, PROMPT, SHARED, *RESPONSES]
    seen = masks.dense(pack.reach[0]).numpy()
    figure, (band, square) = plt.subplots(
        2, 1, figsize=(8, 9.1), height_ratios=[1, 14], sharex=True, layout="constrained"
    )
    band.imshow(kinds[None, :], cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1, aspect="auto")
    picture = np.ones((*seen.shape, 3))
    keys = np.array([to_rgb(colour) for colour in colours])[kinds]
    picture[seen] = np.broadcast_to(keys, picture.shape)[seen]
    square.imshow(picture, aspect="auto", interpolation="nearest")
    for start, stop, label in labels:
        band.text((start + stop - 1) / 2, -0.7, label, ha="center", va="bottom", fontsize=8, rotation=40)
    for start in pack.forest.starts:
        for line in (square.axvline, square.axhline):
            line(start - 0.5, color="black", linewidth=0.3)
    band.set(xticks=[], yticks=[])
    band.spines[:].set_visible(False)
    square.set(xlabel="key: the token that is seen", ylabel="query: the token that looks")
    square.tick_params(labelsize=8)
    return figure


def _counts_for(pack: Pack) -> list[list[int]]:
    """For each token, the responses that it belongs to."""
    responses: list[list[int]] = [[] for _ in range(pack.tokens)]
    for target, response in pack.terms.tolist():
        responses[pack.targets[target]].append(response)
    return responses


def _kinds(pack: Pack, image_token: int) -> np.ndarray:
    """[T] 0 image, 1 prompt, 2 what several responses share, 3 and up a prompt's first, second, ... response."""
    first = {}  # of each prompt's responses
    for response, prompt in enumerate(pack.sample_of.tolist()):
        first.setdefault(prompt, response)
    kinds = []
    for token, own in enumerate(_counts_for(pack)):
        prompt = 0 if pack.input_ids[0, token] == image_token else 1
        alone = 3 + own[0] - first[pack.sample_of[own[0]].item()] if len(own) == 1 else 2
        kinds.append(alone if own else prompt)
    return np.array(kinds)


def _labels(pack: Pack, image_token: int) -> list[tuple[int, int, str]]:
    """(first token, one past the last, name) of each image, prompt and response."""
    labels, samples = [], pack.sample_of.tolist()
    images = np.flatnonzero(pack.input_ids[0].numpy() == image_token)
    for number, tokens in enumerate(np.array_split(images, len(pack.placements)) if len(images) else []):
        labels.append((tokens[0], tokens[-1] + 1, f"image {number + 1}"))
    counts = _counts_for(pack)
    for response, prompt in enumerate(samples):
        letter, first = chr(ord("A") + prompt), samples.index(prompt)
        tokens = [token for token, own in enumerate(counts) if own == [response]]
        if tokens:
            labels.append((tokens[0], tokens[-1] + 1, f"{letter}{response - first + 1}"))
        if response == first:
            end = pack.previous[0, min(token for token, own in enumerate(counts) if response in own)].item() + 1
            labels.append((end - 2, end, f"question {letter}"))
    return labels


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
    rows = scenes.rows(2, seed=3, questions=2)[:3]  # two questions on one picture, one on another
    (pack,) = vlmpack.pack([processor(row) for row in rows])
    path = Path(__file__).parent.parent / "assets" / "pack.png"
    path.parent.mkdir(exist_ok=True)
    draw_pack(pack, processor.image_token_id).savefig(path, dpi=110)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
