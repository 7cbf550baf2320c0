"""A benchmark's pair in our own row form, and what every reader checks of it."""

from collections.abc import Mapping
from typing import Any

from vlmpack.evaluation.benchmark import EvaluationError

TAG = "<image>"


def pair_row(images: list[Any], prompt: str, responses: list[str], better: int) -> dict[str, Any]:
    """A row of two responses, one of which is better.

    Args:
        images: in the prompt.
        prompt: what both answer.
        responses: two of them.
        better: which of them, 0 or 1.

    Returns:
        Columns as `vlmpack.processors` reads them; the better response has score 1, the other 0.
    """
    scores = [float(place == better) for place in (0, 1)]
    return {"images": images, "prompt": prompt, "responses": responses, "scores": scores}


def text_in(raw: Mapping[str, Any], column: str) -> str:
    """The text in a column.

    Args:
        raw: a row.
        column: a name.

    Raises:
        EvaluationError: it is something else.
    """
    if not isinstance(raw[column], str):
        raise EvaluationError(f"{column!r} is {str(raw[column])[:60]!r} ({type(raw[column]).__name__}), not text")
    return raw[column]


def without_tags(prompt: str) -> str:
    r"""A prompt without `<image>` tags, as the benchmarks' own scripts pass it on: the image stands before it.

    Args:
        prompt: may hold tags, with the end of their line.

    Example:
        >>> without_tags("<image>\nWhat is this?")
        'What is this?'
    """
    return prompt.replace(f"{TAG}\n", "").replace(TAG, "")
