"""bfloat16 is judged against float64, and by what the same model's own unpacked bfloat16 run loses to it.

A pack computes in another order, so its rounding differs from the unpacked one's, each as large by chance. Errors are
taken over all responses, or over all parameters' gradients, as one vector: single numbers' errors may be small by luck.
The two then are as good as equal (measured: 0.96 to 1.01 times the unpacked error); a quarter more leaves room for
other machines' kernels. A trainer's few losses are fewer numbers, and more luck.
"""

from copy import deepcopy
from functools import cache

import pytest
import torch
from test_trainers import curve, dataset, train
from tiny import llava

import vlmpack
from vlmpack import RewardModel, unpacked

ROWS = dataset(8)
TIMES = 1.25  # of the unpacked run's own error
TIMES_FEW = 2.0  # likewise, where there are only a few numbers


def model_of(kind: str):
    torch.manual_seed(3)
    return llava() if kind == "dpo" else RewardModel.from_backbone(llava()).double()


def computed(kind: str, model, packing: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores in the rows' order, and all gradients of their mean, as one vector each in float64."""
    model.zero_grad()
    if packing:
        (pack,) = vlmpack.pack(ROWS)
        values = vlmpack.response_logps(model, pack) if kind == "dpo" else model(pack)
        values = values[pack.sample_of.argsort(stable=True)]
    else:
        values = unpacked.response_logps(model, ROWS) if kind == "dpo" else unpacked.rewards(model, ROWS)
    weights = torch.linspace(-1, 1, len(values), dtype=values.dtype)
    (values * weights).sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return values.detach().double(), torch.cat([g.flatten().double() for g in gradients])


@cache
def exact(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    return computed(kind, model_of(kind), packing=False)


def errors(kind: str, low: str, packing: bool, backend: str = "dense") -> list[float]:
    """Relative errors of scores and of gradients against float64."""
    model = vlmpack.enable(deepcopy(model_of(kind)), backend)
    model = model.bfloat16() if low == "weights" else model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low == "autocast"):
        results = computed(kind, model, packing)
    return [((a - b).norm() / b.norm()).item() for a, b in zip(results, exact(kind), strict=True)]


@pytest.mark.parametrize("backend", ["dense", "paths"])
@pytest.mark.parametrize("low", ["weights", "autocast"])
@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_packed_bfloat16_loses_about_what_unpacked_bfloat16_loses(kind, low, backend):
    packed, own = errors(kind, low, True, backend), errors(kind, low, False)
    assert all(error > 1e-4 for error in own)  # it is low precision
    for name, error, allowed in zip(("scores", "gradients"), packed, own, strict=True):
        assert error <= TIMES * allowed, f"{name}: {error:.3g}, and unpacked {allowed:.3g}"


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_a_bfloat16_trainer_loses_no_more_than_twice_what_it_loses_unpacked(kind, tmp_path):
    settings = {"steps": 4, "optim": "sgd", "use_cpu": True}
    exact_losses = curve(train(kind, tmp_path, **settings))
    own, packed = (
        (curve(train(kind, tmp_path, bf16=True, packing=packing, **settings)) - exact_losses).norm()
        for packing in (False, True)
    )
    assert own > 1e-5
    assert packed <= TIMES_FEW * own, f"{packed:.3g}, and unpacked {own:.3g}"
