"""torch.compile: a language model's packs stay exact under it and share graphs; trainers refuse it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainers import dataset
from tiny import llama, sample
from torch._dynamo.utils import counters

import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer
from vlmpack.training.config import ConfigError
from vlmpack.training.preflight import check_compilation


def packs() -> list[vlmpack.Pack]:
    """Five packs, no two of the same length, of different trees."""
    made = []
    for k in range(5):
        responses = [[1 + r + k] * (1 + r + k) for r in range(2 + k % 2)]
        rows = [sample([1, 2, 3][: 1 + k % 3] * (k + 1), responses, [(0, 1)], seed=k)] * (1 + k % 2)
        made += vlmpack.pack(rows)
    assert len({pack.tokens for pack in made}) == 5
    return made


def compiled_as_eager() -> None:
    """Scores of each pack, compiled and not; prints how many graphs were made and how often one broke."""
    model = vlmpack.enable(llama().float(), "dense")
    compiled = torch.compile(model, backend="aot_eager")
    for pack in packs():
        expected = vlmpack.response_logps(model, pack)
        torch.testing.assert_close(vlmpack.response_logps(compiled, pack), expected, rtol=1e-5, atol=1e-5)
    print(counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))


@pytest.mark.slow
def test_a_compiled_language_models_packs_equal_eager_ones_and_share_two_graphs():
    script = (
        "from test_compile import compiled_as_eager; compiled_as_eager()"  # without the checks of shapes, which break
    )
    folders = [
        str(Path(__file__).parent),
        str(Path(__file__).parent.parent / "examples"),
        os.environ.get("PYTHONPATH", ""),
    ]
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    graphs, breaks = map(int, result.stdout.split()[-2:])
    assert graphs <= 3 and breaks == 0  # a graph for the first length, one for all others, one to spare


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_trainers_refuse_to_compile_and_say_why(kind, tmp_path):
    settings = {"output_dir": str(tmp_path), "report_to": [], "torch_compile": True}
    model = llama().float()
    with pytest.raises(ConfigError, match="torch_compile=True would compile anew for nearly every pack"):
        if kind == "dpo":
            DPOTrainer(model, DPOConfig(**settings), train_dataset=dataset(images=False))
        else:
            RewardTrainer(RewardModel.from_backbone(model), RewardConfig(**settings), train_dataset=dataset())


def test_without_packing_compilation_is_the_users_own_affair(tmp_path):
    check_compilation(DPOConfig(output_dir=str(tmp_path), report_to=[], torch_compile=True, packing=False))
