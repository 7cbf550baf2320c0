"""Our own row format and TRL's, and every way in which a row can be wrong."""

import pytest

from vlmpack.processors import RowError
from vlmpack.processors.rows import read_row
from vlmpack.processors.transcript import split_shared_text, split_shared_turns, turns

SCORED = {"prompt": "What?", "responses": ["a", "b", "c"], "scores": [1.0, 3.0, 1.0]}
CHOSEN = {"prompt": "What?", "chosen": "a", "rejected": "b"}


def say(role: str, text: str) -> dict:
    return {"role": role, "content": text}


def test_scores_give_every_pair_that_is_no_tie_and_its_margin():
    row = read_row({**SCORED, "images": ["x.png"]})
    assert row.prompt == [say("user", "What?")]
    assert row.responses == ([say("assistant", "a")], [say("assistant", "b")], [say("assistant", "c")])
    assert row.pairs == ((1, 0), (1, 2))
    assert row.margins == (2.0, 2.0)
    assert row.images == ("x.png",)


def test_ranks_are_better_when_lower_and_tell_no_margin():
    row = read_row({"prompt": "What?", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]})
    assert row.pairs == ((1, 0), (1, 2))
    assert row.margins is None


def test_all_tied_is_no_pair_and_no_error():
    assert read_row({**SCORED, "scores": [1, 1, 1]}).pairs == ()


@pytest.mark.parametrize("column", ["image", "images"])
def test_chosen_and_rejected_are_one_pair(column):
    row = read_row({**CHOSEN, column: "x.png", "margin": 0.5})
    assert (row.pairs, row.margins, row.images) == (((0, 1),), (0.5,), ("x.png",))


def test_messages_are_taken_as_they_are():
    blocks = [{"type": "image"}, {"type": "text", "text": "What?"}]
    row = read_row({"prompt": [say("system", "Be brief."), {"role": "user", "content": blocks}], **{k: [say("assistant", k)] for k in ("chosen", "rejected")}})  # fmt: skip
    assert [message["role"] for message in row.prompt] == ["system", "user"]
    assert row.prompt[1]["content"] == blocks
    assert row.responses[1] == [say("assistant", "rejected")]


def test_a_prompt_inside_chosen_and_rejected_is_what_they_share():
    shared = [say("user", "Hi"), say("assistant", "Hello"), say("user", "What?")]
    row = read_row({"chosen": [*shared, say("assistant", "a")], "rejected": [*shared, say("assistant", "b")]})
    assert row.prompt == shared
    assert row.responses == ([say("assistant", "a")], [say("assistant", "b")])


def test_transcripts_are_conversations():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: What?\n\nAssistant:"
    row = read_row({"chosen": f"{start} a", "rejected": f"{start} b"})
    assert row.prompt == [say("user", "Hi"), say("assistant", "Hello"), say("user", "What?")]
    assert row.responses == ([say("assistant", "a")], [say("assistant", "b")])
    assert turns("no transcript") == []


def test_conversations_that_part_early_keep_their_later_turns():
    ask, again = say("user", "Hi"), say("user", "And?")
    chosen = [ask, say("assistant", "a"), again, say("assistant", "x")]
    rejected = [ask, say("assistant", "b"), again, say("assistant", "x")]
    assert split_shared_turns(chosen, rejected) == ([ask], (chosen[1:], rejected[1:]))


def test_what_the_assistant_says_is_a_response_even_where_both_say_it():
    ask, begin = say("user", "Hi"), say("assistant", "Let me see.")
    chosen, rejected = [ask, begin, say("assistant", "a")], [ask, begin, say("assistant", "b")]
    assert split_shared_turns(chosen, rejected) == ([ask], (chosen[1:], rejected[1:]))


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("The sky is blue.", "The sky is green.", ("The sky is", (" blue.", " green."))),
        ("The sky is blue.", "The sky is black.", ("The sky is bl", ("ue.", "ack."))),
        ("The  a", "The  b", ("The ", (" a", " b"))),
        ("Yes", "Yes, it is", ("Ye", ("s", "s, it is"))),
        ("The end ", "The end of it", ("The end", (" ", " of it"))),
        ("Blue.", "Green.", ("", ("Blue.", "Green."))),
    ],
)
def test_plain_texts_are_split_as_trl_splits_them(chosen, rejected, expected):
    assert split_shared_text(chosen, rejected) == expected


def test_columns_that_are_none_count_as_absent():
    assert read_row({**CHOSEN, "images": None, "scores": None}).images == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "columns \\[\\] are in no row format"),
        ({"prompt": "What?"}, "columns \\['prompt'\\] are in no row format; the row formats"),
        ({**SCORED, "reponses": []}, "column 'reponses' is unknown: did you mean 'responses'"),
        ({**SCORED, "xyz": 1}, "column 'xyz' is unknown: rename or drop it, or name it in metadata_columns"),
        ({"prompt": "What?", "responses": ["a", "b"]}, "needs 'scores' .* or 'ranks'"),
        ({**SCORED, "ranks": [1, 2, 3]}, "one of them"),
        ({**SCORED, "chosen": "a"}, "column 'chosen' is unknown: .*; it is read as ranked responses"),
        ({**CHOSEN, "scores": [1, 2]}, "column 'scores' is unknown: .*; it is read as pair"),
        ({**SCORED, "responses": ["a"]}, "the row holds 1 responses; a preference needs two"),
        ({**SCORED, "responses": "abc"}, "'responses' is str; give a list"),
        ({**SCORED, "responses": ["a", " ", "c"]}, "response 1 is empty"),
        ({**SCORED, "prompt": "  "}, "the prompt is empty"),
        ({**SCORED, "prompt": []}, "the prompt is empty"),
        ({**SCORED, "prompt": [say("user", "Hi"), say("assistant", "Yes")]}, "ends with an assistant's message"),
        ({**SCORED, "prompt": 7}, "neither a string nor a list of messages"),
        ({**SCORED, "prompt": [{"text": "Hi"}]}, "needs a 'role' and a 'content'"),
        ({**SCORED, "prompt": [{"role": "user", "content": ["What?"]}]}, "content block What.* is neither"),
        ({**SCORED, "prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "put images into the 'images' column"),
        ({**SCORED, "scores": [1.0, 2.0]}, "'scores' holds 2 values for 3 responses"),
        ({**SCORED, "scores": [1.0, float("nan"), 2.0]}, r"'scores'\[1\] is nan; give a finite number"),
        ({**SCORED, "scores": [1.0, "high", 2.0]}, r"'scores'\[1\] is 'high'"),
        ({**CHOSEN, "margin": float("inf")}, "'margin' is inf; give a finite number"),
        ({**CHOSEN, "image": "x", "images": ["x"]}, "both 'images' and 'image'"),
        ({"chosen": "plain", "rejected": "text"}, "share no first turn or beginning; put what they answer into a 'prompt' column"),
        ({"chosen": [say("user", "A")], "rejected": [say("user", "B")]}, "share no first turn"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_refused_with_the_remedy(row, message):
    with pytest.raises(RowError, match=message):
        read_row(row)


def test_metadata_columns_are_not_read():
    assert read_row({**CHOSEN, "note": object()}, metadata_columns=("note",)).pairs == ((0, 1),)


def test_an_empty_path_is_no_image():
    assert read_row({**CHOSEN, "image": ""}).images == ()


@pytest.mark.parametrize("image", [None, ""])
def test_an_image_that_is_missing_among_others_is_named(image):
    with pytest.raises(RowError, match=f"image 1 of the row is {image!r}"):
        read_row({**CHOSEN, "images": ["a.png", image]})
