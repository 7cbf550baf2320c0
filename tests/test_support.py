"""What cannot be packed exactly is refused by name, before any step; what can is proven, family by family."""

import pytest
import torch
import transformers
from tiny import VOCABULARY, assert_same, differentiate, double, llama, llava, sample, text_config
from torch.overrides import TorchFunctionMode

import vlmpack
from vlmpack import UnsupportedModelError, unpacked

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "initializer_range": 0.3,
}


def build(name: str, **settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **settings})
    config._experts_implementation = "eager"  # grouped matrix products know no float64
    return getattr(transformers, f"{name}ForCausalLM")(config)


EXACT = {
    "Llama": {},
    "Mistral, window of 3": {"sliding_window": 3},
    "Qwen2": {},
    "Qwen3, a windowed layer": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "Gemma": {},
    "Phi3": {},
    "Olmo2": {},
    "Granite": {},
    "GPTNeoX": {},
    "Mixtral, mixture of experts": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
}


class StayDouble(TorchFunctionMode):
    """Families compute norms and softmaxes in float32 whatever they are given; here float64 stays float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        cast = function is torch.Tensor.float or (function is torch.Tensor.to and torch.float32 in args[1:])
        if cast and args[0].dtype == torch.float64:
            return args[0]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["dense", "paths"])
@pytest.mark.parametrize("family", EXACT)
def test_text_families_equal_the_unpacked(family, backend):
    model = build(family.split(",")[0], **EXACT[family]).eval().double()
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq = module.inv_freq.float()  # angles meet float32 positions
    made = [sample([1, 2, 3], [[4, 5], [6], [2, 2, 1, 5]], [(0, 1)]), sample([7], [[3, 8, 9], [1]], [(0, 1)])]
    (pack,) = vlmpack.pack(made)
    with StayDouble():
        packed = differentiate(model, vlmpack.response_logps(vlmpack.enable(model, backend), pack))
        assert_same(packed, differentiate(model, unpacked.response_logps(model, made)))


def test_a_window_by_index_would_be_found():
    """The windowed families above cannot pass by having windows that never bite."""
    model = double(build("Mistral", sliding_window=3).eval())
    wide = double(build("Mistral", sliding_window=None).eval())
    (pack,) = vlmpack.pack([sample([1, 2, 3], [[4, 5], [6, 2, 2, 1]], [(0, 1)])])
    narrow, full = (vlmpack.response_logps(vlmpack.enable(m), pack) for m in (model, wide))
    assert (narrow - full).abs().min() > 1e-6


REFUSED = {
    "Mamba": ({"state_size": 4}, "layers of type linear_attention"),
    "Jamba": ({"num_experts": 2, "use_mamba_kernels": False}, "layers of type linear_attention"),
    "Gemma2": ({}, "attn_logit_softcapping=50.0"),
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


def test_attention_sinks_are_refused():
    settings = {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}
    with pytest.raises(UnsupportedModelError, match="GptOssForCausalLM .*sinks"):
        vlmpack.enable(build("GptOss", **settings))


def test_vision_families_not_yet_proven_are_refused():
    text = {**SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    vision = {"depth": 1, "hidden_size": 8, "num_heads": 2, "out_hidden_size": 16, "intermediate_size": 8}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    with pytest.raises(
        UnsupportedModelError, match=r"Qwen2_5_VLForConditionalGeneration .*proven exact so far are llava"
    ):
        vlmpack.enable(transformers.Qwen2_5_VLForConditionalGeneration(config))


def test_a_llava_whose_decoder_cannot_be_packed_is_refused():
    text = transformers.Gemma2Config(**SMALL)
    config = llava().config
    config.text_config = text
    with pytest.raises(UnsupportedModelError, match="LlavaForConditionalGeneration .*attn_logit_softcapping"):
        vlmpack.enable(transformers.LlavaForConditionalGeneration(config))


def test_a_reward_model_is_judged_by_its_backbone():
    with pytest.raises(UnsupportedModelError, match="RewardModel .*attn_logit_softcapping"):
        vlmpack.enable(vlmpack.RewardModel.from_backbone(build("Gemma2")))


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
        vlmpack.enable(build(family))


def test_a_window_that_only_the_mask_knows_is_refused():
    settings = {"sliding_window": 3, "num_local_experts": 2, "num_experts_per_tok": 1}
    with pytest.raises(
        vlmpack.AttentionError, match="PhimoeAttention 0 has a sliding window but does not tell its size"
    ):
        vlmpack.enable(build("Phimoe", **settings))


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
