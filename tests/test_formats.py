"""Rows as their data sets have them, each read into the same thing; and what is wrong with those that are not."""

from itertools import permutations

import pytest

from vlmpack.processors import RowError
from vlmpack.processors.chat import place_images
from vlmpack.processors.formats import FORMATS, recognise
from vlmpack.processors.image_tags import place_tags
from vlmpack.processors.rows import PreferenceRow, read_row


def say(role: str, *content) -> dict:
    return {"role": role, "content": content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)}


def text(text: str) -> dict:
    return {"type": "text", "text": text}


IMAGE = {"type": "image"}
PAIR = ((0, 1),)

TRL_PLAIN = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
TRL_VISION = {
    "images": ["cat.png"],
    "prompt": [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What is this?"}]}
    ],
    "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}],
    "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A dog."}]}],
}
ULTRAFEEDBACK_BINARIZED = {
    "prompt": "What is 2 + 2?",
    "prompt_id": "3a0e6b3b0d1f",
    "chosen": [{"content": "What is 2 + 2?", "role": "user"}, {"content": "It is 4.", "role": "assistant"}],
    "rejected": [{"content": "What is 2 + 2?", "role": "user"}, {"content": "It is 5.", "role": "assistant"}],
    "messages": [{"content": "What is 2 + 2?", "role": "user"}, {"content": "It is 4.", "role": "assistant"}],
    "score_chosen": 8.5,
    "score_rejected": 3.0,
}
SWIFT = {
    "messages": [
        {"role": "system", "content": "You are a useful and harmless math calculator"},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "It equals 2"},
        {"role": "user", "content": "What about adding 1?"},
        {"role": "assistant", "content": "It equals 3"},
    ],
    "rejected_response": "I don't know",
}
SWIFT_IMAGE = {
    "messages": [
        {"role": "user", "content": "<image>What is this?"},
        {"role": "assistant", "content": "This is a kitten."},
    ],
    "images": ["kitten.png"],
    "rejected_messages": [
        {"role": "user", "content": "<image>What is this?"},
        {"role": "assistant", "content": "This is a puppy."},
    ],
    "rejected_images": ["kitten.png"],
}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "You are an AI assistant."},
        {"from": "human", "value": "<image>Who are they?"},
        {"from": "gpt", "value": "They're Kane and Gretzka from Bayern Munich."},
        {"from": "human", "value": "What are they doing?<image>"},
    ],
    "chosen": {"from": "gpt", "value": "They are celebrating."},
    "rejected": {"from": "gpt", "value": "They are asleep."},
    "images": ["mllm_demo_data/1.jpg", "mllm_demo_data/1.jpg"],
}
ALPACA = {
    "instruction": "Translate to English.",
    "input": "Bonjour",
    "chosen": "Hello",
    "rejected": "Bye",
    "system": "Be brief.",
    "history": [["Hi", "Hello, what can I do?"]],
}
RLAIF_V = {
    "ds_name": "RLAIF-V-LLaVA15",
    "image": {"bytes": b"\x89PNG", "path": None},
    "question": "Who is more likely to use these tools a leather crafter or a paper crafter?",
    "chosen": "A leather crafter is more likely to use these tools.",
    "rejected": "A paper crafter is more likely to use these tools.",
    "origin_dataset": "VQAv2",
    "origin_split": '{"model": "llava15-7b", "type": "question_answering"}',
    "idx": "1",
    "image_path": "RLAIF-V-Dataset/00001.jpg",
}
RLHF_V = {
    "ds_name": "RLHF-V",
    "image": {"bytes": b"\x89PNG", "path": None},
    "text": '{"question": "What are the key features you observe in the image?", '
    '"chosen": "A young man standing on stage wearing a white shirt and black pants.", '
    '"rejected": "A young man standing on stage wearing white pants and shoes."}',
    "origin_dataset": "LCS-558K",
    "origin_split": '{"model": "InstructBLIP-Flan-T5-xxl", "type": "detailed_description"}',
    "idx": 0,
    "image_path": "llava1.5_raw_images/00013/000139279.jpg",
}
MMPR = {
    "image": ["0.png", "1.png"],
    "question": "Image-1: <image>\nImage-2: <image>\nWhich figure is larger?",
    "chosen": "The first one.\n\nAnswer: A",
    "rejected": "The second one.\n\nAnswer: B",
}
MM_RLHF = {
    "id": "LRVInstruction-000000007746",
    "image": "short/000000007746.jpg",
    "video": None,
    "prompt": "<image>\nThe dog has one floppy ear and one straight ear.",
    "chosen": "There is no description of the dog's ears.",
    "rejected": "Its ears are both floppy and straight.",
    "chosen_reason": "It invents nothing.",
    "rejected_reason": "It contradicts itself.",
    "is_tie": False,
}
LLAVA_RLHF = {
    "id": "22564",
    "image": "000000022564.jpg",
    "conversations": [
        {"from": "human", "value": "What color is the bus?\n<image>"},
        {"from": "gpt", "value": "Red."},
        {"from": "human", "value": "Is it moving?"},
        {"from": "gpt", "value": "The bus is parked."},
    ],
    "output_1": {"from": "gpt", "value": "Yes, it drives."},
    "output_2": {"from": "gpt", "value": "No, it stands."},
    "preference": 2,
    "hallucination": True,
}
NEMO_RL = {
    "context": [{"role": "user", "content": "What is 2+2?"}],
    "completions": [
        {"rank": 1, "completion": [{"role": "assistant", "content": "I don't know."}]},
        {"rank": 0, "completion": [{"role": "assistant", "content": "The answer is 4."}]},
    ],
    "task_name": "math",
}
RATINGS = {aspect: {"Rating": "3", "Rationale": "Partly."} for aspect in ("instruction_following", "honesty", "truthfulness", "helpfulness")}  # fmt: skip
ULTRAFEEDBACK = {
    "source": "sharegpt",
    "instruction": "I am going to cairo in June of this year, what are the best things I could do?",
    "models": ["falcon-40b-instruct", "gpt-4", "starchat", "wizardlm-7b"],
    "completions": [
        {"annotations": RATINGS, "custom_system_prompt": "Be positive.", "model": model, "principle": "helpfulness", "response": response, "critique": "Good.", "overall_score": score, "fine-grained_score": 5.0 - place}
        for place, (model, response, score) in enumerate([("falcon-40b-instruct", "Visit the Pyramids.", 5.0), ("gpt-4", "Start with Giza.", 8.5), ("starchat", "See Khan el-Khalili.", 5.0), ("wizardlm-7b", "Go kayaking.", 4.0)])
    ],
    "correct_answers": ["None"],
    "incorrect_answers": ["None"],
}  # fmt: skip


def pair(images, prompt, chosen, rejected, margins=None) -> PreferenceRow:
    return PreferenceRow(images, prompt, ([say("assistant", chosen)], [say("assistant", rejected)]), PAIR, margins)


EXAMPLES = {
    "TRL, plain text that begins alike": (
        TRL_PLAIN,
        pair((), [say("user", "The sky is")], " blue.", " green."),
    ),
    "TRL, images": (
        TRL_VISION,
        PreferenceRow(
            images=("cat.png",),
            prompt=[say("user", {"type": "image", "text": None}, text("What is this?"))],
            responses=([say("assistant", text("A cat."))], [say("assistant", text("A dog."))]),
            pairs=PAIR,
            margins=None,
        ),
    ),
    "ultrafeedback_binarized": (
        ULTRAFEEDBACK_BINARIZED,
        pair((), [say("user", "What is 2 + 2?")], "It is 4.", "It is 5.", (5.5,)),
    ),
    "ultrafeedback_binarized, a tie": (
        {**ULTRAFEEDBACK_BINARIZED, "score_rejected": 8.5},
        PreferenceRow(
            images=(),
            prompt=[say("user", "What is 2 + 2?")],
            responses=([say("assistant", "It is 4.")], [say("assistant", "It is 5.")]),
            pairs=(),
            margins=(),
        ),
    ),
    "ms-swift": (
        {**SWIFT, "margin": 0.5, "channel": "math"},
        pair(
            (),
            [
                say("system", "You are a useful and harmless math calculator"),
                say("user", "What is 1 + 1?"),
                say("assistant", "It equals 2"),
                say("user", "What about adding 1?"),
            ],
            "It equals 3",
            "I don't know",
            (0.5,),
        ),
    ),
    "ms-swift, both conversations": (
        SWIFT_IMAGE,
        pair(("kitten.png",), [say("user", IMAGE, text("What is this?"))], "This is a kitten.", "This is a puppy."),
    ),
    "LLaMA-Factory, ShareGPT": (
        SHAREGPT,
        pair(
            ("mllm_demo_data/1.jpg", "mllm_demo_data/1.jpg"),
            [
                say("system", "You are an AI assistant."),
                say("user", IMAGE, text("Who are they?")),
                say("assistant", "They're Kane and Gretzka from Bayern Munich."),
                say("user", text("What are they doing?"), IMAGE),
            ],
            "They are celebrating.",
            "They are asleep.",
        ),
    ),
    "LLaMA-Factory, alpaca": (
        ALPACA,
        pair(
            (),
            [
                say("system", "Be brief."),
                say("user", "Hi"),
                say("assistant", "Hello, what can I do?"),
                say("user", "Translate to English.\nBonjour"),
            ],
            "Hello",
            "Bye",
        ),
    ),
    "RLAIF-V": (
        RLAIF_V,
        pair(
            ({"bytes": b"\x89PNG", "path": None},),
            [say("user", "Who is more likely to use these tools a leather crafter or a paper crafter?")],
            "A leather crafter is more likely to use these tools.",
            "A paper crafter is more likely to use these tools.",
        ),
    ),
    "RLHF-V": (
        RLHF_V,
        pair(
            ({"bytes": b"\x89PNG", "path": None},),
            [say("user", "What are the key features you observe in the image?")],
            "A young man standing on stage wearing a white shirt and black pants.",
            "A young man standing on stage wearing white pants and shoes.",
        ),
    ),
    "MMPR": (
        MMPR,
        pair(
            ("0.png", "1.png"),
            [say("user", text("Image-1: "), IMAGE, text("\nImage-2: "), IMAGE, text("\nWhich figure is larger?"))],
            "The first one.\n\nAnswer: A",
            "The second one.\n\nAnswer: B",
        ),
    ),
    "MMPR, no image": (
        {**MMPR, "image": "", "question": "What is 2 + 2?"},
        pair((), [say("user", "What is 2 + 2?")], "The first one.\n\nAnswer: A", "The second one.\n\nAnswer: B"),
    ),
    "MM-RLHF": (
        MM_RLHF,
        pair(
            ("short/000000007746.jpg",),
            [say("user", IMAGE, text("The dog has one floppy ear and one straight ear."))],
            "There is no description of the dog's ears.",
            "Its ears are both floppy and straight.",
        ),
    ),
    "MM-RLHF, a tie": (
        {**MM_RLHF, "is_tie": True},
        PreferenceRow(
            images=("short/000000007746.jpg",),
            prompt=[say("user", IMAGE, text("The dog has one floppy ear and one straight ear."))],
            responses=(
                [say("assistant", "There is no description of the dog's ears.")],
                [say("assistant", "Its ears are both floppy and straight.")],
            ),
            pairs=(),
            margins=None,
        ),
    ),
    "LLaVA-RLHF": (
        LLAVA_RLHF,
        pair(
            ("000000022564.jpg",),
            [
                say("user", text("What color is the bus?"), IMAGE),
                say("assistant", "Red."),
                say("user", "Is it moving?"),
            ],
            "No, it stands.",
            "Yes, it drives.",
        ),
    ),
    "NeMo-RL": (
        NEMO_RL,
        PreferenceRow(
            images=(),
            prompt=[say("user", "What is 2+2?")],
            responses=([say("assistant", "I don't know.")], [say("assistant", "The answer is 4.")]),
            pairs=((1, 0),),
            margins=None,
        ),
    ),
    "UltraFeedback": (
        ULTRAFEEDBACK,
        PreferenceRow(
            images=(),
            prompt=[say("user", "I am going to cairo in June of this year, what are the best things I could do?")],
            responses=(
                [say("assistant", "Visit the Pyramids.")],
                [say("assistant", "Start with Giza.")],
                [say("assistant", "See Khan el-Khalili.")],
                [say("assistant", "Go kayaking.")],
            ),
            pairs=((0, 3), (1, 0), (1, 2), (1, 3), (2, 3)),
            margins=(1.0, 3.5, 3.5, 4.5, 1.0),
        ),
    ),
}


@pytest.mark.parametrize(("row", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_a_row_is_read_as_its_data_set_means_it(row, expected):
    assert read_row(row) == expected


def test_every_format_has_an_example():
    own = {"ranked responses"}  # in test_rows.py
    assert {recognise(row).name for row, _ in EXAMPLES.values()} == {each.name for each in FORMATS} - own


@pytest.mark.parametrize(("a", "b"), permutations(FORMATS, 2), ids=lambda each: each.name)
def test_no_row_is_in_two_formats(a, b):
    together = {*a.needs, *b.needs}
    if set(b.needs) < set(a.needs):
        assert recognise(list(together)) is a  # it asks for more
    else:
        assert not together <= set(a.known)  # such a row is refused, whichever of them it is read as


@pytest.mark.parametrize("row", [row for row, _ in EXAMPLES.values()], ids=EXAMPLES)
def test_a_column_that_the_format_does_not_know_is_refused_unless_it_is_named(row):
    with pytest.raises(RowError, match=r"column 'xyzzy' is unknown: .*name it in metadata_columns \(now empty\).*; it is read as"):  # fmt: skip
        read_row({**row, "xyzzy": 1})
    assert read_row({**row, "xyzzy": 1}, metadata_columns=("xyzzy",)) == read_row(row)


@pytest.mark.parametrize(
    ("written", "content"),
    [
        ("What is this?", "What is this?"),
        ("<image>\nWhat?", [IMAGE, text("What?")]),
        ("<image>What?", [IMAGE, text("What?")]),
        ("What?\n<image>", [text("What?"), IMAGE]),
        ("<image>\n<image>\nWhat?", [IMAGE, IMAGE, text("What?")]),
        ("<image><image>\n\nWhat?", [IMAGE, IMAGE, text("\nWhat?")]),
        ("A\n<image>\nB", [text("A\n"), IMAGE, text("B")]),
        ("A: <image>\nB: <image> ", [text("A: "), IMAGE, text("\nB: "), IMAGE, text(" ")]),
        ("<image>", [IMAGE]),
        ([IMAGE, text("<image>\nWhat?"), text("Now.")], [IMAGE, IMAGE, text("What?"), text("Now.")]),
    ],
)  # fmt: skip
def test_tags_become_images_and_a_line_of_tags_takes_its_newline_along(written, content):
    assert place_tags([{"role": "user", "content": written}]) == [{"role": "user", "content": content}]


def test_formats_without_tags_leave_the_text_to_the_model():
    assert read_row({**RLAIF_V, "question": "<image>\nWhat?"}).prompt == [say("user", "<image>\nWhat?")]
    assert read_row({"prompt": "<image>\nWhat?", "chosen": "a", "rejected": "b"}).prompt == [say("user", "<image>\nWhat?")]  # fmt: skip


def test_the_places_hold_for_a_model_whose_own_image_token_is_another():
    row = read_row(SHAREGPT)
    assert place_images(row.prompt, len(row.images), "<|image_pad|>")[1]["content"] == [IMAGE, text("Who are they?")]
    row = read_row(RLAIF_V)
    assert place_images(row.prompt, len(row.images), "<|image_pad|>")[0]["content"][0] == IMAGE


def test_a_system_column_stands_first_unless_the_conversation_has_its_own():
    asked = SHAREGPT["conversations"][1:]
    assert read_row({**SHAREGPT, "system": "Be brief."}).prompt[0] == say("system", "You are an AI assistant.")
    assert read_row({**SHAREGPT, "system": "Be brief.", "conversations": asked}).prompt[0] == say("system", "Be brief.")


def test_an_image_may_stand_in_the_system_message():
    messages = [{"role": "system", "content": "Judge by <image>."}, *SWIFT_IMAGE["messages"]]
    row = read_row({"messages": messages, "images": ["rules.png", "kitten.png"], "rejected_response": "No."})
    assert row.prompt[0] == say("system", text("Judge by "), IMAGE, text("."))
    assert row.images == ("rules.png", "kitten.png")


def test_swift_answers_may_be_several_messages():
    called = [{"role": "tool_call", "content": "add(1, 1)"}, {"role": "assistant", "content": "2"}]
    row = read_row({"messages": [say("user", "1 + 1?"), *called], "rejected_response": [say("assistant", "3")]})
    assert row.prompt == [say("user", "1 + 1?")]
    assert row.responses == (called, [say("assistant", "3")])


def test_empty_columns_of_other_media_are_absent():
    assert read_row({**SWIFT, "videos": [], "audios": None}) == read_row(SWIFT)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "Blue.", "rejected": "Green."}, "share no first turn or beginning"),
        ({"chosen": "", "rejected": "Green."}, "share no first turn or beginning"),
        ({**ULTRAFEEDBACK_BINARIZED, "prompt": "What is 3 + 3?"}, "'prompt' is 'What is 3 \\+ 3\\?', and chosen and rejected begin with another"),
        ({**ULTRAFEEDBACK_BINARIZED, "score_rejected": 9}, "'score_chosen' 8.5 is below 'score_rejected' 9.0; swap them"),
        ({**ULTRAFEEDBACK_BINARIZED, "score_chosen": "8"}, "'score_chosen' is '8'; give a finite number"),
        ({**TRL_VISION, "chosen": TRL_VISION["prompt"]}, "response 0 begins with a user's message; move what all responses share"),
        ({**TRL_VISION, "prompt": [say("user", {"type": "image", "image": "cat.png"})]}, "put images into the 'images' column"),
        ({**TRL_VISION, "chosen": [say("assistant", IMAGE)]}, "response 0 holds an image, which only prompts may"),
        ({**SWIFT, "messages": SWIFT["messages"][:-1]}, "response 0 is empty"),
        ({**SWIFT, "messages": "Hi"}, "response 0 is empty"),
        ({**SWIFT, "rejected_response": 7}, "'7' is neither a string nor a list of messages"),
        ({**SWIFT, "rejected_response": "<image>"}, "response 1 holds an image"),
        ({**SWIFT_IMAGE, "rejected_images": ["puppy.png"]}, "'rejected_images' .'puppy.png'. are not the row's 'images'"),
        ({**SWIFT_IMAGE, "rejected_messages": [say("user", "Who?"), say("assistant", "I.")]}, "the prompt is empty"),
        ({**SWIFT, "videos": ["a.mp4"]}, "the row has a 'videos' column, and of what is not text only images are read"),
        ({**SHAREGPT, "conversations": "Hi"}, "'conversations' is 'Hi'; give a list of messages"),
        ({**SHAREGPT, "conversations": [{"from": "function_call", "value": "f()"}]}, "'conversations' holds .*function_call.* a 'from' out of human, user, gpt"),
        ({**SHAREGPT, "conversations": [{"from": ["human"], "value": "Hi"}]}, "'conversations' holds .*needs a 'value'"),
        ({**SHAREGPT, "conversations": ["Hi"]}, "'conversations' holds Hi; a message needs"),
        ({**SHAREGPT, "chosen": "They are celebrating."}, "'chosen' holds They are celebrating"),
        ({**SHAREGPT, "chosen": {"from": "gpt"}}, "'chosen' holds .*needs a 'value'"),
        ({**SHAREGPT, "rejected": {"from": "gpt", "value": "See <image>"}}, "response 1 holds an image"),
        ({**ALPACA, "system": 7}, "'system' is 7 .int.; give text"),
        ({**ALPACA, "history": "Hi"}, "'history' is 'Hi'; give a list of"),
        ({**ALPACA, "history": [["Hi"]]}, "'history' holds .*; give a list of"),
        ({**ALPACA, "history": [["Hi", None]]}, "'history' is None .NoneType.; give text"),
        ({**ALPACA, "instruction": ["Hi"]}, "'instruction' is .* .list.; give text"),
        ({**RLAIF_V, "chosen": 7}, "'chosen' is 7 .int.; give text"),
        ({**RLHF_V, "text": "What?"}, "'text' is 'What\\?'; it must be a JSON object of 'question', 'chosen' and 'rejected'"),
        ({**RLHF_V, "text": '{"question": "What?"}'}, "it must be a JSON object of"),
        ({**RLHF_V, "text": "[1, 2]"}, "it must be a JSON object of"),
        ({**MMPR, "question": None}, "share no first turn or beginning; put what they answer into a 'prompt' column"),
        ({**MMPR, "images": ["2.png"]}, "both 'images' and 'image'"),
        ({**MMPR, "rejected": "It is <image>"}, "response 1 holds an image"),
        ({**MM_RLHF, "is_tie": "no"}, "'is_tie' is 'no'; give true or false"),
        ({**MM_RLHF, "is_tie": True, "chosen": "See <image>"}, "response 0 holds an image"),
        ({**MM_RLHF, "video": "video/1"}, "the row has a 'video' column"),
        ({**MM_RLHF, "prompt": 7}, "'prompt' is 7 .int.; give text"),
        ({**LLAVA_RLHF, "preference": 0}, "'preference' is 0; give 1 if output_1 is better"),
        ({**LLAVA_RLHF, "preference": "1"}, "'preference' is '1'"),
        ({**LLAVA_RLHF, "preference": True}, "'preference' is True"),
        ({**LLAVA_RLHF, "output_1": "Yes."}, "'output_1' holds Yes"),
        ({**LLAVA_RLHF, "conversations": []}, "the prompt is empty"),
        ({**NEMO_RL, "completions": "4"}, "'completions' is a str; give a list of {'completion': ..., 'rank': ...}"),
        ({**NEMO_RL, "completions": {"rank": [0, 1]}}, "'completions' is a dict; give a list"),
        ({**NEMO_RL, "completions": [{"completion": "4"}]}, r"'completions'\[0\] .* has no 'rank'"),
        ({**NEMO_RL, "completions": ["4", "5"]}, r"'completions'\[0\] 4 has no 'completion'"),
        ({**NEMO_RL, "completions": [{"completion": "4", "rank": "a"}]}, r"'completions'\[0\]\['rank'\] is 'a'"),
        ({**NEMO_RL, "completions": NEMO_RL["completions"][:1]}, "the row holds 1 responses"),
        ({**NEMO_RL, "context": 7}, "'7' is neither a string nor a list of messages"),
        ({**ULTRAFEEDBACK, "completions": []}, "the row holds 0 responses"),
        ({**ULTRAFEEDBACK, "completions": [{"response": "a", "overall_score": float("nan")}]}, r"'completions'\[0\]\['overall_score'\] is nan"),
        ({**ULTRAFEEDBACK, "completions": [{"response": 7, "overall_score": 1}]}, "'response' is 7 .int.; give text"),
        ({**ULTRAFEEDBACK, "instruction": 7}, "'instruction' is 7 .int.; give text"),
        ({"text": "a"}, r"columns \['text'\] are in no row format; the row formats, their columns .* are\n  ranked responses: responses \(prompt, scores, ranks, images, image\)\n"),
        ({"question": "What?", "chosen": "a", "rejectd": "b"}, r"columns .* are in no row format \(did you mean 'rejected' by 'rejectd'\?\); the row formats"),
        ({**MMPR, "imagess": "x"}, "column 'imagess' is unknown: did you mean 'images'"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_as_its_format_says_is_refused_with_the_remedy(row, message):
    with pytest.raises(RowError, match=message):
        read_row(row)


@pytest.mark.parametrize("junk", [None, 7, 1.5, True, "", "text", b"bytes", [], {}, [7], ["x"], [[]], [{}], {"role": 1}, [{"role": "user"}], [{"from": "human"}], [None]], ids=repr)  # fmt: skip
@pytest.mark.parametrize("row", [row for row, _ in EXAMPLES.values()], ids=EXAMPLES)
def test_whatever_stands_in_a_column_is_read_or_refused(row, junk):
    for column in row:
        try:
            read_row({**row, column: junk})
        except RowError as error:
            assert str(error)
