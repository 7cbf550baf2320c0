"""Settings of the trainers: transformers' `TrainingArguments`, and what preferences and packing add."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from vlmpack.ordering import STRATEGIES
from vlmpack.plan import BACKENDS
from vlmpack.preferences import PAIRINGS, PROMPT_WEIGHTS
from vlmpack.sharing import SHARINGS
from vlmpack.training.objective import LOSSES


class ConfigError(ValueError):
    """A setting has a value that cannot work."""


@dataclass
class PreferenceConfig(TrainingArguments):
    """What both trainers share. `per_device_train_batch_size` counts prompts, each with all its responses.

    Attributes:
        max_tokens: tokens of one pack. A memory knob: it changes speed, not the training.
        max_length: tokens of prompt + one response. Longer responses are cut at the end; a row whose prompt
            leaves no room is dropped and counted. None: nothing is cut.
        attention: "auto", "dense", "paths", "flex" or "varlen"; see `vlmpack.enable`.
        verify: before training, hold packed against unpacked on a small model of the same architecture, and refuse
            what is not exact; see `vlmpack.verify`. It also admits families that nobody has proven yet.
        packing: compute packed. False runs every response on its own (slow; the same training).
        sharing: what stands once in a pack: "all" that begins alike, or, for comparison, each "prompt" on its own,
            "none" (every response repeats its prompt and images), "pair" (every pair repeats them twice).
        padding: fill the trees of a pack up to the longest, as rows of a padded batch; for comparison too. Neither
            changes the training.
        train_sampling_strategy: the order of rows: "random", "sequential", "length_sorted" (longest first), or
            "group_by_length" (batches of similar length, shuffled). It changes which rows meet.
        disable_dropout: dropout would make packed and unpacked differ.
        pairing: which pairs of a prompt's responses are compared: "all", the "best" against the rest, or "adjacent"
            ones. Ties make no pair.
        prompt_weight: a prompt weighs as much as it has "pairs", or "one": its pairs are averaged.
        group_by_image: let rows that show the same images meet in a batch, where they share them. Off, since it
            changes which rows meet.
        max_bad_rows: the share of rows that may be unreadable; they are reported and left out. More is an error.
        freeze_vision_tower, freeze_multi_modal_projector, freeze_language_model: take that part out of training, in
            any family; see `vlmpack.training.freezing.parts_of` for what belongs to each.
        vision_lr: learning rate of the vision tower alone; None: `learning_rate`, as everything.
        cache_vision_features: GiB of host memory, on each rank, for what a frozen vision tower makes of images, which
            is the same in every epoch and is not computed again; when they are full, the first images stay. None: off.
        log_first_pack: draw the first pack of a run for TensorBoard and W&B, whichever is in `report_to`; needs
            matplotlib, and does without a picture, saying so, where one cannot be drawn.
    """

    max_tokens: int = field(default=8192, metadata={"help": "Tokens in one pack: as many as fit into memory."})
    max_length: int | None = field(
        default=None, metadata={"help": "Tokens of prompt + response; response tails are cut, prompts never."}
    )
    attention: str = field(default="auto", metadata={"help": "auto, dense, paths, flex or varlen."})
    verify: bool = field(default=False, metadata={"help": "Prove packing exact on a small model first."})
    packing: bool = field(default=True, metadata={"help": "Encode each prompt once; False: once per response."})
    sharing: str = field(default="all", metadata={"help": "What stands once: all, prompt; or none, pair."})
    padding: bool = field(default=False, metadata={"help": "Fill trees up to the longest, as a padded batch does."})
    disable_dropout: bool = field(default=True, metadata={"help": "Set every dropout to 0."})
    pairing: str = field(default="all", metadata={"help": "Pairs that are compared: all, best or adjacent."})
    prompt_weight: str = field(default="pairs", metadata={"help": "A prompt weighs its pairs, or one."})
    group_by_image: bool = field(default=False, metadata={"help": "Let rows on the same images meet in a batch."})
    max_bad_rows: float = field(default=0.01, metadata={"help": "Share of unreadable rows that is left out."})
    freeze_vision_tower: bool = field(default=False, metadata={"help": "Do not train what reads images."})
    freeze_multi_modal_projector: bool = field(default=False, metadata={"help": "Do not train tower-to-text layers."})
    freeze_language_model: bool = field(default=False, metadata={"help": "Do not train the decoder and its head."})
    vision_lr: float | None = field(default=None, metadata={"help": "The vision tower's own learning rate."})
    cache_vision_features: float | None = field(
        default=None, metadata={"help": "GiB of host memory for what a frozen vision tower makes of images."}
    )
    log_first_pack: bool = field(default=True, metadata={"help": "Draw the first pack for TensorBoard and W&B."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Stays False: the processor reads rows."})

    def __post_init__(self) -> None:
        if self.max_tokens <= 0:
            raise ConfigError(f"max_tokens={self.max_tokens} holds nothing; give what fits into memory, e.g. 8192")
        if self.max_length is not None and self.max_length <= 1:
            raise ConfigError(f"max_length={self.max_length} leaves no room for a prompt and a response")
        if self.attention not in BACKENDS:
            raise ConfigError(f"attention={self.attention!r} is not one of {', '.join(BACKENDS)}")
        if self.pairing not in PAIRINGS:
            raise ConfigError(f"pairing={self.pairing!r} is not one of {', '.join(PAIRINGS)}")
        if self.prompt_weight not in PROMPT_WEIGHTS:
            raise ConfigError(f"prompt_weight={self.prompt_weight!r} is not one of {', '.join(PROMPT_WEIGHTS)}")
        self._refuse_what_changes_the_training()
        self._check_order()
        self._check_sharing()
        if not 0 <= self.max_bad_rows <= 1:
            raise ConfigError(f"max_bad_rows={self.max_bad_rows} is a share of the rows; give 0 to 1")
        self._check_vision_tower()
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns=True would take away the columns that the processor reads")
        recomputed = self.gradient_checkpointing or getattr(self, "activation_checkpointing", None)
        if recomputed and self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True  # packs of text alone leave the vision tower unused
        self.dataloader_pin_memory &= torch.cuda.is_available()  # there is nothing to pin for, and torch warns
        super().__post_init__()
        if self.padding and self.world_size > 1:
            raise ConfigError("padding=True is for comparison and runs in one process; leave it out")

    def _refuse_what_changes_the_training(self) -> None:
        """Settings of transformers that packs would make mean something else, or that nothing here reads."""
        refused = {
            "auto_find_batch_size": "it would change which rows make up a step; lower max_tokens instead",
            "neftune_noise_alpha": "its noise depends on the length of a sequence, which is a pack's",
            "label_smoothing_factor": "preference losses do not read it; DPOConfig has label_smoothing",
            "bf16_full_eval": "evaluation is computed as training is; use bf16",
            "fp16_full_eval": "evaluation is computed as training is; use fp16",
        }
        for name, why in refused.items():
            if value := getattr(self, name):
                raise ConfigError(f"{name}={value}: {why}")
        if not self.dataloader_in_order:
            raise ConfigError(
                "dataloader_in_order=False would lose rows of steps that overtake each other; leave it on"
            )

    def _check_order(self) -> None:
        if self.train_sampling_strategy not in STRATEGIES:
            raise ConfigError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} is not one of {', '.join(STRATEGIES)} "
                f"(ranks are always kept level)"
            )
        if self.group_by_image and self.train_sampling_strategy == "sequential":
            raise ConfigError(
                "group_by_image=True moves rows, and train_sampling_strategy='sequential' keeps their order; leave one "
                "of them out"
            )

    def _check_vision_tower(self) -> None:
        if self.vision_lr is not None and (self.vision_lr <= 0 or self.freeze_vision_tower):
            raise ConfigError(
                f"vision_lr={self.vision_lr} with freeze_vision_tower={self.freeze_vision_tower}; to train no vision "
                f"tower, give the latter alone; to train it, a rate above 0"
            )
        if self.cache_vision_features and (self.cache_vision_features < 0 or not self.packing):
            raise ConfigError(
                f"cache_vision_features={self.cache_vision_features} with packing={self.packing}; it is GiB of memory "
                f"for features of packs: give a number above 0 and leave packing on, or leave it out"
            )

    def _check_sharing(self) -> None:
        if self.sharing not in SHARINGS:
            raise ConfigError(f"sharing={self.sharing!r} is not one of {', '.join(SHARINGS)}")
        if not self.packing and (self.sharing != "all" or self.padding):
            raise ConfigError(
                "packing=False computes without packs, which sharing and padding are about; leave them out"
            )


@dataclass
class DPOConfig(PreferenceConfig):
    """Settings of `DPOTrainer`; names as in TRL.

    Attributes:
        learning_rate: as TRL's default for DPO.
        beta: per nat (a number for the losses by token). Strength of the pull towards the reference.
        label_smoothing: the probability, 0 to 0.5, that a pair's label is flipped.
        loss_type: a loss of `vlmpack.losses` by TRL's name, or several; "sigmoid" is DPO, "plackett_luce" its form
            for whole rankings (of all pairs, or of the best against the rest; a ranking counts once with
            prompt_weight="one"). "sft", "cpo", "simpo" and "orpo" need no reference model.
        loss_weights: one for each of several losses; None: all 1.
        discopop_tau: of "discopop".
        simpo_gamma: of "simpo": how far apart a pair shall be, on the scale of beta times nats a token.
        cpo_alpha: of "cpo": weight of the negative log-likelihood of preferred responses.
        precompute_ref_log_probs: compute the reference's log-probabilities once, before training, and hold no
            reference model. They are kept on disk and found again by the weights, the processor and each row's content.
        ref_log_probs_folder: where they are kept; None: "reference_logps" in `output_dir`.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "The initial learning rate."})
    beta: float = field(default=0.1, metadata={"help": "Strength of the pull towards the reference model."})
    label_smoothing: float = field(default=0.0, metadata={"help": "Probability that a pair's label is flipped."})
    loss_type: list[str] = field(
        default_factory=lambda: ["sigmoid"], metadata={"help": "A loss, or several, e.g. sigmoid bco_pair sft."}
    )
    loss_weights: list[float] | None = field(default=None, metadata={"help": "One for each loss; None: all 1."})
    discopop_tau: float = field(default=0.05, metadata={"help": "Temperature of discopop."})
    simpo_gamma: float = field(default=0.5, metadata={"help": "Target margin of simpo."})
    cpo_alpha: float = field(default=1.0, metadata={"help": "Weight of cpo's negative log-likelihood."})
    precompute_ref_log_probs: bool = field(default=False, metadata={"help": "Compute the reference once, before."})
    ref_log_probs_folder: str | None = field(default=None, metadata={"help": "Where they are kept between runs."})

    def __post_init__(self) -> None:
        self.loss_type = [self.loss_type] if isinstance(self.loss_type, str) else list(self.loss_type)
        for name, _ in self.weighted_losses:
            if name not in LOSSES:
                raise ConfigError(f"loss_type={name!r} is not one of {', '.join(LOSSES)}")
        if not 0 <= self.label_smoothing <= 0.5:
            raise ConfigError(f"label_smoothing={self.label_smoothing} is a probability of at most 0.5")
        if self.beta <= 0:
            raise ConfigError(f"beta={self.beta} must be positive")
        self._check_smoothing()
        _refuse_broken_rankings(self.loss_type, self.pairing, self.sharing)
        if self.compares_whole_batches and not (self.prompt_weight == "pairs" and self.disable_dropout):
            raise ConfigError(
                f"loss_type={self.loss_type!r} sorts the pairs of a batch before it compares them, so each weighs the "
                f"same and is computed twice alike: it needs prompt_weight='pairs' and disable_dropout=True"
            )
        super().__post_init__()

    def _check_smoothing(self) -> None:
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise ConfigError("loss_type='exo_pair' needs label_smoothing above 0 (its formula has its log), e.g. 1e-3")
        if "robust" in self.loss_type and self.label_smoothing == 0.5:
            raise ConfigError("loss_type='robust' divides by 1 - 2 * label_smoothing; give label_smoothing below 0.5")

    @property
    def weighted_losses(self) -> tuple[tuple[str, float], ...]:
        """The names of the losses, each with its weight."""
        weights = [1.0] * len(self.loss_type) if self.loss_weights is None else self.loss_weights
        if not weights or len(weights) != len(self.loss_type):
            raise ConfigError(f"{len(weights)} loss_weights for losses {self.loss_type}; give one for each of them")
        return tuple(zip(self.loss_type, weights, strict=True))

    @property
    def needs_reference(self) -> bool:
        """Whether any of the losses compares with a reference model."""
        return any(LOSSES[name].reference for name in self.loss_type)

    @property
    def compares_whole_batches(self) -> bool:
        """Whether any of the losses needs all of a batch's pairs at once."""
        return any(LOSSES[name].whole_batch for name in self.loss_type)


@dataclass
class RewardConfig(PreferenceConfig):
    """Settings of `RewardTrainer`.

    Attributes:
        learning_rate: for full training; use about ten times as much with LoRA.
        loss_type: "bradley_terry" on pairs, or "plackett_luce" on whole rankings (of all pairs, or of the best
            against the rest; a ranking counts once with prompt_weight="one").
        use_margin: ask each pair to be as far apart as its scores (or its row's `margin`), not only in order.
        center_rewards_coefficient: weight of the squared sum of a pair's rewards, which holds them around zero;
            0.01 is usual. None: rewards may lie anywhere.
        report_quality: after training, measure how good the rewards of the evaluation set are (accuracy, calibration,
            length bias, accuracy by margin, and the same with the images taken out) and write it into `output_dir`.
        normalize_rewards: after training, let the rewards of the evaluation set have mean 0 and standard deviation 1;
            see `RewardModel.normalize`. The training itself is not touched.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "The initial learning rate."})
    loss_type: str = field(default="bradley_terry", metadata={"help": "bradley_terry or plackett_luce."})
    use_margin: bool = field(default=False, metadata={"help": "Ask pairs to be as far apart as their scores."})
    center_rewards_coefficient: float | None = field(
        default=None, metadata={"help": "Weight of the term that holds rewards around zero, e.g. 0.01."}
    )
    report_quality: bool = field(default=True, metadata={"help": "After training, report how good the rewards are."})
    normalize_rewards: bool = field(default=False, metadata={"help": "Mean 0, deviation 1 on the evaluation set."})

    def __post_init__(self) -> None:
        if self.loss_type not in ("bradley_terry", "plackett_luce"):
            raise ConfigError(f"loss_type={self.loss_type!r} is not one of bradley_terry, plackett_luce")
        if self.use_margin and self.loss_type == "plackett_luce":
            raise ConfigError("use_margin=True asks pairs to be apart, and plackett_luce knows no pairs; leave one out")
        super().__post_init__()
        _refuse_broken_rankings([self.loss_type], self.pairing, self.sharing)


def _refuse_broken_rankings(losses: list[str], pairing: str, sharing: str) -> None:
    if "plackett_luce" in losses and sharing == "pair":
        raise ConfigError("sharing='pair' takes rankings apart, which plackett_luce needs whole; use another sharing")
    if "plackett_luce" in losses and pairing == "adjacent":
        raise ConfigError("pairing='adjacent' leaves no ranking for plackett_luce, only pairs; use 'all' or 'best'")
