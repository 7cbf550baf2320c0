"""The trainers: the same training packed and unpacked, and everything a Trainer does around it."""

import json
import math
from copy import deepcopy

import pytest
import torch
from tiny import EOS, llama, llava, sample
from transformers import OPTConfig, OPTForCausalLM

import scenes
import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer, unpacked
from vlmpack.costs.survey import DatasetError
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
        torch.nn.init.normal_(reward_model.score.weight)
        trainer = RewardTrainer(
            reward_model, RewardConfig(**common, **settings), train_dataset=rows, callbacks=callbacks
        )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def curve(trainer) -> torch.Tensor:
    return torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


@pytest.mark.parametrize("kind", ["dpo", "reward"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
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


def test_evaluation_weighs_every_pair_alike_whatever_the_batch(tmp_path):
    trainer = train("reward", tmp_path, steps=2)
    rows = dataset(7)
    results = []
    for batch, max_tokens in ((1, 30), (3, 27), (7, 8192)):
        trainer.args.per_device_eval_batch_size = batch
        trainer.data_collator = type(trainer.data_collator)(None, max_tokens)
        results.append(trainer.evaluate(rows))
    rewards = unpacked.rewards(trainer.model, rows).detach()
    first, losses = 0, []
    for row in rows:
        losses.append(
            vlmpack.losses.bradley_terry(rewards[first : first + len(row.response_ids)], torch.tensor(row.pairs))
        )
        first += len(row.response_ids)
    for result in results:
        assert result["eval_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
        assert 0 <= result["eval_rewards/accuracies"] <= 1
    assert {"eval_rewards/chosen", "eval_rewards/margins", "eval_accuracy", "eval_runtime"} <= set(results[0])


def test_predictions_and_compute_metrics_get_one_row_a_pair(tmp_path):
    trainer = train("dpo", tmp_path, steps=2)
    trainer.compute_metrics = lambda p: {"right": float((p.predictions[:, 0] > p.predictions[:, 1]).mean())}
    rows = dataset(5)
    output = trainer.predict(rows)
    assert output.predictions.shape == (sum(len(row.pairs) for row in rows), 2)
    assert output.metrics["test_right"] == pytest.approx(output.metrics["test_rewards/accuracies"])


def test_several_evaluation_sets_and_the_best_model_work_as_in_any_trainer(tmp_path):
    config = RewardConfig(
        output_dir=str(tmp_path), max_steps=6, learning_rate=10.0, eval_strategy="steps", eval_steps=2, save_steps=2, report_to=[],
        load_best_model_at_end=True, metric_for_best_model="eval_a_loss", greater_is_better=True, disable_tqdm=True, save_total_limit=3,
    )  # fmt: skip
    model = RewardModel.from_backbone(llava().float())
    trainer = RewardTrainer(model, config, train_dataset=dataset(), eval_dataset={"a": dataset(3), "b": dataset(4)})
    trainer.train()
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {"eval_a_loss", "eval_b_loss", "eval_b_rewards/accuracies"} <= logged
    best = RewardModel.from_pretrained(trainer.state.best_model_checkpoint)
    assert trainer.state.best_global_step == 2  # 'best' is the worst here: what the first, far too large step left
    for a, b in zip(trainer.model.parameters(), best.parameters(), strict=True):
        assert torch.equal(a, b)


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
    before = model.score.weight.detach().clone()
    with pytest.raises(ConfigError, match=r"add modules_to_save=\['score'\]"):
        RewardTrainer(model, config, train_dataset=dataset(), peft_config=lora())
    trainer = RewardTrainer(model, config, train_dataset=dataset(), peft_config=lora(modules_to_save=["score"]))
    trainer.train()
    trained = dict(trainer.model.named_parameters())
    (head,) = [p for name, p in trained.items() if "score.modules_to_save" in name]
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


def test_missing_margins_are_an_error_at_the_start(tmp_path):
    rows = [vlmpack.Sample(torch.tensor([1]), (torch.tensor([2]), torch.tensor([3])), ((0, 1),))]
    with pytest.raises(DatasetError, match="use_margin=True, but 1 training rows have neither .* row 0"):
        train("reward", tmp_path, rows=rows, use_margin=True)


def test_a_row_that_fits_only_when_it_is_shared_is_refused_at_the_start(tmp_path):
    train("reward", tmp_path, steps=1, max_tokens=27)
    with pytest.raises(
        DatasetError,
        match=r"rows have more tokens than max_tokens=27 with sharing='none' and padding=False, the first of them row",
    ):
        train("reward", tmp_path, steps=1, max_tokens=27, sharing="none")


def test_a_row_that_can_no_longer_be_read_when_it_is_evaluated_is_named_and_the_others_counted(tmp_path, capsys):
    rows, broken = dataset(120), []

    class Reader:
        def measure(self, row):
            return rows[row].lengths

        def __call__(self, row):
            if row in broken:
                raise ValueError(f"picture {row} is gone")
            return rows[row]

    config = RewardConfig(output_dir=str(tmp_path), report_to=[], disable_tqdm=True, max_steps=1)
    model = RewardModel.from_backbone(llava().float())
    trainer = RewardTrainer(model, config, train_dataset=list(range(12)), processing_class=Reader())
    whole = trainer.predict(list(range(120))).predictions
    broken.append(5)
    left = trainer.predict(list(range(120))).predictions
    first, lost = sum(len(row.pairs) for row in rows[:5]), len(rows[5].pairs)
    torch.testing.assert_close(
        torch.tensor(left), torch.tensor([*whole[:first].tolist(), *whole[first + lost :].tolist()]), rtol=0, atol=1e-4
    )
    said = capsys.readouterr().out
    assert "1 could not be read" in said and "row 5: picture 5 is gone" in said
    broken.append(6)
    with pytest.raises(DatasetError, match="2 of the 120 rows read so far cannot be read"):
        trainer.evaluate(list(range(120)))


def test_missing_margins_of_one_of_several_evaluation_sets_are_named(tmp_path):
    bare = vlmpack.Sample(torch.tensor([1]), (torch.tensor([2]), torch.tensor([3])), ((0, 1),))
    config = RewardConfig(output_dir=str(tmp_path), report_to=[], use_margin=True)
    model = RewardModel.from_backbone(llava().float())
    with pytest.raises(DatasetError, match="1 bare rows have neither scores nor a margin"):
        RewardTrainer(model, config, train_dataset=dataset(3), eval_dataset={"good": dataset(3), "bare": [bare]})


def test_ranks_that_read_different_rows_are_refused(monkeypatch):
    from vlmpack.costs.survey import survey
    from vlmpack.training import loading

    rows = survey(dataset(3), None, name="training", quiet=True)
    loading._demand_agreement(rows)
    monkeypatch.setattr(loading, "gather_object", lambda own: [*own, "another rank's"])
    with pytest.raises(DatasetError, match="ranks see different rows"):
        loading._demand_agreement(rows)


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


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (RewardConfig, {"max_tokens": 0}, "max_tokens=0 holds nothing"),
        (RewardConfig, {"max_length": 1}, "max_length=1 leaves no room"),
        (RewardConfig, {"attention": "flash"}, "attention='flash' is not one of auto, dense, paths"),
        (RewardConfig, {"max_bad_rows": 2.0}, "give 0 to 1"),
        (RewardConfig, {"auto_find_batch_size": True}, "lower max_tokens instead"),
        (RewardConfig, {"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0: its noise depends on the length"),
        (RewardConfig, {"label_smoothing_factor": 0.1}, "DPOConfig has label_smoothing"),
        (RewardConfig, {"bf16_full_eval": True}, "use bf16"),
        (RewardConfig, {"dataloader_in_order": False}, "would lose rows"),
        (RewardConfig, {"train_sampling_strategy": "batch_rebalance"}, "ranks are always kept level"),
        (RewardConfig, {"sharing": "some"}, "sharing='some' is not one of all, prompt, none, pair"),
        (RewardConfig, {"packing": False, "padding": True}, "packing=False computes without packs"),
        (RewardConfig, {"loss_type": "plackett_luce", "sharing": "pair"}, "which plackett_luce needs whole"),
        (RewardConfig, {"remove_unused_columns": True}, "remove_unused_columns=True would take away"),
        (DPOConfig, {"loss_type": "dpo"}, "loss_type=.dpo. is not one of sigmoid, "),
        (DPOConfig, {"label_smoothing": 0.7}, "label_smoothing=0.7"),
        (DPOConfig, {"beta": 0.0}, "beta=0.0 must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config(output_dir=str(tmp_path), **settings)


def test_a_model_that_is_its_own_reference_is_refused(tmp_path):
    model = llama().float()
    with pytest.raises(ConfigError, match="ref_model is the model itself"):
        DPOTrainer(
            model,
            DPOConfig(output_dir=str(tmp_path), report_to=[]),
            ref_model=model,
            train_dataset=dataset(2, images=False),
        )


def test_models_and_processors_of_the_wrong_kind_are_told_what_to_be(tmp_path):
    with pytest.raises(
        ConfigError, match=r"the model is a LlamaForCausalLM; give it a head with RewardModel\.from_backbone"
    ):
        RewardTrainer(llama(), RewardConfig(output_dir=str(tmp_path), report_to=[]))
    with pytest.raises(ConfigError, match="RewardModel has no language-model head"):
        DPOTrainer(RewardModel.from_backbone(llama()), DPOConfig(output_dir=str(tmp_path), report_to=[]))
    with pytest.raises(
        ConfigError, match=r"processing_class is a TokenizersBackend, .*PreferenceProcessor\(processor\)"
    ):
        config = DPOConfig(output_dir=str(tmp_path), report_to=[])
        DPOTrainer(llama().float(), config, train_dataset=[], processing_class=scenes.tokenizer())


def test_trainable_float16_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trainable weights are float16 .*load the model with dtype=torch\.float32"):
        DPOTrainer(llama().half(), DPOConfig(output_dir=str(tmp_path), report_to=[]))


def test_an_adapter_with_a_frozen_head_is_refused(tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
    model = peft.get_peft_model(RewardModel.from_backbone(llava().float()), lora())
    with pytest.raises(ConfigError, match=r"the head \(score\) is frozen"):
        RewardTrainer(model, RewardConfig(output_dir=str(tmp_path), report_to=[]))


def test_policy_and_reference_agree_before_training_in_mixed_precision_too(tmp_path):
    config = DPOConfig(output_dir=str(tmp_path), report_to=[], disable_tqdm=True, bf16=True, use_cpu=True)
    scores = DPOTrainer(llava().float(), config, train_dataset=dataset()).evaluate(dataset(3))
    assert scores["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert scores["eval_rewards/margins"] == 0


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
