"""Packed equals unpacked where images see both ways, prompts do, or positions have axes: random trees, three families."""

from dataclasses import dataclass
from functools import cache
from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import assert_same, differentiate, pairs_among
from torch import nn
from transformers import AutoConfig

import vlmpack
from vlmpack import ImageInputs, Sample, unpacked
from vlmpack.proof import trial
from vlmpack.proof.double import Doubled
from vlmpack.proof.made_up import image_token_id, images
from vlmpack.proof.miniature import build, miniature


@dataclass(frozen=True)
class Family:
    """A miniature, what its prompts are made of, and which tokens see each other both ways.

    Attributes:
        model: in float64.
        words: ids that mean nothing special.
        pictures: each image and its tokens.
        both_ways: as in `Sample`.
    """

    model: nn.Module
    words: list[int]
    pictures: list[tuple[ImageInputs, int]]
    both_ways: str | None


BOTH_WAYS = {"gemma3": "image", "paligemma": "prompt", "qwen2_5_vl": None}


@cache
def family(model_type: str) -> Family:
    model = build(miniature(AutoConfig.for_model(model_type)))
    words = trial._words(model, seed=0)
    return Family(model, words, images(model, 3), BOTH_WAYS[model_type])


def made_of(known: Family, prompt: list, responses: list[list[int]], pairs: list[tuple[int, int]]) -> Sample:
    """A sample of that family; in a prompt a number below 10 is a word, one from 10 on an image."""
    ids, image_of, shown = [], [], []
    for part in prompt:
        if part < 10:
            ids.append(known.words[part])
            image_of.append(-1)
        else:
            image, tokens = known.pictures[part - 10]
            ids += [image_token_id(known.model)] * tokens
            image_of += [len(shown)] * tokens
            shown.append(image)
    return Sample(
        prompt_ids=torch.tensor(ids),
        response_ids=tuple(torch.tensor([known.words[word] for word in response]) for response in responses),
        pairs=tuple(pairs),
        images=tuple(shown),
        image_of=torch.tensor(image_of) if shown else None,
        both_ways=known.both_ways,
    )


@st.composite
def forests(draw, apart: bool, most: int) -> list[tuple]:
    """Prompts that go on after each other or after a response, as conversations do; few words, so that much is equal.

    Numbers, as `made_of` takes them: samples themselves would be printed at every draw, pixel by pixel.
    """
    words = st.lists(st.integers(0, 3), min_size=1, max_size=3)
    image = st.integers(10, 12).map(lambda number: [number, 0] if apart else [number])
    made, beginnings = [], [[]]
    for _ in range(draw(st.integers(1, most))):
        pieces = draw(st.lists(words | image, min_size=1, max_size=3))
        prompt = [*draw(st.sampled_from(beginnings)), *chain(*pieces)]
        responses = draw(st.lists(words, min_size=2, max_size=3))
        made.append((prompt, responses, draw(pairs_among(len(responses)))))
        beginnings += [prompt, [*prompt, *responses[0]]]
    return draw(st.permutations(made))


APART = {
    "gemma3": False,
    "paligemma": False,
    "qwen2_5_vl": True,
}  # M-RoPE takes image tokens side by side for one image


def check(known: Family, made: list[Sample]) -> None:
    model = known.model
    with Doubled():
        (pack,) = vlmpack.pack(made)
        expected = differentiate(model, unpacked.response_logps(model, made))
        for backend in ("dense", "paths"):
            packed = vlmpack.response_logps(vlmpack.enable(model, backend, unproven=True), pack)
            assert_same(differentiate(model, in_order(pack, packed)), expected)


def in_order(pack, values):
    return values[pack.sample_of.argsort(stable=True)]


everywhere = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("model_type", BOTH_WAYS)
@settings(everywhere, max_examples=6)
@given(data=st.data())
def test_random_trees_of_words_and_images_equal_the_unpacked(model_type, data):
    drawn = data.draw(forests(APART[model_type], most=3))
    check(family(model_type), [made_of(family(model_type), *each) for each in drawn])


@pytest.mark.slow
@pytest.mark.parametrize("model_type", BOTH_WAYS)
@settings(everywhere, max_examples=150)
@given(data=st.data())
def test_many_random_trees_of_words_and_images_equal_the_unpacked(model_type, data):
    drawn = data.draw(forests(APART[model_type], most=5))
    check(family(model_type), [made_of(family(model_type), *each) for each in drawn])


SIDE_BY_SIDE = [[1, 10, 11, 12, 2], [1, 10, 11, 12, 2, 3], [1, 10, 2, 11, 12], [3, 11, 10, 12, 10]]


@pytest.mark.parametrize("model_type", ["gemma3", "paligemma"])
def test_images_side_by_side_longer_than_the_window_equal_the_unpacked(model_type):
    """Gemma 3's window of 6 cuts a stretch of three images, 12 tokens; what stands further back in it is not seen."""
    known = family(model_type)
    check(known, [made_of(known, prompt, [[1, 2], [1, 3, 0], [2]], [(0, 1)]) for prompt in SIDE_BY_SIDE])


@pytest.mark.parametrize("model_type", BOTH_WAYS)
def test_text_only_prompts_among_prompts_with_images_equal_the_unpacked(model_type):
    known = family(model_type)
    for prompts in ([[1, 2, 3]], [[1, 2], [1, 11, 2], [1, 2, 3], [1, 2]]):
        check(known, [made_of(known, prompt, [[1, 2], [1, 3, 0], [2]], [(0, 1)]) for prompt in prompts])


@pytest.mark.parametrize("model_type", BOTH_WAYS)
def test_a_prompt_that_goes_on_after_a_response_equals_the_unpacked(model_type):
    known = family(model_type)
    first = made_of(known, [1, 10, 2], [[3, 1], [3, 2]], [(0, 1)])
    check(known, [first, made_of(known, [1, 10, 2, 3, 1, 11, 0], [[3, 1], [2]], [(0, 1)])])
