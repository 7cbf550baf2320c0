"""Pictures of packs: which cells are coloured, what is written where, and what is refused."""

import subprocess
import sys
import time
import tracemalloc
import warnings
from dataclasses import replace
from functools import cache
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import tiny
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

import scenes
import vlmpack
from vlmpack import Forest, Pack, Sample, masks
from vlmpack.inspect import InspectError, draw
from vlmpack.inspect.picture.lettering import Lettering
from vlmpack.processors import PreferenceProcessor

PAINTS = {  # by the letter that stands for them below: capitals within a segment or image, small ones before it
    "P": (0x8C, 0x8C, 0x8C), "p": (0xD1, 0xD1, 0xD1),
    "I": (0x4D, 0x4D, 0x4D), "i": (0xB8, 0xB8, 0xB8),
    "S": (0xF0, 0xE4, 0x42), "s": (0xF9, 0xF4, 0xB3),
    "A": (0x00, 0x72, 0xB2), "a": (0x99, 0xC7, 0xE0),
    "B": (0xE6, 0x9F, 0x00), "b": (0xF5, 0xD9, 0x99),
    "!": (0xD4, 0x00, 0x00), ".": (255, 255, 255),
}  # fmt: skip


def cells(figure: Figure, tokens: int) -> np.ndarray:
    """[T, T, 3] the colour in the middle of every cell of the mask, a row for each token that looks."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    (axes,) = [axes for axes in figure.axes if axes.get_label() == "mask"]
    middles = np.arange(tokens) + 0.5
    points = axes.transData.transform(np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2))
    columns, rows = points.astype(int).T
    return pixels[len(pixels) - 1 - rows, columns].reshape(tokens, tokens, 3)


def mask(figure: Figure, tokens: int) -> list[str]:
    letters = {paint: letter for letter, paint in PAINTS.items()}
    return ["".join(letters[tuple(cell)] for cell in row.tolist()) for row in cells(figure, tokens)]


def written(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def said(figure: Figure) -> str:
    """Whatever is written, wherever lines are broken."""
    return " ".join(written(figure))


def packed(*samples: Sample) -> Pack:
    (pack,) = vlmpack.pack(list(samples))
    return pack


def test_a_token_has_its_colour_where_it_looks_and_others_are_white():
    pack = packed(tiny.sample([1, 2], [[3, 4, 5], [3, 6]], [(0, 1)]))
    assert mask(draw(pack), 6) == [
        "P.....",
        "PP....",
        "ssS...",
        "aaaA..",
        "aaaAA.",
        "bbb..B",
    ]


def test_a_forest_alone_is_drawn_as_its_leaves_were_responses():
    assert mask(draw(Forest((-1, 0, 0, -1), (2, 1, 1, 1))), 5) == [
        "P....",
        "PP...",
        "aaA..",
        "bb.B.",
        "....P",
    ]


@pytest.mark.parametrize(
    "both_ways, rows",
    [
        (None, ["I......", "II.....", "III....", "IIII...", "ppppP..", "aaaaaA.", "bbbbb.B"]),
        ("image", ["IIII...", "IIII...", "IIII...", "IIII...", "ppppP..", "aaaaaA.", "bbbbb.B"]),
        ("prompt", ["IIIIi..", "IIIIi..", "IIIIi..", "IIIIi..", "ppppP..", "aaaaaA.", "bbbbb.B"]),
    ],
)
def test_what_is_seen_both_ways_is_drawn_both_ways(both_ways, rows):
    sample = replace(tiny.sample([1], [[3], [4]], [(0, 1)], images=1), both_ways=both_ways)
    assert mask(draw(packed(sample)), 7) == rows


def test_the_mask_is_the_packs_own_and_what_is_wrong_with_it_is_red_and_said():
    pack = packed(tiny.sample([1, 2], [[3], [4]], [(0, 1)]))
    figure = draw(replace(pack, reach=torch.tensor([[2, 4, 4, 4]])))
    assert mask(figure, 4) == ["P...", "PP..", ".aA.", ".b!B"]
    assert "leak: 1 cell seen beside the path (red): token 3 (A2) sees token 2 (A1) " in said(figure)
    assert " 2 cells of the path not seen: token 2 (A1) does not see token 0 (prompt A) " in said(figure)
    assert "leak" not in said(draw(pack))


def with_blocks(*blocks: int, reach: tuple[int, ...] = (5, 5, 3, 5, 5)) -> Pack:
    """Tokens 0 and 1 of the prompt, 2 of A1, 3 and 4 of A2, in whatever stretches."""
    pack = packed(tiny.sample([1, 2], [[3], [4, 5]], [(0, 1)]))
    return replace(pack, blocks=torch.tensor([blocks]), reach=torch.tensor([reach]))


STRETCHES = {  # of which only the first is right
    "in one segment": ((0, 0, -1, 1, 1), {}, ["PP...", "PP...", "aaA..", "bb.BB", "bb.BB"], None),
    "in two responses": (
        (-1, -1, 0, 0, -1),
        {},
        ["P....", "PP...", "aaA!.", "bb!B.", "bb.BB"],
        "leak: 2 cells seen beside the path (red): token 3 (A2) sees token 2 (A1)",
    ),
    "in a prompt and a response": (
        (-1, 0, -1, -1, 0),
        {},
        ["P....", "PP..!", "aaA..", "bb.B.", "bb.BB"],
        "leak: 1 cell seen beside the path (red): token 1 (prompt A) sees token 4 (A2)",
    ),
    "in two responses, one of which reaches too far": (
        (-1, -1, 0, 0, 0),
        {"reach": (5, 5, 4, 5, 5)},
        ["P....", "PP...", "aaA!!", "bb!BB", "bb!BB"],
        "leak: 4 cells seen beside the path (red): token 3 (A2) sees token 2 (A1)",
    ),
    "where reach is too short": (
        (0, 0, -1, 0, -1),
        {"reach": (1, 5, 3, 5, 5)},
        ["PP.!.", "PP.!.", ".aA..", "bb.B.", ".b.BB"],
        "leak: 2 cells seen beside the path (red): token 0 (prompt A) sees token 3 (A2)",
    ),
}


@pytest.mark.parametrize("blocks, others, rows, leak", STRETCHES.values(), ids=STRETCHES)
def test_a_stretch_is_seen_both_ways_in_one_segment_and_is_red_beyond_it(blocks, others, rows, leak):
    figure = draw(with_blocks(*blocks, **others))
    assert mask(figure, 5) == rows
    assert (f"{leak} " in f"{said(figure)} ") if leak else ("leak" not in said(figure))


def test_of_a_reach_too_short_what_a_stretch_shows_is_not_counted():
    figure = draw(with_blocks(0, 0, -1, 0, -1, reach=(1, 5, 3, 5, 5)))
    assert " 2 cells of the path not seen: token 2 (A1) does not see token 0 (prompt A) " in said(figure)


def test_a_weight_that_a_wrong_stretch_lets_through_is_a_leak():
    weights = torch.eye(5)
    weights[3, 2] = weights[3, 3] = 0.5
    weights[0, 1] = weights[0, 0] = 0.5
    figure = draw(with_blocks(0, 0, 1, 1, -1), weights=weights)
    red = (cells(figure, 5) == PAINTS["!"]).all(-1)
    assert [tuple(place) for place in np.argwhere(red).tolist()] == [(3, 2)]
    assert "leak: 1 weight outside the mask (red), up to 0.5: token 3 (A2) sees token 2 (A1)" in said(figure)


def test_a_weight_rounded_up_above_1_is_as_dark_as_1():
    weights = torch.tensor([[1.0, 0], [0.0, 1.0078125]], dtype=torch.bfloat16)
    shown = cells(draw(Forest((-1,), (2,)), weights=weights), 2)
    assert shown[1, 1].tolist() == shown[0, 0].tolist() == [0x08, 0x30, 0x6B]


def test_weights_are_darker_the_larger_and_white_where_they_are_0():
    forest = Forest((-1, 0, 0), (1, 1, 1))
    figure = draw(forest, weights=torch.tensor([[1.0, 0, 0], [0.0, 1.0, 0], [1e-12, 0, 0.3]]))
    seen = cells(figure, 3).astype(int)
    white = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 1)]
    assert [tuple(place) for place in np.argwhere((seen == 255).all(-1)).tolist()] == white
    assert seen[0, 0].tolist() == [0x08, 0x30, 0x6B]
    assert 255 * 3 > seen[2, 0].sum() > seen[2, 2].sum() > seen[1, 1].sum()
    assert "no weight outside the mask" in said(figure)


@pytest.mark.parametrize("weight", [0.2, 1e-30, 1e-300])
def test_a_weight_outside_the_mask_is_red_and_said_however_small(weight):
    weights = torch.eye(3, dtype=torch.float64)
    weights[2, 1] = weight
    figure = draw(Forest((-1, 0, 0), (1, 1, 1)), weights=weights)
    red = (cells(figure, 3) == PAINTS["!"]).all(-1)
    assert [tuple(place) for place in np.argwhere(red).tolist()] == [(2, 1)]
    assert f"leak: 1 weight outside the mask (red), up to {weight:.2g}: token 2 (segment 2) sees token 1" in said(
        figure
    )


def test_a_weight_that_a_wrong_mask_lets_through_is_a_leak():
    pack = packed(tiny.sample([1], [[3], [4]], [(0, 1)]))
    wrong = replace(pack, reach=torch.tensor([[3, 3, 3]]))
    figure = draw(wrong, weights=torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.3, 0.3, 0.4]]))
    assert "leak: 1 weight outside the mask (red), up to 0.3: token 2 (A2) sees token 1 (A1)" in said(figure)


@pytest.mark.parametrize(
    "weights, error",
    [
        (torch.eye(3), r"weights are of shape (3, 3) and the pack has 2 tokens; give [2, 2]"),
        (torch.tensor([[1.0, 0], [2.5, 0]]), "weights lie between 0 and 2.5 and must lie between 0 and 1"),
        (torch.tensor([[1.02, 0], [0.5, 0.5]]), "weights lie between 0 and 1.02 and must lie between 0 and 1"),
        (torch.tensor([[1.0, 0], [torch.nan, 0]]), "weights lie between nan and nan and must lie between 0 and 1"),
    ],
)
def test_weights_of_something_else_are_refused(weights, error):
    with pytest.raises(InspectError) as raised:
        draw(Forest((-1, 0), (1, 1)), weights=weights)
    assert error in str(raised.value)


def test_weights_of_too_many_tokens_are_refused():
    with pytest.raises(InspectError, match="the weights of 1,025 tokens cannot be told apart; show a pack of at most"):
        draw(Forest((-1,), (1025,)), weights=torch.eye(1025))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"panels": ("mask", "tree")}, "panels=('mask', 'tree') must be one or more of ('forest', 'mask', 'saving')"),
        ({"panels": ()}, "panels=() must be one or more of"),
        ({"panels": ("forest",), "weights": torch.eye(2)}, "panels=('forest',) has no \"mask\"; add it"),
    ],
)
def test_panels_that_cannot_be_drawn_are_refused(options, error):
    with pytest.raises(InspectError) as raised:
        draw(Forest((-1, 0), (1, 1)), **options)
    assert error in str(raised.value)


# --- what is written


@cache
def processor() -> PreferenceProcessor:
    return PreferenceProcessor(scenes.processor())


@cache
def three_prompts() -> Pack:
    """Two questions on one picture and one on another, four responses each, with thumbnails."""
    return packed(*map(processor(), scenes.rows(2, seed=133, questions=2)[:3]))


def of_one_prompt(responses: list[str], question: str = "What is there?") -> Pack:
    scores = [float(place) for place in range(len(responses))]
    return packed(processor()({"id": "0", "prompt": question, "responses": responses, "scores": scores}))


@cache
def many_segments() -> Pack:
    """Over 8,000 tokens in over 100 segments: 12 prompts on 6 images, 8 responses each."""
    draws = np.random.default_rng(0)
    samples = []
    for number in range(12):
        words = draws.integers(1, 9, 60).tolist()
        responses = tuple(torch.from_numpy(draws.integers(0, 20, 75)) for _ in range(8))
        image_of = torch.tensor([0] * 256 + [-1] * len(words))
        ids = torch.tensor([tiny.IMAGE] * 256 + words)
        samples.append(Sample(ids, responses, ((0, 1),), None, (tiny.picture(number // 2),), image_of))
    return vlmpack.pack(samples, 20_000)[0]


def unequal() -> Pack:
    samples = [tiny.sample([1] * length, [[2] * length, [3]], [(0, 1)]) for length in (2, 9, 5)]
    return vlmpack.pack(samples, sharing="none", padding=True)[0]


SHOWN = {
    "one token": lambda: Forest((-1,), (1,)),
    "three prompts": three_prompts,
    "64 responses": lambda: of_one_prompt([f"{'red ' * (k % 5)}{k}" for k in range(64)]),
    "8k tokens": many_segments,
    "padding": unequal,
    "500 leaves": lambda: Forest((-1,) + (0,) * 500, (50,) + (4,) * 500),
    "a path of 150": lambda: Forest((-1, *range(149)), (3,) * 150),
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_nothing_is_written_over_anything_else_or_cut_off(shown):
    figure = draw(shown(), title="A title" * 40)
    figure.draw_without_rendering()
    slack = 0.3 * figure.dpi / 72  # points; letters do not fill the height of their line
    boxes = {text: text.get_window_extent() for axes in figure.axes for text in axes.texts}
    boxes = {
        text: Bbox.from_extents(b.x0 + slack, b.y0 + slack, b.x1 - slack, b.y1 - slack) for text, b in boxes.items()
    }
    masks_ = [axes.get_window_extent() for axes in figure.axes if axes.get_label() == "mask"]
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
        assert not any(box.overlaps(each) for each in masks_), text
    overlapping = [(a.get_text(), b.get_text()) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert overlapping == []


def test_segments_are_named_with_their_text_tokens_and_how_many_share_them():
    words = said(draw(three_prompts(), panels=("forest",)))
    assert words.startswith(
        "What stands once tokens shared by prompts A, B, C <s>USER: 4 12 prompts A, B [image 1: 16 tokens] ⏎ 17 8 "
        "prompt A What is there? ASSISTANT: 6 4 A1, A3 green 1 2 A1 ring</s> 2 1 A3 square</s> 2 1 A2, A4 yellow"
    )


def test_the_bars_say_what_each_response_on_its_own_would_take():
    words = written(draw(three_prompts(), panels=("saving",)))
    assert words[3:] == [
        "tokens", "360", "86", "4.19×",
        "vision passes", "12", "2", "6.00×",
        "query-key pairs", "5,580", "1,769", "3.15×",
    ]  # fmt: skip


def test_of_a_pack_without_images_no_vision_passes_are_drawn():
    assert "vision passes" not in written(draw(of_one_prompt(["red", "blue"])))


def test_images_are_shown_as_the_vision_tower_is_shown_them():
    figure = draw(three_prompts(), panels=("forest",))
    shown = [axes.images[0].get_array().shape for axes in figure.axes if axes.images]
    assert shown == [(48, 48, 3), (48, 48, 3)]


def test_siblings_that_find_no_room_are_counted():
    words = written(draw(Forest((-1,) + (0,) * 99, (5,) + (2,) * 99), panels=("forest",)))
    left_out = words.index("… 75 more segments")
    assert words[left_out - 3 : left_out + 3] == ["segment 23", "2", "1", "… 75 more segments", "150", "segment 99"]


def test_a_path_deeper_than_pythons_calls_is_drawn():
    words = written(draw(Forest((-1, *range(1199)), (1,) * 1200), panels=("forest",)))
    left_out = words.index("… 1,175 more segments")
    assert words[left_out - 3 : left_out + 2] == ["segment 24", "1", "1", "… 1,175 more segments", "1,175"]


# --- text from anywhere

NASTY = {
    "$\\frac{1}{0}$ or $5": "$\\frac{1}{0}$ or $5",
    "one\r\ntwo\nthree\u2028": "one⏎two⏎three⏎",
    "tab\tbell\x07nul\x00": "tab bell▯nul▯",
    "\u202eevil\u202c \u200bzero": "evil zero",
    "日本 😀 \U0010ffff \ud800": "▯▯ 😀 ▯ ▯",
    "Z\u0301\u0302\u0303\u0304": "Ź",
    "<script>&amp;</script> 100%": "<script>&amp;</script> 100%",
}


@pytest.mark.parametrize("words, shown", NASTY.items(), ids=map(ascii, NASTY))
def test_text_is_shown_as_one_line_of_what_the_font_has(words, shown):
    assert Lettering().clean(words) == shown


def test_no_text_crashes_or_warns_or_becomes_a_formula():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with matplotlib.rc_context({"text.usetex": True}):  # there is no TeX here
            nasty = [words.replace("\ud800", "") for words in NASTY] + ["שלום عربي", "y" * 5000]
            figure = draw(of_one_prompt(nasty, question="$x_1$"), title="50 % of $x")
            figure.canvas.draw()
    assert not any(text.get_parse_math() for axes in figure.axes for text in axes.texts)


def test_long_text_has_its_middle_left_out():
    lettering = Lettering()
    cut = lettering.fitted("What is there? ASSISTANT:", 50, 6.5)
    assert cut.startswith("What") and cut.endswith("ANT:") and "…" in cut
    assert 40 < lettering.width(cut, 6.5) <= 50
    assert lettering.fitted("What", 0.5, 6.5) == ""
    lines = lettering.wrapped("How many, and on what ground?", 60, 6.5, 3)
    assert " ".join(lines) == "How many, and on what ground?" and len(lines) in (2, 3)
    assert all(lettering.width(line, 6.5) <= 60 for line in lines)


# --- where it is drawn


def test_pyplot_is_not_touched_and_a_notebook_shows_the_figure():
    formatters = pytest.importorskip("IPython.core.formatters")
    import matplotlib.pyplot as plt

    before = matplotlib.get_backend(), dict(matplotlib.rcParams)
    figure = draw(Forest((-1, 0, 0), (3, 2, 2)))
    shown, _ = formatters.DisplayFormatter().format(figure)
    assert isinstance(figure, Figure) and shown["image/png"].startswith(b"\x89PNG")
    assert plt.get_fignums() == [] and (matplotlib.get_backend(), dict(matplotlib.rcParams)) == before


def test_the_users_style_changes_no_cell():
    style = {"axes.grid": True, "image.origin": "lower", "lines.marker": "o", "xtick.top": True, "figure.dpi": 40}
    with matplotlib.rc_context(style):
        assert mask(draw(Forest((-1, 0, 0), (1, 1, 1))), 3) == ["P..", "aA.", "b.B"]
        weighed = draw(Forest((-1,), (2,)), weights=torch.tensor([[1.0, 0], [0.5, 0.5]]))
        assert (cells(weighed, 2) == 255).all(-1).tolist() == [[False, True], [False, False]]


def test_8k_tokens_take_under_two_seconds_and_no_table():
    pack = many_segments()
    assert pack.tokens > 8000 and len(pack.forest.parents) > 100
    took = []
    for _ in range(2):  # the better one: the first may have to load fonts, or meet other tests
        start = time.process_time()
        draw(pack).canvas.draw()
        took.append(time.process_time() - start)
    assert min(took) < 2
    tracemalloc.start()
    draw(pack, panels=("mask",))
    assert tracemalloc.get_traced_memory()[1] < pack.tokens**2 / 4  # bytes
    tracemalloc.stop()


def test_the_picture_agrees_with_the_table_of_the_mask():
    pack = three_prompts()
    coloured = (cells(draw(pack, panels=("mask",)), pack.tokens) != 255).any(-1)
    assert (coloured == masks.dense(pack.reach[0]).numpy()).all()


def test_without_matplotlib_packs_are_still_printed_and_draw_says_what_to_install():
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import vlmpack.inspect as inspect\n"
        "from vlmpack import Forest\n"
        "print(inspect.text(Forest((-1,), (3,))).splitlines()[0])\n"
        "try: inspect.draw(Forest((-1,), (3,)))\n"
        "except inspect.InspectError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert first.startswith("1 tree, 1 leaf: ")
    assert second == "pictures need matplotlib; install it with: pip install 'vlmpack[inspect]'"
