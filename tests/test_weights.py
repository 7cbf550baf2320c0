"""The attention that a layer really pays, seen through the backend that trains."""

from dataclasses import replace

import pytest
import torch
import transformers
from tiny import double, llama, llava, picture, sample, text_config, woven
from typecheck import unchecked

import vlmpack
from vlmpack import masks
from vlmpack.forest import Forest
from vlmpack.inspect import InspectError, attention_weights
from vlmpack.kernels import weighing
from vlmpack.proof.miniature import miniature

MADE = [sample([1, 2, 3], [[3, 1], [2, 4, 0], [2, 5]], [(0, 1)]), sample([5, 1], [[3, 2], [4]], [(0, 1)])]


def packed(samples=MADE):
    (pack,) = vlmpack.pack(samples)
    return pack


def eager(model, pack, response, layer, head):
    """The weights of a response on its own, by transformers' eager attention; and where its tokens stand in the pack."""
    model.set_attn_implementation("eager")
    end, tokens = pack.ends[response].item(), []
    while end >= 0:
        tokens.append(end)
        end = pack.previous[0, end].item()
    tokens = tokens[::-1]
    with torch.no_grad():
        outputs = model(pack.input_ids[:, tokens], output_attentions=True, use_cache=False)
    return outputs.attentions[layer][0, head], tokens


@pytest.mark.parametrize("backend", ["dense", "paths", "flex"])
def test_they_are_those_of_every_response_on_its_own(backend):
    pack = packed()
    weights = attention_weights(vlmpack.enable(llama(), attention=backend), pack, layer=1, head=3)
    for response in range(pack.responses):
        alone, tokens = eager(llama(), pack, response, layer=1, head=3)
        torch.testing.assert_close(weights[tokens][:, tokens], alone, rtol=0, atol=1e-6)  # its softmax is in float32


@pytest.mark.parametrize("backend", ["dense", "paths"])
def test_outside_the_mask_they_are_exactly_0_and_rows_sum_to_1(backend):
    pack = packed([woven([1, picture(1), 2], [[3, 1], [2, 4]], [(0, 1)]), woven([4, picture(2), 2], [[3]], [])])
    weights = attention_weights(vlmpack.enable(llava(), attention=backend), pack, layer=0, head=2)
    assert (weights[~masks.dense(pack.reach[0])] == 0).all()
    assert (weights[masks.dense(pack.reach[0])] > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(pack.tokens, dtype=torch.float64))


def test_a_leak_is_seen():
    pack = packed()
    chain = Forest((-1, *range(len(pack.forest.parents) - 1)), pack.forest.lengths)
    leaking = replace(pack, forest=chain, reach=masks.reach(chain)[None])
    weights = attention_weights(vlmpack.enable(llama()), leaking)
    outside = weights[~masks.dense(pack.reach[0])]
    assert (outside > 0).sum() == 14 * 15 // 2 - 48  # 14 tokens see all before them, of which 48 pairs are allowed
    assert outside.max() > 0.01


def test_a_window_cuts_what_a_layer_sees():
    settings = transformers.MistralConfig(**{**text_config().to_dict(), "sliding_window": 2, "model_type": "mistral"})
    model = vlmpack.enable(double(transformers.MistralForCausalLM(settings)))
    pack = packed()
    weights = attention_weights(model, pack)
    near = pack.position_ids[0][:, None] - pack.position_ids[0][None, :] < 2
    torch.testing.assert_close(weights > 0, masks.dense(pack.reach[0]) & near)


def tiny_of(family):
    """A small model of a family, of which two query heads share a key head, or all."""
    torch.manual_seed(0)
    config = miniature(transformers.AutoConfig.for_model(family))
    if family == "gemma2":
        config.attn_logit_softcapping = 0.005  # low enough to matter for the scores of so small a model
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2"], ids=["sinks", "caps"])
def test_sinks_and_caps_take_part(family):
    pack, model = packed(), vlmpack.enable(tiny_of(family))
    if family == "gpt_oss":
        torch.nn.init.constant_(model.model.layers[1].self_attn.sinks, 2.0)
    weights = attention_weights(model, pack, layer=1, head=1)
    for response in range(pack.responses):
        alone, tokens = eager(model, pack, response, layer=1, head=1)
        torch.testing.assert_close(weights[tokens][:, tokens], alone[:, : len(tokens)], rtol=0, atol=1e-5)
    assert (weights.sum(dim=1) < 0.9).all() == (family == "gpt_oss")  # the sinks take the rest


def test_a_fault_in_how_heads_are_grouped_is_seen(monkeypatch):
    pack, model = packed(), vlmpack.enable(tiny_of("gemma2"))
    right = attention_weights(model, pack, head=1)
    wrong = lambda tokens, heads: tokens.repeat(1, heads // tokens.shape[1], 1, 1)  # noqa: E731
    monkeypatch.setattr(weighing, "repeat_heads", wrong)
    assert (attention_weights(model, pack, head=1) - right).abs().max() > 1e-4


def test_modes_of_the_parts_stay_what_they_were():
    model = vlmpack.enable(llava())
    model.train()
    model.model.vision_tower.eval()
    before = [module.training for module in model.modules()]
    attention_weights(model, packed())
    assert [module.training for module in model.modules()] == before
    assert len(set(before)) == 2


def test_nothing_is_dropped():
    torch.manual_seed(0)
    model = vlmpack.enable(double(transformers.LlamaForCausalLM(text_config(attention_dropout=0.5)))).train()
    assert torch.equal(attention_weights(model, packed(), layer=1), attention_weights(model, packed(), layer=1))


def test_a_reward_model_shows_its_backbone():
    reward_model = vlmpack.RewardModel.from_backbone(llama())
    pack = packed()
    reward_model(pack)
    language = attention_weights(vlmpack.enable(llama()), pack)
    torch.testing.assert_close(attention_weights(reward_model, pack), language)
    assert reward_model.training


def test_what_is_not_there_is_named():
    model, pack = vlmpack.enable(llama()), packed()
    with pytest.raises(InspectError, match="there is no layer 2; the model has layers 0 to 1"):
        attention_weights(model, pack, layer=2)
    with pytest.raises(InspectError, match="there is no head 4; the layer has query heads 0 to 3"):
        attention_weights(model, pack, head=4)
    with pytest.raises(InspectError, match="a Sample has no mask to attend under; give a Pack"), unchecked():
        attention_weights(model, MADE[0])
    long = packed([sample([1, 2], [[3] * 4095, [4]], [])])
    with pytest.raises(InspectError, match="the pack has 4,098 tokens; give one of at most 4,096, of a row or two"):
        attention_weights(model, long)
