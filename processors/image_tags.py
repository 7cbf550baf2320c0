"""`<image>` tags: how many data sets say, in the text itself, where their images stand.

The tag is the data's, whatever a model's own image token is, so tags become content blocks before a chat
template sees them. A line of nothing but tags is a place and no line of text: the newline that parts it from
the text above or below goes with it. Nothing else is taken away: where words stand beside a tag, as in
"Before: <image>", lines stay lines.
"""

import re
from typing import Any

from vlmpack.processors.messages import Message

TAG = "<image>"
LINE_OF_TAGS = re.compile(rf"^((?:{TAG})+)\n|\n((?:{TAG})+)\Z", re.MULTILINE)


def place_tags(conversation: list[Message]) -> list[Message]:
    r"""Messages whose `<image>` tags are image blocks; a text without tags stays as it is.

    Example:
        >>> place_tags([{"role": "user", "content": "<image>\nWhat is this?"}])
        [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'What is this?'}]}]
    """
    return [{**message, "content": _place(message["content"])} for message in conversation]


def blocks_at(content: str | list[dict[str, Any]], tag: str) -> list[dict[str, Any]]:
    """A message's content as blocks, with an image wherever the tag stands in its text.

    Args:
        content: text, or blocks already.
        tag: what an image's place is written as.
    """
    if not isinstance(content, str):
        return [part for b in content for part in ([b] if b["type"] == "image" else blocks_at(b["text"], tag))]
    first, *others = content.split(tag)
    blocks = [{"type": "text", "text": first}] if first else []
    for text in others:
        blocks += [{"type": "image"}, *([{"type": "text", "text": text}] if text else [])]
    return blocks


def _place(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return _place_text(content) if TAG in content else content
    return [part for b in content for part in ([b] if b["type"] == "image" else _place_text(b["text"]))]


def _place_text(text: str) -> list[dict[str, Any]]:
    return blocks_at(LINE_OF_TAGS.sub(r"\1\2", text), TAG)
