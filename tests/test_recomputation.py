"""Gradient checkpointing: the plan and its masks survive recomputation, in the decoder and in the vision tower."""

from functools import cache

import pytest
import torch
from test_trainers import curve, dataset, train
from tiny import Computed, assert_same, differentiate, llava

import vlmpack
from vlmpack import RewardModel, unpacked
from vlmpack.head import logit_map_of

ROWS = dataset(4)
REENTRANT = {"reentrant": True, "not reentrant": False}


def model_of(kind: str, backend: str = "dense"):
    torch.manual_seed(3)
    model = llava() if kind == "dpo" else RewardModel.from_backbone(llava()).double()
    return vlmpack.enable(model, backend).train()


def backward(model, values) -> Computed:
    """As `differentiate`, by `backward`: reentrant checkpoints know no `torch.autograd.grad`."""
    (values * torch.linspace(1, 2, len(values), dtype=values.dtype)).sum().backward()
    return Computed(values.detach(), {name: p.grad for name, p in model.named_parameters()})


@cache
def expected(kind: str) -> Computed:
    """Unpacked, every activation kept."""
    model = model_of(kind)
    compute = unpacked.response_logps if kind == "dpo" else unpacked.rewards
    return differentiate(model, compute(model, ROWS))


def packed(kind: str, model):
    """Scores in the rows' order, of two packs: the second one is planned before the first one is recomputed."""
    score = vlmpack.response_logps if kind == "dpo" else lambda m, pack: m(pack)
    return torch.cat([score(model, pack) for half in (ROWS[:2], ROWS[2:]) for pack in vlmpack.pack(half)])


@pytest.mark.parametrize("reentrant", REENTRANT)
@pytest.mark.parametrize("backend", ["dense", "paths"])
@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_recomputed_packs_equal_kept_ones_and_the_unpacked(kind, backend, reentrant):
    kept = model_of(kind, backend)
    kept = backward(kept, packed(kind, kept))
    model = model_of(kind, backend)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": REENTRANT[reentrant]})
    calls = count_calls(model)
    actual = backward(model, packed(kind, model))
    assert calls == {"decoder": 4, "tower": 4}  # two packs, each computed twice
    assert_same(actual, kept, relative=1e-12)
    assert_same(actual, expected(kind))
    for part in ("vision_tower", "language_model"):
        assert any(
            part in name and gradient.norm() > 1e-6
            for name, gradient in actual.gradients.items()
            if gradient is not None
        )


def count_calls(model) -> dict[str, int]:
    """How often the first layers' feed-forward networks have begun: recomputing stops at the last tensor kept."""
    base, calls = vlmpack.model.unwrapped(model), {"decoder": 0, "tower": 0}
    if base.get_output_embeddings() is not None:
        logit_map_of(base)  # lets a few tokens through, once

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    base.get_decoder().layers[0].mlp.register_forward_pre_hook(count("decoder"))
    base.get_encoder("image").encoder.layers[0].mlp.register_forward_pre_hook(count("tower"))
    return calls


@pytest.mark.parametrize("reentrant", REENTRANT)
@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_trainers_that_recompute_log_the_same_losses(kind, reentrant, tmp_path):
    settings = {"steps": 3, "optim": "sgd", "max_tokens": 60}
    kept = train(kind, tmp_path, **settings)
    recomputed = train(
        kind,
        tmp_path,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": REENTRANT[reentrant]},
        **settings,
    )
    torch.testing.assert_close(curve(recomputed), curve(kept), rtol=0, atol=1e-6)
    assert vlmpack.model.unwrapped(recomputed.model).get_decoder().layers[0].gradient_checkpointing
    for a, b in zip(recomputed.model.parameters(), kept.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
