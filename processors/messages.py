"""A conversation as a list of messages, and how a row's values are read as one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]  # {"role": ..., "content": str | [{"type": "text" | "image", ...}, ...]}

PIXELS = ("image", "image_url", "url", "path", "base64", "bytes", "source")  # where others' image blocks have them
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class RowError(ValueError):
    """A row of data cannot be used; the message says what is wrong with it and what to do."""


def messages(value: Any, role: str) -> list[Message]:
    """A string or a list of messages, as a list of messages.

    Args:
        value: the row's value.
        role: whose message a string is.

    Raises:
        RowError: a message lacks its role or content, or a content block is neither text nor an image's place.
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


def spoken(value: Any, column: str) -> list[Message]:
    """A ShareGPT list of `{"from": "human" | "gpt" | "system", "value": text}`, as messages.

    Args:
        value: the row's value.
        column: its name, for errors.

    Raises:
        RowError: it is no such list, or somebody else speaks (tools are not read).

    Example:
        >>> spoken([{"from": "human", "value": "Hi"}], "conversations")
        [{'role': 'user', 'content': 'Hi'}]
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RowError(f"{column!r} is {str(value)[:60]!r}; give a list of messages with 'from' and 'value'")
    for message in value:
        known = isinstance(message, Mapping) and message.get("from") in tuple(SPEAKERS)
        if not known or not isinstance(message.get("value"), str):
            raise RowError(
                f"{column!r} holds {str(message)[:80]}; a message needs a 'value' (text) and a 'from' out of "
                f"{', '.join(SPEAKERS)}"
            )
    return [{"role": SPEAKERS[message["from"]], "content": message["value"]} for message in value]


def number(value: Any, name: str) -> float:
    """A finite number.

    Args:
        value: the row's value.
        name: where it stands, for errors.

    Raises:
        RowError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(f"{name} is {value!r}; give a finite number")
    return float(value)


def text_of(conversation: list[Message]) -> str:
    """All text of some messages; an image block counts as text, for a picture alone is a prompt too."""
    parts = []
    for message in conversation:
        blocks = message["content"] if not isinstance(message["content"], str) else [{"text": message["content"]}]
        parts += [block.get("text") or ("image" if block.get("type") == "image" else "") for block in blocks]
    return "".join(parts)


def has_images(conversation: list[Message]) -> bool:
    """Whether an image stands in one of some messages."""
    contents = [message["content"] for message in conversation if not isinstance(message["content"], str)]
    return any(block.get("type") == "image" for content in contents for block in content)


def _check_block(block: Any) -> None:
    """A content block is a text or the place of an image; its pixels are in the row's `images`."""
    kind = block.get("type") if isinstance(block, Mapping) else None
    place = kind == "image" and not any(block.get(name) is not None for name in PIXELS)
    if not place and not (kind == "text" and isinstance(block.get("text"), str)):
        raise RowError(
            f"content block {str(block)[:80]} is neither {{'type': 'text', 'text': ...}} nor {{'type': 'image'}}; "
            f"put images into the 'images' column"
        )
