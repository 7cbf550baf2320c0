"""The row formats that are read, and which of them a row is in.

A row is in the format whose identifying columns it has all of; where it has those of several, in the one
that asks for most. No two formats ask for as much and allow each other's columns, so there is one answer.
To read another format, write its reader and add a line here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from vlmpack.processors.messages import RowError
from vlmpack.processors.readers import (
    alpaca,
    llava_rlhf,
    mm_rlhf,
    nemo_rl,
    pair,
    question_pair,
    rlaif_v,
    rlhf_v,
    scored_pair,
    sharegpt,
    swift,
    ultrafeedback,
)


@dataclass(frozen=True)
class Format:
    """Columns of a row format.

    Attributes:
        name: what people call it, or the data set it is of.
        read: turns the row into one of our own two forms.
        needs: identifying columns; a row of this format has them all.
        reads: further columns that are read where there are any.
        ignores: columns known to describe the row, from which nothing is read.
    """

    name: str
    read: Callable[[Mapping[str, Any]], dict]
    needs: tuple[str, ...]
    reads: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """All columns that a row of this format may have."""
        return (*self.needs, *self.reads, *self.ignores)


IMAGES = ("images", "image")
SWIFT = ("images", "rejected_images", "system", "margin")
OPENBMB = ("ds_name", "origin_split", "idx", "image_path")
REASONS = ("chosen_reason", "rejected_reason")
SCORES = ("score_chosen", "score_rejected")

FORMATS = (
    Format("ranked responses", dict, ("responses",), ("prompt", "scores", "ranks", *IMAGES)),
    Format("pair, as in TRL", pair, ("chosen", "rejected"), ("prompt", "margin", *IMAGES)),
    Format(
        "ultrafeedback_binarized",
        scored_pair,
        ("chosen", "rejected", *SCORES),
        ("prompt", *IMAGES),
        ignores=("prompt_id", "messages"),
    ),
    Format("ms-swift", swift, ("messages", "rejected_response"), SWIFT, ignores=("channel",)),
    Format("ms-swift, both conversations", swift, ("messages", "rejected_messages"), SWIFT, ignores=("channel",)),
    Format("LLaMA-Factory, ShareGPT", sharegpt, ("conversations", "chosen", "rejected"), ("images", "system")),
    Format(
        "LLaMA-Factory, alpaca",
        alpaca,
        ("instruction", "chosen", "rejected"),
        ("input", "images", "system", "history"),
    ),
    Format("RLAIF-V", rlaif_v, ("question", "chosen", "rejected", "origin_dataset"), ("image",), ignores=OPENBMB),
    Format("RLHF-V", rlhf_v, ("image", "text"), ignores=("origin_dataset", *OPENBMB)),
    Format("MMPR", question_pair, ("question", "chosen", "rejected"), (*IMAGES, "system")),
    Format("MM-RLHF", mm_rlhf, ("prompt", "chosen", "rejected", *REASONS), ("image", "is_tie"), ("id", "has_image")),
    Format(
        "LLaVA-RLHF",
        llava_rlhf,
        ("conversations", "output_1", "output_2", "preference"),
        ("image",),
        ignores=("id", "hallucination"),
    ),
    Format("NeMo-RL", nemo_rl, ("context", "completions"), ignores=("task_name",)),
    Format(
        "UltraFeedback",
        ultrafeedback,
        ("instruction", "completions"),
        ignores=("source", "models", "correct_answers", "incorrect_answers"),
    ),
)

OTHER_MEDIA = ("video", "videos", "audio", "audios")


def to_own_form(row: Mapping[str, Any], metadata_columns: Sequence[str] = ()) -> dict:
    """A row of any format, in one of our own two forms.

    Args:
        row: columns by name; those that are None count as absent.
        metadata_columns: names of further columns that describe the row and are not read.

    Raises:
        RowError: the row is in no format, has a column that its format does not know, or cannot be used.
    """
    row = {name: value for name, value in row.items() if value is not None and name not in metadata_columns}
    row = _without_empty_media(row)
    found = recognise(row)
    for name in row:
        if name not in found.known:
            raise RowError(
                _unknown(name, (*found.needs, *found.reads), metadata_columns) + f"; it is read as {found.name}"
            )
    return found.read(row)


def recognise(columns: Collection[str]) -> Format:
    """The format of a row with these columns.

    Raises:
        RowError: it has the identifying columns of none.

    Example:
        >>> recognise(["prompt", "chosen", "rejected"]).name
        'pair, as in TRL'
    """
    fitting = [each for each in FORMATS if set(each.needs) <= set(columns)]
    if fitting:
        return max(fitting, key=lambda each: len(each.needs))
    known = {name for each in FORMATS for name in each.known}
    close = {name: get_close_matches(name, known, n=1) for name in columns if name not in known}
    meant = "".join(f" (did you mean {match[0]!r} by {name!r}?)" for name, match in close.items() if match)
    raise RowError(f"columns {sorted(columns)} are in no row format{meant}; {_summary()}")


def _without_empty_media(row: dict[str, Any]) -> dict[str, Any]:
    for name in OTHER_MEDIA:
        if row.get(name):
            raise RowError(f"the row has a {name!r} column, and of what is not text only images are read; leave it out")
    return {name: value for name, value in row.items() if name not in OTHER_MEDIA}


def _unknown(name: str, candidates: Collection[str], metadata_columns: Sequence[str]) -> str:
    close = get_close_matches(name, candidates, n=1)
    meant = f"did you mean {close[0]!r}?" if close else "rename or drop it,"
    return (
        f"column {name!r} is unknown: {meant} or name it in metadata_columns "
        f"(now {', '.join(metadata_columns) or 'empty'}) if nothing shall be read from it"
    )


def _summary() -> str:
    lines = [f"  {each.name}: {', '.join(each.needs)} ({', '.join(each.reads) or 'no more'})" for each in FORMATS]
    return "\n".join(["the row formats, their columns (and those they may have) are", *lines])
