"""VL-RewardBench: 1,250 pairs of answers about pictures, ranked by people.

Groups general, hallucination and reasoning. Published are the micro average over all rows ("overall") and the macro
average, the mean of the three groups.

Li et al., 2024 (https://arxiv.org/abs/2411.17451).
"""

from typing import Any

from vlmpack.evaluation.benchmark import Benchmark, EvaluationError, Raw
from vlmpack.evaluation.own_form import pair_row, text_in, without_tags

PREFIXES = {
    "RLAIF": "hallucination",
    "RLHF": "hallucination",
    "hallucination": "hallucination",
    "mathverse": "reasoning",
    "mmmu": "reasoning",
}


def to_row(raw: Raw) -> dict[str, Any]:
    """Read a row. `human_ranking` holds ranks: [0, 1] says that the first response is the better one.

    Args:
        raw: columns `query`, `response`, `image`, `human_ranking`.

    Returns:
        The row in our own form. `<image>` tags are taken out of the query, as in the official script.

    Raises:
        EvaluationError: there are not two responses, or no ranking of two.
    """
    responses, ranks = list(raw["response"]), list(raw["human_ranking"])
    if len(responses) != 2:
        raise EvaluationError(f"'response' holds {len(responses)} responses, not two")
    if sorted(ranks) != [0, 1]:
        raise EvaluationError(f"'human_ranking' is {ranks}, neither [0, 1] nor [1, 0]")
    return pair_row([raw["image"]], without_tags(text_in(raw, "query")), responses, ranks.index(0))


def group_of(raw: Raw) -> str:
    """The group of a row: what its id begins with, up to the first `_` or `-`, says which data it is from.

    Args:
        raw: column `id`. What begins otherwise (`wildvision`, VLFeedback's models) is general.
    """
    prefix = str(raw.get("id") or "").replace("-", "_").split("_")[0]
    return PREFIXES.get(prefix, "general")


VL_REWARDBENCH = Benchmark(
    "vl_rewardbench",
    needs=("id", "query", "response", "image", "human_ranking"),
    to_row=to_row,
    group_of=group_of,
    hub="MMInstruction/VL-RewardBench",
    split="test",
    source="MMInstruction/VL-RewardBench from the hub",
    groups=("general", "hallucination", "reasoning"),
)
