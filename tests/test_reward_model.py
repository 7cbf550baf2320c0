"""A reward model is built on any backbone, and comes back from disk as it was."""

import json

import pytest
import torch
from safetensors import safe_open
from tiny import MODELS, llama, llava, sample
from transformers import AutoModelForSequenceClassification

import vlmpack
from vlmpack import RewardModel

MADE = [sample([1, 2], [[3, 1], [2, 4, 0], [1]], [(0, 1)]), sample([5], [[3], [4, 4]], [(0, 1)])]


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_reward_model_scores_bit_for_bit_the_same(name, tmp_path):
    model = vlmpack.enable(RewardModel.from_backbone(MODELS[name]().float()))
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    loaded = RewardModel.from_pretrained(str(tmp_path))  # enables itself
    (pack,) = vlmpack.pack(MADE)
    assert torch.equal(model(pack), loaded(pack))


@pytest.mark.parametrize("name", MODELS)
def test_a_pretrained_model_gets_a_fresh_head(name, tmp_path):
    model = MODELS[name]().float()
    model.save_pretrained(tmp_path)
    reward_model = RewardModel.from_pretrained(str(tmp_path))
    for a, b in zip(reward_model.model.parameters(), model.base_model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert reward_model.reward_head.score.weight.shape == (1, 16)
    assert reward_model.reward_head.score.weight.abs().max() > 0


def test_in_files_weights_are_named_as_in_transformers_sequence_classifiers(tmp_path):
    config = llama().config
    config.num_labels = 1
    classifier = AutoModelForSequenceClassification.from_config(config)
    RewardModel.from_backbone(llama().float()).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(classifier.state_dict())


def test_the_reward_is_read_at_each_response_s_last_token():
    model = vlmpack.enable(RewardModel.from_backbone(llama()))
    whole, longer = (vlmpack.pack([sample([1, 2], [[3, 1], tail], [(0, 1)])])[0] for tail in ([4], [4, 5]))
    same, changed = (model(whole) - model(longer)).abs().tolist()
    assert same == 0
    assert changed > 1e-6


def test_the_backbone_keeps_its_attention_and_the_saved_config_names_no_machine(tmp_path):
    backbone = llava().float()
    model = vlmpack.enable(RewardModel.from_backbone(backbone))
    assert backbone.model.vision_tower.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "vlmpack_reward"
    assert config["backbone_config"]["model_type"] == "llava"
    assert "vlmpack" not in json.dumps(config["backbone_config"])


def test_a_reward_model_in_bfloat16_is_loaded_in_bfloat16(tmp_path):
    RewardModel.from_backbone(llava().bfloat16()).save_pretrained(tmp_path)
    loaded = RewardModel.from_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.reward_head.score.weight.dtype == torch.float32  # the head, always


def test_pickled_weights_are_not_read_unless_asked_for(tmp_path):
    model = RewardModel.from_backbone(llama().float())
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        RewardModel.from_pretrained(str(tmp_path))
    loaded = RewardModel.from_pretrained(str(tmp_path), use_safetensors=False)
    assert torch.equal(loaded.reward_head.score.weight, model.reward_head.score.weight)
