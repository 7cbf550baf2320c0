"""A trainer that asks, when it has trained, how good the rewards are, and that describes the model it saves."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers.trainer_utils import TrainOutput

from vlmpack.costs.survey import SurveyedRows
from vlmpack.model import unwrapped
from vlmpack.quality import Judged, Quality, QualityError, quality
from vlmpack.reward_folder import complete_adapter, has_adapter
from vlmpack.reward_model_config import RewardModelError
from vlmpack.scored import Scored
from vlmpack.training.config import ConfigError
from vlmpack.training.held_out import scored_tasks
from vlmpack.training.preference_trainer import PreferenceTrainer
from vlmpack.training.quality_files import TITLE, write_quality

NAME = "quality"  # of the report's files


class JudgingTrainer(PreferenceTrainer):
    """What `RewardTrainer` does when training is over: it measures its model, normalises it, and writes its card."""

    def __init__(self, model: Any, args: Any, **others: Any) -> None:
        if args.normalize_rewards and others.get("eval_dataset") is None:
            raise ConfigError("normalize_rewards=True calibrates on the evaluation set; give an eval_dataset")
        self.qualities: dict[str, Quality] = {}
        super().__init__(model, args, **others)
        if self.processor is not None:
            unwrapped(self.model).processor = self.processor

    def train(self, *arguments: Any, **options: Any) -> TrainOutput:
        """As in `PreferenceTrainer`; then, if there is an evaluation set, its rewards are measured."""
        config = unwrapped(self.model).config
        config.reward_mean, config.reward_std = 0.0, 1.0  # whatever it was calibrated on, its rewards change now
        output = super().train(*arguments, **options)
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        known = {name: rows for name, rows in sets.items() if rows is not None}
        if known and (self.args.report_quality or self.args.normalize_rewards):
            self._measure(known)
        return output

    def measured(self, dataset: Any = None) -> Quality:
        """How good the rewards of a data set are: accuracy, calibration, length bias, and what images contribute.

        Args:
            dataset: as for `evaluate`; None: the evaluation set.

        Raises:
            ConfigError: there is no evaluation set, or several.
        """
        rows = self.surveyed(self.eval_dataset if dataset is None else dataset, "evaluation")
        if not isinstance(rows, SurveyedRows):
            raise ConfigError(f"the evaluation set is a {type(rows).__name__}; name one data set")
        seen = self._held_out(rows, blind=False)
        blind = self._held_out(rows, blind=True) if any(each.images for each in seen) else None
        return quality(Judged.from_scored(seen, blind))

    def _measure(self, sets: dict[str, Any]) -> None:
        """Every rank takes part; the first writes. A model that was trained is worth more than a report of it."""
        rewards = []
        for name, rows in sets.items():
            seen = self._held_out(rows, blind=False)
            rewards += [reward for each in seen for reward in each.rewards]
            if self.args.report_quality:
                blind = self._held_out(rows, blind=True) if any(each.images for each in seen) else None
                with self._spared("the quality of its rewards is not reported"):
                    self.qualities[name] = quality(Judged.from_scored(seen, blind))
                    self._report(name)
        if self.args.normalize_rewards:
            with self._spared("its rewards are not normalised"):
                unwrapped(self.model).normalize_by(rewards)

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """What goes wrong after training is told and ends nothing."""
        try:
            yield
        except (QualityError, RewardModelError, OSError) as error:
            self.say(f"the model is trained, but {what}: {error}")

    def _report(self, name: str) -> None:
        found = self.qualities[name]
        if self.is_world_process_zero():
            said = write_quality(found, Path(self.args.output_dir), f"{NAME}_{name}" if name else NAME)
            self.say("\n".join([*found.lines(), said]))

    def _held_out(self, rows: SurveyedRows, blind: bool) -> list[Scored]:
        """The rewards of all rows, over all ranks, in their order."""
        model = self.prepared_for_evaluation()
        loader, found, counts = self.loader_over(rows, range(len(rows)), sharing="all", blind=blind), [], []
        quiet = self.args.disable_tqdm or not self.is_world_process_zero()
        what = "measuring the rewards, images taken out" if blind else "measuring the rewards"
        for inputs in tqdm(loader, desc=what, disable=quiet, leave=False):
            tasks = self.tasks(inputs, loader)
            with self.compute_loss_context_manager():
                found += scored_tasks(tasks, lambda unit: self.scores(model, unit), self.args.device)
            found += [Scored(place, error=why) for place, why in inputs["left_out"].items()]
            counts.append({"counts": inputs["weights"][2:], "left_out": inputs["left_out"]})
        if not blind:
            self._count_left_out(counts, rows)
        return sorted(gather_object(found), key=lambda each: each.place)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in `Trainer`; the folder also says what the model was trained on, what packing saved, how good it is."""
        unwrapped(self.model).card_sections = tuple(filter(None, (self._data(), self._accuracy())))
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and has_adapter(self.model):
            complete_adapter(Path(output_dir or self.args.output_dir), unwrapped(self.model))

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """As in `Trainer`: the card, which `save_model` has written."""
        if self.args.should_save and has_adapter(self.model):
            complete_adapter(Path(self.args.output_dir), unwrapped(self.model))

    def _data(self) -> str:
        """What it was trained on, for how long, and what packing saved."""
        steps = f"{self.state.global_step:,} steps of {self.args.train_batch_size} prompts on each process"
        saved = "A stream of rows." if self.saving is None else f"Forward passes of an epoch, {self.saving}."
        return f"## Training\n\n{steps}, loss {self.args.loss_type}. {saved}"

    def _accuracy(self) -> str:
        reports = {f"{TITLE}: {name}" if name else TITLE: found for name, found in self.qualities.items()}
        return "\n".join(re.sub("^#", "##", found.markdown(title), flags=re.M) for title, found in reports.items())
