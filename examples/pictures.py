"""Pictures: a pack with its mask, and what a demo run found. `python examples/pictures.py` makes the README's.

And that of a page in docs/inspecting.md, if Chromium and its driver are there.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import scenes
import vlmpack
from vlmpack.inspect.palette import FAINT, PROMPT, RESPONSES
from vlmpack.processors import PreferenceProcessor

ASSETS = Path(__file__).parent.parent / "assets"
PIN = """
const shown = document.querySelector("[data-vlmpack]").shadowRoot;
const words = [...shown.querySelectorAll("*")].filter((each) => !each.children.length);
const word = words.filter((each) => each.textContent.trim() === arguments[0])[arguments[1]];
word.scrollIntoView({ block: "end" });
word.click();
"""


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


def shoot(pack: vlmpack.Pack, path: Path, word: str, which: int) -> bool:
    """Take a picture of a pack's page with one token pinned; False if there is no Chromium to show it.

    Args:
        pack: to be shown.
        path: of the picture.
        word: text of the token that is pinned.
        which: of those that say so, from 0.
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return False
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "headless=new",
        "no-sandbox",
        "hide-scrollbars",
        "window-size=1360,900",
        "disable-background-networking",
    ):
        options.add_argument(f"--{flag}")
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "pack.html"
            page.write_text(vlmpack.inspect.page(pack), encoding="utf-8")
            window.get(page.as_uri())
            window.execute_script(PIN, word, which)
            window.save_screenshot(str(path))
    finally:
        window.quit()
    return True


def main() -> None:
    processor = PreferenceProcessor(scenes.processor())
    rows = scenes.rows(2, seed=133, questions=2)[:3]  # two questions on one picture, one on another
    (pack,) = vlmpack.pack([processor(row) for row in rows])
    ASSETS.mkdir(exist_ok=True)
    vlmpack.inspect.draw(pack).savefig(ASSETS / "pack.png", dpi=200, pil_kwargs={"optimize": True})
    print(f"picture: {ASSETS / 'pack.png'}")
    if shoot(pack, ASSETS / "page.png", word="ring", which=1):  # of A2
        print(f"picture: {ASSETS / 'page.png'}")
    else:
        print("no picture of the page: it needs Chromium and its driver")


if __name__ == "__main__":
    main()
