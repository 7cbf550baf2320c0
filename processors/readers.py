"""One function a format: a row as other people write it, turned into one of our own two forms.

    {"images": [...], "prompt": messages, "responses": [messages, ...], "scores" | "ranks": [number, ...]}
    {"images": [...], "prompt": messages, "chosen": messages, "rejected": messages, "margin": number}

A reader changes the form and checks what only its format knows; `vlmpack.processors.rows` reads the result.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlmpack.processors.image_tags import place_tags
from vlmpack.processors.messages import Message, RowError, messages, number, spoken, text_of
from vlmpack.processors.transcript import split_shared_text, split_shared_turns, turns

Row = Mapping[str, Any]


def pair(row: Row) -> dict:
    """TRL: `chosen` and `rejected`, with the prompt beside them or inside both.

    Messages that begin with somebody other than the assistant hold the prompt, whether it is written beside
    them a second time or not. Texts hold it if there is no other: as a transcript, or as their common beginning.
    """
    inside = _is_whole(row["chosen"]) and _is_whole(row["rejected"])
    if "prompt" in row and not inside:
        return dict(row)
    prompt, (chosen, rejected) = _split(row["chosen"], row["rejected"])
    if not prompt or (isinstance(prompt, str) and any(_images(row).values())):  # words two answers on an image share
        raise RowError(
            "chosen and rejected share no first turn or beginning; put what they answer into a 'prompt' column, and "
            "only the answers into chosen and rejected"
        )
    own = {**row, "prompt": prompt, "chosen": chosen, "rejected": rejected}
    if "prompt" in row:
        _refuse_another_prompt(row["prompt"], prompt)
    return own


def scored_pair(row: Row) -> dict:
    """HuggingFaceH4/ultrafeedback_binarized: a pair, and what each of it scored; equal scores are a tie."""
    scores = [number(row[name], f"{name!r}") for name in ("score_chosen", "score_rejected")]
    if scores[0] < scores[1]:
        raise RowError(f"'score_chosen' {scores[0]} is below 'score_rejected' {scores[1]}; swap them, or drop the row")
    own = pair({name: row[name] for name in row if not name.startswith("score_")})
    return {**_images(row), "prompt": own["prompt"], "responses": [own["chosen"], own["rejected"]], "scores": scores}


def mm_rlhf(row: Row) -> dict:
    """yifanzhang114/MM-RLHF, `dpo_pairs.jsonl`: a pair with the reasons for it (not read), perhaps a tie."""
    if (tie := row.get("is_tie", False)) not in (True, False):
        raise RowError(f"'is_tie' is {tie!r}; give true or false")
    own = _question(row, "prompt")
    if tie:
        own = {**own, "responses": [own.pop("chosen"), own.pop("rejected")], "ranks": [1, 1]}
    return _with_tags(own)


def question_pair(row: Row) -> dict:
    """OpenGVLab/MMPR: `question` (with `<image>` tags), `chosen` and `rejected`; `image` may be several, or empty."""
    return _with_tags(_question(row))


def rlaif_v(row: Row) -> dict:
    """openbmb/RLAIF-V-Dataset: one image and a `question` without tags, `chosen` and `rejected`."""
    return _question(row)


def rlhf_v(row: Row) -> dict:
    """openbmb/RLHF-V-Dataset: one image, and a `text` that is a JSON object of `question`, `chosen` and `rejected`."""
    text = row["text"]
    try:
        columns = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        columns = None
    names = ("question", "chosen", "rejected")
    if not isinstance(columns, Mapping) or not set(names) <= set(columns):
        raise RowError(f"'text' is {str(text)[:60]!r}; it must be a JSON object of 'question', 'chosen' and 'rejected'")
    return _question({**_images(row), **{name: columns[name] for name in names}})


def alpaca(row: Row) -> dict:
    """LLaMA-Factory, alpaca: `instruction` and `input` are the user's, `history` the turns before them."""
    history = row.get("history", [])
    if isinstance(history, str) or not isinstance(history, Sequence):
        raise RowError(f"'history' is {str(history)[:60]!r}; give a list of [user's text, assistant's text]")
    earlier = []
    for turn in history:
        if isinstance(turn, str) or not isinstance(turn, Sequence) or len(turn) != 2:
            raise RowError(f"'history' holds {str(turn)[:60]!r}; give a list of [user's text, assistant's text]")
        earlier += [_say("user", turn[0], "history"), _say("assistant", turn[1], "history")]
    asked = [_say("user", row[name], name)["content"] for name in ("instruction", "input") if name in row]
    prompt = [*earlier, _say("user", "\n".join(text for text in asked if text), "instruction")]
    return _with_tags({**_answers(row), **_images(row), "prompt": _with_system(row, prompt)})


def sharegpt(row: Row) -> dict:
    """LLaMA-Factory, ShareGPT: `conversations` is the prompt, `chosen` and `rejected` are one message each."""
    own = {name: spoken([row[name]], name) for name in ("chosen", "rejected")}
    prompt = _with_system(row, spoken(row["conversations"], "conversations"))
    return _with_tags({**own, **_images(row), "prompt": prompt})


def llava_rlhf(row: Row) -> dict:
    """zhiqings/LLaVA-Human-Preference-10K: `preference` says which of `output_1` and `output_2` is better.

    The conversation ends with a reference answer, in place of which the outputs stand; it is not read.
    """
    preference = row["preference"]
    if isinstance(preference, bool) or preference not in (1, 2):
        raise RowError(f"'preference' is {preference!r}; give 1 if output_1 is better, 2 if output_2 is")
    prompt = spoken(row["conversations"], "conversations")
    if prompt and prompt[-1]["role"] == "assistant":
        prompt.pop()
    outputs = [spoken([row[name]], name) for name in ("output_1", "output_2")]
    own = {"prompt": prompt, "chosen": outputs[int(preference) - 1], "rejected": outputs[2 - int(preference)]}
    return _with_tags({**own, **_images(row)})


def swift(row: Row) -> dict:
    """ms-swift: `messages` with the chosen answer, and `rejected_response` in its place or `rejected_messages`."""
    conversation = messages(row["messages"], "user")
    other = row.get("rejected_images", row.get("images"))
    if other != row.get("images"):
        raise RowError(f"'rejected_images' {str(other)[:60]} are not the row's 'images'; both answers need one prompt")
    if "rejected_messages" in row:
        prompt, (chosen, rejected) = split_shared_turns(conversation, messages(row["rejected_messages"], "user"))
    else:
        answer = 1 + max((i for i, message in enumerate(conversation) if message["role"] == "user"), default=-1)
        prompt, chosen = conversation[:answer], conversation[answer:]
        rejected = messages(row["rejected_response"], "assistant")
    own = {"prompt": _with_system(row, prompt), "chosen": chosen, "rejected": rejected}
    return _with_tags({**own, **_images(row), **({"margin": row["margin"]} if "margin" in row else {})})


def nemo_rl(row: Row) -> dict:
    """NeMo-RL: `context` is the prompt; each of `completions` has a `completion` and a `rank`, lower is better."""
    completions = _entries(row["completions"], "completions", ("completion", "rank"))
    return {
        "prompt": messages(row["context"], "user"),
        "responses": [messages(entry["completion"], "assistant") for entry in completions],
        "ranks": [number(entry["rank"], f"'completions'[{i}]['rank']") for i, entry in enumerate(completions)],
    }


def ultrafeedback(row: Row) -> dict:
    """openbmb/UltraFeedback: `instruction`, and four `completions` of as many models, each with a `response`.

    `overall_score` ranks them: GPT-4's mark, 1 to 10, for the whole answer, which its authors corrected in
    December 2023 (https://github.com/OpenBMB/UltraFeedback#update) and ultrafeedback_binarized is made from. The
    ratings in `annotations` judge one aspect each and may be "N/A". `custom_system_prompt` differs between the
    completions of a row and was meant for their making, so it is no part of the prompt.
    """
    completions = _entries(row["completions"], "completions", ("response", "overall_score"))
    scores = [
        number(entry["overall_score"], f"'completions'[{i}]['overall_score']") for i, entry in enumerate(completions)
    ]
    return {
        "prompt": [_say("user", row["instruction"], "instruction")],
        "responses": [[_say("assistant", entry["response"], "response")] for entry in completions],
        "scores": scores,
    }


def _is_whole(conversation: Any) -> bool:
    """Whether a value is messages that begin before the assistant speaks."""
    if isinstance(conversation, str) or not isinstance(conversation, Sequence) or not conversation:
        return False
    return isinstance(conversation[0], Mapping) and conversation[0].get("role") != "assistant"


def _split(chosen: Any, rejected: Any) -> tuple:
    """The prompt inside chosen and rejected, and how each goes on."""
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        return split_shared_turns(messages(chosen, "assistant"), messages(rejected, "assistant"))
    transcripts = turns(chosen), turns(rejected)
    return split_shared_turns(*transcripts) if all(transcripts) else split_shared_text(chosen, rejected)


def _refuse_another_prompt(column: Any, prompt: list[Message]) -> None:
    inside = [text_of([message]).split() for message in prompt]
    for message in messages(column, "user"):
        if text_of([message]).split() not in inside:
            raise RowError(
                f"'prompt' is {text_of([message])[:60]!r}, and chosen and rejected begin with another one; "
                f"keep the right one"
            )


def _question(row: Row, column: str = "question") -> dict:
    prompt = _with_system(row, [_say("user", row[column], column)])
    return {**_answers(row), **_images(row), "prompt": prompt}


def _answers(row: Row) -> dict:
    return {name: [_say("assistant", row[name], name)] for name in ("chosen", "rejected")}


def _with_system(row: Row, prompt: list[Message]) -> list[Message]:
    """The prompt after the row's `system` text, unless it has a system message of its own."""
    if not row.get("system") or (prompt and prompt[0]["role"] == "system"):
        return prompt
    return [_say("system", row["system"], "system"), *prompt]


def _images(row: Row) -> dict:
    """The row's image columns."""
    return {name: row[name] for name in ("images", "image") if name in row}


def _say(role: str, text: Any, column: str) -> Message:
    if not isinstance(text, str):
        raise RowError(f"{column!r} is {str(text)[:60]} ({type(text).__name__}); give text")
    return {"role": role, "content": text}


def _entries(value: Any, column: str, keys: tuple[str, str]) -> Sequence[Row]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RowError(f"{column!r} is a {type(value).__name__}; give a list of {{{keys[0]!r}: ..., {keys[1]!r}: ...}}")
    for place, entry in enumerate(value):
        missing = [key for key in keys if not isinstance(entry, Mapping) or entry.get(key) is None]
        if missing:
            raise RowError(f"{column!r}[{place}] {str(entry)[:60]} has no {missing[0]!r}; give one, or leave it out")
    return value


def _with_tags(own: dict) -> dict:
    """A row whose `<image>` tags are image blocks."""
    for name in {"prompt", "chosen", "rejected"} & set(own):
        own = {**own, name: place_tags(own[name])}
    return own if "responses" not in own else {**own, "responses": [place_tags(each) for each in own["responses"]]}
