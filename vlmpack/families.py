"""What is particular to a vision-language family, each thing said here once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One family of vision-language models.

    Attributes:
        model_type: as in its configuration.
        processor: the class of its transformers processor.
        exact: packed equals unpacked in tests/test_equivalence.py, so its models are accepted.
        whole_prompt: the tokens of a prompt see each other both ways, so what stands at a prompt's beginning depends
            on its end: two prompts may share all their tokens or none.
    """

    model_type: str
    processor: str
    exact: bool = False
    whole_prompt: bool = False


FAMILIES = (
    Family("llava", "LlavaProcessor", exact=True),
    Family("paligemma", "PaliGemmaProcessor", whole_prompt=True),
)


def exact_families() -> tuple[str, ...]:
    """The model types that are accepted."""
    return tuple(family.model_type for family in FAMILIES if family.exact)


def shares_whole_prompts_only(processor: object) -> bool:
    """Whether the family of a transformers processor forbids prompts to share a part of their tokens."""
    names = {kind.__name__ for kind in type(processor).__mro__}  # a subclass is of the family
    return any(family.whole_prompt for family in FAMILIES if family.processor in names)
