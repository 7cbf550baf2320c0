"""Several processes train as one does: the same losses, the same weights, whatever the engine and the packs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

RUNS = ["reward:1", "reward:ddp", "reward:fsdp2", "dpo:1", "dpo:ddp", "dpo:fsdp2", "dpo:fsdp2:cached"]
RUNS += ["dpo:1:aot", "dpo:ddp:aot", "reward:fsdp2:accumulated"]
DEEPSPEED = ["reward:zero2", "dpo:zero2", "reward:zero3", "dpo:zero3:cached"]


def run(folder: Path, *names: str) -> None:
    script = Path(__file__).with_name("trajectory.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    result = subprocess.run(
        [sys.executable, str(script), str(folder), *names],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0 and "failed" not in result.stdout, result.stdout + result.stderr[-6000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run(folder, *RUNS)
    return folder


def result(folder: Path, name: str) -> dict:
    return torch.load(folder / name.replace(":", "-") / "run.pt", weights_only=True)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name.replace(":", "-") / "model" / "model.safetensors")


def did(folder: Path, name: str) -> list[tuple[dict, dict]]:
    """What each of two ranks did in every step."""
    ranks = [json.loads((folder / name.replace(":", "-") / f"did-{rank}.json").read_text()) for rank in (0, 1)]
    return list(zip(*ranks, strict=True))


def assert_the_same_training(folder: Path, name: str, alone: str, tolerance: float = 1e-4) -> None:
    found, expected = result(folder, name), result(folder, alone)
    curve, expected_curve = torch.tensor(found["curve"]), torch.tensor(expected["curve"])
    assert len(curve) == 20 and expected_curve.std() > 1e-3  # it does train
    torch.testing.assert_close(curve, expected_curve, rtol=0, atol=tolerance)
    torch.testing.assert_close(  # not the first: policy and reference still agree, and rounding says who is ahead
        torch.tensor(found["accuracies"][1:]), torch.tensor(expected["accuracies"][1:]), rtol=0, atol=1e-5
    )
    for key, value in weights(folder, alone).items():
        torch.testing.assert_close(weights(folder, name)[key].float(), value, rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("kind", ["reward", "dpo"])
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(kind, engine, runs):
    assert_the_same_training(runs, f"{kind}:{engine}", f"{kind}:1")


def test_sharded_ranks_train_the_same_with_reference_log_probabilities_from_the_disk(runs):
    assert_the_same_training(runs, "dpo:fsdp2:cached", "dpo:1")


def test_a_loss_that_sorts_all_pairs_sorts_those_of_all_ranks(runs):
    assert_the_same_training(runs, "dpo:ddp:aot", "dpo:1:aot")


def test_sharded_ranks_accumulate_as_one_process_takes_a_larger_batch(runs):
    assert_the_same_training(runs, "reward:fsdp2:accumulated", "reward:1")


@pytest.mark.parametrize("name", ["reward:ddp", "dpo:fsdp2"])
def test_the_ranks_had_packs_that_differ_in_number_and_steps_where_one_had_no_image(name, runs):
    steps = did(runs, name)
    assert any(a["packs"] != b["packs"] for a, b in steps)
    assert any((a["images"] == 0) != (b["images"] == 0) for a, b in steps)


@pytest.mark.parametrize("name", ["reward:ddp", "dpo:fsdp2", "reward:fsdp2:accumulated"])
def test_what_keeps_other_ranks_company_is_not_counted_as_work(name, runs):
    found, expected = (torch.tensor(result(runs, each)["counted"]) for each in (name, f"{name.split(':')[0]}:1"))
    assert expected[:, 1].min() > 0.1 and expected[:, 2].max() > 1  # tokens are saved, and images run
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_evaluation_counts_every_pair_once_on_several_ranks(kind, engine, runs):
    found, expected = result(runs, f"{kind}:{engine}"), result(runs, f"{kind}:1")
    for name in ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"):
        assert found["eval"][name] == pytest.approx(expected["eval"][name], abs=1e-4)
    torch.testing.assert_close(
        torch.tensor(found["predictions"]), torch.tensor(expected["predictions"]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_the_rewards_of_all_ranks_are_measured_as_those_of_one_process(engine, runs):
    found, expected = (numbers(result(runs, name)["qualities"]) for name in (f"reward:{engine}", "reward:1"))
    assert len(expected) > 20
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def numbers(value, name: str = "") -> dict[str, float]:
    """All numbers in a nest of dicts and lists, by their paths."""
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: number for key, each in inside for path, number in numbers(each, f"{name}/{key}").items()}
    return {name: value} if isinstance(value, int | float) else {}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed_trains_as_one_process(name, runs):
    pytest.importorskip("deepspeed", reason="install vlmpack[deepspeed]")
    run(runs, name)
    assert_the_same_training(runs, name, f"{name.split(':')[0]}:1")
