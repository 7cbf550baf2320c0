"""Runs that are killed with SIGKILL, resumed, and held against the same run left alone: weights and losses, bit by bit.

    python tests/kill_and_resume.py --kills 20 --folder outputs/kills

Twelve of twenty are killed at any moment of training, eight within 20 ms of the beginning of some checkpoint, which is
when it is being written. Every fourth run is killed again after it was resumed. One process imports everything and
forks the runs.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tiny import EOS, llava, sample

from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer
from vlmpack.training.checkpoint import BEGUN, DELETED, MANIFEST, REPLACED, last_whole

KINDS = {"reward": False, "dpo": False, "reward with dropout": True, "dpo with dropout": True}
STEPS, SAVE_STEPS, PATIENCE = 41, 3, 300  # the last in seconds, for a run that hangs

BEGINS = "begins"  # a file that stands there once training has begun


@dataclass(frozen=True)
class Outcome:
    """One run: how it was killed, and whether it ended as it would have without."""

    kind: str
    aimed: str  # when it was to be killed: "any moment", or "while saving"
    half_written: list[str]  # what the kills left behind
    resumed_from: list[str | None]  # one for each kill; None: there was no whole checkpoint yet
    same_weights: bool
    same_losses: bool


def rows(count: int = 20) -> list:
    """Five steps an epoch, so that checkpoints fall inside epochs and between them; the end falls inside."""
    made = []
    for k in range(count):
        responses = [[1 + (k + r) % 5] * (1 + (k * r) % 3) + [EOS] for r in range(2 + k % 3)]
        pairs = [(0, r) for r in range(1, len(responses))]
        made.append(sample([1 + k % 7, 2, 3][: 1 + k % 3], responses, pairs, int(k % 3 != 0), seed=k))
    return made


def trainer_of(kind: str, folder: Path) -> transformers.Trainer:
    settings = {
        "output_dir": str(folder), "max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVE_STEPS,
        "save_total_limit": 2, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "optim": "adamw_torch",
        "per_device_train_batch_size": 4, "logging_steps": 1, "report_to": [], "disable_tqdm": True, "use_cpu": True,
        "disable_dropout": not KINDS[kind],
    }  # fmt: skip
    model = llava().float()
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.3  # switched off again where disable_dropout says so
    if kind.startswith("dpo"):
        return DPOTrainer(model, DPOConfig(**settings), train_dataset=rows())
    torch.manual_seed(7)
    return RewardTrainer(RewardModel.from_backbone(model), RewardConfig(**settings), train_dataset=rows())


def run(kind: str, folder: Path, resume: bool, plain: bool) -> None:
    """Train to the end; the weights and all logged losses lie in the folder then."""
    trainer = trainer_of(kind, folder)
    (folder / BEGINS).touch()
    if plain:
        transformers.Trainer.train(trainer, resume_from_checkpoint=resume)
    else:
        trainer.train(resume_from_checkpoint=resume)
    save_file({name: value.contiguous() for name, value in trainer.model.state_dict().items()}, folder / "weights")
    logged = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    (folder / "losses").write_text(json.dumps(logged))


def forked(work: Callable[[], None], log: Path) -> int:
    """A process that does the work; what it says goes to the log."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        says = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(says, 1)
        os.dup2(says, 2)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child: int, until: Callable[[], bool]) -> bool:
    """Whether the process ended before something came true."""
    began = time.monotonic()
    while not until():
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        if time.monotonic() - began > PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.0005)
    return False


def half_written(folder: Path) -> list[str]:
    """Checkpoints that the trainer was writing, or deleting, when it died."""
    started = [path.parent for path in folder.glob(f"checkpoint-*/{MANIFEST}") if "null" in path.read_text()]
    moved = [path for prefix in (BEGUN, REPLACED, DELETED) for path in folder.glob(f"{prefix}*")]
    return sorted(path.name for path in [*started, *moved])


def moment(aimed: str, folder: Path, duration: float, dice: random.Random) -> Callable[[], bool]:
    """What comes true when it is time to kill a run that starts now."""
    if aimed == "any moment":
        at = dice.uniform(0, duration)
        return lambda: (folder / BEGINS).exists() and time.time() > (folder / BEGINS).stat().st_mtime + at
    target = folder / f"checkpoint-{SAVE_STEPS * dice.randint(1, STEPS // SAVE_STEPS)}"
    wait = dice.uniform(0, 0.02)
    return lambda: target.exists() and (time.sleep(wait) or True)


def killed_and_resumed(
    kind: str, aimed: list[str], folder: Path, straight: Path, dice, duration, plain
) -> Outcome | None:
    """None if the run was over before the moment of a kill."""
    left, sources = [], []
    for place, each in enumerate(aimed):
        child = start(kind, folder, place > 0, plain)
        if ended(child, moment(each, folder, duration, dice)):
            return None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left += half_written(folder)
        whole = last_whole(folder)
        sources.append(whole and whole.name)
    child = start(kind, folder, True, plain)
    ended(child, lambda: False)
    same = [
        (folder / n).is_file() and (folder / n).read_bytes() == (straight / n).read_bytes()
        for n in ("weights", "losses")
    ]
    return Outcome(kind, aimed[0], left, sources, *same)


def start(kind: str, folder: Path, again: bool, plain: bool) -> int:
    """As somebody would who starts a run, or starts it again: from the last checkpoint if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGINS).unlink(missing_ok=True)
    there = any(folder.glob("checkpoint-*")) if plain else last_whole(folder) is not None
    return forked(lambda: run(kind, folder, again and there, plain), folder / "log")


def alone(kind: str, folder: Path) -> float:
    """The run that nobody kills; seconds that it trained."""
    ended(start(kind, folder, False, False), lambda: False)
    if not (folder / "weights").is_file():
        raise RuntimeError((folder / "log").read_text())
    return (folder / "weights").stat().st_mtime - (folder / BEGINS).stat().st_mtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed")
    parser.add_argument("--folder", type=Path, required=True, help="where they write")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--plain", action="store_true", help="resume as transformers does, from any folder: goes wrong")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began, dice, outcomes, duration = time.monotonic(), random.Random(given.seed), [], {}
    kinds = list(itertools.islice(itertools.cycle(KINDS), given.kills))
    for kind in dict.fromkeys(kinds):
        duration[kind] = alone(kind, given.folder / kind)
    for number, kind in enumerate(kinds):
        aimed = ["while saving" if number // 4 % 2 or given.kills < 8 else "any moment"]
        aimed += ["any moment"] if number % 4 == 3 else []
        outcome = None
        while outcome is None:
            folder = given.folder / f"{number}"
            shutil.rmtree(folder, ignore_errors=True)
            outcome = killed_and_resumed(kind, aimed, folder, given.folder / kind, dice, duration[kind], given.plain)
        print(json.dumps(asdict(outcome)), flush=True)
        outcomes.append(outcome)
    differing = sum(not (outcome.same_weights and outcome.same_losses) for outcome in outcomes)
    inside = sum(bool(outcome.half_written) for outcome in outcomes)
    anew = sum(outcome.resumed_from[-1] is None for outcome in outcomes)
    print(
        f"{len(outcomes)} runs killed, {inside} of them while saving; {len(outcomes) - anew} resumed from a checkpoint, "
        f"{anew} begun anew since there was none: {differing} differ ({time.monotonic() - began:.0f} s)"
    )
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
