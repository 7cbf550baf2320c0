"""The row formats that are accepted, read into one: images, a prompt, responses, and who is preferred."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from vlmpack.processors.transcript import split_shared_turns, turns

Message = dict[str, Any]  # {"role": ..., "content": str | [{"type": "text" | "image", ...}, ...]}

FORMATS = """the row formats are
  {"images": [...], "prompt": str | messages, "responses": [...], "scores": [...]}    (or "ranks", lower is better)
  {"images": [...], "prompt": str | messages, "chosen": ..., "rejected": ...}         (or "image"; "margin" if known)
Images may be left out; chosen and rejected may hold the whole conversation and leave out the prompt."""

KNOWN = {"images", "image", "prompt", "responses", "scores", "ranks", "chosen", "rejected", "margin"}


class RowError(ValueError):
    """A row of data cannot be used; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class PreferenceRow:
    """One prompt, its responses, and which is preferred to which.

    Attributes:
        images: sources in the order of their placeholders, not opened yet.
        prompt: messages, the last of them not the assistant's.
        responses: R continuations of the prompt, each a list of messages.
        pairs: P (preferred, rejected) rows of `responses`; empty if all are tied.
        margins: P differences of score, or the row's own margin; None if neither is known.
    """

    images: tuple[Any, ...]
    prompt: list[Message]
    responses: tuple[list[Message], ...]
    pairs: tuple[tuple[int, int], ...]
    margins: tuple[float, ...] | None


def read_row(row: Mapping[str, Any], metadata_columns: Sequence[str] = ()) -> PreferenceRow:
    """Read a row in either format.

    Args:
        row: as in `FORMATS`; columns that are None count as absent.
        metadata_columns: names of further columns that describe the row and are not read.

    Raises:
        RowError: a column is unknown or missing, or its value cannot be used.
    """
    row = {name: value for name, value in row.items() if value is not None and name not in metadata_columns}
    _refuse_unknown(row, metadata_columns)
    if "responses" in row:
        prompt, responses, pairs, margins = _scored(row)
    elif {"chosen", "rejected"} <= set(row):
        prompt, responses, pairs, margins = _chosen_rejected(row)
    else:
        raise RowError(f"columns {sorted(row)} are neither format; {FORMATS}")
    if not _text_of(prompt).strip():
        raise RowError("the prompt is empty; a response needs something to answer")
    if prompt[-1]["role"] == "assistant":
        raise RowError("the prompt ends with an assistant's message; move it into the responses")
    for place, response in enumerate(responses):
        if not _text_of(response).strip():
            raise RowError(f"response {place} is empty; leave it out, or give the row fewer responses")
    return PreferenceRow(_images(row), prompt, responses, pairs, margins)


def _refuse_unknown(row: Mapping[str, Any], metadata_columns: Sequence[str]) -> None:
    for name in row:
        if name not in KNOWN:
            close = get_close_matches(name, KNOWN, n=1)
            meant = f"did you mean {close[0]!r}?" if close else "rename or drop it,"
            raise RowError(
                f"column {name!r} is unknown: {meant} or name it in metadata_columns "
                f"(now {', '.join(metadata_columns) or 'empty'}) if nothing shall be read from it; {FORMATS}"
            )


def _scored(row: Mapping[str, Any]):
    """`prompt`, `responses` and `scores` or `ranks`."""
    extra = {"chosen", "rejected", "margin"} & set(row)
    if extra:
        raise RowError(f"a row with 'responses' has no use for {sorted(extra)}; {FORMATS}")
    if "prompt" not in row:
        raise RowError(f"a row with 'responses' needs a 'prompt'; {FORMATS}")
    if ("scores" in row) == ("ranks" in row):
        raise RowError(
            "a row with 'responses' needs 'scores' (higher is better) or 'ranks' (lower is better), one of them"
        )
    responses = row["responses"]
    if isinstance(responses, str) or not isinstance(responses, Sequence):
        raise RowError(f"'responses' is {type(responses).__name__}; give a list of two responses or more")
    if len(responses) < 2:
        raise RowError(f"'responses' holds {len(responses)}; a preference needs two or more")
    name = "scores" if "scores" in row else "ranks"
    values = _numbers(row[name], name, len(responses))
    scores = values if name == "scores" else [-value for value in values]
    pairs = tuple(
        (i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]
    )  # equal scores are a tie, which is no pair
    margins = tuple(scores[i] - scores[j] for i, j in pairs) if name == "scores" else None
    return messages(row["prompt"], "user"), tuple(messages(r, "assistant") for r in responses), pairs, margins


def _chosen_rejected(row: Mapping[str, Any]):
    """TRL's `chosen` and `rejected`, with the prompt beside them or inside both."""
    extra = {"scores", "ranks"} & set(row)
    if extra:
        raise RowError(f"a row with 'chosen' and 'rejected' has no use for {sorted(extra)}; {FORMATS}")
    margins = (_numbers([row["margin"]], "margin", 1)[0],) if "margin" in row else None
    if "prompt" in row:
        prompt = messages(row["prompt"], "user")
        responses = (messages(row["chosen"], "assistant"), messages(row["rejected"], "assistant"))
    else:
        prompt, responses = split_shared_turns(_conversation(row["chosen"]), _conversation(row["rejected"]))
        if not prompt:
            raise RowError("chosen and rejected share no first turn, and there is no 'prompt'; add a 'prompt' column")
    return prompt, responses, ((0, 1),), margins


def _conversation(value: Any) -> list[Message]:
    """A whole conversation: messages, or a `Human:`/`Assistant:` transcript."""
    if not isinstance(value, str):
        return messages(value, "assistant")
    if not (conversation := turns(value)):
        raise RowError(
            f"without a 'prompt', chosen and rejected must be messages or Human:/Assistant: transcripts, "
            f"not {value[:40]!r}; add a 'prompt' column"
        )
    return conversation


def messages(value: Any, role: str) -> list[Message]:
    """A string or a list of messages, as a list of messages.

    Args:
        value: the row's value.
        role: whose message a string is.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence) or not all(isinstance(message, Mapping) for message in value):
        raise RowError(f"{str(value)[:60]!r} is neither a string nor a list of messages with 'role' and 'content'")
    for message in value:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str | Sequence):
            raise RowError(
                f"message {str(dict(message))[:80]} needs a 'role' and a 'content' (text or a list of blocks)"
            )
        for block in () if isinstance(message["content"], str) else message["content"]:
            _check_block(block)
    return [dict(message) for message in value]


def _check_block(block: Any) -> None:
    """A content block is a text or the place of an image; its pixels are in the row's `images`."""
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind != "image" and not (kind == "text" and isinstance(block.get("text"), str)):
        raise RowError(
            f"content block {str(block)[:80]} is neither {{'type': 'text', 'text': ...}} nor {{'type': 'image'}}; "
            f"put images into the 'images' column"
        )


def _text_of(conversation: list[Message]) -> str:
    """All text of some messages; an image block counts as text, for a picture alone is a prompt too."""
    parts = []
    for message in conversation:
        blocks = message["content"] if not isinstance(message["content"], str) else [{"text": message["content"]}]
        parts += [block.get("text") or ("image" if block.get("type") == "image" else "") for block in blocks]
    return "".join(parts)


def _numbers(values: Any, name: str, count: int) -> list[float]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        given = len(values) if isinstance(values, Sequence) else values
        raise RowError(f"{name!r} holds {given} values for {count} responses; give one each")
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RowError(f"{name!r}[{place}] is {value!r}; give a finite number")
    return [float(value) for value in values]


def _images(row: Mapping[str, Any]) -> tuple[Any, ...]:
    if "images" in row and "image" in row:
        raise RowError("the row has both 'images' and 'image'; keep one")
    images = row.get("images", row.get("image", ()))
    return tuple(images) if isinstance(images, list | tuple) else (images,)
