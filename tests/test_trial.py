"""Made-up rows hold what packing shares, and say nothing that is special to the model."""

from functools import cache

import pytest
import torch
from torch import nn
from transformers import AutoConfig

import vlmpack
from vlmpack.proof import trial
from vlmpack.proof.made_up import image_token_id
from vlmpack.proof.miniature import build, miniature


@cache
def model_of(model_type: str) -> nn.Module:
    return build(miniature(AutoConfig.for_model(model_type)))


FAMILIES = {"gemma3": "image", "paligemma": "prompt", "qwen2_5_vl": None, "llava_onevision": None}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_images_stand_together_are_shared_and_return_after_another_text(model_type):
    made = trial.samples(model_of(model_type))
    assert [len(sample.images) for sample in made] == [2, 1, 1, 1, 0, 1]
    contents = [[image.content for image in sample.images] for sample in made]
    assert contents[1] == contents[2] == contents[3]
    assert len({content for each in contents for content in each}) == 4
    (pack,) = vlmpack.pack(made)
    assert (pack.vision_passes, len(pack.placements)) == (4, 6 if FAMILIES[model_type] == "prompt" else 5)
    assert {sample.both_ways for sample in made} == {FAMILIES[model_type]}


@pytest.mark.parametrize("model_type", [*FAMILIES, "llama"])
def test_responses_share_beginnings_and_one_ends_where_another_goes_on(model_type):
    for sample in trial.samples(model_of(model_type)):
        long, short, single = (response.tolist() for response in sample.response_ids)
        assert (long[:2], len(long), len(single)) == (short[:2], 8, 1)
        assert long[2] != short[2]
        assert single[0] == long[-1]


@pytest.mark.parametrize("model_type", [*FAMILIES, "llama"])
def test_image_tokens_receive_images_and_no_word_is_special(model_type):
    model = model_of(model_type)
    special = {
        value
        for part in (model.config, model.config.get_text_config())
        for name, value in vars(part).items()
        if name.endswith(("token_id", "token_index")) and isinstance(value, int)
    }
    for sample in trial.samples(model):
        words = sample.prompt_ids[~sample.is_image]
        if sample.images:
            assert set(sample.prompt_ids[sample.is_image].tolist()) == {image_token_id(model)}
        assert not special & set(torch.cat([words, *sample.response_ids]).tolist())


def test_a_seed_gives_the_same_rows_again_and_another_one_others():
    one, again, other = (trial.samples(model_of("gemma3"), seed) for seed in (0, 0, 1))
    assert [s.prompt_ids.tolist() for s in one] == [s.prompt_ids.tolist() for s in again]
    assert [i.content for s in one for i in s.images] == [i.content for s in again for i in s.images]
    assert [s.prompt_ids.tolist() for s in one] != [s.prompt_ids.tolist() for s in other]


def test_every_prompt_has_a_response_that_ends_beyond_a_miniatures_window():
    model = model_of("gemma3")
    window = model.config.get_text_config().sliding_window
    assert all(len(s.prompt_ids) + max(map(len, s.response_ids)) > window + 4 for s in trial.samples(model))
