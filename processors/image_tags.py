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


def _place(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return _blocks(content) if TAG in content else content
    return [part for block in content for part in ([block] if block["type"] == "image" else _blocks(block["text"]))]


def _blocks(text: str) -> list[dict[str, Any]]:
    first, *others = LINE_OF_TAGS.sub(r"\1\2", text).split(TAG)
    blocks = [{"type": "text", "text": first}] if first else []
    for other in others:
        blocks += [{"type": "image"}, *([{"type": "text", "text": other}] if other else [])]
    return blocks
