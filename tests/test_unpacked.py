"""The oracle gives a model what its own processor would: joined images, token types, its own attention."""

import pytest
import torch
from tiny import llama, llava, picture, woven
from torch import nn
from transformers import AutoConfig

import vlmpack
from vlmpack import ImageInputs, Sample, unpacked
from vlmpack.proof.miniature import build, miniature


def beside(*images: ImageInputs, both_ways: str | None = None) -> Sample:
    """A prompt of one token an image, between two words."""
    image_of = torch.tensor([-1, *range(len(images)), -1])
    ids = torch.tensor([1, *[9] * len(images), 2])
    return Sample(ids, (torch.tensor([3, 4]),), (), None, images, image_of, both_ways)


def test_images_of_different_sizes_are_filled_up_behind_and_below():
    one = ImageInputs({"pixel_values": torch.full((1, 1, 1, 2), 1.0), "sizes": torch.tensor([[1, 2]])})
    two = ImageInputs({"pixel_values": torch.full((1, 1, 2, 1), 2.0), "sizes": torch.tensor([[2, 1]])})
    inputs = unpacked._inputs(llama(), beside(one, two), torch.tensor([3]))
    assert inputs["pixel_values"].tolist() == [[[[1, 1], [0, 0]]], [[[2, 0], [2, 0]]]]
    assert inputs["pixel_values"].dtype == torch.float64
    assert inputs["sizes"].tolist() == [[1, 2], [2, 1]]
    assert inputs["input_ids"].tolist() == [[1, 9, 9, 2, 3]]


def test_images_are_joined_along_their_own_axis():
    tiles = [ImageInputs({"pixel_values": torch.full((1, n, 1, n), float(n))}, {"pixel_values": 1}) for n in (1, 2)]
    joined = unpacked._inputs(llama(), beside(*tiles), torch.tensor([3]))["pixel_values"]
    assert joined.tolist() == [[[[1, 0]], [[2, 2]], [[2, 2]]]]


def test_how_many_images_a_prompt_has_is_told_once():
    images = [ImageInputs({"pixel_values": torch.zeros(1, 1), "batch_num_images": torch.tensor([2])}) for _ in range(2)]
    assert unpacked._inputs(llama(), beside(*images), torch.tensor([3]))["batch_num_images"].tolist() == [2]


IMAGES = [[0, 1, 0, 0, 0]]
TYPES = {
    "llava": (None, {}),
    "llama": (None, {}),
    "qwen2_5_vl": (None, {"mm_token_type_ids": IMAGES}),
    "gemma3": ("image", {"token_type_ids": IMAGES}),
    "paligemma": ("prompt", {"token_type_ids": [[0, 0, 0, 1, 1]]}),
}


@pytest.mark.parametrize("model_type", TYPES)
def test_token_types_are_those_of_the_familys_processor(model_type):
    both_ways, types = TYPES[model_type]
    inputs = unpacked._inputs(
        build(miniature(AutoConfig.for_model(model_type))),
        beside(picture(1), both_ways=both_ways),
        torch.tensor([3, 4]),
    )
    assert {name: x.tolist() for name, x in inputs.items() if "type" in name} == types


def implementations(model: nn.Module) -> set[str]:
    return {m.config._attn_implementation for m in model.modules() if hasattr(m, "set_attn_implementation")}


OWN = {"gemma2": "eager", "gpt_oss": "eager", "llama": "sdpa", "mistral": "sdpa"}


@pytest.mark.parametrize("model_type", OWN)
def test_a_model_that_sdpa_cannot_compute_gets_eager_attention_for_the_while(model_type):
    model = vlmpack.enable(build(miniature(AutoConfig.for_model(model_type))))
    with unpacked.own_attention(model):
        assert implementations(model.get_decoder()) == {OWN[model_type]}
    assert implementations(model.get_decoder()) == {"vlmpack"}
    with pytest.raises(ZeroDivisionError), unpacked.own_attention(model):
        _ = 1 / 0
    assert implementations(model.get_decoder()) == {"vlmpack"}


def test_log_probabilities_are_summed_over_the_response_alone():
    model = llava().eval()
    made = woven([1, picture(1), 2], [[3, 0, 4], [4]], [(0, 1)])
    expected = []
    for response in made.response_ids:
        ids = torch.cat([made.prompt_ids, response])
        logits = model(input_ids=ids[None], **made.images[0].tensors).logits[0].log_softmax(-1)
        expected.append(sum(logits[place - 1, ids[place]] for place in range(len(made.prompt_ids), len(ids))))
    torch.testing.assert_close(unpacked.response_logps(model, [made]), torch.stack(expected), rtol=1e-12, atol=0)
