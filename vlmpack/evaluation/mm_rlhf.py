"""MM-RLHF-RewardBench: pairs about pictures and videos, several of them for a question.

Groups are the five categories. Published are the micro average over all rows ("accuracy") and ACC+, the share of ids
all of whose rows are right; the macro average over categories is ours. Rows about videos are reported as not scored,
and an id counts for ACC+ only if all its rows were scored.

Zhang et al., 2025 (https://arxiv.org/abs/2502.10391).
"""

from collections.abc import Mapping
from typing import Any

from vlmpack.evaluation.benchmark import Benchmark, EvaluationError, Raw
from vlmpack.evaluation.own_form import pair_row, text_in, without_tags

CATEGORIES = ("mcq", "long", "short", "safety", "video")


def to_row(raw: Raw) -> dict[str, Any]:
    """Read a row.

    Args:
        raw: columns `prompt`, `chosen`, `rejected`, and `image` (a path) or `video`; the reasons are not read.

    Returns:
        The row in our own form.

    Raises:
        EvaluationError: it is about a video, or about nothing.
    """
    if not raw.get("image"):
        if raw.get("video"):
            raise EvaluationError(f"it is about a video ({_path(raw['video'])}), and videos are not read")
        raise EvaluationError("it has neither an 'image' nor a 'video'")
    responses = [text_in(raw, name) for name in ("chosen", "rejected")]
    return pair_row([raw["image"]], without_tags(text_in(raw, "prompt")).strip(), responses, 0)


def group_of(raw: Raw) -> str:
    """The category of a row: the first of `CATEGORIES` that its path holds, or "other".

    Args:
        raw: column `image`, or else `video`.
    """
    path = _path(raw.get("image") or raw.get("video") or "")
    return next((category for category in CATEGORIES if category in path), "other")


def _path(value: Any) -> str:
    return str(value.get("path") or "") if isinstance(value, Mapping) else str(value)


MM_RLHF_REWARDBENCH = Benchmark(
    "mm_rlhf_rewardbench",
    needs=("id", "prompt", "chosen", "rejected"),
    to_row=to_row,
    group_of=group_of,
    hub="yifanzhang114/MM-RLHF-RewardBench",
    split="train",
    source="mm_reward_bench.jsonl of yifanzhang114/MM-RLHF-RewardBench from the hub, with its images",
    paths=True,
    keyed=True,
    groups=CATEGORIES,
)
