"""Preference samples of random tokens, as long as those of data sets in use. No file and no tokenizer is read."""

from collections.abc import Iterator

import numpy as np
import torch

from vlmpack import ImageInputs, Sample

# median tokens of prompt + response, and prompt tokens over response tokens
PROFILES = {
    "Capybara": (1160, 1.59),
    "HH-RLHF": (186, 2.15),
    "MetaMath-DPO": (872, 3.91),
    "TLDR": (416, 11.14),
    "Tulu-Helpsteer": (775, 6.34),
    "UltraFeedback": (409, 0.42),
}
SPREAD = 0.5  # standard deviation of the logarithm of lengths
VOCABULARY = 1000  # tokens that occur
BEST_AGAINST_REST = ((0, 1), (0, 2), (0, 3), (0, 4))


def profile(name: str, rows: int, seed: int, scale: float = 1.0) -> list[Sample]:
    """Samples of two responses each, as long as those of a data set.

    Args:
        name: one of `PROFILES`.
        rows: how many.
        seed: of tokens and lengths.
        scale: of lengths.
    """
    median, ratio = PROFILES[name]
    return texts(rows, seed, prompt=median * scale * ratio / (1 + ratio), response=median * scale / (1 + ratio))


def texts(
    rows: int, seed: int, *, prompt: float, response: float, pairs: tuple[tuple[int, int], ...] = ((0, 1),)
) -> list[Sample]:
    """Samples without images. Lengths are lognormal, those of prompts and of responses independent of each other.

    Args:
        rows: how many.
        seed: of tokens and lengths.
        prompt, response: median tokens.
        pairs: (preferred, rejected) of each sample's responses, which are as many as are named.
    """
    random = np.random.default_rng(seed)
    responses = 1 + max(max(pair) for pair in pairs)
    return [
        Sample(_tokens(random, prompt), tuple(_tokens(random, response) for _ in range(responses)), pairs)
        for _ in range(rows)
    ]


def on_pictures(
    rows: int, seed: int, *, image_token: int, question: float, response: float, pairs: tuple[tuple[int, int], ...]
) -> list[Sample]:
    """Samples in the shape of LLaVA-1.5's: one picture of noise of 336 pixels, 576 tokens, three questions about it.

    Args:
        rows: how many.
        seed: of pixels, tokens and lengths.
        image_token: id of an image's tokens.
        question, response: median tokens.
        pairs: as in `texts`.
    """
    samples = texts(rows, seed, prompt=question, response=response, pairs=pairs)
    return [
        Sample(
            torch.cat([torch.full((576,), image_token), each.prompt_ids]),
            each.response_ids,
            pairs,
            images=(picture,),
            image_of=torch.cat([torch.zeros(576, dtype=torch.int64), torch.full_like(each.prompt_ids, -1)]),
        )
        for each, picture in zip(samples, _pictures(seed, questions=3), strict=False)
    ]


def _pictures(seed: int, questions: int) -> Iterator[ImageInputs]:
    """Noise, each as often as there are questions about it."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        picture = ImageInputs({"pixel_values": torch.randn(1, 3, 336, 336, generator=generator)})
        yield from [picture] * questions


def _tokens(random: np.random.Generator, median: float) -> torch.Tensor:
    length = random.lognormal(np.log(median), SPREAD)
    return torch.from_numpy(random.integers(0, VOCABULARY, max(1, round(length))))
