"""How rows reach a trainer: surveyed, in order, dealt to ranks so that their work is level, processed in workers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Sampler

from vlmpack.costs.forecast import alone
from vlmpack.costs.saving import Cost, packed_flops, shared_flops
from vlmpack.costs.survey import DatasetError, SurveyedRows, is_stream, survey
from vlmpack.costs.undecoded import undecoded
from vlmpack.ordering import Order
from vlmpack.sample import Sample
from vlmpack.training.batches import GlobalBatches, NumberedRows, Share, StreamedBatches
from vlmpack.training.collate import Collator
from vlmpack.training.config import ConfigError, PreferenceConfig
from vlmpack.training.dealing import deal
from vlmpack.training.epoch_order import EpochOrder
from vlmpack.training.fillers import NOBODY, filler, first_with_image, smallest
from vlmpack.training.restore import RestoringTrainer
from vlmpack.training.task import Task


class LoadingTrainer(RestoringTrainer):
    """A trainer whose batches are dealt by us, not sharded by accelerate.

    accelerate gives every rank as many rows, repeats some to fill the last batch, and knows nothing of their lengths.
    Here a global batch is cut from an order that all ranks agree on, and dealt so that predicted FLOPs are level,
    rows that share an image together.

    Attributes:
        processor: a `PreferenceProcessor`; None if rows are samples.
        cost: of the model's parts.
        training_loader: what feeds the training that is under way.
    """

    processor: Any
    cost: Cost
    training_loader: DataLoader | None = None

    def get_train_dataloader(self) -> DataLoader:
        """As in `Trainer`; the batches of an optimizer step come as empty ones and one with all of the rank's rows.

        Raises:
            ConfigError: there is no training data set.
        """
        rows, args = self.train_dataset, self.args
        if rows is None:
            raise ConfigError("there is no train_dataset to train on; give one to the trainer")
        share = self._share(args.train_batch_size, args.gradient_accumulation_steps)
        if is_stream(rows):
            self.training_loader = self._loader(None, StreamedBatches(rows, share), self._stream_filler(rows))
            return self.training_loader
        order = self._order(rows, share.step)
        batches = GlobalBatches(order, share, self._dealer(rows), args.dataloader_drop_last)
        self.training_loader = self._loader(rows, batches, self._filler(rows))
        return self.training_loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in `Trainer`; every row is computed once, whatever the number of ranks.

        Raises:
            ConfigError: there is no evaluation data set.
        """
        if eval_dataset is None and self.eval_dataset is None:
            raise ConfigError("there is no eval_dataset to evaluate on; give one to the trainer, or to evaluate()")
        named = isinstance(eval_dataset, str)
        rows = self.eval_dataset if eval_dataset is None else self.eval_dataset[eval_dataset] if named else eval_dataset
        return self.loader_over(rows, range(len(rows)))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As in `Trainer`; see `get_eval_dataloader`."""
        return self.get_eval_dataloader(test_dataset)

    def loader_over(
        self, rows: SurveyedRows, places: Sequence[int], sharing: str | None = None, blind: bool = False
    ) -> DataLoader:
        """This rank's part of some rows, without training.

        Args:
            rows: a data set.
            places: which of its rows, in the order in which they meet.
            sharing: what stands once in a pack; None: as in training.
            blind: take the images out of every prompt.
        """
        batches = GlobalBatches(places, self._share(self.args.eval_batch_size), self._dealer(rows))
        changed = {} if sharing is None else {"sharing": sharing, "padding": False}
        return self._loader(rows, batches, self._filler(rows), {**changed, "blind": blind})

    def tasks(self, inputs: dict[str, Any], loader: DataLoader) -> list[Task]:
        """What this rank computes of a batch: as many tasks as every other rank, if need be of nothing.

        Args:
            inputs: the batch, from the collator.
            loader: what gave it.
        """
        rows, filling = loader.dataset.rows, loader.collate_fn.filler
        tasks = [Task(*each, rows) for each in zip(inputs["units"], inputs["places"], strict=True)]
        if self.accelerator.num_processes == 1:
            return tasks
        most = self.accelerator.gather(torch.tensor([len(tasks)], device=self.args.device)).max().item()
        missing = most - len(tasks)
        return tasks + [Task(self.data_collator.units([filling])[0], [NOBODY], rows)] * missing if missing else tasks

    def _share(self, batch_size: int, accumulation: int = 1) -> Share:
        return Share(batch_size, accumulation, self.accelerator.num_processes, self.accelerator.process_index)

    def _loader(
        self, rows: Any, batches: Sampler, filling: Sample | None, changed: dict[str, Any] | None = None
    ) -> DataLoader:
        args = self.args
        return DataLoader(
            NumberedRows(rows),
            batch_sampler=batches,
            collate_fn=replace(self.data_collator, filler=filling, **(changed or {})),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
            generator=torch.Generator().manual_seed(args.seed),  # of workers; else it would take from the model's
        )

    def _order(self, rows: SurveyedRows, step: int) -> Order:
        args, table = self.args, rows.lengths
        seed = args.seed if args.data_seed is None else args.data_seed
        images, alike = (table.first_image, table.roots) if args.group_by_image else (None, None)
        order = Order(args.train_sampling_strategy, table.packed, step, seed, images, alike)
        self.remove_callback(EpochOrder)
        self.add_callback(EpochOrder(order))
        return order

    def _dealer(self, rows: SurveyedRows) -> Callable[[Sequence[int]], list[list[int]]] | None:
        """Deals the rows of a global batch to ranks, level in predicted FLOPs."""
        ranks = self.accelerator.num_processes
        if ranks == 1:
            return None
        table = rows.lengths
        _demand_agreement(rows)
        work, shared, trees = packed_flops(table, self.cost), shared_flops(table, self.cost), table.roots

        def dealt(step: Sequence[int]) -> list[list[int]]:
            chosen = np.asarray(step)
            parts = deal(work[chosen], trees[chosen], ranks, shared[chosen])
            return [chosen[part].tolist() for part in parts]

        return dealt

    def _filler(self, rows: SurveyedRows) -> Sample | None:
        """See `fillers.filler`; None if there is one rank only."""
        if self.accelerator.num_processes == 1 or not self.args.packing:
            return None
        return filler(self._read(rows[smallest(rows.lengths)]))

    def _stream_filler(self, rows: Any) -> Sample | None:
        if self.accelerator.num_processes == 1:
            return None
        found = first_with_image(rows, self._read)
        if found is None:
            raise ConfigError("none of the first rows of the stream can be read; look at one with the processor")
        return filler(found)

    def _read(self, row: Any) -> Sample:
        return row if isinstance(row, Sample) else self.processor(row)


def _demand_agreement(rows: SurveyedRows) -> None:
    """All ranks must have surveyed the same rows, or some would be trained on twice and others never."""
    columns = (rows.lengths.prompt, rows.lengths.content, np.asarray(rows.kept))
    seen = blake2b(b"".join(column.tobytes() for column in columns)).hexdigest()
    if len(set(gather_object([seen]))) > 1:
        raise DatasetError("ranks see different rows; let all of them read the same files, in the same order")


def surveyed(rows: Any, name: str, args: PreferenceConfig, processor: Any) -> Any:
    """A data set with its unusable rows set aside; names of data sets, streams and what is surveyed already pass.

    Args:
        rows: map-style data set, stream, dict of data sets, or None.
        name: of the data set, for messages.
        args: settings.
        processor: a `PreferenceProcessor`; None if rows are samples.
    """
    if rows is None or isinstance(rows, str | SurveyedRows):
        return rows
    if isinstance(rows, dict):
        return {key: surveyed(each, f"{name} ({key})", args, processor) for key, each in rows.items()}
    if is_stream(rows) and name == "training":
        _check_stream(rows, args)
        return undecoded(rows)
    usual = args.sharing == "all" and not args.padding
    found = survey(
        rows,
        None if processor is None else processor.measure,
        name=name,
        max_length=args.max_length,
        max_tokens=args.max_tokens if args.packing and usual else None,
        max_bad_rows=args.max_bad_rows,
        pairing=args.pairing,
        workers=args.dataloader_num_workers,
        quiet=args.disable_tqdm,
        # kept lengths do not see that a file named in a row was overwritten, and references go by what rows hold
        cache=not getattr(args, "precompute_ref_log_probs", False),
    )
    if not usual:
        _refuse_larger_than_a_pack(found, args)
    return found


def _refuse_larger_than_a_pack(found: SurveyedRows, args: PreferenceConfig) -> None:
    """With less shared, or padding, a row takes more tokens than the survey looks at."""
    tokens = alone(found.lengths, args.sharing, args.padding)
    if (large := tokens > args.max_tokens).any():
        raise DatasetError(
            f"{large.sum()} rows have more tokens than max_tokens={args.max_tokens} with sharing={args.sharing!r} and "
            f"padding={args.padding}, the first of them row {found.kept[int(large.argmax())]}; set "
            f"max_tokens={tokens.max()}, or cut responses with max_length"
        )


def _check_stream(rows: Any, args: PreferenceConfig) -> None:
    """What needs to know all rows beforehand does not go with a stream, nor what can be read once only."""
    if iter(rows) is rows:
        raise ConfigError(
            f"the training data set is a {type(rows).__name__}, which can be read once only; give a stream that can be "
            f"begun anew, such as a datasets.IterableDataset"
        )
    if args.max_steps <= 0:
        raise ConfigError("the training data set is a stream, and nobody knows its length; set max_steps")
    if args.group_by_image or args.train_sampling_strategy not in ("random", "sequential"):
        raise ConfigError(
            f"the training data set is a stream, which comes in its own order; leave out group_by_image="
            f"{args.group_by_image} and train_sampling_strategy={args.train_sampling_strategy!r}, or load the rows"
        )


def collator(args: PreferenceConfig, processor: Any) -> Collator:
    """What makes packs of rows, as the settings say."""
    return Collator(
        processor=processor,
        max_tokens=args.max_tokens,
        max_length=args.max_length,
        packing=args.packing,
        pairing=args.pairing,
        prompt_weight=args.prompt_weight,
        sharing=args.sharing,
        padding=args.padding,
    )
