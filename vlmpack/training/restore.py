"""The weights of a checkpoint, put back into a model that goes on training; and checkpoints that outlive a kill."""

import contextlib
from collections.abc import Iterator
from functools import reduce
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from vlmpack.training.checkpoint import CheckpointError, begin, clean, rotate, seal, what_is_missing, whole_checkpoints


def restore(model: PreTrainedModel, folder: str) -> None:
    """Load a checkpoint's weights into a model, every one of them.

    `save_pretrained` writes many vision-language models under the names that their hub checkpoints have, and only
    `from_pretrained` translates them back. transformers' Trainer compares the names as they stand in the file, finds
    none, warns, and goes on from the initial weights (https://github.com/huggingface/transformers/issues/43701).

    Args:
        model: changed in place; keeps its dtypes.
        folder: written by the model's `save_pretrained`.

    Raises:
        CheckpointError: a weight is missing from the checkpoint, or has another shape.
    """
    dtypes = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    widest = reduce(torch.promote_types, dtypes, torch.float32)  # loses nothing of what was saved
    saved, report = type(model).from_pretrained(folder, dtype=widest, output_loading_info=True)
    if lost := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise CheckpointError(f"{folder} lacks {len(lost)} weights of {type(model).__name__}, such as {lost[0]}")
    model.load_state_dict(saved.state_dict())


class RestoringTrainer(Trainer):
    """A `Trainer` that may be killed at any moment, also while it saves, and goes on from the last whole checkpoint.

    A checkpoint is sealed when every rank has written its files (see `vlmpack.training.checkpoint`); only then are
    older ones deleted, and only sealed ones are loaded. Whole models are put back by their own `from_pretrained`;
    adapters and shards as `Trainer` does it.
    """

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """As in `Trainer`, but what is resumed from is whole.

        Args:
            resume_from_checkpoint: True for the last whole checkpoint in the output folder, or the folder of one.
            trial: as in `Trainer`.
            ignore_keys_for_eval: as in `Trainer`.

        Raises:
            CheckpointError: there is no whole checkpoint, or the one that was named is not whole.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self._last_whole()
        if resume_from_checkpoint:
            _demand_whole(
                resume_from_checkpoint, "With resume_from_checkpoint=True, the last one that is whole is taken"
            )
        state = _state_in(resume_from_checkpoint) if resume_from_checkpoint else TrainerState()
        best = self._best(state)
        if best is not None:  # better now than when training is over
            _demand_whole(best, f"It is the best so far in {resume_from_checkpoint}: put it back, or move it away")
        self._tell_what_is_ahead(state.global_step)
        if state.global_step >= self.args.max_steps > 0:
            return self._over(resume_from_checkpoint, state)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _last_whole(self) -> str:
        """The checkpoint of the highest step that is whole for every rank."""
        output_dir = self.args.output_dir
        removed = clean(output_dir) if self.args.should_save else []
        self.accelerator.wait_for_everyone()
        aside = f"; {', '.join(removed)} was half-written and is removed" if removed else ""
        steps = gather_object([set(whole_checkpoints(output_dir))])  # ranks may write to disks of their own
        if not (common := set.intersection(*steps)):
            raise CheckpointError(
                f"{output_dir} holds no whole checkpoint to resume from{aside}.\n"
                "Start without resume_from_checkpoint, or give the folder of a checkpoint."
            )
        folder = whole_checkpoints(output_dir)[max(common)]
        self._tell(f"resuming from {folder}, the last whole checkpoint{aside}")
        return str(folder)

    def _best(self, state: TrainerState) -> str | None:
        """The checkpoint to be loaded at the end if none better comes; `Trainer` does without one that is gone."""
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        return best if best is not None and Path(best).is_dir() else None

    def _over(self, folder: str, state: TrainerState) -> TrainOutput:
        """The outcome of a run that had come to its end; inside an epoch, `Trainer` would take one more step."""
        self._tell(f"{folder} is the end of the run: nothing is left to train")
        self.state = state
        if self._best(state) is None:
            self._load_from_checkpoint(folder)
        else:
            self._load_best_model()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        loss = fmean(losses) if losses else nan
        metrics = {"train_loss": loss, "epoch": state.epoch, "total_flos": state.total_flos}
        return TrainOutput(state.global_step, loss, metrics)

    def _tell_what_is_ahead(self, begins: int) -> None:
        ahead = [step for step in whole_checkpoints(self.args.output_dir) if step > begins]
        if ahead and self.args.save_strategy != "no":
            self._tell(
                f"{self.args.output_dir} already holds checkpoint-{ahead[-1]} of another run, ahead of where this one "
                "begins; resume_from_checkpoint=True would take that. Give this run an output_dir of its own"
            )

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """As in `Trainer`, but it counts only when it is sealed, and nothing is deleted or uploaded before."""
        run_dir = Path(self._get_output_dir(trial))
        folder = run_dir / f"checkpoint-{self.state.global_step}"
        with self._alone() as saves:
            if saves:
                begin(folder)
        with _only_writing(self.args):
            super()._save_checkpoint(model, trial)
        with self._alone() as saves:
            if saves:
                if (settings := folder / "training_args.bin").is_file():
                    torch.save(self.args, settings)  # as they are, not as they were meanwhile
                seal(folder)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate(run_dir, self.args.save_total_limit, keep=[folder] if best is None else [folder, best])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As in `Trainer`, but see `restore`."""
        if self._is_one_model():
            restore(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """As in `Trainer`, but see `restore`; and never from a checkpoint that is not whole."""
        best = self.state.best_model_checkpoint
        _demand_whole(best, "It was the best of this run; the last one can be loaded instead")
        if self._is_one_model():
            restore(self.model, best)
        else:
            super()._load_best_model()

    def _is_one_model(self) -> bool:
        return isinstance(self.model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process is to write what it writes alone, before and after everything that the others write."""
        self.accelerator.wait_for_everyone()
        yield self.args.should_save
        self.accelerator.wait_for_everyone()

    def _tell(self, text: str) -> None:
        if self.is_world_process_zero():
            print(f"vlmpack: {text}", flush=True)


def _state_in(folder: str) -> TrainerState:
    file = Path(folder) / "trainer_state.json"
    return TrainerState.load_from_json(str(file)) if file.is_file() else TrainerState()


def _demand_whole(folder: str, otherwise: str) -> None:
    if missing := what_is_missing(folder):
        raise CheckpointError(
            f"{folder} is not a whole checkpoint: {missing}.\n"
            f"{otherwise}. If another trainer wrote it, to the end: "
            f"vlmpack.training.checkpoint.seal({folder!r}) accepts it."
        )


@contextlib.contextmanager
def _only_writing(args: TrainingArguments) -> Iterator[None]:
    """What `Trainer` does when it has written a checkpoint waits: deleting older ones, uploading it."""
    limit, push = args.save_total_limit, args.push_to_hub
    args.save_total_limit, args.push_to_hub = None, False
    try:
        yield
    finally:
        args.save_total_limit, args.push_to_hub = limit, push
