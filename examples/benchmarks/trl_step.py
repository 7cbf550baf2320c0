"""TRL's own DPO step on the same pairs: its collator's batch, its trainer's loss, backward.

TRL takes one pair a row, so a prompt with several pairs stands in its data several times. Rows with images go through
its vision collator as pictures and conversations; rows without are given to its collator as the same token ids.
"""

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from PIL import Image
from torch import nn

from vlmpack import Sample

try:
    import trl
    from datasets import Dataset

    MISSING = ""
except ImportError as error:  # on a machine without TRL everything else is measured all the same
    MISSING = f"{error.name} is not installed"

Batch = dict[str, torch.Tensor]


class TrlStep:
    """TRL's trainer around copies of a policy and its reference.

    Args:
        model, reference: not changed; loaded with transformers' own attention.
        processing_class: the processor, or the tokenizer of a language model.
        beta: of DPO.
    """

    def __init__(self, model: nn.Module, reference: nn.Module, processing_class: Any, beta: float) -> None:
        arguments = trl.DPOConfig(
            output_dir=tempfile.mkdtemp(prefix="trl-"), beta=beta, report_to=[], bf16=False, max_length=None,
            gradient_checkpointing=False, use_cpu=model.device.type == "cpu", remove_unused_columns=False,
        )  # fmt: skip
        self.trainer = trl.DPOTrainer(
            model=deepcopy(model), ref_model=deepcopy(reference), args=arguments, processing_class=processing_class,
            train_dataset=Dataset.from_list([_any_pair(hasattr(processing_class, "image_processor"))]),
        )  # fmt: skip
        self.model = self.trainer.model

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """TRL's batch of some pairs."""
        device = self.model.device
        batch = self.trainer.data_collator([dict(each) for each in examples])
        return {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}

    def __call__(self, batches: Sequence[Batch]) -> float:
        """Forward, reference forward and backward; gradients of all micro-batches add up to those of their mean."""
        sizes = [len(batch["input_ids"]) // 2 for batch in batches]
        total = 0.0
        for batch, pairs in zip(batches, sizes, strict=True):
            loss = self.trainer.compute_loss(self.model, batch) * (pairs / sum(sizes))
            loss.backward()
            total += loss.item()
        return total


def _any_pair(picture: bool) -> dict[str, Any]:
    """A row that tells the trainer which of its collators to take; `collate` is given the real pairs."""
    said = {"prompt": ("user", "What is this?"), "chosen": ("assistant", "A cat."), "rejected": ("assistant", "A dog.")}
    row = {name: [{"role": role, "content": text}] for name, (role, text) in said.items()}
    return row | ({"images": [Image.new("RGB", (336, 336))]} if picture else {})


def pairs_in_tokens(samples: Sequence[Sample]) -> list[dict[str, list[int]]]:
    """A row a pair, in token ids: what TRL's text collator takes."""
    return [
        {
            "prompt_ids": sample.prompt_ids.tolist(),
            "chosen_ids": sample.response_ids[preferred].tolist(),
            "rejected_ids": sample.response_ids[rejected].tolist(),
        }
        for sample in samples
        for preferred, rejected in sample.pairs
    ]


def pairs_in_words(rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """A row a pair, in pictures and conversations: what TRL's vision collator takes.

    Args:
        rows: with `images` opened, `prompt` and `responses`.
        samples: the same rows, for their pairs.
    """
    return [
        {
            "images": list(row["images"]),
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["responses"][preferred]}],
            "rejected": [{"role": "assistant", "content": row["responses"][rejected]}],
        }
        for row, sample in zip(rows, samples, strict=True)
        for preferred, rejected in sample.pairs
    ]
