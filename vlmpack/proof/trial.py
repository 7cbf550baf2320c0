"""Made-up rows that put everything to the test that packing shares: prompts, images, beginnings of responses."""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from vlmpack.families import family_of
from vlmpack.image import ImageInputs
from vlmpack.proof.made_up import image_token_id, images
from vlmpack.sample import Sample
from vlmpack.vision import feature_maker

# Responses: one shares its beginning with a sibling, one is the beginning of another, one is a single token.
RESPONSES = ((7, 1, 4, 2, 9, 3, 8, 5), (7, 1, 6), (5,))

Part = int | tuple[ImageInputs, int]  # a number that stands for a word, or an image and its tokens


def samples(model: nn.Module, seed: int = 0) -> list[Sample]:
    """Prompts on which a wrong mask, position, prediction or order of images cannot go unseen.

    Two images in one prompt, two prompts that share an image, the same image after another text, a text-only prompt
    among them, three responses each, all longer than a miniature's sliding window.

    Args:
        model: a transformers model; text only if it makes no image features.
        seed: of words and pixels.

    Raises:
        MadeUpError: images cannot be made up for the model.
    """
    words = _words(model, seed)
    text = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 9, 8, 7, 6, 5]]
    if feature_maker(model) is None:
        return [_sample(model, words, prompt) for prompt in (*text, [1, 2, 3])]
    single = images(model, 2, seed)
    two = images(model, 2, seed + 1, together=2)
    prompts = [
        [1, two[0], 2, two[1], 3, 4],
        [1, single[0], 2, 3, 5],
        [1, single[0], 2, 4],  # the beginning, the image included, is the one of the prompt before
        [5, 6, single[0], 2],  # the same image after another text: its features are shared, its tokens are not
        text[0],
        [1, single[1], 7],
    ]
    return [_sample(model, words, prompt) for prompt in prompts]


def _sample(model: nn.Module, words: Sequence[int], prompt: Sequence[Part]) -> Sample:
    ids, image_of, pictures = [], [], []
    for part in prompt:
        if isinstance(part, tuple):
            image, tokens = part
            ids += [image_token_id(model)] * tokens
            image_of += [len(pictures)] * tokens
            pictures.append(image)
        else:
            ids.append(words[part])
            image_of.append(-1)
    responses = tuple(torch.tensor([words[number] for number in response]) for response in RESPONSES)
    return Sample(
        prompt_ids=torch.tensor(ids),
        response_ids=responses,
        pairs=((0, 1), (0, 2)),
        images=tuple(pictures),
        image_of=torch.tensor(image_of) if pictures else None,
        both_ways=family_of(model.config).both_ways,
    )


def _words(model: nn.Module, seed: int) -> list[int]:
    """Ten token ids that mean nothing special to the model."""
    special = set(_special_ids(model.config.to_dict()))
    fields = model.config.get_text_config().to_dict()
    vocabulary = min(value for name, value in fields.items() if str(name).startswith("vocab_size") and value)
    return random.Random(seed).sample([token for token in range(vocabulary) if token not in special][:1000], 10)


def _special_ids(config: dict) -> Iterator[int]:
    """Whatever a configuration calls a token's id."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _special_ids(value)
        elif "token" in str(name) and str(name).endswith(("_id", "_ids", "_index")):
            yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int))
