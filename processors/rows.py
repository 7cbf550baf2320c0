"""A row of data in any format, read into one: images, a prompt, responses, and who is preferred."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmpack.processors.formats import to_own_form
from vlmpack.processors.messages import Message, RowError, has_images, messages, number, text_of


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
    """Read a row in any of the formats that `vlmpack.processors.formats` lists.

    Args:
        row: columns by name; those that are None count as absent.
        metadata_columns: names of further columns that describe the row and are not read.

    Raises:
        RowError: a column is unknown or missing, or its value cannot be used.
    """
    own = to_own_form(row, metadata_columns)
    return _read(own, *(_ranked(own) if "responses" in own else _pair(own)))


def read_candidates(row: Mapping[str, Any], metadata_columns: Sequence[str] = ()) -> PreferenceRow:
    """Read a row whose responses are to be judged: nothing need be said of who is better, and one response will do.

    Args:
        row: as for `read_row`; besides, `responses` may come without `scores` or `ranks`, and a `response` alone.
        metadata_columns: likewise.

    Raises:
        RowError: a column is unknown or missing, or its value cannot be used.
    """
    if row.get("response") is not None and row.get("responses") is None:
        row = {**{name: row[name] for name in row if name != "response"}, "responses": [row["response"]]}
    own = to_own_form(row, metadata_columns)
    if "responses" not in own:
        return _read(own, *_pair(own))
    judged = {"scores", "ranks"} & set(own)
    return _read(own, *(_ranked(own, least=1) if judged else (_responses(own, least=1), (), None)))


def _read(
    own: Mapping[str, Any],
    responses: tuple[list[Message], ...],
    pairs: tuple[tuple[int, int], ...],
    margins: tuple[float, ...] | None,
) -> PreferenceRow:
    prompt = messages(own["prompt"], "user")
    if not text_of(prompt).strip():
        raise RowError("the prompt is empty; a response needs something to answer")
    if prompt[-1]["role"] == "assistant":
        raise RowError("the prompt ends with an assistant's message; move it into the responses")
    for place, response in enumerate(responses):
        _check_response(place, response)
    return PreferenceRow(_images(own), prompt, responses, pairs, margins)


def _ranked(row: Mapping[str, Any], least: int = 2):
    """`responses` with `scores` or `ranks`."""
    if ("scores" in row) == ("ranks" in row):
        raise RowError(
            "a row with 'responses' needs 'scores' (higher is better) or 'ranks' (lower is better), one of them"
        )
    responses = _responses(row, least)
    name = "scores" if "scores" in row else "ranks"
    values = _numbers(row[name], name, len(responses))
    scores = values if name == "scores" else [-value for value in values]
    pairs = tuple(
        (i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]
    )  # equal scores are a tie, which is no pair
    margins = tuple(scores[i] - scores[j] for i, j in pairs) if name == "scores" else None
    return responses, pairs, margins


def _responses(row: Mapping[str, Any], least: int) -> tuple[list[Message], ...]:
    if "prompt" not in row:
        raise RowError("a row with 'responses' needs a 'prompt'; add the column")
    responses = row["responses"]
    if isinstance(responses, str) or not isinstance(responses, Sequence):
        raise RowError(f"'responses' is {type(responses).__name__}; give a list of two responses or more")
    if len(responses) < least:
        more = "a preference needs two or more" if least == 2 else "there is nothing to judge"
        raise RowError(f"the row holds {len(responses)} responses; {more}")
    return tuple(messages(response, "assistant") for response in responses)


def _pair(row: Mapping[str, Any]):
    """`chosen` and `rejected`, and by how much if `margin` says so."""
    margins = (number(row["margin"], "'margin'"),) if "margin" in row else None
    return (messages(row["chosen"], "assistant"), messages(row["rejected"], "assistant")), ((0, 1),), margins


def _check_response(place: int, response: list[Message]) -> None:
    if not text_of(response).strip():
        raise RowError(f"response {place} is empty; leave it out, or give the row fewer responses")
    if response[0]["role"] in ("user", "system"):
        raise RowError(
            f"response {place} begins with a {response[0]['role']}'s message; move what all responses share into "
            f"the prompt"
        )
    if has_images(response):
        raise RowError(f"response {place} holds an image, which only prompts may; remove it from the response")


def _numbers(values: Any, name: str, count: int) -> list[float]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        given = len(values) if isinstance(values, Sequence) else values
        raise RowError(f"{name!r} holds {given} values for {count} responses; give one each")
    return [number(value, f"{name!r}[{place}]") for place, value in enumerate(values)]


def _images(row: Mapping[str, Any]) -> tuple[Any, ...]:
    if "images" in row and "image" in row:
        raise RowError("the row has both 'images' and 'image'; keep one")
    images = row.get("images", row.get("image", ()))
    if isinstance(images, str) and not images:
        return ()  # an empty path is no image
    images = tuple(images) if isinstance(images, list | tuple) else (images,)
    for place, image in enumerate(images):
        if image is None or (isinstance(image, str) and not image):
            raise RowError(f"image {place} of the row is {image!r}; give the image, or take out its place")
    return images
