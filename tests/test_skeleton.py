"""A configuration alone says what a model costs, and what is wrong with it."""

import pytest
from tiny import llama, llava
from transformers import AutoConfig

from vlmpack import RewardModel
from vlmpack.costs.saving import cost_of
from vlmpack.costs.skeleton import SkeletonError, skeleton


@pytest.mark.parametrize("model", [llava, llama])
def test_a_skeleton_costs_what_the_model_does(model, tmp_path):
    whole = model()
    whole.config.save_pretrained(tmp_path)
    bare = skeleton(tmp_path)
    assert {parameter.device.type for parameter in bare.parameters()} == {"meta"}
    assert cost_of(bare) == cost_of(whole)
    assert cost_of(skeleton(tmp_path / "config.json")) == cost_of(whole)


def test_a_reward_model_predicts_no_words(tmp_path):
    model = RewardModel.from_backbone(llava())
    model.config.save_pretrained(tmp_path)
    assert cost_of(skeleton(tmp_path)) == cost_of(model)
    assert cost_of(model).prediction == 0


def test_a_model_of_72_billion_parameters_takes_no_memory(tmp_path):
    sizes = {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64}
    AutoConfig.for_model("qwen2", **sizes, num_key_value_heads=8, vocab_size=152064).save_pretrained(tmp_path)
    assert cost_of(skeleton(tmp_path)).token == pytest.approx(2 * 70.2e9, rel=0.01)


def test_what_is_no_decoder_is_refused(tmp_path):
    AutoConfig.for_model("t5").save_pretrained(tmp_path)
    with pytest.raises(SkeletonError, match="cannot be built|is an encoder-decoder"):
        skeleton(tmp_path)


@pytest.mark.parametrize("path", ["/no/such", "./nothing", "nothing.json", "a/b/c"])
def test_a_path_to_nothing_is_said(path):
    with pytest.raises(SkeletonError, match="there is no .*; give a hub id"):
        skeleton(path)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SkeletonError, match="cannot be built"):
        skeleton(tmp_path)
    assert not (tmp_path / "ran").exists()
