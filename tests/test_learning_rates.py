"""The vision tower's own learning rate: who gets it, that the step is taken with it, and where it cannot work."""

from types import SimpleNamespace

import family_models
import pytest
import torch
from test_trainers import dataset, train
from tiny import llama, llava
from transformers import Trainer

from vlmpack import DPOConfig, DPOTrainer
from vlmpack.training.config import ConfigError
from vlmpack.training.learning_rates import check_vision_rate, parameter_groups, with_groups

GROUPS = {
    "llava": {
        (None, 0.1): {"lm_head.weight", "model.multi_modal_projector.linear_1.weight"},
        (None, 0.0): {"model.language_model.norm.weight", "model.multi_modal_projector.linear_1.bias"},
        (1e-6, 0.1): {"model.vision_tower.encoder.layers.0.mlp.fc1.weight"},
        (1e-6, 0.0): {"model.vision_tower.encoder.layers.0.mlp.fc1.bias", "model.vision_tower.pre_layrnorm.weight"},
    },
    "qwen2_5_vl": {
        (None, 0.1): {"lm_head.weight", "model.visual.merger.mlp.0.weight"},
        (None, 0.0): {"model.language_model.norm.weight", "model.visual.merger.mlp.0.bias"},
        (1e-6, 0.1): {"model.visual.patch_embed.proj.weight", "model.visual.blocks.0.attn.qkv.weight"},
        (1e-6, 0.0): {"model.visual.blocks.0.attn.qkv.bias"},
    },
}


def named_groups(model, groups) -> dict[tuple, set[str]]:
    """The names in each group, by its rate and its decay."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {(g.get("lr"), g["weight_decay"]): {names[parameter] for parameter in g["params"]} for g in groups}


def grouped(model, vision_lr):
    names = Trainer.get_decay_parameter_names(None, model)
    return parameter_groups(model, weight_decay=0.1, decayed_names=names, vision_lr=vision_lr)


@pytest.mark.parametrize("family", GROUPS)
def test_the_tower_alone_has_its_rate_and_biases_do_not_decay(family):
    model = family_models.model(family)
    groups = named_groups(model, grouped(model, 1e-6))
    assert set(groups) == set(GROUPS[family])
    for key, some in GROUPS[family].items():
        assert some <= groups[key]
    assert sum(map(len, groups.values())) == len(list(model.parameters()))  # each once


def test_without_a_rate_the_groups_are_transformers_own(tmp_path):
    model = llava()
    args = DPOConfig(output_dir=str(tmp_path), weight_decay=0.1, report_to=[])
    expected = Trainer(model, args).create_optimizer().param_groups
    actual = grouped(model, None)
    assert [group["weight_decay"] for group in actual] == [group["weight_decay"] for group in expected] == [0.1, 0.0]
    for ours, theirs in zip(actual, expected, strict=True):
        assert list(map(id, ours["params"])) == list(map(id, theirs["params"]))


def test_frozen_parameters_are_in_no_group():
    model = llava()
    model.model.language_model.requires_grad_(False)
    names = set().union(*named_groups(model, grouped(model, 1e-6)).values())
    assert names == {name for name, _ in model.named_parameters() if "language_model" not in name}


def test_adapters_in_the_tower_have_its_rate():
    peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
    model = peft.get_peft_model(llava(), peft.LoraConfig(r=2, target_modules=r".*q_proj"))
    groups = named_groups(model, grouped(model, 1e-6))
    assert {("vision_tower" in name, rate) for (rate, _), names in groups.items() for name in names} == {
        (True, 1e-6),
        (False, None),
    }


def test_one_step_moves_the_tower_by_its_own_rate(tmp_path):
    settings = {
        "optim": "sgd",
        "learning_rate": 1e-2,
        "max_grad_norm": 1e9,
        "steps": 1,
        "lr_scheduler_type": "constant",
    }
    start = dict(llava().float().named_parameters())
    moved = []
    for vision_lr in (None, 5e-2):
        trained = train("dpo", tmp_path, vision_lr=vision_lr, **settings).model
        moved.append({name: p.detach() - start[name].detach() for name, p in trained.named_parameters()})
    for name, step in moved[0].items():
        factor = 5 if "vision_tower" in name else 1
        rounding = 4e-7 * max(1.0, start[name].abs().max().item())  # a step is the difference of two float32 weights
        torch.testing.assert_close(moved[1][name], factor * step, rtol=1e-2, atol=factor * rounding)
    assert moved[0]["model.vision_tower.encoder.layers.0.mlp.fc1.weight"].abs().max() > 1e-5


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor", "rmsprop", "adagrad"])
def test_schedulers_scale_both_rates_and_the_common_one_is_logged(optimizer, tmp_path):
    trainer = train(
        "dpo", tmp_path, steps=2, optim=optimizer, learning_rate=1e-4, vision_lr=1e-6, lr_scheduler_type="linear"
    )
    rates = {group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates == {1e-4, 1e-6}
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert logged == pytest.approx([1e-4, 0.5e-4])
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.0}


def test_rates_are_kept_by_checkpoints(tmp_path):
    settings = {"vision_lr": 1e-3, "learning_rate": 1e-4, "save_strategy": "steps", "save_steps": 1}
    straight = train("dpo", tmp_path, steps=2, **settings)
    resumed = train("dpo", tmp_path, steps=2, resume=str(tmp_path / "checkpoint-1"), **settings)
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_rate_for_no_tower_is_refused(tmp_path):
    rows = dataset(images=False)
    with pytest.raises(ConfigError, match="vision_lr=1e-06, but the model trains no vision tower"):
        train("dpo", tmp_path, model=llama(), rows=rows, steps=1, vision_lr=1e-6)
    model = llava()
    model.model.vision_tower.requires_grad_(False)
    with pytest.raises(ConfigError, match="trains no vision tower"):
        grouped(model, 1e-6)


@pytest.mark.parametrize("settings", [{"vision_lr": 0.0}, {"vision_lr": 1e-6, "freeze_vision_tower": True}])
def test_rates_that_train_nothing_are_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="to train no vision tower, give the latter alone"):
        DPOConfig(output_dir=str(tmp_path), **settings)


def test_optimizers_that_group_parameters_themselves_are_refused():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]}]
    for kind, arguments in (
        (torch.optim.SGD, {"params": []}),  # as GaLore and APOLLO
        (torch.optim.SGD, {"model": None}),  # as LOMO
        (torch.optim.SGD, {"optimizer_dict": {}}),  # as the layerwise ones
        (lambda: None, {}),  # a factory
    ):
        with pytest.raises(ConfigError, match="optim='some' groups parameters itself and knows no vision_lr"):
            with_groups((kind, arguments), groups, "some")
    assert with_groups((torch.optim.SGD, {"lr": 1.0}), groups, "sgd") == (
        torch.optim.SGD,
        {"lr": 1.0, "params": groups},
    )


def test_an_optimizer_made_elsewhere_is_refused(tmp_path):
    model = llava().float()
    args = DPOConfig(output_dir=str(tmp_path), report_to=[], vision_lr=1e-6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ConfigError, match="vision_lr=1e-06 and an optimizer of your own"):
        DPOTrainer(model, args, train_dataset=dataset(), optimizers=(optimizer, None))
    args.deepspeed_plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(config={"optimizer": {"type": "AdamW"}}))
    with pytest.raises(ConfigError, match="DeepSpeed's configuration makes the optimizer"):
        check_vision_rate(args, (None, None))
    args.deepspeed_plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(config={"zero_optimization": {}}))
    check_vision_rate(args, (None, None))
