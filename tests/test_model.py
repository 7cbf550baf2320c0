"""What a model is given besides the pack's tokens; and a model that reads packs still computes everything else."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from tiny import IMAGE_TOKENS, llava, picture, woven
from torch import nn
from transformers import AutoConfig

import vlmpack
from vlmpack import Sample, model
from vlmpack.proof.miniature import build, miniature

WITHOUT_A_PACK = ["gemma2", "gpt_oss", "mistral", "gemma3"]  # soft-capped scores, attention sinks, windows, images


@cache
def both(model_type: str) -> tuple[nn.Module, nn.Module]:
    """Weights alike: transformers' eager attention, and a model that reads packs. In float32."""
    made = []
    for _ in range(2):
        made.append(build(miniature(AutoConfig.for_model(model_type))).float())
        made[-1].set_attn_implementation("eager")
    return made[0], vlmpack.enable(made[1])


def ids_of(known: nn.Module, shape: tuple[int, int]) -> torch.Tensor:
    return torch.randint(3, 15, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model_type", WITHOUT_A_PACK)
@pytest.mark.parametrize("side", ["no padding", "right", "left"])
@torch.no_grad()
def test_a_batch_without_a_pack_is_computed_as_by_eager_attention(model_type, side):
    eager, enabled = both(model_type)
    ids = ids_of(eager, (2, 9))
    real = torch.ones_like(ids)
    if side != "no padding":
        real[0, -3:] = 0
        real = real.flip(1) if side == "left" else real
    expected = eager(input_ids=ids, attention_mask=real).logits[real.bool()]
    actual = enabled(input_ids=ids, attention_mask=real).logits[real.bool()]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", WITHOUT_A_PACK)
@pytest.mark.parametrize("new", [1, 3], ids=["one token", "three tokens"])
@torch.no_grad()
def test_tokens_that_follow_a_cache_are_computed_as_by_eager_attention(model_type, new):
    expected, actual = (follow_up(each, new) for each in both(model_type))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def follow_up(known: nn.Module, new: int) -> torch.Tensor:
    ids = ids_of(known, (1, 5 + new))
    begun = known(input_ids=ids[:, :5], use_cache=True)
    return known(input_ids=ids[:, 5:], past_key_values=begun.past_key_values, use_cache=True).logits


@pytest.mark.parametrize("model_type", ["gemma2", "gpt_oss"])
def test_gradients_without_a_pack_are_those_of_eager_attention(model_type):
    gradients = []
    for known in both(model_type):
        ids = ids_of(known, (2, 7))
        loss = known(input_ids=ids, labels=ids).loss
        gradients.append(torch.autograd.grad(loss, [p for p in known.parameters() if p.ndim == 2], allow_unused=True))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


def shown(both_ways: str | None) -> Sample:
    image_of = torch.tensor([-1, 0, 0, -1])
    return Sample(
        torch.tensor([1, 9, 9, 2]),
        (torch.tensor([3]), torch.tensor([4, 5])),
        (),
        None,
        (picture(1),),
        image_of,
        both_ways,
    )


IMAGES, PROMPT = [0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]
TYPES = {
    "llava": (None, {}),
    "qwen2_5_vl": (None, {"mm_token_type_ids": IMAGES}),
    "gemma3": ("image", {"token_type_ids": IMAGES}),
    "paligemma": ("prompt", {"token_type_ids": PROMPT}),
    "llama": (None, {}),
}


@pytest.mark.parametrize("model_type", TYPES)
def test_token_types_tell_what_the_family_asks_for(model_type):
    both_ways, types = TYPES[model_type]
    (pack,) = vlmpack.pack([shown(both_ways)])
    found = model._token_types(build(miniature(AutoConfig.for_model(model_type))), pack)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {name: [row] for name, row in types.items()}


KINDS = ["sliding_attention", "full_attention"]
WINDOWS = {
    "the layer says it": ({"sliding_window": 9, "layer_types": KINDS}, 0, 4, 4),
    "left to the mask": ({"sliding_window": 9, "layer_types": KINDS}, 0, None, 9),
    "a full layer": ({"sliding_window": 9, "layer_types": KINDS}, 1, None, None),
    "a full layer that is told one": ({"sliding_window": 9, "layer_types": KINDS}, 1, 9, None),
    "all layers alike": ({"sliding_window": 9}, 1, None, 9),
    "no window": ({}, 0, None, None),
    "a window switched off": ({"sliding_window": None}, 0, None, None),
}


@pytest.mark.parametrize(("config", "layer", "told", "window"), WINDOWS.values(), ids=WINDOWS)
def test_a_layers_window_is_found_wherever_it_is_said(config, layer, told, window):
    module = nn.Module()
    module.config, module.layer_idx = SimpleNamespace(**config), layer
    assert model._window(module, told) == window


def test_images_are_cast_to_the_towers_type_and_sizes_are_not():
    images = {"pixel_values": torch.ones(1, 3, 2, 2), "image_sizes": torch.tensor([[2, 2]])}
    cast = model._cast_images(llava().bfloat16(), images)
    assert {name: tensor.dtype for name, tensor in cast.items()} == {
        "pixel_values": torch.bfloat16,
        "image_sizes": torch.int64,
    }
    assert model._cast_images(llava(), {}) == {}


def test_a_text_only_pack_asks_for_no_images():
    known = vlmpack.enable(llava())
    (text,), (pictured,) = (vlmpack.pack([woven(prompt, [[3], [4]], [(0, 1)])]) for prompt in ([1], [picture(1), 1]))
    assert vlmpack.response_logps(known, text).shape == vlmpack.response_logps(known, pictured).shape == (2,)
    assert pictured.tokens == text.tokens + IMAGE_TOKENS
