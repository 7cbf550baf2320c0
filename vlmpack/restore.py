"""The weights of a checkpoint, put back into a model that goes on training."""

from functools import reduce

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer


class CheckpointError(ValueError):
    """A checkpoint does not hold what the model needs."""


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
    """A `Trainer` that puts whole models back by their own `from_pretrained`; adapters and shards as `Trainer` does."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As in `Trainer`, but see `restore`."""
        if self._is_whole():
            restore(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """As in `Trainer`, but see `restore`."""
        if self._is_whole():
            restore(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _is_whole(self) -> bool:
        return isinstance(self.model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
