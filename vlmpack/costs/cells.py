"""The ways of computing one training that are compared: each a cell of an ablation, by name."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One way of computing: what stands once, whether rows are padded, and which rows meet.

    All are computed by packs, so that they run through the same model, the same attention and the same losses. What
    stands once and what is padded changes no result; the order of rows changes which of them meet in a step.

    Attributes:
        name: for tables.
        sharing, padding: as in `packing.pack`.
        strategy: the order of rows; see `ordering.STRATEGIES`.
        by_image: whether rows on the same images meet.
    """

    name: str
    sharing: str
    padding: bool = False
    strategy: str = "random"
    by_image: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `DPOConfig` and `RewardConfig` that run it."""
        return {
            "sharing": self.sharing,
            "padding": self.padding,
            "train_sampling_strategy": self.strategy,
            "group_by_image": self.by_image,
        }


PADDED_PAIRS, VANILLA, TREES = "padded pairs", "vanilla", "trees"

# "vanilla", "sorting", "packing" and "both" are those of Preference Packing (Cho, 2026; arXiv 2602.24082).
CELLS = (
    Cell(PADDED_PAIRS, "pair", padding=True),  # what trainers of pairs do: two rows a pair
    Cell(VANILLA, "none", padding=True),  # a row a response
    Cell("sorting", "none", padding=True, strategy="length_sorted"),
    Cell("packing", "prompt", padding=True),  # a row a prompt, with all its responses
    Cell("both", "prompt", padding=True, strategy="length_sorted"),
    Cell("bins", "prompt"),  # prompts dealt into packs, without padding
    Cell(TREES, "all"),  # what prompts of a pack begin with alike stands once too
    Cell("trees, by image", "all", by_image=True),
)
