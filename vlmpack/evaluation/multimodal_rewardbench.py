"""Multimodal RewardBench: 5,000 pairs about pictures in six categories, and the file its own script reads.

Groups are categories, of which safety and reasoning are shown in two parts each. The micro average is over all rows
(the script's "all"), the macro average over the six categories as the data gives them: safety and reasoning count
once, each the share of its rows that are right.

Yasunaga et al., 2025 (https://arxiv.org/abs/2502.14191).
"""

from typing import Any

from vlmpack.evaluation.benchmark import Benchmark, EvaluationError, Raw
from vlmpack.evaluation.own_form import pair_row, text_in, without_tags
from vlmpack.evaluation.verdicts import Verdict

OUTPUTS = ("Output1", "Output2")
LETTERS = ("A", "B")
CATEGORIES = (
    "open_generation/correctness_task",
    "open_generation/preference_task",
    "knowledge",
    "reasoning/math",
    "reasoning/coding",
    "safety/bias",
    "safety/toxicity",
    "vqa",
)
PARTS = {  # how ids of the first part begin, and both parts
    "safety": ("pairs", "safety/bias", "safety/toxicity"),
    "reasoning": ("math", "reasoning/math", "reasoning/coding"),
}


def to_row(raw: Raw) -> dict[str, Any]:
    """Read a row. `Better` names the column of the better response.

    Args:
        raw: columns `Text`, `Image` (a path), `Output1`, `Output2`, `Better`.

    Returns:
        The row in our own form.

    Raises:
        EvaluationError: `Better` names neither output, or a column is no text.
    """
    better = raw["Better"]
    if better not in OUTPUTS:
        raise EvaluationError(f"'Better' is {better!r}, neither 'Output1' nor 'Output2'")
    responses = [text_in(raw, name) for name in OUTPUTS]
    return pair_row([raw["Image"]], without_tags(text_in(raw, "Text")), responses, OUTPUTS.index(better))


def group_of(raw: Raw) -> str:
    """The category of a row; safety and reasoning have two parts, which the id tells.

    Args:
        raw: columns `Category` and `ID`.
    """
    category, name = str(raw.get("Category") or ""), str(raw.get("ID") or "").lower()
    if category not in PARTS:
        return category
    beginning, part, other = PARTS[category]
    return part if name.startswith(beginning) else other


def section_of(group: str) -> str:
    """The category that a group is of, as the data gives it.

    Args:
        group: from `group_of`.
    """
    return next((category for category, parts in PARTS.items() if group in parts[1:]), group)


def answer_of(raw: Raw, verdict: Verdict) -> dict[str, Any]:
    """A line of the file that the official `scripts/2_get_accuracy.py` reads.

    The script looks for "[[A]]", then for "[[B]]", and throws a coin if there is neither; so a tie, which is wrong,
    is written as the wrong letter and not as none.

    Args:
        raw: a row.
        verdict: on it.

    Returns:
        `ID`, `Label`, `output` and `Meta`.
    """
    better = OUTPUTS.index(raw["Better"])
    chosen = LETTERS[better if verdict.right else 1 - better]
    first, second = verdict.rewards
    why = " They tie, which counts as wrong." if verdict.tied else ""
    return {
        "ID": raw["ID"],
        "Label": LETTERS[better],
        "output": f"The rewards are {first:g} (A) and {second:g} (B).{why} [[{chosen}]]",
        "Meta": {"Category": raw["Category"]},
    }


MULTIMODAL_REWARDBENCH = Benchmark(
    "multimodal_rewardbench",
    needs=("ID", "Category", "Text", "Image", *OUTPUTS, "Better"),
    to_row=to_row,
    group_of=group_of,
    source="data/all_data.json of github.com/facebookresearch/multimodal_rewardbench, which its "
    "scripts/0_download_data.py makes",
    id_column="ID",
    groups=CATEGORIES,
    section_of=section_of,
    answer_of=answer_of,
)
