"""What the trainers share, on transformers' own: the batch is what it would have been, computed pack by pack."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor, nn
from transformers import EvalPrediction, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput

from vlmpack.collate import Collator
from vlmpack.config import ConfigError, PreferenceConfig
from vlmpack.judgement import Judgement
from vlmpack.meter import Meter
from vlmpack.model import unwrapped
from vlmpack.objective import Scored, joined_scores
from vlmpack.ordering import ByImage, EpochOrder
from vlmpack.pack import Pack
from vlmpack.preferences import mean_preferred_length, preferences_of
from vlmpack.preflight import prepared
from vlmpack.restore import RestoringTrainer
from vlmpack.sample import Sample
from vlmpack.saving import cost_of, saving
from vlmpack.survey import SurveyedRows, survey
from vlmpack.whole_batch import linearised


class PreferenceTrainer(RestoringTrainer):
    """What `DPOTrainer` and `RewardTrainer` share.

    The optimizer batch is sacred: it holds the rows that it would have held without packing. It is split into
    packs, each pack runs forward and backward, its loss is divided by the weights of the *whole* optimizer step
    (over accumulation and ranks), and the optimizer steps once. So `packing` and `max_tokens` change speed and
    memory, not the training.

    Args:
        model: trained in place.
        args: settings.
        train_dataset: rows as `processing_class` takes them, or `Sample`s; map-style.
        eval_dataset: the same, or a dict of such.
        processing_class: a `PreferenceProcessor`; may be left out if the data sets hold samples.
        compute_metrics: gets [P, 2] scores of (preferred, rejected) as predictions, and zeros as labels.
        callbacks: as for `Trainer`.
        optimizers: as for `Trainer`.
        peft_config: train an adapter of this kind instead of the model.

    Attributes:
        saving: what packing saves on the training data, predicted; None without training data.

    Raises:
        ConfigError: settings that do not go together.
        DatasetError: the data cannot be trained on; names the rows.
        UnsupportedModelError: the model cannot be packed exactly.
    """

    def __init__(
        self,
        model: nn.Module,
        args: PreferenceConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple = (None, None),
        peft_config: Any = None,
    ) -> None:
        model, proof = prepared(model, args, processing_class, peft_config)
        self._survey_args = args
        self._say(proof)
        self.processor = processing_class
        self.meter = Meter()
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(
                processor=processing_class,
                max_tokens=args.max_tokens,
                max_length=args.max_length,
                packing=args.packing,
                pairing=args.pairing,
                prompt_weight=args.prompt_weight,
                accumulated=args.gradient_accumulation_steps > 1,
            ),
            train_dataset=self._surveyed(train_dataset, "training"),
            eval_dataset=self._surveyed(eval_dataset, "evaluation"),
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ConfigError(
                "DeepSpeed and FSDP are not supported yet: they would step once a pack; use DDP or one process"
            )
        self._say_saving()

    @property
    def compares_whole_batches(self) -> bool:
        """Whether the loss needs all pairs of a batch at once; if so, a batch of several packs is computed twice."""
        return False

    def scores(self, model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
        """What the model says of a unit's responses, with the gradient; each trainer's own."""
        raise NotImplementedError

    def reference_scores(self, unit: Pack | Sample) -> Float[Tensor, " R"] | None:
        """What they are compared with, if anything."""
        return None

    def judge(self, scored: Scored) -> Judgement:
        """Loss and metrics of some responses; each trainer's own."""
        raise NotImplementedError

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """Forward and backward of every pack; the optimizer steps elsewhere, once."""
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        total_weight, tokens = num_items_in_batch.unbind()
        share = self.accelerator.num_processes / total_weight  # ranks' gradients are averaged, we want the sum
        judges = self._judges(model, inputs["units"], tokens / total_weight)
        total = torch.zeros((), device=self.args.device)
        for (unit, sync), judge in zip(self._units(model, inputs), judges, strict=True):
            with sync:
                with self.compute_loss_context_manager():
                    judgement = judge(unit, self.scores(model, unit))
                    loss = judgement.loss * share
                self.accelerator.backward(loss)
            total += loss.detach()
            self.meter.add(judgement.metrics)
        return total

    def _judges(self, model: nn.Module, units: Sequence[Pack | Sample], mean_length: Tensor) -> list[Callable]:
        """For each unit, what makes a judgement of it and its scores."""
        if self.compares_whole_batches and len(units) > 1:
            scored = self._scored_together(model, units, mean_length)
            return linearised(self.judge, scored, [unit.responses for unit in units])

        def judge(unit: Pack | Sample, scores: Tensor) -> Judgement:
            return self.judge(self._scored(unit, scores, mean_length))

        return [judge] * len(units)

    def _scored(self, unit: Pack | Sample, scores: Float[Tensor, " R"], mean_length: Tensor) -> Scored:
        return Scored(scores, self.reference_scores(unit), preferences_of(unit, scores.device), mean_length)

    @torch.no_grad()
    def _scored_together(self, model: nn.Module, units: Sequence[Pack | Sample], mean_length: Tensor) -> Scored:
        """All responses of a batch, whatever packs they lie in; without gradient."""
        with self.compute_loss_context_manager():
            parts = [self._scored(u, self.scores(model, u), mean_length) for u in map(self._on_device, units)]
        return joined_scores(parts)

    def _units(self, model: nn.Module, inputs: dict[str, Any]) -> Iterator[tuple[Pack | Sample, Any]]:
        """Each unit on the device; ranks average their gradients with the last one only."""
        for place, unit in enumerate(inputs["units"], start=1):
            last = place == len(inputs["units"])
            yield self._on_device(unit), contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    def _on_device(self, unit: Pack | Sample) -> Pack | Sample:
        return unit.to(self.args.device) if isinstance(unit, Pack) else unit

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """As in `Trainer`; what accumulates to one step is packed together, and computed with its last batch."""
        batches, weights = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            batch.setdefault("units", [])
        if samples := [sample for batch in batches for sample in batch.get("samples", [])]:
            batches[-1]["units"] = self.data_collator.units(samples)
        return batches, weights

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """[2] a whole optimizer step's weights, over its accumulated batches and over ranks; see `Collator`."""
        weights = sum(batch["weights"] for batch in batch_samples)
        return self.accelerator.reduce(torch.as_tensor(weights, device=device), reduction="sum")

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As in `Trainer`, or grouped by image."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        if not (self.args.group_by_image and isinstance(rows, SurveyedRows)):
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        order = ByImage([each.images for each in rows.lengths], self.args.train_batch_size, seed)
        self.remove_callback(EpochOrder)
        self.add_callback(EpochOrder(order))
        return order

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As in `Trainer`; rows given here are surveyed first."""
        return super().evaluate(self._surveyed(eval_dataset, "evaluation"), ignore_keys, metric_key_prefix)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """As in `Trainer`; predictions are [P, 2] scores of (preferred, rejected)."""
        return super().predict(self._surveyed(test_dataset, "test"), ignore_keys, metric_key_prefix)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and metrics averaged over all pairs: a pair weighs the same in whichever batch it stands."""
        model = self._prepared_for_evaluation()
        self.callback_handler.eval_dataloader = dataloader
        meter, scores = Meter(), []
        mean_length = torch.tensor(mean_preferred_length(dataloader.dataset.lengths, self.args.prompt_weight))
        for inputs in dataloader:
            units = inputs["units"] if "units" in inputs else self.data_collator.units(inputs["samples"])
            with torch.no_grad():
                judgement = self.judge(self._scored_together(model, units, mean_length.to(self.args.device)))
            meter.add(judgement.metrics)
            meter.add_loss(judgement.loss, inputs["weights"][0])
            scores.append(judgement.pair_scores.float())
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        predictions = torch.cat(gather_object([torch.cat(scores).cpu()])).numpy()
        labels = np.zeros(len(predictions), dtype=int)  # the preferred one stands first
        metrics = meter.means(self._sum_over_ranks)
        if self.compute_metrics is not None:
            metrics |= self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions, labels, metrics, len(dataloader.dataset))

    def _prepared_for_evaluation(self) -> nn.Module:
        """The model as `Trainer` would have prepared it, when evaluation comes before training."""
        model = self._wrap_model(self.model, training=False)
        if model is self.model and not any(model is prepared for prepared in self.accelerator._models):
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model.eval()
        return model

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`; a training log carries the averages since the last one."""
        if "loss" in logs:
            logs |= self.meter.means(self._sum_over_ranks)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """Of forward and backward through the parameters, for the tokens that were really computed."""
        tokens = sum(u.tokens if isinstance(u, Pack) else u.lengths.unpacked for u in inputs["units"])
        return 6 * tokens * unwrapped(self.model).num_parameters(exclude_embeddings=True)

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, reduction="sum")

    def _surveyed(self, rows: Any, name: str) -> Any:
        """A data set with its unusable rows set aside, and said so; names of data sets pass."""
        if rows is None or isinstance(rows, str | SurveyedRows):
            return rows
        if isinstance(rows, dict):
            return {key: self._surveyed(each, f"{name} ({key})") for key, each in rows.items()}
        args = self._survey_args
        surveyed = survey(
            rows,
            None if self.processor is None else self.processor.measure,
            name=name,
            max_length=args.max_length,
            max_tokens=args.max_tokens if args.packing else None,
            max_bad_rows=args.max_bad_rows,
            pairing=args.pairing,
            workers=args.dataloader_num_workers,
            quiet=args.disable_tqdm,
        )
        for note in surveyed.notes:
            self._say(note)
        return surveyed

    def _say_saving(self) -> None:
        self.saving = None
        if isinstance(self.train_dataset, SurveyedRows):
            self.saving = saving(self.train_dataset.lengths, cost_of(unwrapped(self.model)))
            how = "" if self.args.packing else "unpacked training (packing=False); this would save: "
            self._say(f"{how}{self.saving}")

    def _say(self, text: str) -> None:
        if text and self._survey_args.process_index == 0:
            print(f"vlmpack: {text}", flush=True)
