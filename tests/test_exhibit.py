"""What there is to see of a pack: names, parts, images and sums by hand."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import picture, sample, trees, woven
from typecheck import unchecked

import scenes
import vlmpack
from vlmpack import Forest, Sample
from vlmpack.inspect import InspectError, text
from vlmpack.inspect.exhibit import Part, exhibit
from vlmpack.inspect.text import how_seen
from vlmpack.processors import PreferenceProcessor


def packed(*samples, **settings):
    (pack,) = vlmpack.pack(samples, **settings)
    return pack


def names(shown):
    return [(each.name, each.kind, each.hue, each.stands_for) for each in exhibit(shown).segments]


def test_prompts_are_lettered_and_responses_numbered():
    pack = packed(
        sample([1, 2, 3], [[3, 1], [2, 4, 0], [2, 5]], [(0, 1), (0, 2)]),  # two responses begin alike
        sample([1, 2, 4], [[5, 6], [7]], [(1, 0)]),  # and so do two prompts
    )
    assert names(pack) == [
        ("prompts A, B", "prompt", -1, 5),
        ("prompt A", "prompt", -1, 3),
        ("A1", "response", 0, 1),
        ("A2, A3", "shared", -1, 2),
        ("A2", "response", 1, 1),
        ("A3", "response", 2, 1),
        ("prompt B", "prompt", -1, 2),
        ("B1", "response", 0, 1),
        ("B2", "response", 1, 1),
    ]
    first, *_, last = exhibit(pack).responses
    assert (first.name, first.row, first.prompt_tokens, first.tokens, first.beats) == ("A1", 0, 3, 2, (1, 2))
    assert (last.name, last.row, last.prompt_tokens, last.tokens, last.beats) == ("B2", 1, 3, 1, (3,))


def test_a_response_that_goes_on_as_another_prompt_is_both():
    pack = packed(sample([1, 2], [[3, 4], [9]], [(0, 1)]), sample([1, 2, 3, 4, 5], [[6], [7]], [(0, 1)]))
    assert names(pack)[:3] == [
        ("prompts A, B", "prompt", -1, 4),
        ("A1 (prompt B)", "shared", -1, 3),
        ("prompt B", "prompt", -1, 2),
    ]


def test_equal_responses_end_in_one_segment():
    assert names(packed(sample([1], [[2, 3], [2, 3], [4]], [(0, 2)]))) == [
        ("prompt A", "prompt", -1, 3),
        ("A1, A2", "shared", -1, 2),
        ("A3", "response", 2, 1),
    ]


def test_what_fills_a_tree_up_is_padding():
    rows = packed(sample([1, 2], [[3, 4, 5], [6]], [(0, 1)]), sharing="none", padding=True)
    assert [name for name, *_ in names(rows)] == ["prompt A", "A1", "prompt A", "A2", "padding"]


def test_rows_keep_their_numbers_in_every_pack():
    samples = [sample([k, 2], [[3], [4]], [(0, 1)]) for k in range(1, 5)]
    found = [[each.row for each in exhibit(pack).responses] for pack in vlmpack.pack(samples, max_tokens=8)]
    assert found == [[0, 0, 1, 1], [2, 2, 3, 3]]


def test_images_are_parts_by_their_place():
    pack = packed(
        woven([1, picture(1), 2, picture(2)], [[3], [4]], [(0, 1)]),
        woven([5, picture(2)], [[3], [4]], [(0, 1)]),
    )
    shown = exhibit(pack)
    assert shown.segments[0].parts == (Part(0, 1), Part(1, 5, 0), Part(5, 6), Part(6, 10, 1))
    assert [(each.image, each.tokens) for each in shown.images] == [(0, 4), (1, 4), (1, 4)]
    assert len(shown.thumbnails) == 2


def test_what_was_saved_is_counted_by_hand():
    pack = packed(woven([picture(1), 2], [[3, 4], [5], [3, 6]], [(0, 1)]))  # 5 + [3] + [4] + [6] + [5] tokens
    account = exhibit(pack).account
    assert account.tokens == (7 + 6 + 7, 9)
    assert account.passes == (3, 1)
    assert account.cells == (28 + 21 + 28, 15 + 6 + 7 + 7 + 6)
    assert str(account) == (
        "9 tokens instead of 20 (2.22x), 1 vision pass instead of 3 (3.00x), 41 query-key pairs instead of 77 (1.88x)"
    )


def test_tokens_that_see_each_other_both_ways_are_counted():
    prompt = Sample(torch.tensor([1, 2, 3]), (torch.tensor([4]), torch.tensor([5])), both_ways="prompt")
    assert exhibit(packed(prompt)).account.cells == (2 * (3 * 3 + 4), 3 * 3 + 4 + 4)


def test_a_forest_shows_its_leaves():
    shown = exhibit(Forest((-1, 0, 0, -1), (3, 2, 1, 4)))
    assert [(each.name, each.kind, each.hue) for each in shown.segments] == [
        ("segment 0", "prompt", -1),
        ("segment 1", "response", 0),
        ("segment 2", "response", 1),
        ("segment 3", "prompt", -1),
    ]
    assert shown.account.tokens == (5 + 4 + 4, 10)


def test_the_arrays_are_the_packs_own_also_where_they_are_wrong():
    pack = packed(sample([1, 2], [[3], [4]], [(0, 1)]))
    wrong = replace(pack, reach=torch.full_like(pack.reach, 4), position_ids=torch.arange(4)[None])
    assert exhibit(wrong).reach.tolist() == [4, 4, 4, 4]
    assert exhibit(wrong).position.tolist() == [0, 1, 2, 3]
    assert "▒" not in text(pack)
    assert text(wrong).splitlines()[1] == "leak: 1 cell seen beside the path: token 3 (A2) sees token 2 (A1)"
    assert "leak" not in text(pack)
    assert text(wrong).splitlines()[-2].split() == ["A2", "█", "█", "◣"]


def test_what_cannot_be_looked_at_is_refused():
    with unchecked():
        with pytest.raises(InspectError, match="a list cannot be looked at; give a Pack, a Sample or a Forest"):
            text([1, 2])
        with pytest.raises(InspectError, match="a str reads no tokens back; give a PreferenceProcessor"):
            text(packed(sample([1], [[2]], [])), processor="llava-hf/llava-1.5-7b-hf")


SCENE = """\
1 prompt, 4 responses: 37 tokens instead of 120 (3.24x), 1 vision pass instead of 4 (4.00x), 670 query-key pairs instead of 1,860 (2.78x)

tokens  segment   shared by  text
  0–26  prompt A          4  <s>USER: [image 1: 16 tokens]⏎What is there? ASSISTANT:
    27    A1, A4          2   yellow
 28–29      A1            1   cross</s>  (A1 > A4)
 30–31      A4            1   square</s>
    32    A2, A3          2   green
 33–34      A2            1   cross</s>  (A2 > A1, A3, A4)
 35–36      A3            1   square</s>  (A3 > A4)

 sees  A A1,A4 A1 A4 A2,A3 A2 A3
    A  ◣ ·     ·  ·  ·     ·  ·
A1,A4  █ ◣     ·  ·  ·     ·  ·
   A1  █ █     ◣  ·  ·     ·  ·
   A4  █ █     ·  ◣  ·     ·  ·
A2,A3  █ ·     ·  ·  ◣     ·  ·
   A2  █ ·     ·  ·  █     ◣  ·
   A3  █ ·     ·  ·  █     ·  ◣
(█ all of it, ◣ the tokens up to its own, · nothing)"""


def test_print_shows_a_sample_and_its_pack_alike():
    made = PreferenceProcessor(scenes.processor())(scenes.rows(2, seed=3, questions=2)[0])
    assert str(made) == SCENE
    assert str(packed(made)) == SCENE
    assert repr(packed(made)) == "<Pack of 1 prompt, 4 responses, 37 tokens, 1 image, 5 pairs>"
    assert repr(made) == "<Sample of 27 prompt tokens, 4 responses, 1 image, 5 pairs>"


def test_without_a_tokenizer_segments_are_shown_without_text():
    made = PreferenceProcessor(scenes.processor())(scenes.rows(2, seed=3, questions=2)[0])
    assert "yellow" not in text(replace(made, reading=None))
    assert "yellow" in text(replace(made, reading=None), processor=scenes.tokenizer())


def test_a_long_pack_is_shown_without_the_table():
    pack = packed(sample([1], [[k, 3] for k in range(2, 22)] + [[k] for k in range(2, 22)], [(0, 1)]))
    assert "sees" not in text(pack)
    assert len(text(pack).splitlines()) == 3 + len(pack.forest.parents)


def test_what_data_says_does_nothing_to_a_terminal():
    class Words:
        def encode(self, text, add_special_tokens):
            return [0]

        def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
            return "".join(["a", "b\n", "\x1b[2J", "\u202e", "c"][number] for number in ids)

    shown = text(packed(sample([0, 1], [[2, 3, 4], [4]], [(0, 1)])), processor=Words())
    assert "ab⏎" in shown
    assert "‹001B›[2J‹202E›c" in shown
    assert "\x1b" not in shown


def test_names_say_which_are_meant():
    odd, even = [[2, 3 + k] for k in range(5)], [[9, 3 + k] for k in range(5)]
    mixed = [response for pair in zip(odd, even, strict=True) for response in pair]
    found = [name for name, kind, *_ in names(packed(sample([1], mixed, [(0, 1)]))) if kind == "shared"]
    assert found == ["A1 … A9 (5)", "A2 … A10 (5)"]
    whole = [name for name, kind, *_ in names(packed(sample([1], odd, [(0, 1)]))) if kind == "shared"]
    assert whole == ["A1 … A5"]


def test_a_stretch_seen_both_ways_is_told_from_what_is_causal():
    prompt = replace(woven([1, picture(1), 2], [[3], [4]], [(0, 1)]), both_ways="image")
    lines = text(packed(prompt)).splitlines()
    assert lines[-4].split() == ["A", "▒", "·", "·"]
    assert lines[-1] == "(█ all of it, ◣ the tokens up to its own, ▒ some of it, · nothing)"


def how_seen_by_table(shown, query, key):
    looks, near = np.arange(query.start, query.stop)[:, None], np.arange(key.start, key.stop)[None, :]
    causal, blocks = near <= looks, shown.blocks
    mask = (causal & (looks < shown.reach[near])) | ((blocks[near] == blocks[looks]) & (blocks[looks] >= 0))
    if mask.all() and (query is not key or mask.size > 1):
        return "all"
    return "none" if not mask.any() else "earlier" if query is key and (mask == causal).all() else "some"


@settings(deadline=None, max_examples=40)
@given(trees(images=True, depth=3), st.integers(0, 3), st.sampled_from([None, "image", "prompt"]))
def test_who_sees_whom_is_counted_as_a_table_would_say(made, off, both_ways):
    pack = packed(*(replace(each, both_ways=both_ways) for each in made), max_tokens=10**6)
    shown = exhibit(replace(pack, reach=(pack.reach + off).clamp(max=pack.tokens)))
    for query in shown.segments:
        for key in shown.segments:
            assert how_seen(shown, query, key) == how_seen_by_table(shown, query, key)


def test_long_packs_are_printed_at_once():
    long = Sample(torch.arange(16_000) % 1000, tuple(torch.arange(8_000) + 5000 + k for k in range(2)), ((0, 1),))
    start = perf_counter()
    text(packed(long, max_tokens=10**6))
    assert perf_counter() - start < 2  # a table of 32,000 tokens squared would take ten seconds
