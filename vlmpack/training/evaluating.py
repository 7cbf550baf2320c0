"""Evaluation and prediction: every pair of a data set once, over all ranks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import EvalPrediction
from transformers.integrations.deepspeed import deepspeed_init
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput

from vlmpack.costs.survey import SurveyedRows
from vlmpack.preferences import mean_preferred_length
from vlmpack.training.judgement import Judgement
from vlmpack.training.left_out import LeftOut
from vlmpack.training.loading import LoadingTrainer
from vlmpack.training.meter import Meter
from vlmpack.training.task import Task


class EvaluatingTrainer(LoadingTrainer):
    """A trainer that averages over all pairs of a data set: a pair weighs the same in whichever batch it stands."""

    def judged(self, model: nn.Module, tasks: Sequence[Task], mean_length: Tensor) -> Judgement:
        """What is made of a batch, without gradient; each trainer's own.

        Args:
            model: prepared, in evaluation mode.
            tasks: what this rank computes of the batch.
            mean_length: tokens of a preferred response, averaged over the data set's pairs.
        """
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Tell the user, once over all ranks.

        Args:
            text: what to say; nothing is said if it is empty.
        """
        raise NotImplementedError

    def surveyed(self, rows: Any, name: str) -> Any:
        """A data set with its unusable rows set aside.

        Args:
            rows: map-style data set, stream, dict of data sets, name of one, or None.
            name: of the data set, for messages.
        """
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As in `Trainer`; rows given here are surveyed first."""
        return super().evaluate(self.surveyed(eval_dataset, "evaluation"), ignore_keys, metric_key_prefix)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """As in `Trainer`; predictions are [P, 2] scores of (preferred, rejected), in the rows' order."""
        return super().predict(self.surveyed(test_dataset, "test"), ignore_keys, metric_key_prefix)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in `Trainer`; loss, metrics and scores are of all pairs."""
        model = self.prepared_for_evaluation()
        self.callback_handler.eval_dataloader = dataloader
        rows = dataloader.dataset.rows
        meter, left_out, scores, places = Meter(), [], [], []
        mean_length = torch.tensor(mean_preferred_length(rows.lengths, self.args.prompt_weight))
        for inputs in dataloader:
            left_out.append({"counts": inputs["weights"][2:], "left_out": inputs["left_out"]})
            tasks = self.tasks(inputs, dataloader)
            if not tasks:
                continue  # none of the rows could be read
            judgement = self.judged(model, tasks, mean_length.to(self.args.device))
            meter.add(judgement.metrics)
            meter.add_loss(judgement.loss, inputs["weights"][0])
            scores.append(judgement.pair_scores.float().cpu())
            places += [task.places_of_pairs for task in tasks]
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        self._count_left_out(left_out, rows)
        predictions = _in_order(gather_object([(torch.cat(places), torch.cat(scores))]))
        labels = np.zeros(len(predictions), dtype=int)  # the preferred one stands first
        metrics = meter.means(self.sum_over_ranks)
        if self.compute_metrics is not None:
            metrics |= self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions, labels, metrics, len(rows))

    def _count_left_out(self, batches: list[dict[str, Any]], rows: SurveyedRows) -> None:
        """Say which rows could no longer be read; many are an error."""
        left_out = LeftOut(self.args.max_bad_rows)
        counts = sum(batch["counts"] for batch in batches).to(self.args.device)
        left_out.add(self.sum_over_ranks(counts).tolist(), batches, rows)
        self.say(left_out.note())

    def prepared_for_evaluation(self) -> nn.Module:
        """The model as `Trainer` would have prepared it, when evaluation comes before training."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            model = self._sharded_for_evaluation()
        else:
            model = self._wrap_model(self.model, training=False)
            if model is self.model and not any(model is prepared for prepared in self.accelerator._models):
                model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model.eval()
        if callable(getattr(self.optimizer, "eval", None)):
            self.optimizer.eval()  # optimizers without a schedule keep two sets of weights
        return model

    def _sharded_for_evaluation(self) -> nn.Module:
        if self.model_wrapped is not self.model or any(self.model is each for each in self.accelerator._models):
            return self.model_wrapped
        if self.is_deepspeed_enabled:
            deepspeed_init(self, num_training_steps=0, inference=True)
            self.deepspeed = self.model_wrapped = self.accelerator.prepare(self.model)
        else:
            self.model = self.model_wrapped = self.accelerator.prepare(self.model)
        return self.model_wrapped

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """The sum of every rank's value.

        Args:
            value: of this rank; of the same shape on all.
        """
        return self.accelerator.reduce(value, reduction="sum")


def _in_order(parts: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """[P, 2] scores in the order of the data set's rows; fillers have no pairs, so none of theirs are there."""
    places = torch.cat([place for place, _ in parts])
    scores = torch.cat([score for _, score in parts])
    return scores[places.argsort(stable=True)].numpy()
