"""`verify=True` changes nothing for an exact model, and refuses an inexact one before the first step."""

import numpy as np
import pytest
import torch
from test_trainers import curve, dataset, train
from tiny import llama, llava

import vlmpack
from vlmpack import (
    DPOConfig,
    DPOTrainer,
    RewardConfig,
    RewardModel,
    RewardTrainer,
    UnsupportedModelError,
    masks,
    plan,
    support,
)
from vlmpack.training.preflight import prepared


def leak_siblings(monkeypatch):
    """`q < reach[k]` removed, for both backends."""
    monkeypatch.setattr(masks, "path_causal", lambda reach: lambda b, h, q, k: k <= q)
    monkeypatch.setattr(plan, "runs", lambda forest: (plan.Run(tuple(range(len(forest.parents))), ()),))


def drawn() -> tuple:
    """What the next random numbers would be; Python's own are not asked, for the type checker draws them."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_an_exact_model_trains_on_as_if_nothing_had_been_asked(kind, tmp_path, capsys):
    plain, verified = (train(kind, tmp_path, steps=3, verify=verify) for verify in (False, True))
    assert "exact (max relative difference" in capsys.readouterr().out
    assert len(curve(verified)) == 3
    assert torch.equal(curve(verified), curve(plain))
    for a, b in zip(verified.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_random_numbers_drawn_afterwards_are_the_same(tmp_path):
    states = []
    for verify in (False, True):
        model = llama().float()
        torch.manual_seed(3), np.random.seed(3)
        config = DPOConfig(output_dir=str(tmp_path), report_to=[], disable_tqdm=True, verify=verify)
        prepared(model, config)  # a Trainer sets the seed anew only after it
        states.append(drawn())
    assert states[0] == states[1]
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_an_inexact_model_is_refused_with_the_report_before_the_first_step(kind, tmp_path, monkeypatch):
    leak_siblings(monkeypatch)
    settings = {"output_dir": str(tmp_path), "report_to": [], "verify": True}
    model = llava().float()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    monkeypatch.setattr(torch.optim.Optimizer, "step", lambda *_: pytest.fail("it stepped"))
    with pytest.raises(
        UnsupportedModelError,
        match=r"(?s)verify=True: packing is not exact on LlavaForConditionalGeneration \(llava\):.*"
        r"different: siblings see each other.*first difference: layer 0.*\nTrain with packing=False\.",
    ):
        if kind == "dpo":
            DPOTrainer(model, DPOConfig(**settings), train_dataset=dataset())
        else:
            RewardTrainer(RewardModel.from_backbone(model), RewardConfig(**settings), train_dataset=dataset())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not vlmpack.model.is_enabled(model)


def test_verify_admits_a_family_that_nobody_has_proven(tmp_path, monkeypatch):
    monkeypatch.setattr(support, "PROVEN", frozenset())
    with pytest.raises(UnsupportedModelError, match="train with verify=True"):
        train("dpo", tmp_path, steps=1)
    assert len(curve(train("dpo", tmp_path, steps=1, verify=True))) == 1


def test_without_packing_nothing_is_verified(tmp_path, monkeypatch):
    leak_siblings(monkeypatch)
    assert len(curve(train("dpo", tmp_path, steps=1, verify=True, packing=False))) == 1
