"""The page as people use it: in a real browser, by mouse, by touch and by keyboard alone."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
import torch
from browser import chromium
from hypothesis import given
from hypothesis import strategies as st
from tiny import IMAGE, picture, woven

import vlmpack
from vlmpack import Forest, ImageInputs, Sample, masks
from vlmpack.inspect import InspectError, palette
from vlmpack.inspect.exhibit import exhibit
from vlmpack.inspect.page import SCRIPTS, _assets, html, page
from vlmpack.inspect.page_data import data, equal_runs, grid, pictures, rising_runs
from vlmpack.inspect.text import text
from vlmpack.reading import Reading

GUTTER = 64  # pixels of the mask's element beside its cells
GREY, DARK, YELLOW, (BLUE, ORANGE, GREEN, *_) = palette.PROMPT, palette.IMAGE, palette.SHARED, palette.RESPONSES
NONE = "#fafafa"  # not seen
FAR_GREY, FAR_DARK = (palette.mixed(colour, 0.5, NONE) for colour in (GREY, DARK))  # seen of another segment


class Words:
    """A stand-in tokenizer: each id is a word of a list."""

    def __init__(self, words):
        self.words = words

    def encode(self, text, add_special_tokens):
        return [0]

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return "".join(self.words[number] for number in ids)


def small(words=()):
    """A pack of 15 tokens: 0-3 image, 4-7 " what is it ?", 8 " a" of A1 and A2, 9-10 A1, 11-12 A2, 13-14 A3."""
    default = ["</s>", " what", " is", " it", " ?", " a", " cat", " dog", " red", *" " * 13, "<image>"]
    reading = Reading(Words([*words, *default[len(words) :]]))
    one = woven([picture(1), 1, 2, 3, 4], [[5, 6, 0], [5, 7, 0], [8, 0]], [(0, 1), (0, 2)])
    (pack,) = vlmpack.pack([replace(one, reading=reading)])
    return pack


def large():
    """A pack of more than 8,000 tokens: six images of 576 tokens, twelve prompts, sixty responses."""
    generator = torch.Generator().manual_seed(0)

    def some(length):
        return torch.randint(1, 4000, (length,), generator=generator)

    reading = Reading(Words([f" word{number}" for number in range(4000)] + ["<image>"]))
    samples = []
    for number in range(12):
        pixels = torch.rand(1, 3, 336, 336, generator=torch.Generator().manual_seed(number // 2))
        prompt = torch.cat([torch.full((576,), 4000), some(30)])
        image_of = torch.tensor([0] * 576 + [-1] * 30)
        responses = tuple(some(70) for _ in range(5))
        images = (ImageInputs({"pixel_values": pixels}),)
        samples.append(Sample(prompt, responses, ((0, 1),), None, images, image_of, reading=reading))
    (pack,) = vlmpack.pack(samples)
    assert 8_000 <= pack.tokens <= 9_000 and pack.vision_passes == 6
    return pack


# The browser, and what is asked of it.


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        window.set_script_timeout(20)
        yield window


@pytest.fixture
def show(window, tmp_path):
    """Opens a document and gives its inspector's shadow root."""

    def shown(document, *, dark=False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        path = tmp_path / "page.html"
        path.write_text(document, "utf-8")
        window.get(path.as_uri())
        return roots(window)[0]

    return shown


def roots(window):
    return [host.shadow_root for host in window.find_elements("css selector", "[data-vlmpack]")]


def find(root, selector, words=None):
    """Elements of a shadow root; with `words`, the first that says just this."""
    found = root.find_elements("css selector", selector)
    return found if words is None else next(each for each in found if each.get_attribute("textContent") == words)


def said(root):
    """What a screen reader is told."""
    return find(root, ".live")[0].get_attribute("textContent")


def lit(window, root):
    """Texts of the tokens that stand out from the dimmed ones, that which asks included."""
    script = """
        const clear = "rgba(0, 0, 0, 0)";
        const tokens = [...arguments[0].querySelectorAll(".words .token")];
        return tokens.filter((each) => getComputedStyle(each).backgroundColor !== clear).map((each) => each.textContent)
    """
    return window.execute_script(script, root)


def hover(window, element):
    actions(window).move_to_element(element).perform()


def press(window, *keys):
    actions(window).send_keys(*keys).perform()


def actions(window):
    from selenium.webdriver import ActionChains

    return ActionChains(window, duration=0)


def keys():
    from selenium.webdriver import Keys

    return Keys


def cells(window, root, tokens=15, layer=0):
    """The mask's colours in the middle of each cell, as #rrggbb; None where nothing is drawn."""
    script = """
        const [root, tokens, layer, gutter] = arguments;
        const canvas = root.querySelectorAll(".mask canvas")[layer];
        const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.width).data;
        const places = Array.from({ length: tokens }, (_, at) => Math.floor(gutter + (at + 0.5) * (canvas.width - gutter - 1) / tokens));
        return places.map((y) => places.map((x) => [...image.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4)]))
    """
    found = window.execute_script(script, root, tokens, layer, GUTTER)
    return [["#" + bytes(rgb).hex() if alpha else None for *rgb, alpha in row] for row in found]


PATH = [" what", " is", " it", " ?", " a", " dog"]
SENTENCE = (
    "“ dog”, A2, token 1 of 2. Index 11, position 9. Sees 10 of 15 tokens: 8 of prompt A; 1 of A1, A2; 1 of 2 of A2. "
    "Predicted by “ a”, index 8. Part of A2."
)


def test_the_pointer_on_a_token_tells_what_it_sees(window, show):
    root = show(page(small()))
    hover(window, find(root, ".token", " dog"))
    assert lit(window, root) == PATH
    assert said(root) == SENTENCE
    assert [each.text for each in find(root, ".token.previous")] == [" a"]
    rows = [row.get_attribute("innerText").split("\n", 1) for row in find(root, "dl > div")]
    assert {name: " ".join(told.split()) for name, told in rows} == {
        "sees": "10 of 15 tokens: 8 prompt A 1 A1, A2 1 of 2 A2",
        "skips": "2 tokens before it, on other paths: A1",
        "index": "11, id 7",
        "position": "9 on its path",
        "predicted by": "“ a” 8",
        "predicts": "“</s>” 12",
        "belongs to": "A2",
    }


def test_the_header_says_what_packing_saved(window, show):
    root = show(page(small()))
    assert [" ".join(each.text.split()) for each in find(root, ".title, .saving")] == [
        "1 prompt, 3 responses 15 tokens · 5 segments · 1 image",
        "2.13× fewer tokens unpacked 32 packed 15",
        "3.00× fewer vision passes unpacked 3 packed 1",
        "1.76× fewer query–key pairs unpacked 187 packed 106",
    ]
    filled = vlmpack.pack([woven([1, 2], [[3, 4, 5], [6]], [(0, 1)])], sharing="none", padding=True)
    root = show(page(*filled))
    assert " ".join(find(root, ".saving")[0].text.split()) == "1.25× more tokens unpacked 8 packed 10"


def test_where_it_is_narrow_the_mask_stands_below_the_text(window, show):
    def tops(width):
        root = show(f"<!doctype html><meta charset=utf-8><div style='width: {width}px'>{html(small())}</div>")
        return [round(find(root, name)[0].rect["y"]) for name in (".forest", ".card", ".aside")]

    text, words, mask = tops(480)
    assert text < words < mask
    text, words, mask = tops(1000)
    assert text == mask < words
    assert len(set(tops(1240))) == 1


def test_a_click_pins_a_token_and_another_is_held_against_it(window, show):
    root = show(page(small()))
    find(root, ".token", " dog").click()
    hover(window, find(root, ".token", " cat"))
    assert lit(window, root) == PATH
    assert said(root) == f"{SENTENCE} “ cat” 9 in A1: not seen: it is on another path Pinned."
    hover(window, find(root, ".token", " it"))
    assert "“ it” 6 in prompt A: seen Pinned." in said(root)
    press(window, keys().ESCAPE)
    assert "Pinned" not in said(root)


def test_the_keyboard_alone_tells_the_same(window, show):
    root = show(page(small()))
    window.execute_script("window.heard = 0; document.addEventListener('keydown', () => window.heard++)")
    key = keys()
    press(window, key.TAB, key.END)
    assert said(root).startswith("“</s>”, A3, token 2 of 2.")
    press(window, key.ARROW_LEFT, key.ARROW_LEFT, key.ARROW_LEFT)  # out of A3, into A2
    assert said(root) == SENTENCE
    assert lit(window, root) == PATH
    press(window, key.ENTER, key.ARROW_LEFT, key.ARROW_LEFT)
    assert said(root).startswith(SENTENCE) and said(root).endswith(
        "“ cat” 9 in A1: not seen: it is on another path Pinned."
    )
    press(window, key.ESCAPE)
    assert said(root).startswith("“ cat”, A1")
    press(window, key.ARROW_DOWN)  # the second response by name: all that it sees
    assert said(root).startswith("A2, to its last token. Index 12, position 10. Sees 11 of 15 tokens: 8 of prompt A;")
    press(window, key.HOME)
    assert said(root).startswith("image 1, in prompt A, to its last token. Index 3, position 3. Sees 4 of 15 tokens")
    assert window.execute_script("return window.heard") == 1  # the notebook hears Tab, and none of the others
    focused = window.execute_script("return getComputedStyle(arguments[0].activeElement).outlineStyle", root)
    assert focused == "solid"
    assert len(find(root, ".forest [tabindex='0']")) == 1


def test_a_tap_pins_a_token(window, show):
    root = show(page(small()))
    token = find(root, ".token", " dog")
    box = window.execute_script(
        "const box = arguments[0].getBoundingClientRect(); return [box.x + 9, box.y + 9]", token
    )
    window.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        touch = {"x": box[0], "y": box[1]}
        window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [touch]})
        window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        wait_for(window, lambda: said(root))
    finally:
        window.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert said(root) == f"{SENTENCE} Pinned."
    assert lit(window, root) == PATH


def wait_for(window, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(window, 5, poll_frequency=0.02).until(lambda _: condition())


def test_an_image_opens_into_its_tokens_and_closes_by_mouse(window, show):
    root = show(page(small()))
    (tile,) = find(root, ".tile")
    assert not find(root, ".over .token") and tile.get_attribute("aria-expanded") == "false"
    tile.click()
    cells = find(root, ".over .token")
    places = {(round(each.rect["x"]), round(each.rect["y"])) for each in cells}
    assert len(cells) == 4 and [len(set(axis)) for axis in zip(*places, strict=True)] == [2, 2]
    hover(window, cells[2])
    assert said(root).startswith("“<image>”, image 1, row 2, column 1; in prompt A, token 3 of 8. Index 2, position 2.")
    cells[2].click()
    window.execute_script("arguments[0].click()", tile)  # as where a click does not focus
    assert not find(root, ".over .token") and tile.get_attribute("aria-expanded") == "false"
    assert find(root, ".forest [tabindex='0']") == [tile]


def test_an_image_opens_and_closes_by_keyboard(window, show):
    root = show(page(small()))
    key = keys()
    press(window, key.TAB, key.HOME, key.ENTER, key.ARROW_RIGHT, key.ARROW_DOWN)
    assert said(root).startswith("“<image>”, image 1, row 2, column 1;")
    press(window, key.ARROW_RIGHT, key.ARROW_RIGHT)
    assert said(root).startswith("“ what”")
    press(window, key.HOME, key.ENTER, key.ARROW_RIGHT)
    assert said(root).startswith("“ what”") and not find(root, ".over .token")


# The mask.


def test_the_masks_cells_are_those_of_the_pack(window, show):
    mask = cells(window, show(page(small())))
    assert mask[3] == [DARK] * 4 + [NONE] * 11
    assert mask[7][4:] == [GREY] * 4 + [NONE] * 7
    assert mask[8] == [FAR_DARK] * 4 + [FAR_GREY] * 4 + [YELLOW] + [NONE] * 6
    assert mask[10][9:] == [BLUE, BLUE] + [NONE] * 4
    assert mask[12][9:] == [NONE, NONE, ORANGE, ORANGE, NONE, NONE]
    assert mask[14][8:] == [NONE] * 5 + [GREEN, GREEN]  # A3 shares nothing with A1 and A2 but the prompt


@pytest.mark.parametrize("both_ways", [None, "image", "prompt"])
def test_every_cell_is_filled_that_may_be_seen_and_no_other(window, show, both_ways):
    beginning = [1, picture(1), 2]
    samples = [
        woven([*beginning, 3], [[4, 5, 6], [4, 5], [4, 7, 7], [8]], [(0, 1)]),
        woven([*beginning, 9, picture(2), 2], [[4, 5, 6], [4]], [(0, 1)]),
        woven([*beginning, 3, 4, 5, 6], [[8, 8], [3]], [(0, 1)]),  # goes on after the first one's response
        woven([2, 2], [[8], [8, 9, 9]], [(0, 1)]),
    ]
    (pack,) = vlmpack.pack([replace(each, both_ways=both_ways) for each in samples])
    token = torch.arange(pack.tokens)
    seen = masks.seen(pack.reach[0], pack.position_ids[0], blocks=pack.blocks[0])(0, 0, token[:, None], token[None, :])
    root = show(page(pack))
    drawn = cells(window, root, tokens=pack.tokens)
    assert [[colour != NONE for colour in row] for row in drawn] == seen.tolist()
    assert not find(root, "[role=alert]")


def test_what_is_seen_both_ways_is_a_square(window, show):
    one = replace(woven([picture(1), 1, 2], [[5], [6]], [(0, 1)]), both_ways="image")
    (pack,) = vlmpack.pack([one])
    root = show(page(pack))
    assert cells(window, root, tokens=8)[:5] == [
        *[[DARK] * 4 + [NONE] * 4] * 4,
        [DARK] * 4 + [GREY] + [NONE] * 3,
    ]


def test_a_wrong_reach_is_seen_as_a_leak(window, show):
    pack = small()
    reach = pack.reach.clone()
    reach[0, 9] = 13  # A1's first token, seen by A2
    root = show(page(replace(pack, reach=reach)))
    assert find(root, "[role=alert]")[0].text == "⚠ leak: 2 query–key pairs that no path in the forest allows"
    marked = cells(window, root, layer=1)
    assert [(query, key) for query in range(15) for key in range(15) if marked[query][key]] == [(11, 9), (12, 9)]
    red, green, _ = bytes.fromhex(marked[11][9][1:])
    assert red > 200 and green < 20
    hover(window, find(root, ".token", " dog"))
    assert lit(window, root) == [" what", " is", " it", " ?", " a", " cat", " dog"]
    assert [each.text for each in find(root, ".token.leak")] == [" cat"]
    assert find(root, "dd .alarm")[0].text == "1 token that its path does not hold: “ cat”"
    assert not find(show(page(pack)), "[role=alert]")


def leaking(*tokens, reach=13):
    """The pack with a stretch over some tokens of A1 (9, 10) and A2 (11, 12), and how far A1's first reaches."""
    pack = small()
    blocks, longer = pack.blocks.clone(), pack.reach.clone()
    blocks[0, list(tokens)], longer[0, 9] = 0, reach
    return replace(pack, blocks=blocks, reach=longer)


def test_a_stretch_over_two_responses_is_seen_as_a_leak(window, show):
    root = show(page(leaking(9, 11, reach=11)))
    assert find(root, "[role=alert]")[0].text == "⚠ leak: 2 query–key pairs that no path in the forest allows"
    marked = cells(window, root, layer=1)
    assert [(query, key) for query in range(15) for key in range(15) if marked[query][key]] == [(9, 11), (11, 9)]


def test_a_pair_that_leaks_twice_is_counted_once(window, show):
    root = show(page(leaking(9, 11)))  # A2's 11 and 12 by reach, and 11 in a stretch, which sees both ways
    assert find(root, "[role=alert]")[0].text == "⚠ leak: 3 query–key pairs that no path in the forest allows"


@pytest.mark.parametrize(
    ("pack", "pairs"), [(leaking(9, 11, reach=11), 2), (leaking(reach=13), 2)], ids=["blocks", "reach"]
)
def test_a_weight_that_a_wrong_mask_lets_through_is_a_leak(window, show, pack, pairs):
    weights = torch.eye(15)
    weights[11, 9] = weights[11, 11] = 0.5
    root = show(page(pack, weights=weights))
    assert find(root, "[role=alert]")[0].text == (
        f"⚠ leak: {pairs} query–key pairs that no path in the forest allows; "
        "leak: 1 attention weight outside the mask not exactly 0"
    )


def test_a_reach_that_is_too_short_is_seen_as_a_hole(window, show):
    pack = small()
    reach = pack.reach.clone()
    reach[0, 4] = 13  # A3 does not see the prompt's first word
    root = show(page(replace(pack, reach=reach)))
    assert find(root, "[role=alert]")[0].text == "⚠ hole: 2 query–key pairs of a path that the mask leaves out"


def test_weights_outside_the_mask_are_counted_and_marked_however_small(window, show):
    pack = small()
    weights = masks.dense(pack.reach[0]).float()
    weights /= weights.sum(-1, keepdim=True)
    assert not find(show(page(pack, weights=weights)), "[role=alert]")
    weights[11, 9] = 1e-30
    root = show(page(pack, weights=weights))
    assert find(root, "[role=alert]")[0].text == "⚠ leak: 1 attention weight outside the mask not exactly 0"
    marked = cells(window, root, layer=1)
    assert [(query, key) for query in range(15) for key in range(15) if marked[query][key]] == [(11, 9)]
    hover(window, find(root, ".token", " dog"))
    assert [each.text for each in find(root, ".token.leak")] == [" cat"]


def test_the_mask_zooms_by_buttons_wheel_and_keys_and_fits_again(window, show):
    root = show(page(small()))
    (mask,) = find(root, ".mask")
    whole = cells(window, root)
    for zoomed in (
        lambda: find(root, ".tool", "+").click(),
        lambda: (mask.click(), press(window, "+")),
        lambda: actions(window).move_to_element(mask).scroll_from_origin(origin(mask), 0, -120).perform(),
    ):
        zoomed()
        wait_for(window, lambda: cells(window, root) != whole)
        find(root, ".tool", "fit").click()
        assert cells(window, root) == whole


def origin(element):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element, 3, 3)


def test_a_row_of_the_mask_asks_as_its_token_does(window, show):
    root = show(page(small()))
    (mask,) = find(root, ".mask")
    cell = (mask.size["width"] - GUTTER - 1) / 15
    at = [GUTTER + (token + 0.5) * cell - mask.size["width"] / 2 for token in (9, 11)]
    actions(window).move_to_element_with_offset(mask, int(at[0]), int(at[1])).perform()
    assert said(root).startswith(SENTENCE) and said(root).endswith("“ cat” 9 in A1: not seen: it is on another path")
    assert lit(window, root) == PATH
    actions(window).click().perform()
    assert said(root).endswith("Pinned.")


# Light and dark.

THEMES = {
    "dark by Jupyter": (False, 'data-jp-theme-light="false"', "dark"),
    "light by Jupyter": (True, 'data-jp-theme-light="true"', "light"),
    "dark by VS Code's class": (False, 'class="vscode-dark"', "dark"),
    "dark by VS Code": (False, 'data-vscode-theme-kind="vscode-dark"', "dark"),
    "light by VS Code": (True, 'data-vscode-theme-kind="vscode-light"', "light"),
}

CONTRASTS = """
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const known = new Map();
    const rgba = (colour) => {
        if (!known.has(colour)) {
            pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
            known.set(colour, [...pen.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(colour);
    };
    const over = (top, below) => below.map((each, at) => top[at] * top[3] / 255 + each * (1 - top[3] / 255));
    const behind = (element) => {
        if (!element) return [255, 255, 255];
        const own = rgba(getComputedStyle(element).backgroundColor);
        return own[3] === 255 ? own.slice(0, 3) : over(own, behind(element.parentElement));
    };
    const light = (rgb) => rgb.map((each) => each / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
    const found = [];
    for (const element of arguments[0].querySelectorAll(".inspector *")) {
        if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
        if (!element.getClientRects().length || element.className === "live") continue;
        const ground = behind(element);
        const [a, b] = [light(over(rgba(getComputedStyle(element).color), ground)), light(ground)];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent]);
    }
    return found.sort((a, b) => a[0] - b[0]).slice(0, 3).concat([["of", found.length]])
"""


@pytest.mark.parametrize(("dark", "body", "theme"), THEMES.values(), ids=THEMES)
def test_light_or_dark_is_as_the_surroundings_say(window, show, dark, body, theme):
    root = show(f"<!doctype html><meta charset=utf-8><body {body}>{html(Forest((-1,), (3,)))}</body>", dark=dark)
    assert find(root, ".inspector")[0].get_attribute("data-theme") == theme
    background = find(root, ".inspector")[0].value_of_css_property("background-color")
    assert background == {"light": "rgba(255, 255, 255, 1)", "dark": "rgba(21, 23, 27, 1)"}[theme]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_legible_in_light_and_dark(window, show, dark):
    pack = small()
    reach = pack.reach.clone()
    reach[0, 9] = 13
    root = show(html(replace(pack, reach=reach)), dark=dark)
    assert find(root, ".inspector")[0].get_attribute("data-theme") == ("dark" if dark else "light")
    for asked in (None, ".head", ".token"):
        if asked:
            hover(window, find(root, asked)[-1])
        *worst, (_, number) = window.execute_script(CONTRASTS, root)
        assert number > 40
        assert worst[0][0] >= 4.5, f"{worst} with the pointer on {asked}"


def test_a_change_of_theme_is_followed(window, show):
    root = show(f'<!doctype html><meta charset=utf-8><body data-jp-theme-light="true">{html(small())}</body>')
    assert cells(window, root)[0][14] == NONE
    window.execute_script("document.body.dataset.jpThemeLight = 'false'")
    wait_for(window, lambda: cells(window, root)[0][14] == "#1b1e23")


# Other people's markup, and other people's text.

HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "</script><script>window.hacked = 1</script>",
    "<!-- <img src=x onerror='window.hacked = 1'> -->",
    "<img src=x onerror='window.hacked = 1'>",
    "\n",
    "\x00\x07\x1b",
    "\u202eabc",
    " zero\u200bwidth\u2028",
    "&lt;b&gt;",
]


def as_jupyterlab(*fragments, body=""):
    """A notebook's document: outputs as innerHTML, whose scripts are then replaced by copies, which run."""
    return (
        f"<!doctype html><meta charset=utf-8><style>body {{ letter-spacing: 9px }} .token, b {{ display: none }}</style><body {body}>"
        "<p id=other class=token style='display: block'>another cell</p>"
        f"<script>for (const html of {json.dumps(fragments).replace('<', chr(92) + 'u003c')}) {{"
        "  const node = document.body.appendChild(document.createElement('div'));"
        "  node.innerHTML = html;"
        "  for (const script of [...node.querySelectorAll('script')]) {"
        "    const copy = document.createElement('script');"
        "    for (const each of script.attributes) copy.setAttribute(each.name, each.value);"
        "    copy.textContent = script.textContent;"
        "    script.replaceWith(copy);"
        "  }"
        "}</script></body>"
    )


@pytest.mark.parametrize("door", [page, lambda pack: as_jupyterlab(html(pack))], ids=["page", "notebook"])
def test_what_a_response_says_stays_text(window, show, door):
    from selenium.common.exceptions import NoAlertPresentException

    root = show(door(small(HOSTILE)))
    with pytest.raises(NoAlertPresentException):
        _ = window.switch_to.alert.text
    assert window.execute_script("return window.hacked") is None
    spoken = [each.get_attribute("textContent") for each in find(root, ".words .token")]
    assert spoken == [
        *HOSTILE[1:4],
        "⏎",
        "␀␇␛",
        "‹202E›abc",
        HOSTILE[0],
        " zero‹200B›width‹2028›",
        HOSTILE[0],
        HOSTILE[8],
        HOSTILE[0],
    ]
    assert not find(root, ".forest script, .forest img:not(.tile img)")
    hover(window, find(root, ".words .token")[4])
    assert "“␀␇␛”" in said(root)


def test_right_to_left_text_does_not_move_its_neighbours(window, show):
    root = show(page(small(["</s>", " אחת", " שתיים", " שלוש", " four"])))
    lefts = [each.rect["x"] for each in find(root, ".words .token")[:4]]
    assert lefts == sorted(lefts)


def test_outputs_of_one_document_do_not_disturb_each_other(window, show):
    pack = small()
    show(as_jupyterlab(html(pack), html(pack), html(pack.forest)))
    first, second, third = roots(window)
    hover(window, find(first, ".token", " dog"))
    assert said(first) == SENTENCE and said(second) == "" and said(third) == ""
    hover(window, find(third, ".token")[11])
    assert said(first) == "" and said(third).startswith("token 11, segment 3, token 1 of 2.")
    other = window.find_element("id", "other")
    assert other.value_of_css_property("letter-spacing") == "9px"
    assert find(first, ".token")[0].value_of_css_property("letter-spacing") == "normal"
    assert len(window.find_elements("css selector", "[id]")) == 1
    assert window.execute_script("return [typeof Model, typeof STYLES, typeof start]") == ["undefined"] * 3


def test_without_scripts_the_text_stands_there(window, tmp_path):
    pack = small(["<b>&</b>"])
    stripped = re.sub(r"<script.*?</script>", "", html(pack), flags=re.DOTALL)
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{stripped}", "utf-8")
    window.get((tmp_path / "page.html").as_uri())
    (shown,) = window.find_elements("tag name", "pre")
    assert shown.is_displayed()
    assert shown.get_attribute("textContent") == text(pack)
    assert "prompt A" in shown.text and "<b>&</b>" in shown.text


def test_no_request_leaves_the_page_and_none_could(window, show):
    window.get_log("performance")
    root = show(page(small()))
    find(root, ".tile")[0].click()
    messages = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url.rpartition("/")[2] for url in requests if not url.startswith("data:")] == ["page.html"]
    refused = """
        const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
        new Image().src = "http://127.0.0.1:9/away";
    """
    assert window.execute_async_script(refused) == "http://127.0.0.1:9/away"


def test_errors_are_not_hidden(window, show):
    show(page(small()))
    assert [
        entry for entry in window.get_log("browser") if entry["level"] == "SEVERE" and "away" not in entry["message"]
    ] == []


# Size and speed.


def timed(make):
    before = perf_counter()
    made = make()
    return made, perf_counter() - before


def test_eight_thousand_tokens_are_ready_within_a_second_and_a_megabyte(window, show):
    pack = large()
    document, spent = timed(lambda: page(pack))
    if spent > 0.5:  # another test may have kept the processor busy
        spent = min(spent, timed(lambda: page(pack))[1])
    assert spent < 1
    assert len(document.encode()) < 1_000_000
    asked = """
        const started = performance.now();
        const tokens = arguments[0].querySelectorAll(".words .token");
        tokens[2000].dispatchEvent(new PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" }));
        arguments[0].querySelector(".forest").getBoundingClientRect();
        const navigation = performance.getEntriesByType("navigation")[0];
        const painted = Math.max(0, ...performance.getEntriesByType("paint").map((each) => each.startTime));
        return [Math.max(navigation.loadEventEnd, painted), performance.now() - started, tokens.length]
    """
    best = 2_000.0
    for _ in range(3):
        root = show(document)
        wait_for(window, lambda: window.execute_script("return performance.getEntriesByType('paint').length"))
        load, answer, tokens = window.execute_script(asked, root)
        best = min(best, load + answer)
        assert tokens > 4_000
        assert re.match(r"“ word\d+”, .* Sees \d+ of 8,\d{3} tokens: ", said(root))
        if best < 1_000:
            break
    assert best < 1_000
    window.execute_script("for (const each of arguments[0].querySelectorAll('.tile')) each.click()", root)
    assert len(find(root, ".over .token")) == 6 * 576


# Without a browser.


def test_nothing_in_the_data_can_end_the_script_or_open_a_comment():
    fragment = html(small(HOSTILE))
    literal = fragment[fragment.rindex('start("') :]
    assert fragment.count("</script>") == 1 and "<!--" not in fragment
    assert literal.isascii() and literal.index("<") == literal.rindex("</script>")
    assert page(small(HOSTILE)).count("<script") == 1


def test_the_same_pack_makes_the_same_fragment():
    assert html(small()) == html(small())


def test_a_small_pack_takes_little():
    assert len(html(small())) < 90_000


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30))
def test_runs_hold_what_they_were_made_of(values):
    array = np.array(values)
    equal, rising = np.array(equal_runs(array)).reshape(-1, 2), np.array(rising_runs(array)).reshape(-1, 2)
    assert [value for value, length in equal for _ in range(length)] == values
    assert [first + step for first, length in rising for step in range(length)] == values
    assert all(a != b for a, b in zip(equal[:-1, 0], equal[1:, 0], strict=True))


def test_the_page_reads_runs_as_they_were_made(window, show):
    root = show(page(small()))
    find(root, ".tile")[0].click()
    script = """
        return [...arguments[0].querySelectorAll(".token")].map((token) => {
            token.dispatchEvent(new PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" }));
            return arguments[0].querySelector(".live").textContent;
        })
    """
    told = window.execute_script(script, root)
    positions = [int(re.search(r"position (\d+)\.", each).group(1)) for each in told]
    found = [re.search(r"Predicted by .* index (\d+)\.", each) for each in told]
    previous = [int(each.group(1)) if each else -1 for each in found]
    assert positions == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 9, 10, 8, 9]
    assert previous == [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 11, 7, 13]


def test_a_weight_is_zero_only_if_it_is_exactly_zero():
    pack = small()
    weights = torch.zeros(15, 15)
    weights[1, 0], weights[1, 1], weights[2, 2] = 1e-38, 1.0, 0.5
    levels = np.frombuffer(b64decode(data(exhibit(pack), weights)["weights"]), np.uint8).reshape(15, 15)
    assert (levels[0, 0], levels[1, 0], levels[1, 1], levels[2, 2]) == (0, 1, 255, 128)


def test_a_weight_rounded_up_above_1_is_shown_as_1():
    weights = torch.eye(15, dtype=torch.bfloat16)
    weights[2, 2] = 1.0078125
    levels = np.frombuffer(b64decode(data(exhibit(small()), weights)["weights"]), np.uint8).reshape(15, 15)
    assert (levels[1, 1], levels[2, 2], levels[2, 1]) == (255, 255, 0)


REFUSED = {
    "another pack's": (small, torch.zeros(14, 14), r"weights are of shape \(14, 14\) and the pack has 15 tokens"),
    "above 1": (
        small,
        torch.full((15, 15), 1.02),
        "weights lie between 1.02 and 1.02 and must lie between 0 and 1; give those after the softmax",
    ),
    "scores": (
        small,
        torch.full((15, 15), -3.0),
        "weights lie between -3 and -3 and must lie between 0 and 1; give those after the softmax",
    ),
    "too many": (
        lambda: Forest((-1,), (513,)),
        torch.zeros(513, 513),
        "the weights of 513 tokens cannot be told apart; show a pack of at most 512",
    ),
}


@pytest.mark.parametrize(("shown", "weights", "message"), REFUSED.values(), ids=REFUSED)
def test_weights_that_do_not_fit_are_refused(shown, weights, message):
    with pytest.raises(InspectError, match=message):
        html(shown(), weights=weights)


def test_more_thumbnails_have_fewer_pixels():
    from PIL import Image

    noise = Image.effect_noise((192, 192), 90)
    few, many = pictures([noise, None]), pictures([noise] * 60)
    assert few[1] is None
    assert sum(len(each["url"]) for each in many) < 240_000
    assert len(many[0]["url"]) < len(few[0]["url"]) / 4
    assert many[0]["width"] == 192  # what it stands for keeps its shape


def test_a_grid_is_shown_only_where_it_is_known():
    pack = small()
    assert grid(exhibit(pack), 0) == (2, 2)
    tiled = replace(pack, pixel_shapes=((1, 4, 3, 8, 8),))
    assert grid(exhibit(tiled), 0) is None
    image_of = torch.tensor([0, 0, -1, 0, 0, -1])  # a token that ends a row of the image
    rows = Sample(
        torch.tensor([IMAGE, IMAGE, 1, IMAGE, IMAGE, 2]), (torch.tensor([3]),), (), None, (picture(1),), image_of
    )
    assert grid(exhibit(rows), 0) is None


def test_a_grid_is_what_the_image_processor_cut():
    class Processor:
        merge_size = 2

    pack = small()
    cut = replace(pack, images={**pack.images, "image_grid_thw": torch.tensor([[1, 2, 8]])})
    known = replace(cut, reading=Reading(pack.reading.tokenizer, Processor()))
    assert grid(exhibit(known), 0) == (1, 4)


def test_tokens_without_a_tokenizer_show_their_ids():
    seen = data(exhibit(replace(small(), reading=None)))
    assert seen["vocabulary"][:2] == [[IMAGE, None], [1, None]]
    assert data(exhibit(Forest((-1, 0), (2, 1))))["vocabulary"] == []


def test_the_scripts_stay_small_and_make_no_markup_of_text():
    from importlib.resources import files

    for name in (*SCRIPTS, "page.css"):
        source = (files("vlmpack.inspect") / name).read_text("utf-8")
        assert len(source.splitlines()) <= 300, name
        for word in (
            "innerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "http",
            "import ",
            "</script",
            "<!--",
            "@import",
        ):
            assert word not in source, f"{name} has {word}"
    assert "\u2028" not in "".join(_assets())
