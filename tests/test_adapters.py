"""Adapters of PEFT: trained packed as unpacked, saved, loaded again, quantized underneath; wrong kinds refused."""

from copy import deepcopy

import pytest
import torch
from test_trainers import curve, dataset
from tiny import llava
from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer, unpacked
from vlmpack.model import unwrapped
from vlmpack.training.config import ConfigError

peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")

DECODER = r".*language_model\.layers.*(q|k|v|o|gate|up|down)_proj"
WHERE = {"decoder": DECODER, "decoder and tower": rf"{DECODER}|.*vision_tower.*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"}


def lora(where: str = "decoder", **settings) -> peft.LoraConfig:
    return peft.LoraConfig(r=4, lora_alpha=16, target_modules=WHERE[where], **settings)


def trainer_of(kind: str, folder, model=None, peft_config=None, **settings):
    settings = {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "save_strategy": "no", **settings}
    common = {"output_dir": str(folder), "logging_steps": 1, "report_to": [], "disable_tqdm": True, "optim": "sgd"}
    model = llava().float() if model is None else model
    torch.manual_seed(5)  # of the adapter
    if kind == "dpo":
        config = DPOConfig(**common, **settings)
        return DPOTrainer(model, config, train_dataset=dataset(), peft_config=peft_config)
    reward_model = RewardModel.from_backbone(model)
    torch.nn.init.normal_(reward_model.reward_head.score.weight)
    return RewardTrainer(
        reward_model, RewardConfig(**common, **settings), train_dataset=dataset(), peft_config=peft_config
    )


def head_of(kind: str) -> dict:
    return {"modules_to_save": ["score"]} if kind == "reward" else {}


def adapter_weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def scores(kind: str, model, rows):
    if kind == "dpo":
        return unpacked.response_logps(model, rows).detach()
    return unpacked.rewards(unwrapped(model), rows).detach()


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        pytest.param("dpo", "decoder", marks=pytest.mark.slow),
        pytest.param("reward", "decoder", marks=pytest.mark.slow),
        pytest.param("dpo", "decoder and tower", marks=pytest.mark.slow),
        pytest.param("reward", "decoder and tower", marks=pytest.mark.slow),
    ],
)
def test_an_adapter_trains_packed_as_unpacked_over_20_steps(kind, where, tmp_path):
    trained = []
    for packing in (False, True):
        trainer = trainer_of(kind, tmp_path, peft_config=lora(where, **head_of(kind)), packing=packing, max_steps=20)
        before = adapter_weights(trainer.model)
        trainer.train()
        trained.append((curve(trainer), adapter_weights(trainer.model)))
    (expected, weights), (losses, packed) = trained
    assert expected.std() > 1e-3  # it does train
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-4)
    assert any("vision_tower" in name for name in packed) is (where == "decoder and tower")
    for name, weight in packed.items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    unmoved = [name for name in packed if torch.equal(packed[name], before[name])]
    assert not unmoved


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_a_saved_adapter_gives_the_same_scores_when_it_is_loaded_again(kind, tmp_path):
    trainer = trainer_of(kind, tmp_path, peft_config=lora("decoder and tower", **head_of(kind)), max_steps=4)
    rows = dataset(3)
    untrained = scores(kind, trainer.model, rows)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    expected = scores(kind, trainer.model, rows)
    assert (expected - untrained).abs().max() > 1e-3
    base = llava().float() if kind == "dpo" else RewardModel.from_backbone(llava().float())
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "saved"))
    assert torch.equal(scores(kind, loaded, rows), expected)
    (pack,) = vlmpack.pack(rows)
    vlmpack.enable(loaded)
    packed = vlmpack.response_logps(loaded, pack) if kind == "dpo" else loaded(pack)
    torch.testing.assert_close(packed.detach(), expected)


def test_the_reference_is_the_model_with_the_adapter_off(tmp_path):
    model, rows = llava().float(), dataset(3)
    before = deepcopy(model)
    trainer = trainer_of("dpo", tmp_path, model=model, peft_config=lora("decoder and tower"), max_steps=4, beta=0.1)
    trainer.train()
    assert trainer.ref_model is None
    rewards = 0.1 * (scores("dpo", trainer.model, rows) - scores("dpo", before, rows))
    chosen = [0, 2, 2, 5, 5, 5]  # 2, 3 and 4 responses, of which the first is preferred to each of the others
    assert [len(row.response_ids) for row in rows] == [2, 3, 4]
    assert rewards.abs().max() > 1e-3
    assert trainer.evaluate(rows)["eval_rewards/chosen"] == pytest.approx(rewards[chosen].mean().item(), abs=1e-5)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(
    ("config", "name"),
    [
        (lambda: peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "PromptTuningConfig"),
        (lambda: peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "PrefixTuningConfig"),
        (lambda: peft.PromptEncoderConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "PromptEncoderConfig"),
        (lambda: peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=1, task_type="CAUSAL_LM"), "AdaptionPrompt"),
    ],
)
def test_adapters_of_the_sequence_are_refused_by_name(config, name, packing, tmp_path):
    with pytest.raises(ConfigError, match=rf"{name}\w* puts virtual tokens before the sequence, .* e\.g\. LoraConfig"):
        trainer_of("dpo", tmp_path, peft_config=config(), packing=packing)


def test_an_adapter_of_the_sequence_that_is_on_the_model_already_is_refused_too(tmp_path):
    config = peft.PromptTuningConfig(
        num_virtual_tokens=2, task_type="CAUSAL_LM", token_dim=16, num_layers=2, num_attention_heads=4
    )
    model = peft.get_peft_model(llava().float(), config)
    with pytest.raises(ConfigError, match="PromptTuningConfig puts virtual tokens before the sequence"):
        DPOTrainer(model, DPOConfig(output_dir=str(tmp_path), report_to=[]), train_dataset=dataset())


def test_a_quantized_model_with_an_adapter_trains_packed_as_unpacked(tmp_path):
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes; install vlmpack[qlora]")
    llava().float().save_pretrained(tmp_path / "model")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", "vision_tower", "multi_modal_projector"],
    )
    trained = []
    for packing in (False, True):
        model = LlavaForConditionalGeneration.from_pretrained(
            tmp_path / "model", quantization_config=config, dtype=torch.float32
        )
        assert model.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        model = peft.prepare_model_for_kbit_training(model)
        trainer = trainer_of("dpo", tmp_path, model=model, peft_config=lora(), packing=packing, max_steps=5)
        trainer.train()
        trained.append((curve(trainer), adapter_weights(trainer.model)))
    (expected, weights), (losses, packed) = trained
    assert expected.std() > 1e-4
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-4)
    for name, weight in packed.items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4)
