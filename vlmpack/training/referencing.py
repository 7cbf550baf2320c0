"""Where the reference's log-probabilities come from: a frozen model, the adapter switched off, or the disk."""

from copy import deepcopy
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput

from vlmpack.costs.survey import SurveyedRows
from vlmpack.training.config import ConfigError, DPOConfig
from vlmpack.training.preference_trainer import PreferenceTrainer
from vlmpack.training.preflight import enable_as_set
from vlmpack.training.reference_cache import CacheKey, ReferenceCache
from vlmpack.training.references import References
from vlmpack.training.remembering import remember_beside
from vlmpack.training.task import Task
from vlmpack.training.weights_digest import weights_digest

FLUSH_EVERY = 256  # rows whose answers a crash may lose


class ReferencingTrainer(PreferenceTrainer):
    """A trainer whose scores are compared with those of a frozen reference.

    Args:
        model: a causal language model or an image-text-to-text model.
        args: settings.
        ref_model: the reference; None: the model as it is given, of which a frozen copy is made if need be.
        others: as for `PreferenceTrainer`.

    Attributes:
        ref_model: the frozen copy that is held, if any.
        reference_forwards: packs that went through the reference so far, on this rank.
        rows_asked: rows that were not found on the disk and asked for so far, over all ranks.
    """

    args: DPOConfig

    def __init__(self, model: nn.Module, args: DPOConfig, *, ref_model: nn.Module | None = None, **others: Any) -> None:
        super().__init__(model, args, **others)
        self.reference_forwards, self.rows_asked = 0, 0
        self._known: WeakKeyDictionary[SurveyedRows, References] = WeakKeyDictionary()
        self._cache: ReferenceCache | None = None
        self._moved = False  # whether the policy is no longer what it was when it was given
        self.asks_once = args.precompute_ref_log_probs and args.needs_reference
        self._adapted = ref_model is None and hasattr(self.model, "disable_adapter")
        if not args.needs_reference:
            ref_model = None
        elif ref_model is None and not self._adapted and not self.asks_once:
            ref_model = deepcopy(self.model)
        self.ref_model = None if ref_model is None else self._frozen(ref_model)
        if self.ref_model is not None:
            remember_beside(self.ref_model, self.model)
        if self.asks_once:
            self.add_callback(_AskBeforeFirstStep(self))

    def reference_scores(self, task: Task) -> Float[Tensor, " R"] | None:
        """As in `PreferenceTrainer`: log-probabilities under the reference, nats; None if no loss asks for them."""
        if not self.args.needs_reference:
            return None
        if not self.asks_once:
            return self.ask(task)
        if task.rows not in self._known:
            self.ask_for_all(task.rows, "evaluation")
        return self._known[task.rows].of(task)

    @torch.no_grad()
    def ask(self, task: Task) -> Float[Tensor, " R"]:
        """What the reference itself says of a task's responses, nats.

        Args:
            task: on the model's device.
        """
        self.reference_forwards += 1
        if self.ref_model is not None:
            with self.accelerator.autocast():  # a model that is not prepared yet has none of its own
                return self.scores(self.ref_model, task.unit)
        training = self.model.training
        self.model.eval()  # a dropout that was left on shall not blur the reference
        model = self.accelerator.unwrap_model(self.model)
        switched_off = model.disable_adapter if self._adapted else torch.no_grad
        with self.accelerator.autocast(), switched_off():
            logps = self.scores(self.model_wrapped if self._sharded else self.model, task.unit)
        self.model.train(training)
        return logps

    def train(self, *arguments: Any, **options: Any) -> TrainOutput:
        """As in `Trainer`; first the reference is asked for what is not known yet, before any weight changes.

        Raises:
            ConfigError: the reference shall be asked once, and the rows are a stream.
        """
        if self.asks_once:
            if not isinstance(self.train_dataset, SurveyedRows):
                raise ConfigError("precompute_ref_log_probs=True needs rows that can be read twice; a stream cannot")
            self._open_cache()
            if not self._sharded:
                self.ask_for_everything()
        return super().train(*arguments, **options)

    def ask_for_everything(self) -> None:
        """Know the reference's log-probabilities of all data sets, and let go of the reference."""
        evaluation = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"evaluation": self.eval_dataset}
        for name, rows in [("training", self.train_dataset), *evaluation.items()]:
            if rows is not None:
                self.ask_for_all(rows, name)
        self._moved, self.ref_model = True, None

    def ask_for_all(self, rows: SurveyedRows, name: str) -> None:
        """Know the reference's log-probabilities of a data set: from the disk, and what is missing there by asking.

        Args:
            rows: of the data set.
            name: of it, for messages.

        Raises:
            ConfigError: some are missing, and the reference is no longer there to be asked.
        """
        references = References(self._open_cache(), rows.lengths, self.args.sharing)
        missing = references.missing()
        self._demand_agreement(missing)  # which waits for all: none writes before all have looked
        self.say(
            f"reference: {len(rows) - len(missing):,} of {len(rows):,} {name} rows are known, in {self._cache.folder}"
        )
        if len(missing) and self._moved and not self._adapted:
            raise ConfigError(
                f"{len(missing)} {name} rows have no reference log-probabilities, and the model has been trained "
                f"since; give these rows as eval_dataset from the start, or leave precompute_ref_log_probs off"
            )
        if len(missing):
            self.rows_asked += len(missing)
            self._ask_for(references, rows, missing.tolist())
        self._known[rows] = references

    def _ask_for(self, references: References, rows: SurveyedRows, places: list[int]) -> None:
        loader = self.loader_over(rows, places, sharing="all")
        quiet = self.args.disable_tqdm or not self.is_world_process_zero()
        for inputs in tqdm(loader, desc="reference", unit="batch", disable=quiet, leave=False):
            for task in self.tasks(inputs, loader):
                task = task.to(self.args.device)
                with self.compute_loss_context_manager():
                    references.learn(task, self.ask(task))
        self._cache.flush()
        self.accelerator.wait_for_everyone()
        self._cache.reload()
        if left := len(references.missing()):
            self.say(f"reference: {left} rows could not be read; training, which reads them again, will leave them out")

    def _demand_agreement(self, missing: np.ndarray) -> None:
        """All ranks must see the same folder, or they would compute different rows."""
        if len(set(gather_object([(self._cache.key.digest, missing.tobytes())]))) > 1:
            raise ConfigError(
                f"ranks find different reference log-probabilities in {self._cache.folder}; give them one folder that "
                f"all can read and write, as ref_log_probs_folder"
            )

    def _open_cache(self) -> ReferenceCache:
        if self._cache is None:
            reference = self.ref_model if self.ref_model is not None else self.model
            folder = self.args.ref_log_probs_folder or Path(self.args.output_dir, "reference_logps")
            key = CacheKey(
                weights=self._digest(reference),
                processor=getattr(self.processor, "fingerprint", "samples"),
                settings=f"max_length={self.args.max_length} mixed_precision={self.accelerator.mixed_precision}",
            )
            self._cache = ReferenceCache(folder, key, self.accelerator.process_index, FLUSH_EVERY)
        return self._cache

    def _digest(self, model: nn.Module) -> str:
        """Of the whole model's weights; a rank that has only a shard of them, or none, adds what it has."""
        own = None if any(p.is_meta for p in model.parameters()) else weights_digest(model)
        return "-".join(sorted({each for each in gather_object([own]) if each is not None}))

    @property
    def _sharded(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _frozen(self, model: nn.Module) -> nn.Module:
        if self.args.packing:
            enable_as_set(model, self.args)
        model.requires_grad_(False).eval()
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            raise ConfigError(
                "DeepSpeed ZeRO-3 shards no second model here; set precompute_ref_log_probs=True without ref_model, or "
                "train an adapter"
            )
        if getattr(self.accelerator, "is_fsdp2", False):
            from accelerate.utils import fsdp2_prepare_model

            return fsdp2_prepare_model(self.accelerator, model)
        return self.accelerator.prepare_model(model, evaluation_mode=True)


class _AskBeforeFirstStep(TrainerCallback):
    """Engines that shard a model do so after `train` has begun; the reference is asked when they have."""

    def __init__(self, trainer: ReferencingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """After the model is sharded, before its first step."""
        trainer = self.trainer
        if trainer._sharded:
            trainer._moved = trainer._moved or state.global_step > 0  # resumed: no longer the reference
            trainer.ask_for_everything()
