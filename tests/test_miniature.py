import inspect

import pytest
import torch
from transformers import AutoConfig

from vlmpack.image import join
from vlmpack.proof.made_up import MadeUpError, image_token_id, images
from vlmpack.proof.miniature import MiniatureError, build, miniature
from vlmpack.proof.special_tokens import parts

FAMILIES = ["llava", "llava_next", "qwen2_5_vl", "gemma3", "idefics3"]


@pytest.mark.parametrize("family", ["gemma3n", "qwen3_5_moe", "gpt_oss", "falcon_h1", "qwen3_next", "llama4"])
def test_a_layer_of_every_kind_is_kept(family):
    large = AutoConfig.for_model(family).get_text_config()
    small = miniature(AutoConfig.for_model(family)).get_text_config()
    for name in ("layer_types", "mlp_layer_types"):
        if getattr(large, name, None):
            assert set(getattr(small, name)) == set(getattr(large, name))
            assert len(getattr(small, name)) == small.num_hidden_layers < large.num_hidden_layers


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "llava", "glm4v", "idefics3", "gemma3n"])
def test_special_tokens_stay_different_in_their_order_and_inside_the_vocabulary(family):
    def special(config):
        named = {}
        for number, part in enumerate(parts(config)):
            for name, value in vars(part).items():
                if name.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= 0:
                    named[number, name] = value
        return named

    large, small = (
        special(config) for config in (AutoConfig.for_model(family), miniature(AutoConfig.for_model(family)))
    )
    assert large.keys() == small.keys()
    assert [sorted(set(large.values())).index(large[name]) for name in large] == [
        sorted(set(small.values())).index(small[name]) for name in large
    ]
    text = miniature(AutoConfig.for_model(family)).get_text_config()
    assert max(small.values()) < text.vocab_size < 300


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v_moe", "ernie4_5_vl_moe"])
def test_sections_of_positions_fill_half_of_the_rotated_part_of_a_head(family):
    text = miniature(AutoConfig.for_model(family)).get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rope = text.rope_parameters
    assert sum(rope["mrope_section"]) == head * rope.get("partial_rotary_factor", 1) / 2
    assert min(rope["mrope_section"]) > 0


def test_windows_are_shorter_than_short_rows_and_what_decides_the_computation_stays():
    large, small = AutoConfig.for_model("gemma2"), miniature(AutoConfig.for_model("gemma2"))
    assert small.sliding_window == 3
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "tie_word_embeddings"):
        assert getattr(small, name) == getattr(large, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_two_sizes_run_together_and_every_pixel_row_reaches_the_answer(family):
    model = build(miniature(AutoConfig.for_model(family)))
    pair = images(model, 2, together=2)
    other = [pair[0], images(model, 2, seed=1, together=2)[1]]
    answers = [answer(model, each) for each in (pair, other)]
    assert all(each.isfinite().all() for each in answers)
    assert (answers[0] - answers[1]).abs().max() > 1e-6
    answers[0].log_softmax(-1).max().backward()
    tower = [p.grad for name, p in model.named_parameters() if "vis" in name and p.ndim > 1]
    assert sum(g is not None and bool(g.abs().max() > 0) for g in tower) > 2


def answer(model, pictures):
    ids = [1]
    for _, tokens in pictures:
        ids += [image_token_id(model)] * tokens + [3, 4]
    ids = torch.tensor([ids])
    types = {"mm_token_type_ids", "token_type_ids"} & set(inspect.signature(type(model).forward).parameters)
    kinds = {name: (ids == image_token_id(model)).long() for name in types}
    inputs = join([picture for picture, _ in pictures])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), **kinds, **inputs).logits[0, -1]


def test_images_that_are_no_tokens_are_refused():
    with pytest.raises(MadeUpError, match="git: images do not enter as tokens of the text"):
        images(build(miniature(AutoConfig.for_model("git"))), 1)


def test_what_transformers_cannot_build_is_told_with_its_reason():
    config = miniature(AutoConfig.for_model("llama"))
    config.hidden_act = "no such function"
    with pytest.raises(MiniatureError, match="builds no small llama: .*no such function"):
        build(config)
