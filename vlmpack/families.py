"""What is particular to a family of models, each thing said here once.

Most families need no rule: how positions are made is asked of the model (`get_rope_index`), windows and soft-capping
of its attention layers. What a model does not tell is here. What concerns the model, `vlmpack.verify` holds against
it; what concerns the processor (`axes`, `counts_images`), tests hold against the processor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """What a family of vision-language models does differently from a plain causal decoder.

    Attributes:
        model_type: as in its configuration.
        processor: the class of its transformers processor.
        both_ways: "image": the tokens of an image see each other both ways; "prompt": all tokens of a prompt do, so
            that two prompts may share all their tokens or none. None: every token sees earlier ones only.
        only_if: what `use_bidirectional_attention` of the decoder's configuration must be for that; None: always.
        layers: the kind of layers, as in `layer_types`, in which they do; None: all.
        window_cuts_blocks: whether a sliding window holds inside such a stretch of tokens too.
        first_position: the position of a sequence's first token. Rotary angles are relative, so only rounding tells.
        axes: along which axis a processor's tensors hold images, where it is not the first.
        counts_images: an image that stands alone in a prompt is cut into tiles and others are not, so the model is
            told how many stand in each (`batch_num_images`).
    """

    model_type: str
    processor: str
    both_ways: str | None = None
    only_if: str | None = None
    layers: str | None = None
    window_cuts_blocks: bool = False
    first_position: int = 0
    axes: Mapping[str, int] = field(default_factory=dict)
    counts_images: bool = False


BATCHED = {"pixel_values": 1, "pixel_attention_mask": 1}  # the first axis is the batch, the second its images

FAMILIES = (
    Family("gemma3", "Gemma3Processor", both_ways="image", window_cuts_blocks=True),
    Family(
        "gemma4",
        "Gemma4Processor",
        both_ways="image",
        only_if="vision",
        layers="sliding_attention",
        window_cuts_blocks=True,
    ),
    Family("gemma4_unified", "Gemma4UnifiedProcessor", both_ways="image", only_if="vision"),
    Family("granite_docling", "GraniteDoclingProcessor", axes=BATCHED),
    Family("idefics2", "Idefics2Processor", axes=BATCHED),
    Family("idefics3", "Idefics3Processor", axes=BATCHED),
    Family("llava_onevision", "LlavaOnevisionProcessor", counts_images=True),
    Family("paligemma", "PaliGemmaProcessor", both_ways="prompt", first_position=1),
    Family("shieldgemma2", "ShieldGemma2Processor", both_ways="image", window_cuts_blocks=True),
    Family("smolvlm", "SmolVLMProcessor", axes=BATCHED),
)
PLAIN = Family("", "")


def family_of(config: Any) -> Family:
    """The rules of a model's family; a family that is not in the table is a plain causal decoder.

    Args:
        config: of the model, or of a reward model around it.
    """
    model_type = model_config(config).model_type
    return next((family for family in FAMILIES if family.model_type == model_type), PLAIN)


def both_ways_in(config: Any) -> str | None:
    """Which tokens of a prompt see each other both ways in a model; see `Family.both_ways`.

    Args:
        config: as for `family_of`.
    """
    family = family_of(config)
    if family.only_if is None:
        return family.both_ways
    decoder = model_config(config).get_text_config()
    return family.both_ways if getattr(decoder, "use_bidirectional_attention", None) == family.only_if else None


def model_config(config: Any) -> Any:
    """The configuration of the language or vision-language model itself, also of one inside a reward model."""
    return config.backbone_config if config.model_type == "vlmpack_reward" else config


def family_read_by(processor: object) -> Family:
    """The rules of the family that a transformers processor belongs to."""
    names = {kind.__name__ for kind in type(processor).__mro__}  # a subclass is of the family
    return next((family for family in FAMILIES if family.processor in names), PLAIN)
