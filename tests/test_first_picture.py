"""The first pack's picture, beside the curves: once, for whoever logs, and never at the cost of a training."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_throughput import COUNTED, ONE, TEXT, Clock, trainer
from transformers.integrations import TensorBoardCallback, WandbCallback

import vlmpack.inspect
from vlmpack import pack
from vlmpack.training import first_picture
from vlmpack.training.fillers import NOBODY
from vlmpack.training.first_picture import NAME, show_first_pack
from vlmpack.training.task import Task

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


class Figure:
    """Two by two pixels, saved as matplotlib would."""

    def savefig(self, file, format):
        Image.fromarray(PIXELS).save(file, format)


class Writer:
    """TensorBoard's, as far as it is needed."""

    def __init__(self):
        self.pictures, self.flushed = [], 0

    def add_image(self, name, pixels, step, *, dataformats):
        self.pictures.append((name, pixels.tolist(), step, dataformats))

    def flush(self):
        self.flushed += 1

    add_text = add_scalar = close = lambda self, *arguments: None


class TensorBoard(TensorBoardCallback):
    """Without tensorboard."""

    def __init__(self, writer):
        self.tb_writer = writer
        self.logging_dir = "nowhere"


class Wandb(WandbCallback):
    """Without wandb: it has been set up, and logs nothing of its own."""

    def __init__(self):
        pass

    on_train_begin = on_train_end = on_log = on_save = lambda self, *arguments, **others: None


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The packs that were drawn, each with its processor."""
    packs = []

    def draw(pack, *, processor=None):
        packs.append((pack, processor))
        return Figure()

    monkeypatch.setattr(vlmpack.inspect, "draw", draw, raising=False)
    return packs


@pytest.fixture
def wandb(monkeypatch) -> list:
    """What was logged by `wandb.log`."""
    logged = []
    module = SimpleNamespace(log=logged.append, Image=lambda pixels: ("image", pixels.tolist()))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return logged


def task(row, place: int = 0) -> Task:
    return Task(pack([row])[0], [place])


def test_the_first_pack_is_shown_once_wherever_it_can_be(drawn, wandb):
    writer, first = Writer(), task(ONE)
    said = show_first_pack([first, task(TEXT)], [Clock(), TensorBoard(writer), Wandb()], "the processor")
    assert said == ""
    assert drawn == [(first.unit, "the processor")]
    assert writer.pictures == [("train/packing/first_pack", PIXELS.tolist(), 1, "HWC")]
    assert writer.flushed == 1
    assert wandb == [{"train/packing/first_pack": ("image", PIXELS.tolist()), "train/global_step": 1}]


def test_nothing_is_drawn_for_nobody(drawn):
    assert show_first_pack([task(ONE)], [Clock(), TensorBoard(None)], None) == ""
    assert drawn == []


def test_fillers_and_samples_are_passed_over(drawn):
    boards = [TensorBoard(Writer())]
    assert show_first_pack([task(ONE, NOBODY), Task(TEXT, [1])], boards, None) == ""
    assert drawn == []
    later = task(TEXT)
    show_first_pack([task(ONE, NOBODY), later], boards, None)
    assert [unit for unit, _ in drawn] == [later.unit]


def test_a_pack_that_is_too_large_is_not_drawn_and_that_is_said(drawn, monkeypatch):
    monkeypatch.setattr(first_picture, "LARGEST", 9)
    said = show_first_pack([task(ONE)], [TensorBoard(Writer())], None)
    assert said == "the first pack is not drawn for the logs: it has 10 tokens, more than 9"
    assert drawn == []


def test_a_drawing_that_fails_is_said_once_with_its_text(monkeypatch, wandb):
    def draw(pack, *, processor=None):
        raise ImportError("pictures need matplotlib: pip install 'vlmpack[inspect]'")

    monkeypatch.setattr(vlmpack.inspect, "draw", draw, raising=False)
    writer = Writer()
    assert show_first_pack([task(ONE)], [TensorBoard(writer), Wandb()], None) == (
        "the picture of the first pack is left out of the logs, and training goes on (log_first_pack=False asks for "
        "none): ImportError: pictures need matplotlib: pip install 'vlmpack[inspect]'"
    )
    assert writer.pictures == [] and wandb == []


def test_a_logger_that_fails_takes_the_picture_from_no_other(drawn, monkeypatch):
    def log(values):
        raise RuntimeError("You must call wandb.init() before wandb.log()")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(log=log, Image=list))
    writer = Writer()
    said = show_first_pack([task(ONE)], [Wandb(), TensorBoard(writer)], None)
    assert said.endswith("RuntimeError: You must call wandb.init() before wandb.log()")
    assert len(writer.pictures) == 1


def with_board(folder, **settings):
    made, writer = trainer(folder, **settings), Writer()
    made.add_callback(TensorBoard(writer))
    return made, writer


def test_a_run_shows_the_first_pack_of_its_first_step_before_it_is_computed(drawn, tmp_path):
    made, writer = with_board(tmp_path, save_strategy="steps", save_steps=1, report_quality=False)
    made.processor = "the processor"
    compute, shown_before = made.scores, []
    made.scores = lambda model, unit: shown_before.append(len(writer.pictures)) or compute(model, unit)
    made.train()
    ((unit, processor),) = drawn
    assert (unit.tokens, processor) == (17, "the processor")
    assert shown_before == [1, 1]
    resumed, writer = with_board(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert writer.pictures == [] and len(drawn) == 1


@pytest.mark.parametrize(
    "rank_zero, settings, expected", [(True, {}, 1), (False, {}, 0), (True, {"log_first_pack": False}, 0)]
)
def test_one_rank_shows_it_unless_it_is_asked_not_to(rank_zero, settings, expected, drawn, tmp_path):
    made, writer = with_board(tmp_path, max_steps=1, **settings)
    made.is_world_process_zero = lambda: rank_zero
    made.train()
    assert len(drawn) == len(writer.pictures) == expected


def test_a_training_survives_a_drawing_that_fails_and_says_so_once(monkeypatch, tmp_path, capsys):
    def draw(pack, *, processor=None):
        made.throughput.clock.now += 10**12
        raise ValueError("no picture today")

    monkeypatch.setattr(vlmpack.inspect, "draw", draw, raising=False)
    made, _ = with_board(tmp_path)
    made.train()
    assert made.state.global_step == 2
    assert capsys.readouterr().out.count("ValueError: no picture today") == 1
    (log,) = [log for log in made.state.log_history if "loss" in log]
    assert log["packing/tokens_per_second"] == pytest.approx(3.0)  # drawing took none of the time


def test_tensorboard_has_the_picture_and_the_curves(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="install vlmpack[inspect]")
    pytest.importorskip("tensorboard", reason="install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    made = trainer(tmp_path, report_to=["tensorboard"])
    made.train()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    (picture,) = board.Images(NAME)
    assert picture.step == 1
    assert picture.width > 300 and picture.height > 200
    for name, value in COUNTED.items():
        (point,) = board.Scalars(f"train/{name}")
        assert (point.step, point.value) == (2, pytest.approx(value))
