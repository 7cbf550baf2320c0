"""The trainers: the same training packed and unpacked, and everything a Trainer does around it."""

import json
import math
from copy import deepcopy

import pytest
import torch
from tiny import EOS, llama, llava, sample
from transformers import OPTConfig, OPTForCausalLM

import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer, unpacked
from vlmpack.dropout import disable_dropout
from vlmpack.training.config import ConfigError
from vlmpack.training.restore import CheckpointError, restore
from vlmpack.training.task import Task


def dataset(count: int = 12, images: bool = True) -> list:
    """Samples of different sizes; every third has no image."""
    made = []
    for k in range(count):
        responses = [[1 + (k + r) % 5] * (1 + (k * r) % 3) + [EOS] for r in range(2 + k % 4)]
        pairs = [(0, r) for r in range(1, len(responses))]
        made.append(sample([1 + k % 7, 2, 3][: 1 + k % 3], responses, pairs, int(images and k % 3 != 0), seed=k))
    return made


def train(kind: str, folder, model=None, rows=None, steps: int = 20, resume=None, callbacks=None, **settings):
    settings = {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "save_strategy": "no", **settings}
    common = {"output_dir": str(folder), "max_steps": steps, "logging_steps": 1, "report_to": [], "disable_tqdm": True}
    model = (llava() if model is None else model).float()
    rows = dataset() if rows is None else rows
    if kind == "dpo":
        trainer = DPOTrainer(model, DPOConfig(**common, **settings), train_dataset=rows, callbacks=callbacks)
    else:
        reward_model = model if isinstance(model, RewardModel) else RewardModel.from_backbone(model)
        torch.manual_seed(7)
        torch.nn.init.normal_(reward_model.reward_head.score.weight)
        trainer = RewardTrainer(
            reward_model, RewardConfig(**common, **settings), train_dataset=rows, callbacks=callbacks
        )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def curve(trainer) -> torch.Tensor:
    return torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        ("dpo", "sgd"),
        ("reward", "adamw_torch"),
        pytest.param("dpo", "adamw_torch", marks=pytest.mark.slow),
        pytest.param("reward", "sgd", marks=pytest.mark.slow),
    ],
)
def test_packing_and_max_tokens_change_no_loss_and_no_parameter_over_20_steps(kind, optimizer, tmp_path):
    settings = {"optim": optimizer, "learning_rate": 1e-2 if optimizer == "sgd" else 1e-3}
    expected = train(kind, tmp_path, packing=False, **settings)
    assert len(curve(expected)) == 20
    assert curve(expected).std() > 1e-3  # it does train
    for max_tokens, attention in ((27, "dense"), (27, "paths"), (8192, "dense"), (8192, "paths")):
        packed = train(kind, tmp_path, max_tokens=max_tokens, attention=attention, **settings)
        torch.testing.assert_close(curve(packed), curve(expected), rtol=0, atol=1e-4)
        for (name, a), b in zip(packed.model.named_parameters(), expected.model.parameters(), strict=True):
            if optimizer == "sgd" or "k_proj.bias" not in name:  # its gradient is 0, and Adam divides noise by noise
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_accumulation_weighs_every_pair_of_the_step_alike(kind, tmp_path):
    whole = train(kind, tmp_path, optim="sgd", per_device_train_batch_size=6)
    parts = train(kind, tmp_path, optim="sgd", per_device_train_batch_size=2, gradient_accumulation_steps=3)
    torch.testing.assert_close(curve(parts), curve(whole), rtol=0, atol=1e-5)


def test_the_logged_loss_is_the_mean_over_the_pairs_of_the_step(tmp_path):
    rows = dataset(4)
    model = RewardModel.from_backbone(llava())
    trainer = train("reward", tmp_path, model=model, rows=rows, steps=1, learning_rate=0.0, max_tokens=27)
    rewards = unpacked.rewards(trainer.model, rows).detach()
    pairs, first = [], 0
    for row in rows:
        pairs += [(first + w, first + r) for w, r in row.pairs]
        first += len(row.response_ids)
    losses = vlmpack.losses.bradley_terry(rewards, torch.tensor(pairs))
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    chosen, rejected = rewards[torch.tensor(pairs)].unbind(-1)
    assert entry["rewards/accuracies"] == pytest.approx((chosen > rejected).float().mean().item())
    assert entry["rewards/margins"] == pytest.approx((chosen - rejected).mean().item(), rel=1e-4)
    assert entry["rewards/chosen"] == pytest.approx(chosen.mean().item(), rel=1e-4)


def test_metrics_have_trl_names(tmp_path):
    entry = train("dpo", tmp_path, steps=1).state.log_history[0]
    names = {
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
    }
    assert names <= set(entry)
    assert entry["loss"] == pytest.approx(math.log(2), abs=1e-5)  # policy and reference still agree


@pytest.mark.parametrize("at", [2, 3], ids=["inside an epoch", "between epochs"])
@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(kind, at, tmp_path):
    settings = {
        "save_strategy": "steps",
        "save_steps": at,
        "per_device_train_batch_size": 5,
        "lr_scheduler_type": "cosine",
    }
    straight = train(kind, tmp_path / "a", steps=6, **settings)
    resumed = train(kind, tmp_path / "a", steps=6, resume=str(tmp_path / "a" / f"checkpoint-{at}"), **settings)
    assert json.loads((tmp_path / "a" / f"checkpoint-{at}" / "trainer_state.json").read_text())["global_step"] == at
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_checkpoints_are_safetensors_and_load_as_a_reward_model(tmp_path):
    trainer = train("reward", tmp_path, steps=2, save_strategy="steps", save_steps=2)
    saved = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert "model.safetensors" in saved
    assert not any(name.startswith("pytorch_model") for name in saved)
    loaded = vlmpack.enable(RewardModel.from_pretrained(str(tmp_path / "checkpoint-2")))
    (pack,) = vlmpack.pack(dataset(3))
    assert torch.equal(loaded(pack), trainer.model(pack))


def test_the_reference_is_the_model_as_it_was_given(tmp_path):
    model = llava().float()
    before = deepcopy(model)
    trainer = train("dpo", tmp_path, model=model, steps=3)
    (pack,) = vlmpack.pack(dataset(3))
    expected = unpacked.response_logps(before, dataset(3)).detach()
    torch.testing.assert_close(trainer.ask(Task(pack, [0, 1, 2])), expected)
    assert not any(p.requires_grad for p in trainer.ref_model.parameters())
    assert (vlmpack.response_logps(trainer.model, pack) - expected).abs().max() > 1e-4


def lora(**settings):
    peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
    return peft.LoraConfig(r=4, target_modules=r".*language_model.*(q_proj|v_proj)", **settings)


def test_with_an_adapter_the_reference_is_the_model_without_it(tmp_path):
    rows = dataset()
    config = DPOConfig(output_dir=str(tmp_path), max_steps=4, learning_rate=0.1, report_to=[], disable_tqdm=True)
    model = llava().float()
    before = deepcopy(model)
    trainer = DPOTrainer(model, config, train_dataset=rows, peft_config=lora())
    assert trainer.ref_model is None
    trainer.train()
    (pack,) = vlmpack.pack(rows[:3])
    torch.testing.assert_close(trainer.ask(Task(pack, [0, 1, 2])), unpacked.response_logps(before, rows[:3]).detach())
    assert (
        vlmpack.response_logps(trainer.model, pack).detach() - trainer.ask(Task(pack, [0, 1, 2]))
    ).abs().max() > 1e-4
    packed = vlmpack.response_logps(trainer.model, pack)
    torch.testing.assert_close(packed, unpacked.response_logps(trainer.model, rows[:3]))


def test_a_reward_adapter_trains_the_head_too(tmp_path):
    config = RewardConfig(output_dir=str(tmp_path), max_steps=3, learning_rate=0.1, report_to=[], disable_tqdm=True)
    model = RewardModel.from_backbone(llava().float())
    before = model.reward_head.score.weight.detach().clone()
    with pytest.raises(ConfigError, match=r"add modules_to_save=\['reward_head'\]"):
        RewardTrainer(model, config, train_dataset=dataset(), peft_config=lora())
    trainer = RewardTrainer(model, config, train_dataset=dataset(), peft_config=lora(modules_to_save=["reward_head"]))
    trainer.train()
    trained = dict(trainer.model.named_parameters())
    (head,) = [p for name, p in trained.items() if "reward_head.modules_to_save" in name]
    assert not torch.equal(head, before)
    (pack,) = vlmpack.pack(dataset(3))
    torch.testing.assert_close(
        trainer.model(pack), unpacked.rewards(vlmpack.model.unwrapped(trainer.model), dataset(3))
    )


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = train("dpo", tmp_path, steps=4, optim="sgd")
    saved = train("dpo", tmp_path, steps=4, optim="sgd", gradient_checkpointing=True)
    torch.testing.assert_close(curve(saved), curve(plain), rtol=0, atol=1e-6)


def test_margins_ask_for_distance(tmp_path):
    plain = train("reward", tmp_path, steps=1, learning_rate=0.0, max_tokens=27)
    apart = train("reward", tmp_path, steps=1, learning_rate=0.0, max_tokens=27, use_margin=True)
    assert curve(apart)[0] > curve(plain)[0] + 0.1
    alone = train("reward", tmp_path, steps=1, learning_rate=0.0, packing=False, use_margin=True)
    torch.testing.assert_close(curve(alone), curve(apart), rtol=0, atol=1e-5)


def test_the_saving_is_said_once_at_the_start(tmp_path, capsys):
    train("reward", tmp_path, steps=1)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("vlmpack: packing")]
    lengths = [row.lengths for row in dataset()]
    before, after = sum(each.unpacked for each in lengths), sum(each.packed for each in lengths)
    assert len(said) == 1
    assert f"packing 12 prompts with 42 responses (30 pairs): tokens {before:,} → {after:,}" in said[0]
    assert "vision passes 28 → 8" in said[0]
    assert "predicted FLOPs" in said[0]


def test_a_frozen_vision_tower_keeps_no_activations():
    model = vlmpack.enable(llava())
    (pack,) = vlmpack.pack(dataset(3))
    kept = {}
    for frozen in (False, True):
        model.model.vision_tower.requires_grad_(not frozen)
        features = []
        hook = model.model.vision_tower.register_forward_hook(lambda *a, f=features: f.append(a[2].hidden_states[-1]))
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            vlmpack.response_logps(model, pack)
        hook.remove()
        kept[frozen] = sum(saved)
        assert features[0].requires_grad is not frozen
    assert kept[True] < kept[False]


def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model = llama().float()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of LlamaForCausalLM, such as model\.layers\.0\.mlp"):
        restore(model, str(tmp_path))


def test_dropout_that_a_module_keeps_as_a_number_is_off_too():
    config = OPTConfig(
        vocab_size=23,
        hidden_size=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        dropout=0.5,
    )
    model = vlmpack.enable(OPTForCausalLM(config)).train()
    disable_dropout(model)
    (pack,) = vlmpack.pack([sample([1, 2], [[3], [4]], [(0, 1)])])
    assert torch.equal(vlmpack.response_logps(model, pack), vlmpack.response_logps(model, pack))


def test_workers_prepare_the_same_packs(tmp_path):
    alone = train("reward", tmp_path, steps=3)
    helped = train("reward", tmp_path, steps=3, dataloader_num_workers=2)
    torch.testing.assert_close(curve(helped), curve(alone), rtol=0, atol=1e-6)


def test_dropout_is_off_unless_asked_for(tmp_path):
    model = llama().float()
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    rows = dataset(images=False)
    packed, alone = (
        train("dpo", tmp_path, model=deepcopy(model), rows=rows, steps=2, packing=p) for p in (True, False)
    )
    torch.testing.assert_close(curve(packed), curve(alone), rtol=0, atol=1e-5)
