"""What cannot be packed exactly is refused by name, before any step; what can is proven, family by family."""

import pytest
import torch
import transformers
from family_models import SMALL
from family_models import text_model as build
from tiny import llama, llava, sample, text_config

import vlmpack
from vlmpack import UnsupportedModelError, families, support

REFUSED = {
    "Mamba": ({"state_size": 4}, "layers of type linear_attention"),
    "Jamba": ({"num_experts": 2, "use_mamba_kernels": False}, "layers of type linear_attention"),
    "Bloom": ({"n_layer": 2, "n_head": 4}, "attention interface|ALiBi"),
}


@pytest.mark.parametrize("family", REFUSED)
def test_text_families_that_cannot_be_packed_are_refused_with_the_reason(family):
    settings, reason = REFUSED[family]
    with pytest.raises(UnsupportedModelError, match=f"(?s){family}ForCausalLM .*cannot be packed: .*({reason})"):
        vlmpack.enable(build(family, **settings))


def test_hybrids_are_refused_by_their_layers():
    kinds = ["linear_attention", "full_attention"]
    with pytest.raises(UnsupportedModelError, match="Qwen3NextForCausalLM .*linear_attention"):
        vlmpack.enable(build("Qwen3Next", layer_types=kinds, num_experts=2, num_experts_per_tok=1))
    with pytest.raises(UnsupportedModelError, match="Lfm2ForCausalLM .*conv"):
        vlmpack.enable(build("Lfm2", layer_types=["conv", "full_attention"]))


def test_encoder_decoders_are_refused():
    config = transformers.T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModelError, match="T5ForConditionalGeneration .*encoder-decoder"):
        vlmpack.enable(transformers.T5ForConditionalGeneration(config))


def test_families_that_nobody_has_proven_are_refused_unless_they_are_proven_now(monkeypatch):
    monkeypatch.setattr(support, "PROVEN", frozenset())
    for model in (llama(), llava()):
        with pytest.raises(UnsupportedModelError, match="is not among the families proven exact.*vlmpack verify"):
            vlmpack.enable(model)
        vlmpack.enable(model, unproven=True)


def test_a_llava_is_judged_by_its_decoder_too(monkeypatch):
    monkeypatch.setattr(support, "PROVEN", frozenset({"llava"}))
    with pytest.raises(
        UnsupportedModelError, match="LlavaForConditionalGeneration .*: llama is not among the families"
    ):
        vlmpack.enable(llava())
    config = llava().config
    config.text_config = transformers.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"])
    with pytest.raises(UnsupportedModelError, match="LlavaForConditionalGeneration .*layers of type conv"):
        vlmpack.enable(transformers.LlavaForConditionalGeneration(config), unproven=True)


def test_a_reward_model_is_judged_by_its_backbone():
    backbone = build("Lfm2", layer_types=["conv", "full_attention"])
    with pytest.raises(UnsupportedModelError, match="RewardModel .*layers of type conv"):
        vlmpack.enable(vlmpack.RewardModel.from_backbone(backbone), unproven=True)


def test_samples_made_for_another_family_are_refused(monkeypatch):
    (pack,) = vlmpack.pack([sample([1, 2], [[3], [4]], [(0, 1)], images=1)])
    monkeypatch.setattr(families, "FAMILIES", (families.Family("llava", "LlavaProcessor", both_ways="image"),))
    with pytest.raises(vlmpack.AttentionError, match="both_ways=None and LlavaForConditionalGeneration wants 'image'"):
        vlmpack.response_logps(vlmpack.enable(llava()), pack)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_embeddings_that_depend_on_the_longest_path_are_refused_when_it_is_long(kind):
    factors = {"short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0]} if kind == "longrope" else {}
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 8, **factors}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(text_config(max_position_embeddings=8, rope_parameters=rope))
    vlmpack.enable(model)
    short, long = (vlmpack.pack([sample([1, 2], [[3], [4] * n], [(0, 1)])])[0] for n in (3, 9))
    vlmpack.response_logps(model, short)
    with pytest.raises(UnsupportedModelError, match=f"{kind}.* holds one of 11 tokens, more than 8"):
        vlmpack.response_logps(model, long)


def test_a_model_that_was_not_enabled_is_told_how():
    (pack,) = vlmpack.pack([sample([1], [[2], [3]], [(0, 1)])])
    with pytest.raises(vlmpack.AttentionError, match=r"does not know packs yet; call vlmpack\.enable"):
        vlmpack.response_logps(llama(), pack)
    with pytest.raises(vlmpack.AttentionError, match="attention='fast' is not a backend"):
        vlmpack.enable(llama(), "fast")


def test_convolutions_between_tokens_are_refused_by_their_module():
    model = llama()
    model.model.layers[1].short = torch.nn.Conv1d(4, 4, 3)
    with pytest.raises(UnsupportedModelError, match=r"its layer layers\.1\.short \(Conv1d\) passes information"):
        vlmpack.enable(model)


@pytest.mark.parametrize("family", ["StableLm"])
def test_families_whose_layers_drop_the_plan_are_refused_when_enabled(family):
    with pytest.raises(vlmpack.AttentionError, match=f"{family}Attention got a pack's mask but not its plan"):
        vlmpack.enable(build(family), unproven=True)


def test_a_layer_with_a_mask_of_its_own_is_refused():
    model = llama()
    layer = model.model.layers[0].self_attn
    forward = layer.forward
    own = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    layer.forward = lambda *args, **kwargs: forward(*args, **{**kwargs, "attention_mask": own})
    with pytest.raises(vlmpack.AttentionError, match="LlamaAttention makes an attention mask of its own"):
        vlmpack.enable(model)


def test_a_layer_that_loses_the_plan_fails_loudly():
    model = llama()
    layer = model.model.layers[1].self_attn
    forward = layer.forward
    layer.forward = lambda *args, plan=None, **kwargs: forward(*args, **kwargs)
    with pytest.raises(vlmpack.AttentionError, match="got a pack's mask but not its plan"):
        vlmpack.enable(model)


def test_a_layer_that_does_not_attend_through_the_plan_is_noticed():
    model = llama()
    model.model.layers[1].self_attn.forward = lambda hidden_states, *args, **kwargs: (hidden_states.cumsum(1), None)
    with pytest.raises(vlmpack.AttentionError, match="1 of the 2 layers of LlamaModel attend through vlmpack"):
        vlmpack.enable(model)
