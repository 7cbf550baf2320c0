"""RewardBench: pairs of texts in 23 subsets, averaged in four sections.

Groups are subsets. A section is the mean of its subsets, weighted by the official counts of examples; the macro average
is the mean of the four sections, which is published as the score; the micro average is over all rows.

A subset that the data lacks is left out of its section with its weight, as in the official script. A section that lacks
all of them is left out of the macro average and named; the official script would count it as 0. Other subsets are shown
and count in the micro average alone. The prior sets, a fifth section of half the weight on the
first leaderboard, are not included.

Lambert et al., 2024 (https://arxiv.org/abs/2403.13787).
"""

from typing import Any

from vlmpack.evaluation.benchmark import Benchmark, Raw

SECTIONS = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,  # of 447 pairs: as much as the six kinds of code together
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
WEIGHTS = {subset: weight for subsets in SECTIONS.values() for subset, weight in subsets.items()}


def to_row(raw: Raw) -> dict[str, Any]:
    """Read a row.

    Args:
        raw: columns `prompt`, `chosen`, `rejected`, texts or lists of messages.

    Returns:
        The same three columns, which are one of our own row forms.
    """
    return {name: raw[name] for name in ("prompt", "chosen", "rejected")}


def group_of(raw: Raw) -> str:
    """The subset of a row.

    Args:
        raw: column `subset`.
    """
    return str(raw.get("subset") or "")


def section_of(group: str) -> str:
    """The section of a subset; empty if it is in none.

    Args:
        group: a subset.
    """
    return next((section for section, subsets in SECTIONS.items() if group in subsets), "")


REWARDBENCH = Benchmark(
    "rewardbench",
    needs=("prompt", "chosen", "rejected", "subset"),
    to_row=to_row,
    group_of=group_of,
    hub="allenai/reward-bench",
    split="filtered",
    source="allenai/reward-bench from the hub",
    groups=tuple(WEIGHTS),
    section_of=section_of,
    weights=WEIGHTS,
)
