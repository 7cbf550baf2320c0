"""Positions as each path has them alone: one axis, another first position, or an image's rows and columns."""

from functools import cache
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import paths
from tiny import llava, picture, woven
from torch import nn
from transformers import AutoConfig

import vlmpack
from vlmpack import AttentionError, ImageInputs, Sample
from vlmpack.positions import position_ids
from vlmpack.proof.miniature import build, miniature

MERGE = 2  # patches that make an image token, along a side


@cache
def model_of(model_type: str) -> nn.Module:
    return build(miniature(AutoConfig.for_model(model_type)))


def image(height: int, width: int) -> ImageInputs:
    """An image of so many rows and columns of tokens; its pixels do not matter for positions."""
    grid = torch.tensor([[1, height * MERGE, width * MERGE]])
    return ImageInputs({"pixel_values": torch.full((height * width, 1), float(height)), "image_grid_thw": grid})


def gridded(prompt: list[int | tuple[int, int]], responses: list[list[int]]) -> Sample:
    """A sample whose prompt is words and (rows, columns) of images."""
    ids, image_of, images = [], [], []
    for part in prompt:
        tokens = [part] if isinstance(part, int) else [32] * (part[0] * part[1])
        ids += tokens
        image_of += [-1 if isinstance(part, int) else len(images)] * len(tokens)
        images += [] if isinstance(part, int) else [image(*part)]
    stand = torch.tensor(image_of) if images else None
    return Sample(torch.tensor(ids), tuple(map(torch.tensor, responses)), images=tuple(images), image_of=stand)


def written_out(prompt: list[int | tuple[int, int]], response: list[int]) -> list[list[int]]:
    """M-RoPE: text counts on; an image stands on a grid, and what follows goes on after its longer side."""
    axes, start = ([], [], []), 0
    for part in [*prompt, *response]:
        rows, columns = (1, 1) if isinstance(part, int) else part
        for row in range(rows):
            for column in range(columns):
                for axis, place in zip(axes, (0, row, column), strict=True):
                    axis.append(start + place)
        start += max(rows, columns)
    return list(axes)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_responses_go_on_after_the_longer_side_of_an_image(model_type):
    (pack,) = vlmpack.pack([gridded([5, (2, 3), 6], [[7], [8, 9]])])
    found = position_ids(model_of(model_type), pack)[-3:, 0]
    assert found.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5, 5, 6],
        [0, 1, 1, 1, 2, 2, 2, 4, 5, 5, 6],
        [0, 1, 2, 3, 1, 2, 3, 4, 5, 5, 6],
    ]


PIECES = st.lists(st.integers(1, 4), min_size=1, max_size=2) | st.sampled_from([[(2, 2), 1], [(1, 3), 1], [(3, 2), 2]])


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    prompts=st.lists(
        st.lists(PIECES, min_size=1, max_size=3).map(lambda pieces: list(chain(*pieces))), min_size=1, max_size=4
    ),
    responses=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=2, max_size=3),
)
def test_positions_on_a_grid_are_those_of_every_path_alone(prompts, responses):
    (pack,) = vlmpack.pack([gridded(prompt, responses) for prompt in prompts])
    found, walked = position_ids(model_of("qwen2_5_vl"), pack), paths(pack.forest)
    for place, end in enumerate(pack.ends.tolist()):
        alone = written_out(prompts[pack.sample_of[place]], responses[place % len(responses)])
        assert found[..., 0, walked[end]].expand(3, -1).tolist() == alone


def test_a_prefix_language_model_counts_from_one():
    (pack,) = vlmpack.pack([woven([1, 2], [[3], [4, 5]], [])])
    assert position_ids(model_of("paligemma"), pack).tolist() == [[1, 2, 3, 3, 4]]


def test_other_models_count_tokens_from_zero():
    (pack,) = vlmpack.pack([woven([1, picture(1)], [[3], [4, 5]], [])])
    assert position_ids(llava(), pack).tolist() == [[0, 1, 2, 3, 4, 5, 5, 6]]
    (text,) = vlmpack.pack([gridded([5, 6], [[7], [8, 9]])])
    assert position_ids(model_of("qwen2_5_vl"), text).tolist() == [[0, 1, 2, 2, 3]]


class Backwards(nn.Module):
    """Counts from the end of a sequence, so that a prompt's positions depend on its response."""

    config = SimpleNamespace(model_type="backwards")

    def get_rope_index(self, input_ids, image_grid_thw=None):
        return torch.arange(input_ids.shape[1]).flip(0).expand(3, 1, -1), None


def test_positions_that_depend_on_what_follows_cannot_be_shared():
    (pack,) = vlmpack.pack([gridded([5, (2, 2)], [[7], [8, 9]])])
    with pytest.raises(
        AttentionError, match=r"Backwards\.get_rope_index gives tokens that responses share different positions"
    ):
        position_ids(Backwards(), pack)
