"""Streams: the same training as from a list, rows decoded once, and bad ones left out without losing others."""

import datasets
import pytest
import torch
from test_trainers import curve, dataset, train
from tiny import EOS, llava, sample
from torch.utils.data import IterableDataset

import scenes
from vlmpack import RewardConfig, RewardModel, RewardTrainer
from vlmpack.costs.survey import DatasetError
from vlmpack.processors import PreferenceProcessor
from vlmpack.training.config import ConfigError


class Stream(IterableDataset):
    """Rows one after the other; counts how often each is read."""

    def __init__(self, rows):
        self.rows, self.read = rows, 0

    def __iter__(self):
        for row in self.rows:
            self.read += 1
            yield row


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_trains_as_the_list_in_its_order_does(workers, tmp_path):
    listed = train("reward", tmp_path, steps=6, train_sampling_strategy="sequential", optim="sgd")
    streamed = train("reward", tmp_path, rows=Stream(dataset()), steps=6, optim="sgd", dataloader_num_workers=workers)
    torch.testing.assert_close(curve(streamed), curve(listed), rtol=0, atol=1e-6)


def test_accumulation_and_resuming_work_on_streams(tmp_path):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "optim": "adamw_torch"}
    straight = train("reward", tmp_path / "a", rows=Stream(dataset()), steps=6, **settings)
    stopped = {"save_strategy": "steps", "save_steps": 4, **settings}
    train("reward", tmp_path / "b", rows=Stream(dataset()), steps=6, **stopped)
    resumed = train(
        "reward",
        tmp_path / "b",
        rows=Stream(dataset()),
        steps=6,
        resume=str(tmp_path / "b" / "checkpoint-4"),
        **stopped,
    )
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bad_rows_of_a_stream_are_left_out_named_and_the_others_trained_on(tmp_path, capsys):
    good = dataset(8)
    tied = sample([1, 2], [[3, EOS], [4, EOS]], [])
    clean = train("reward", tmp_path, rows=Stream(good), steps=2, optim="sgd", per_device_train_batch_size=8)

    class Reader:
        measure = None

        def __call__(self, row):
            if isinstance(row, str):
                raise ValueError(f"{row} cannot be read")
            return row

    def made(rows, allowed):
        model = RewardModel.from_backbone(llava().float())
        torch.manual_seed(7)
        torch.nn.init.normal_(model.reward_head.score.weight)
        config = RewardConfig(
            output_dir=str(tmp_path), max_steps=2, learning_rate=1e-2, optim="sgd", per_device_train_batch_size=10,
            max_bad_rows=allowed, report_to=[], logging_steps=1, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        return RewardTrainer(model, config, train_dataset=Stream(rows), processing_class=Reader())

    rows = [*good[:3], "row 3", *good[3:6], tied, *good[6:]]
    assert len(rows) == 10
    trainer = made(rows, 0.5)
    trainer.train()
    torch.testing.assert_close(curve(trainer), curve(clean), rtol=0, atol=1e-6)
    said = capsys.readouterr().out
    assert "of 20 rows that were read, 2 could not be read and 2 had nothing to compare" in said
    assert "row 3: row 3 cannot be read" in said and "row 7: all its responses are tied" in said
    with pytest.raises(DatasetError, match=r"1 of the 10 rows read so far cannot be read, more than max_bad_rows=0"):
        made(rows, 0.0).train()


def test_what_can_be_read_once_only_is_no_stream(tmp_path):
    config = RewardConfig(output_dir=str(tmp_path), report_to=[], max_steps=1)
    with pytest.raises(ConfigError, match="a generator, which can be read once only"):
        RewardTrainer(RewardModel.from_backbone(llava().float()), config, train_dataset=(row for row in dataset()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": -1}, "nobody knows its length; set max_steps"),
        ({"max_steps": 1, "group_by_image": True}, "leave out group_by_image=True"),
        ({"max_steps": 1, "train_sampling_strategy": "length_sorted"}, "train_sampling_strategy='length_sorted'"),
    ],
)
def test_settings_that_need_to_know_all_rows_are_refused(settings, message, tmp_path):
    config = RewardConfig(output_dir=str(tmp_path), report_to=[], **settings)
    with pytest.raises(ConfigError, match=message):
        RewardTrainer(RewardModel.from_backbone(llava().float()), config, train_dataset=Stream(dataset()))


def test_a_row_of_a_dataset_is_decoded_once_when_it_is_trained_on_and_never_to_measure_it(tmp_path, monkeypatch):
    from PIL import ImageFile

    rows = datasets.Dataset.from_list(scenes.rows(2, seed=0)).cast_column("images", datasets.List(datasets.Image()))
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda self: ((self.tile and decoded.append(1)) and 0) or load(self)
    )
    processor = PreferenceProcessor(scenes.processor())
    model = RewardModel.from_backbone(_scenes_model())
    config = RewardConfig(
        output_dir=str(tmp_path), num_train_epochs=1, per_device_train_batch_size=4, report_to=[], disable_tqdm=True
    )
    trainer = RewardTrainer(model, config, train_dataset=rows, processing_class=processor)
    assert not decoded
    trainer.train()
    assert len(decoded) == len(rows)


def _scenes_model():
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration(scenes.llava_config(scenes.processor()))
