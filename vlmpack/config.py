"""Settings of the trainers: transformers' `TrainingArguments`, and what preferences and packing add."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from vlmpack.plan import BACKENDS


class ConfigError(ValueError):
    """A setting has a value that cannot work."""


@dataclass
class PreferenceConfig(TrainingArguments):
    """What both trainers share. `per_device_train_batch_size` counts prompts, each with all its responses.

    Attributes:
        max_tokens: tokens of one pack. A memory knob: it changes speed, not the training.
        max_length: tokens of prompt + one response. Longer responses are cut at the end; a row whose prompt
            leaves no room is dropped and counted. None: nothing is cut.
        attention: "auto", "dense" or "paths"; see `vlmpack.enable`.
        packing: compute packed. False runs every response on its own (slow; the same training).
        disable_dropout: dropout would make packed and unpacked differ.
        max_bad_rows: the share of rows that may be unreadable; they are reported and left out. More is an error.
    """

    max_tokens: int = field(default=8192, metadata={"help": "Tokens in one pack: as many as fit into memory."})
    max_length: int | None = field(
        default=None, metadata={"help": "Tokens of prompt + response; response tails are cut, prompts never."}
    )
    attention: str = field(default="auto", metadata={"help": "auto, dense or paths."})
    packing: bool = field(default=True, metadata={"help": "Encode each prompt once; False: once per response."})
    disable_dropout: bool = field(default=True, metadata={"help": "Set every dropout to 0."})
    max_bad_rows: float = field(default=0.01, metadata={"help": "Share of unreadable rows that is left out."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Stays False: the processor reads rows."})

    def __post_init__(self) -> None:
        if self.max_tokens <= 0:
            raise ConfigError(f"max_tokens={self.max_tokens} holds nothing; give what fits into memory, e.g. 8192")
        if self.max_length is not None and self.max_length <= 1:
            raise ConfigError(f"max_length={self.max_length} leaves no room for a prompt and a response")
        if self.attention not in BACKENDS:
            raise ConfigError(f"attention={self.attention!r} is not one of {', '.join(BACKENDS)}")
        if not 0 <= self.max_bad_rows <= 1:
            raise ConfigError(f"max_bad_rows={self.max_bad_rows} is a share of the rows; give 0 to 1")
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns=True would take away the columns that the processor reads")
        self.dataloader_pin_memory &= torch.cuda.is_available()  # there is nothing to pin for, and torch warns
        super().__post_init__()


@dataclass
class DPOConfig(PreferenceConfig):
    """Settings of `DPOTrainer`; names as in TRL.

    Attributes:
        learning_rate: as TRL's default for DPO.
        beta: per nat. Strength of the pull towards the reference.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.
        loss_type: "sigmoid".
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "The initial learning rate."})
    beta: float = field(default=0.1, metadata={"help": "Strength of the pull towards the reference model."})
    label_smoothing: float = field(default=0.0, metadata={"help": "Probability that a pair's label is flipped."})
    loss_type: str = field(default="sigmoid", metadata={"help": "sigmoid."})

    def __post_init__(self) -> None:
        if self.loss_type != "sigmoid":
            raise ConfigError(f"loss_type={self.loss_type!r} is not there yet; the loss so far is 'sigmoid'")
        if not 0 <= self.label_smoothing <= 0.5:
            raise ConfigError(f"label_smoothing={self.label_smoothing} is a probability of at most 0.5")
        if self.beta <= 0:
            raise ConfigError(f"beta={self.beta} must be positive")
        super().__post_init__()


@dataclass
class RewardConfig(PreferenceConfig):
    """Settings of `RewardTrainer`.

    Attributes:
        learning_rate: for full training; use about ten times as much with LoRA.
        use_margin: ask each pair to be as far apart as its scores (or its row's `margin`), not only in order.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "The initial learning rate."})
    use_margin: bool = field(default=False, metadata={"help": "Ask pairs to be as far apart as their scores."})
