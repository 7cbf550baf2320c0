"""A `Trainer` that resumes from whole checkpoints only, keeps one at every moment, and says what it does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import llama
from torch.utils.data import Dataset
from transformers import TrainingArguments

from vlmpack.training.checkpoint import (
    MANIFEST,
    CheckpointError,
    begin,
    is_whole,
    seal,
    what_is_missing,
    whole_checkpoints,
)
from vlmpack.training.restore import RestoringTrainer


class Rows(Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, row: int) -> dict:
        ids = torch.tensor([1 + row % 5, 2, 3 + row % 4, 1 + row % 7])
        return {"input_ids": ids, "labels": ids}


def trainer_in(folder, steps: int = 6, **settings) -> RestoringTrainer:
    common = {
        "max_steps": steps,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 3,
        "use_cpu": True,
    }
    quiet = {"report_to": [], "disable_tqdm": True, "logging_steps": 1}
    args = TrainingArguments(output_dir=str(folder), **{**common, **quiet, **settings})
    return RestoringTrainer(llama().float(), args, train_dataset=Rows(), eval_dataset=Rows())


def weights(trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*checkpoint*"))


def half_written(folder: Path) -> None:
    """As if the run had been killed while it wrote this checkpoint."""
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": None}))
    (folder / "optimizer.pt").unlink()


def test_true_resumes_from_the_last_whole_checkpoint_and_says_what_it_passed_over(tmp_path, capsys):
    straight = trainer_in(tmp_path)
    straight.train()
    half_written(tmp_path / "checkpoint-6")
    capsys.readouterr()
    resumed = trainer_in(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    said = f"vlmpack: resuming from {tmp_path}/checkpoint-4, the last whole checkpoint; checkpoint-6 was half-written and is removed\n"
    assert said in capsys.readouterr().out
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(straight), strict=True))
    assert is_whole(tmp_path / "checkpoint-6")


@pytest.mark.parametrize("steps", [6, 8], ids=["inside an epoch", "between epochs"])
def test_a_run_that_was_over_is_trained_no_further(steps, tmp_path, capsys):
    settings = {"steps": steps, "lr_scheduler_type": "constant"}
    straight = trainer_in(tmp_path, **settings)
    straight.train()
    resumed = trainer_in(tmp_path, **settings)
    output = resumed.train(resume_from_checkpoint=True)
    assert (output.global_step, resumed.state.global_step) == (steps, steps)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(straight), strict=True))
    assert {"epoch", "train_loss", "total_flos"} <= set(output.metrics)


def test_the_best_model_is_loaded_when_nothing_is_left_to_train(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "greater_is_better": True}
    straight = trainer_in(tmp_path, **best)
    straight.train()
    resumed = trainer_in(tmp_path, **best)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(straight), strict=True))


def test_without_a_whole_checkpoint_one_is_told_to_start_anew(tmp_path):
    begin(tmp_path / "checkpoint-2")
    with pytest.raises(
        CheckpointError,
        match=r"no whole checkpoint to resume from; checkpoint-2 was half-written and is removed\.\nStart without resume_from",
    ):
        trainer_in(tmp_path).train(resume_from_checkpoint=True)
    with pytest.raises(CheckpointError, match=r"nowhere holds no whole checkpoint to resume from\.\nStart without"):
        trainer_in(tmp_path / "nowhere").train(resume_from_checkpoint=True)


def test_a_checkpoint_that_is_named_must_be_whole(tmp_path):
    trainer_in(tmp_path).train()
    folder = tmp_path / "checkpoint-4"
    (folder / "optimizer.pt").unlink()
    with pytest.raises(
        CheckpointError,
        match=r"checkpoint-4 is not a whole checkpoint: optimizer\.pt is not there\.\nWith resume_from_checkpoint=True",
    ):
        trainer_in(tmp_path).train(resume_from_checkpoint=str(folder))


def test_the_checkpoint_of_another_trainer_is_accepted_when_it_is_sealed(tmp_path):
    trainer_in(tmp_path).train()
    folder = tmp_path / "checkpoint-4"
    (folder / MANIFEST).unlink()
    with pytest.raises(
        CheckpointError,
        match=r"another trainer wrote it[\s\S]*vlmpack\.training\.checkpoint\.seal\('.*checkpoint-4'\) accepts it",
    ):
        trainer_in(tmp_path).train(resume_from_checkpoint=str(folder))
    seal(folder)
    resumed = trainer_in(tmp_path)
    resumed.train(resume_from_checkpoint=str(folder))
    assert resumed.state.global_step == 6


@pytest.mark.parametrize(("limit", "left"), [(1, ["checkpoint-6"]), (2, ["checkpoint-4", "checkpoint-6"])])
def test_so_many_checkpoints_are_kept_as_are_asked_for(limit, left, tmp_path):
    trainer = trainer_in(tmp_path, save_total_limit=limit)
    trainer.train()
    assert names(tmp_path) == left
    assert trainer.args.save_total_limit == limit
    assert torch.load(tmp_path / "checkpoint-6" / "training_args.bin", weights_only=False).save_total_limit == limit


def test_an_older_checkpoint_is_there_until_the_new_one_is_whole(tmp_path, monkeypatch):
    seen = []

    def look(folder: Path) -> None:
        seen.append(list(whole_checkpoints(tmp_path)))
        seal(folder)

    monkeypatch.setattr("vlmpack.training.restore.seal", look)
    trainer_in(tmp_path, save_total_limit=1).train()
    assert seen == [[], [2], [4]]


def test_weights_alone_can_be_saved(tmp_path):
    trainer_in(tmp_path, save_only_model=True).train()
    assert is_whole(tmp_path / "checkpoint-6")
    assert not (tmp_path / "checkpoint-6" / "optimizer.pt").exists()


def test_the_best_checkpoint_stays_and_is_loaded(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "greater_is_better": True}
    trainer = trainer_in(tmp_path, save_total_limit=2, **best)
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")  # of the largest loss
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-6"]
    from safetensors.torch import load_file

    expected = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert torch.equal(trainer.model.state_dict()["lm_head.weight"], expected["lm_head.weight"])


def test_a_best_checkpoint_that_is_not_whole_is_refused_before_training_and_after(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "greater_is_better": True}
    trainer = trainer_in(tmp_path, **best)
    trainer.train()
    (tmp_path / "checkpoint-2" / "model.safetensors").write_text("")
    message = r"checkpoint-2 is not a whole checkpoint: model\.safetensors has 0 bytes instead of"
    with pytest.raises(CheckpointError, match=message + r".*\nIt is the best so far in .*checkpoint-4: put it back"):
        trainer_in(tmp_path, **best).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    with pytest.raises(CheckpointError, match=message):
        trainer._load_best_model()


def test_checkpoints_go_to_the_hub_sealed(tmp_path):
    trainer = trainer_in(tmp_path, steps=2)
    trainer.args.push_to_hub = True
    pushed = []
    trainer._push_from_checkpoint = lambda folder: pushed.append((Path(folder).name, what_is_missing(folder)))
    trainer._finish_current_push = lambda: None
    trainer.train()
    assert pushed == [("checkpoint-2", "")]
    assert trainer.args.push_to_hub


def test_checkpoints_of_another_run_ahead_of_this_one_are_pointed_out(tmp_path, capsys):
    trainer_in(tmp_path).train()
    assert "another run" not in capsys.readouterr().out
    trainer_in(tmp_path, steps=2).train()
    assert (
        f"vlmpack: {tmp_path} already holds checkpoint-6 of another run, ahead of where this one begins"
        in capsys.readouterr().out
    )


RANKS = """
import sys, time
from test_restore import trainer_in
trainer = trainer_in(sys.argv[1], steps=2)
save = trainer._save_rng_state
def late(folder):
    time.sleep(3 * trainer.args.process_index)
    save(folder)
trainer._save_rng_state = late
trainer.train()
resumed = trainer_in(sys.argv[1], steps=4)
resumed.train(resume_from_checkpoint=True)
"""


@pytest.mark.slow
def test_what_the_slowest_rank_writes_belongs_to_the_checkpoint(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    paths = {
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
        str(tmp_path / "run"),
    ]
    result = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for step in (2, 4):
        files = json.loads((tmp_path / "run" / f"checkpoint-{step}" / MANIFEST).read_text())["files"]
        assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "model.safetensors"} <= set(files)
    assert result.stdout.count("resuming from") == 1
