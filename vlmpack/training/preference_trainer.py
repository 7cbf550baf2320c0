"""What the trainers share, on transformers' own: the batch is what it would have been, computed pack by pack."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from jaxtyping import Float
from torch import Tensor, nn
from transformers import EvalPrediction, TrainerCallback
from transformers.trainer_utils import TrainOutput

from vlmpack.costs.saving import cost_of, saving
from vlmpack.costs.survey import SurveyedRows
from vlmpack.model import unwrapped
from vlmpack.pack import Pack
from vlmpack.preferences import preferences_of
from vlmpack.sample import Sample
from vlmpack.training.batches import BatchError
from vlmpack.training.config import PreferenceConfig
from vlmpack.training.evaluating import EvaluatingTrainer
from vlmpack.training.first_picture import show_first_pack
from vlmpack.training.judgement import Judgement
from vlmpack.training.learning_rates import check_vision_rate, parameter_groups, with_groups
from vlmpack.training.left_out import LeftOut
from vlmpack.training.loading import collator, surveyed
from vlmpack.training.memory_note import memory_note
from vlmpack.training.meter import Meter
from vlmpack.training.objective import Scored, joined_scores
from vlmpack.training.preflight import prepared
from vlmpack.training.remembering import remember
from vlmpack.training.task import Task
from vlmpack.training.throughput import Throughput
from vlmpack.training.whole_batch import linearised, of_all_ranks


class PreferenceTrainer(EvaluatingTrainer):
    """What `DPOTrainer` and `RewardTrainer` share.

    The optimizer batch is sacred: it holds the rows that it would have held without packing. It is split into
    packs, each pack runs forward and backward, its loss is divided by the weights of the *whole* optimizer step
    (over accumulation and ranks), and the optimizer steps once. So `packing` and `max_tokens` change speed and
    memory, not the training.

    Args:
        model: trained in place.
        args: settings.
        train_dataset: rows as `processing_class` takes them, or `Sample`s; map-style, or a stream, which needs
            `max_steps` and is read as it comes.
        eval_dataset: the same, map-style, or a dict of such.
        processing_class: a `PreferenceProcessor`; may be left out if the data sets hold samples.
        compute_metrics: gets [P, 2] scores of (preferred, rejected) as predictions, and zeros as labels.
        callbacks: as for `Trainer`.
        optimizers: as for `Trainer`.
        peft_config: train an adapter of this kind instead of the model.

    Attributes:
        saving: what packing saves on the training data, predicted; None without training data, or for a stream.
        cost: of the model's parts, by which saving is predicted and ranks are kept level.
        throughput: what is logged of speed, and of what packing saves while training.

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
        check_vision_rate(args, optimizers)
        model, proof = prepared(model, args, processing_class, peft_config)
        self._survey_args = args
        self.say(proof)
        self.processor = processing_class
        self.meter, self.throughput = Meter(), Throughput()
        self.cost = cost_of(unwrapped(model))
        self.left_out = LeftOut(args.max_bad_rows)
        super().__init__(
            model=model,
            args=args,
            data_collator=collator(args, processing_class),
            train_dataset=self.surveyed(train_dataset, "training"),
            eval_dataset=self.surveyed(eval_dataset, "evaluation"),
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.add_callback(self.throughput)
        remember(self.model, args, self.accelerator)
        self._say_saving()

    @property
    def compares_whole_batches(self) -> bool:
        """Whether the loss needs all pairs of a batch at once; if so, a batch of several packs is computed twice."""
        return False

    def scores(self, model: nn.Module, unit: Pack | Sample) -> Float[Tensor, " R"]:
        """What the model says of a unit's responses, [R], with the gradient; each trainer's own.

        Args:
            model: prepared; may be wrapped.
            unit: a pack, or where nothing is packed a sample.
        """
        raise NotImplementedError

    def reference_scores(self, task: Task) -> Float[Tensor, " R"] | None:
        """What they are compared with, [R], if anything.

        Args:
            task: a unit, and where its rows are from.
        """
        return None

    def judge(self, scored: Scored) -> Judgement:
        """Loss and metrics of some responses; each trainer's own.

        Args:
            scored: the model's scores, the reference's, and who is preferred to whom.
        """
        raise NotImplementedError

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """As in `Trainer`: forward and backward of every pack; the optimizer steps elsewhere, once.

        Raises:
            BatchError: rows came before the step's last batch.
        """
        total = torch.zeros((), device=self.args.device)
        if not self.accelerator.sync_gradients:
            if inputs["units"]:
                raise BatchError("rows of an optimizer step came before its last batch; keep dataloader_in_order=True")
            return total
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        total_weight, tokens = num_items_in_batch[:2].clamp(min=1e-9).unbind()
        share = self.accelerator.num_processes / total_weight  # ranks' gradients are averaged, we want the sum
        tasks = self.tasks(inputs, self.training_loader)
        self.throughput.add(tasks)
        self._show_first_pack(tasks)
        judges = self._judges(model, tasks, tokens / total_weight)
        for number, (task, judge) in enumerate(zip(tasks, judges, strict=True), start=1):
            task = task.to(self.args.device)
            with self._syncing(model, number == len(tasks)):
                with self.compute_loss_context_manager():
                    judgement = judge(task, self.scores(model, task.unit))
                    loss = judgement.loss * share
                self._backward(loss)
            total += loss.detach()
            self.meter.add(judgement.metrics)
        return total

    def _show_first_pack(self, tasks: Sequence[Task]) -> None:
        """At the first step of a run that is not resumed, by one rank, before anything is computed."""
        if self.args.log_first_pack and self.state.global_step == 0:
            with self.throughput.paused():
                if self.is_world_process_zero():
                    self.say(show_first_pack(tasks, self.callback_handler.callbacks, self.processor))
                self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _syncing(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Ranks average their gradients with the last unit only, and DeepSpeed steps with it."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.accelerator.sync_gradients = last
            yield
            self.accelerator.sync_gradients = True
        else:
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                yield

    def _backward(self, loss: Tensor) -> None:
        sharded = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if sharded else {}))  # accumulation is ours

    def _judges(self, model: nn.Module, tasks: Sequence[Task], mean_length: Tensor) -> list[Callable]:
        """For each task, what makes a judgement of it and its scores."""
        ranks = self.accelerator.num_processes
        if self.compares_whole_batches and len(tasks) * ranks > 1:
            scored = self._scored_together(model, tasks, mean_length)
            scored, first = of_all_ranks(scored, gather_object, self.accelerator.process_index)
            return linearised(self.judge, scored, [task.unit.responses for task in tasks], first, ranks)

        def judge(task: Task, scores: Tensor) -> Judgement:
            return self.judge(self._scored(task, scores, mean_length))

        return [judge] * len(tasks)

    def _scored(self, task: Task, scores: Float[Tensor, " R"], mean_length: Tensor) -> Scored:
        reference = self.reference_scores(task)
        if reference is not None:
            reference = reference.to(scores.dtype).to(scores.device)
        return Scored(scores, reference, preferences_of(task.unit, scores.device), mean_length)

    @torch.no_grad()
    def _scored_together(self, model: nn.Module, tasks: Sequence[Task], mean_length: Tensor) -> Scored:
        """All responses of a batch, whatever packs they lie in; without gradient."""
        parts = []
        with self.compute_loss_context_manager():
            for task in tasks:
                task = task.to(self.args.device)
                parts.append(self._scored(task, self.scores(model, task.unit), mean_length))
        return joined_scores(parts)

    def judged(self, model: nn.Module, tasks: Sequence[Task], mean_length: Tensor) -> Judgement:
        """See `EvaluatingTrainer`."""
        return self.judge(self._scored_together(model, tasks, mean_length))

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """A whole optimizer step's weights, over its batches and over ranks; see `Collator`."""
        totals = sum(batch["weights"] for batch in batch_samples)
        if self.accelerator.num_processes > 1:  # else the device need not be waited for
            totals = self.accelerator.reduce(totals.to(device), reduction="sum")
        self.left_out.add(totals[2:].tolist(), batch_samples, self.training_loader.dataset.rows)
        return totals.to(device)

    def train(self, *arguments: Any, **options: Any) -> TrainOutput:
        """As in `Trainer`; says at the end which rows were left out as they came, and what was held in memory."""
        output = super().train(*arguments, **options)
        self.say(self.left_out.note())
        self.say(memory_note(self.model, self.args.device))
        return output

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in `Trainer`; the vision tower may have a learning rate of its own."""
        if self.args.vision_lr is not None and self.optimizer is None:
            trained = self.model if model is None else model
            groups = parameter_groups(
                trained,
                weight_decay=self.args.weight_decay,
                decayed_names=self.get_decay_parameter_names(trained),
                vision_lr=self.args.vision_lr,
            )
            optimizer = self.get_optimizer_cls_and_kwargs(self.args, trained)
            self.optimizer_cls_and_kwargs = with_groups(optimizer, groups, self.args.optim)
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`; a training log carries the averages since the last one."""
        if "loss" in logs:
            logs |= self.meter.means(self.sum_over_ranks)
            logs |= self.throughput.metrics(self._over_ranks)
            self.state.num_input_tokens_seen = self.throughput.tokens
        super().log(logs, start_time)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As in `EvaluatingTrainer`; no time of training's."""
        with self.throughput.paused():
            return super().evaluate(*arguments, **options)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """As in `RestoringTrainer`; no time of training's, and the checkpoint knows how many tokens there were."""
        self.state.num_input_tokens_seen = self.throughput.tokens_so_far(self._over_ranks)
        with self.throughput.paused():
            super()._save_checkpoint(*arguments, **options)

    def _over_ranks(self, counts: list[int]) -> list[int]:
        """The sum of every rank's number, for each of them, exact."""
        return self.sum_over_ranks(torch.tensor(counts, device=self.args.device)).tolist()

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """As in `Trainer`: of forward and backward through the parameters, for the tokens that were really computed."""
        tokens = sum(u.tokens if isinstance(u, Pack) else u.lengths.unpacked for u in inputs["units"])
        return 6 * tokens * unwrapped(self.model).num_parameters(exclude_embeddings=True)

    def surveyed(self, rows: Any, name: str) -> Any:
        """A data set with its unusable rows set aside, and said so; names of data sets pass."""
        found = surveyed(rows, name, self._survey_args, self.processor)
        for each in found.values() if isinstance(found, dict) else [found]:
            for note in getattr(each, "notes", []) if each is not rows else []:
                self.say(note)
        return found

    def _say_saving(self) -> None:
        self.saving = None
        if isinstance(self.train_dataset, SurveyedRows):
            self.saving = saving(self.train_dataset.lengths, self.cost)
            how = "" if self.args.packing else "unpacked training (packing=False); this would save: "
            self.say(f"{how}{self.saving}")

    def say(self, text: str) -> None:
        """Tell the user, once over all ranks."""
        if text and self._survey_args.process_index == 0:
            print(f"vlmpack: {text}", flush=True)
