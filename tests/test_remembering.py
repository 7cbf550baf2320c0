"""Trainers that keep what a frozen tower makes of images: the same losses, one run an image, refusals by name."""

import gc
import weakref
from types import SimpleNamespace
from unittest.mock import Mock

import family_models
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from test_frozen_tower import runs
from test_trainers import curve, dataset, train
from tiny import llama, llava

import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig
from vlmpack.proof.recollection import check_recollection
from vlmpack.support import UnsupportedModelError
from vlmpack.training.config import ConfigError
from vlmpack.training.memory_note import memory_note
from vlmpack.training.remembering import known_features, remember

FROZEN = {"freeze_vision_tower": True, "optim": "sgd"}
KEPT = {**FROZEN, "cache_vision_features": 1e-3}
EPOCHS = {"steps": 6, "per_device_train_batch_size": 4}  # two epochs of twelve rows, eight with an image each


def tower_of(model):
    return vlmpack.model.unwrapped(model).get_encoder("image")


def weights_of(model) -> str:
    return tower_of(model).vlmpack_features.weights(tower_of(model))


def trainer(folder, model=None, ref_model=None, peft_config=None, **settings):
    settings = {"output_dir": str(folder), "report_to": [], **KEPT, **settings}
    model = llava().float() if model is None else model
    rows = dataset(4)
    return DPOTrainer(model, DPOConfig(**settings), train_dataset=rows, ref_model=ref_model, peft_config=peft_config)


@pytest.mark.parametrize("kind", ["dpo", "reward"])
@pytest.mark.parametrize("checkpoints", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["kept", "recomputed"])
def test_losses_over_two_epochs_are_those_without_and_an_image_runs_once(kind, checkpoints, tmp_path):
    settings = {**EPOCHS, "max_tokens": 40, "gradient_checkpointing": checkpoints}
    expected = train(kind, tmp_path, **settings, **FROZEN)
    model = llava()
    seen = runs(model)
    actual = train(kind, tmp_path, model=model, **settings, **KEPT)
    torch.testing.assert_close(curve(actual), curve(expected), rtol=0, atol=1e-6)
    assert curve(actual).std() > 1e-3
    assert sum(seen) == 8  # images; the reference, a copy with equal weights, asks for none
    for (name, a), b in zip(actual.model.named_parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def test_the_copy_that_is_the_reference_runs_on_what_the_policy_does_not_know(tmp_path):
    made = trainer(tmp_path)
    policy, reference = (tower_of(model).vlmpack_features for model in (made.model, made.ref_model))
    assert policy.store is reference.store
    assert weights_of(made.model) == weights_of(made.ref_model)


def test_a_reference_with_another_tower_keeps_features_of_its_own(tmp_path):
    made = trainer(tmp_path, ref_model=llava(seed=1).float())
    policy, reference = (tower_of(model).vlmpack_features for model in (made.model, made.ref_model))
    assert policy.store is reference.store  # one limit for both
    assert weights_of(made.model) != weights_of(made.ref_model)
    alike = trainer(tmp_path, ref_model=llava().float())
    assert weights_of(alike.ref_model) == weights_of(made.model)


def test_loading_other_weights_into_the_tower_begins_anew(tmp_path):
    made = trainer(tmp_path)
    before = weights_of(made.model)
    made.model.load_state_dict(llava(seed=1).float().state_dict())
    changed = weights_of(made.model)
    made.model.load_state_dict(llava().float().state_dict())
    assert changed != before == weights_of(made.model) == weights_of(made.ref_model)


@pytest.mark.parametrize("kind, settings", [("dpo", {"precompute_ref_log_probs": True}), ("reward", {})])
def test_asking_the_reference_first_and_evaluating_find_what_training_keeps(kind, settings, tmp_path):
    settings = {"steps": 3, "per_device_train_batch_size": 4, "max_tokens": 40, **settings}
    plain = train(kind, tmp_path / "plain", **settings, **FROZEN)
    model = llava()
    seen = runs(model)
    kept = train(kind, tmp_path / "kept", model=model, **settings, **KEPT)
    torch.testing.assert_close(curve(kept), curve(plain), rtol=0, atol=1e-6)
    expected, actual = plain.evaluate(dataset()), kept.evaluate(dataset())
    assert actual["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-6)
    assert actual["eval_rewards/accuracies"] == expected["eval_rewards/accuracies"]
    assert sum(seen) == 8


def test_a_trainer_without_the_option_lets_go_of_what_an_earlier_one_kept(tmp_path):
    model, reference = llava().float(), llava().float()
    store = weakref.ref(tower_of(trainer(tmp_path, model, reference).model).vlmpack_features.store)
    model.requires_grad_(True)
    settings = {"cache_vision_features": None, "max_steps": 1, "save_strategy": "no"}
    made = trainer(tmp_path, model, reference, freeze_vision_tower=False, **settings)
    gc.collect()
    assert store() is None
    assert not [hook for part in (model, reference) for hook in tower_of(part)._load_state_dict_post_hooks]
    assert made.train().global_step == 1  # where the tower's features, if still kept, would be refused


def test_a_trainer_with_the_option_begins_with_a_store_of_its_own_which_the_reference_shares(tmp_path):
    model, reference = llava().float(), llava().float()
    store = weakref.ref(tower_of(trainer(tmp_path, model, reference).model).vlmpack_features.store)
    made = trainer(tmp_path, model, reference, cache_vision_features=2e-3)
    gc.collect()
    assert store() is None
    policy, beside = (tower_of(each).vlmpack_features for each in (made.model, made.ref_model))
    assert policy.store is beside.store
    assert policy.store.limit == int(2e-3 * 2**30)
    with pytest.raises(ConfigError, match="needs a frozen vision tower"):
        trainer(tmp_path, model.requires_grad_(True), freeze_vision_tower=False)
    assert not hasattr(tower_of(model), "vlmpack_features")


def spread(kind, zero_stage=None) -> Accelerator:
    """Stands in for an accelerator that spreads a model over ranks in a certain way."""
    accelerator = Mock(spec=Accelerator, distributed_type=kind)
    plugin = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage)
    accelerator.state = SimpleNamespace(deepspeed_plugin=plugin)
    return accelerator


@pytest.mark.parametrize("kind, zero_stage", [(DistributedType.FSDP, None), (DistributedType.DEEPSPEED, 3)])
def test_ranks_that_gather_the_towers_weights_together_are_refused(kind, zero_stage, tmp_path):
    args = DPOConfig(output_dir=str(tmp_path), **KEPT)
    with pytest.raises(ConfigError, match=r"needs a vision tower that each rank runs when it must, and FSDP and DeepS"):
        remember(llava().requires_grad_(False), args, spread(kind, zero_stage))


def test_ranks_that_each_hold_the_tower_are_not_refused(tmp_path):
    args, model = DPOConfig(output_dir=str(tmp_path), **KEPT), llava().requires_grad_(False)
    for accelerator in (spread(DistributedType.MULTI_GPU), spread(DistributedType.DEEPSPEED, 2)):
        remember(model, args, accelerator)
        assert known_features(model) is not None


@pytest.mark.parametrize("proof", [check_recollection, vlmpack.verify])
def test_a_proof_leaves_the_numbers_of_other_gpus_alone_and_its_own_as_they_were(proof, monkeypatch):
    asked, config = [], llava().config
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(("read", device)))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _state, device: asked.append(("set", device)))
    before = torch.get_rng_state()
    proof(config)
    assert torch.equal(torch.get_rng_state(), before)
    assert asked == [("read", 1), ("set", 1)]


def test_the_user_is_told_what_is_kept_and_a_gpus_peak(tmp_path, capsys, monkeypatch):
    made = trainer(tmp_path, max_steps=1, per_device_train_batch_size=4, save_strategy="no")
    made.train()
    assert "vlmpack: vision features: 2 images kept in 4.47e-07 of 0.001 GiB\n" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 << 29)
    assert memory_note(llava(), torch.device("cuda")) == "peak memory: 2.5 GiB on the fullest of 1 GPUs"
    assert memory_note(llava(), torch.device("cpu")) == ""


def test_without_the_option_nothing_is_kept(tmp_path):
    assert not hasattr(tower_of(trainer(tmp_path, cache_vision_features=None).model), "vlmpack_features")
    assert not hasattr(tower_of(trainer(tmp_path, cache_vision_features=0).model), "vlmpack_features")


def test_a_tower_that_is_trained_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"needs a frozen vision tower, and CLIPVisionModel's embeddings\.class_emb"):
        trainer(tmp_path, freeze_vision_tower=False)


def test_a_merger_that_is_trained_inside_the_tower_is_refused(tmp_path):
    model = family_models.model("qwen2_5_vl").float()
    with pytest.raises(ConfigError, match=r"Qwen2_5_VisionTransformerPretrainedModel's merger.*freeze_multi_modal_pr"):
        trainer(tmp_path, model)
    made = trainer(tmp_path, model, freeze_multi_modal_projector=True)
    assert tower_of(made.model).vlmpack_features is not None


def test_dropout_in_the_tower_is_refused(tmp_path):
    model = llava().float()
    tower_of(model).encoder.layers[1].self_attn.dropout = 0.1
    with pytest.raises(ConfigError, match=r"CLIPVisionModel's encoder\.layers\.1\.self_attn\.dropout is 0\.1; set"):
        trainer(tmp_path, model, disable_dropout=False)
    trainer(tmp_path, model)


def test_an_adapter_in_the_tower_is_refused_and_one_beside_it_is_not(tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
    with pytest.raises(ConfigError, match=r"CLIPVisionModel's encoder\.layers\.0\.self_attn\.\w+ has an adapter"):
        trainer(tmp_path, peft_config=peft.LoraConfig(r=2, target_modules=r".*(q_proj|v_proj)"))
    decoder = peft.LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)")
    assert tower_of(trainer(tmp_path, peft_config=decoder).model).vlmpack_features is not None


def test_a_model_without_a_tower_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is for vision towers, and LlamaForCausalLM \(llama\) has none"):
        trainer(tmp_path, llama().float(), freeze_vision_tower=False)


def test_a_family_whose_features_cannot_be_divided_by_image_is_refused_by_name(tmp_path):
    model = family_models.model("mistral3").float()
    with pytest.raises(UnsupportedModelError, match=r"mistral3's vision tower .* PixtralVisionModel makes \[1, \d+, "):
        trainer(tmp_path, model)


def test_a_tower_that_mixes_images_is_refused_by_its_values(monkeypatch):
    from transformers.models.clip.modeling_clip import CLIPVisionModel

    forward = CLIPVisionModel.forward

    def mixing(self, pixel_values, **options):
        return forward(self, pixel_values + pixel_values.mean(), **options)

    monkeypatch.setattr(CLIPVisionModel, "forward", mixing)
    with pytest.raises(
        UnsupportedModelError, match=r"llava's log-probabilities differ by .* does not make the same of"
    ):
        check_recollection(llava().config)


@pytest.mark.parametrize(
    "settings", [{"cache_vision_features": -1.0}, {"cache_vision_features": 1.0, "packing": False}]
)
def test_a_size_below_zero_and_computing_without_packs_are_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"cache_vision_features=.* with packing=.*; it is GiB of memory"):
        RewardConfig(output_dir=str(tmp_path), **settings)
