"""Special tokens of a small vocabulary: as many, as different and in the same order as in the large one."""

import re
from collections.abc import Iterator

from transformers import PretrainedConfig

GAP = 20  # words kept between two special tokens

TOKEN = re.compile(
    r"(token_ids?|token_index|^im_\w+_id|^(image|slice)_(start|end)_id|newline_id|patch_id|unk_index|mask_index"
    r"|^vocab_size|^unpadded_vocab_size|^vocab_offset|_vocab_size)$|^vocab_size_per_layer_input$"
)
IMAGE = re.compile(r"(image|video|vision_(start|end)|image_(start|end))_token_(id|index)")


def parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """The configuration and every one inside it.

    Args:
        config: of any model.
    """
    yield config
    for value in list(config.__dict__.values()):
        if isinstance(value, PretrainedConfig):
            yield from parts(value)


def moved_tokens(config: PretrainedConfig) -> dict[int, int]:
    """New numbers of every special token and of the vocabularies' ends: order and identity stay, gaps shrink.

    Args:
        config: with the old ones.

    Returns:
        The new number of each old one.
    """
    known = {0}
    for part in parts(config):
        for value in (value for name, value in part.__dict__.items() if TOKEN.search(name)):
            numbers = value if isinstance(value, list | tuple) else [value]
            known |= {number for number in numbers if type(number) is int and number > 0}
    moved, last = {0: 0}, 0
    for number in sorted(known - {0}):
        moved[number] = moved[last] + min(number - last, GAP)
        last = number
    return moved


def widen_vocabulary(config: PretrainedConfig) -> None:
    """Let the text model hold every image token: some default configurations name one that it lacks.

    Args:
        config: changed in place.
    """
    text = config.get_text_config()
    named = [value for part in parts(config) for name, value in part.__dict__.items() if IMAGE.fullmatch(name)]
    largest = max((value for value in named if value is not None), default=0)
    if "vocab_size" in text.__dict__ and text.vocab_size <= largest:
        text.vocab_size = largest + 1
