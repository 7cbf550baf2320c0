"""What is logged while training: how fast it goes, and what packing saves, as counted by hand."""

import json

import pytest
from hypothesis import given, settings
from test_streaming import Stream
from tiny import EOS, llava, sample, samples
from transformers import TrainerCallback, TrainerState

import vlmpack.training.restore
from vlmpack import RewardConfig, RewardModel, RewardTrainer, pack
from vlmpack.training.batches import Numbered
from vlmpack.training.collate import Collator
from vlmpack.training.fillers import NOBODY, filler
from vlmpack.training.task import Task
from vlmpack.training.throughput import SECOND, Throughput
from vlmpack.training.work import Work, work_of

# An image has 4 tokens. Tokens: as packed, and with each response on its own.
ONE = sample([1, 2], [[3, EOS], [4, EOS]], [(0, 1)], images=1, seed=1)  # 6 + 2 + 2 = 10; 8 + 8 = 16
TEXT = sample([5, 6, 7], [[3], [4, 4], [EOS]], [(0, 1), (0, 2)])  # 3 + 1 + 2 + 1 = 7; 4 + 5 + 4 = 13
SAME_IMAGE = sample([8], [[3], [4]], [(0, 1)], images=1, seed=1)  # 5 + 1 + 1 = 7, or 3 after ONE; 6 + 6 = 12
ROWS = [ONE, TEXT, ONE, SAME_IMAGE]  # the first step: 17 of 29 tokens, 1 of 2 images; the second: 13 of 28, 1 of 4

COUNTED = {
    "num_tokens": 30,
    "packing/tokens_per_second": 3.0,
    "packing/unpacked_tokens_per_second": 5.7,
    "packing/tokens_saved": 27 / 57,
    "packing/packs_per_step": 1.0,
    "packing/vision_passes_per_step": 1.0,
    "packing/unpacked_vision_passes_per_step": 3.0,
}
UNPACKED = {
    "num_tokens": 57,
    "packing/tokens_per_second": 5.7,
    "packing/unpacked_tokens_per_second": 5.7,
    "packing/tokens_saved": 0.0,
    "packing/packs_per_step": 4.5,
    "packing/vision_passes_per_step": 3.0,
    "packing/unpacked_vision_passes_per_step": 3.0,
}


class Clock(TrainerCallback):
    """Nanoseconds that go by in steps, five seconds each, and in evaluation, a thousand a batch."""

    def __init__(self):
        self.now = 123

    def __call__(self):
        return self.now

    def on_step_end(self, *arguments, **others):
        self.now += 5 * SECOND

    def on_prediction_step(self, *arguments, **others):
        self.now += 1000 * SECOND


def trainer(folder, rows=ROWS, **changes) -> RewardTrainer:
    common = {"output_dir": str(folder), "max_steps": 2, "logging_steps": 2, "per_device_train_batch_size": 2}
    common |= {"save_strategy": "no", "report_to": [], "disable_tqdm": True, "learning_rate": 1e-3}
    if isinstance(rows, list):
        common["train_sampling_strategy"] = "sequential"
    clock = Clock()
    made = RewardTrainer(
        RewardModel.from_backbone(llava().float()),
        RewardConfig(**{**common, **changes}),
        train_dataset=rows,
        eval_dataset={"some": [ONE], "others": [TEXT, ONE]},
        callbacks=[clock],
    )
    made.throughput.clock = clock
    return made


def logged(trained: RewardTrainer) -> list[dict]:
    return [{name: log[name] for name in COUNTED} for log in trained.state.log_history if "loss" in log]


WAYS = {
    "a list": (ROWS, {}),
    "a stream": (Stream(ROWS), {}),
    "accumulation": (ROWS, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}),
    "workers": (ROWS, {"dataloader_num_workers": 1}),
}


@pytest.mark.parametrize("rows, changes", WAYS.values(), ids=WAYS)
def test_a_log_has_the_tokens_passes_and_packs_that_are_counted_by_hand(rows, changes, tmp_path):
    made = trainer(tmp_path, rows, **changes)
    made.train()
    assert logged(made) == [pytest.approx(COUNTED)]


def test_without_packing_every_response_is_a_sequence_of_its_own_and_nothing_is_saved(tmp_path):
    made = trainer(tmp_path, packing=False)
    made.train()
    assert logged(made) == [pytest.approx(UNPACKED)]


def test_every_log_is_of_the_steps_since_the_last(tmp_path):
    made = trainer(tmp_path, logging_steps=1)
    made.train()
    first, second = logged(made)
    assert (first["num_tokens"], second["num_tokens"]) == (17, 30)
    assert (first["packing/tokens_per_second"], second["packing/tokens_per_second"]) == pytest.approx((3.4, 2.6))
    assert (first["packing/tokens_saved"], second["packing/tokens_saved"]) == pytest.approx((12 / 29, 15 / 28))


def test_smaller_packs_are_more_of_them(tmp_path):
    made = trainer(tmp_path, max_tokens=10)  # nothing fits beside another
    made.train()
    (log,) = logged(made)
    assert log["packing/packs_per_step"] == 2.0
    assert log["num_tokens"] == 34  # the image stands twice in the second step


def test_evaluation_and_saving_take_none_of_the_time(tmp_path, monkeypatch):
    made = trainer(
        tmp_path, eval_strategy="steps", eval_steps=1, eval_on_start=True, save_strategy="steps", save_steps=1
    )
    sealed = vlmpack.training.restore.seal

    def slow(folder):
        made.throughput.clock.now += 300 * SECOND
        sealed(folder)

    monkeypatch.setattr(vlmpack.training.restore, "seal", slow)
    made.train()
    assert made.throughput.clock.now > 5000 * SECOND
    assert logged(made) == [pytest.approx(COUNTED)]
    names = {name for log in made.state.log_history if "eval_some_loss" in log for name in log}
    assert not any("packing" in name or "num_tokens" in name for name in names)


def test_a_resumed_run_goes_on_counting_tokens_though_it_was_saved_between_two_logs(tmp_path):
    trainer(tmp_path, save_strategy="steps", save_steps=1).train()
    state = json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["num_input_tokens_seen"] == 17
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    (log,) = logged(resumed)
    assert log["num_tokens"] == 30
    assert log["packing/tokens_per_second"] == pytest.approx(2.6)  # of the one step that it took itself


def test_transformers_own_count_of_tokens_is_the_same(tmp_path):
    made = trainer(tmp_path, include_num_input_tokens_seen="all")
    made.train()
    (log,) = [log for log in made.state.log_history if "loss" in log]
    assert log["num_input_tokens_seen"] == log["num_tokens"] == 30
    assert log["train_tokens_per_second"] > 0


def test_two_trainings_of_one_trainer_are_counted_apart(tmp_path):
    made = trainer(tmp_path, max_steps=1)
    made.train()  # too short for a log
    made.throughput.clock.now += 1000 * SECOND
    made.args.max_steps = 2
    made.train()
    assert logged(made) == [pytest.approx(COUNTED)]


def test_a_rank_that_keeps_others_company_does_no_work():
    company = filler(ONE)
    assert work_of(Task(pack([company])[0], [NOBODY])) == Work()
    assert work_of(Task(company, [NOBODY])) == Work()


def test_what_stands_in_a_pack_for_the_company_of_others_is_no_work():
    rows = [Numbered(0, TEXT), Numbered(1, sample([9], [[3], [4]], [(0, 1)]))]
    for company in (filler(ONE), filler(sample([5, 6], [[3]], []))):
        inputs = Collator(None, 100, filler=company)(rows)
        (unit,), (places,) = inputs["units"], inputs["places"]
        assert work_of(Task(unit, places)) == Work(7 + 3, 13 + 4, 1, 0, 0)
    assert Collator(None, 100, filler=filler(ONE))(rows)["places"] == [[0, 1, NOBODY]]


def test_the_company_may_share_the_beginning_of_a_row():
    company = filler(sample([1, 2, 3], [[4]], []))
    row = sample([1, 2, 5], [[3], [4]], [(0, 1)])
    (together,) = pack([row, company])
    assert together.tokens == 3 + 1 + 1 + 2
    assert work_of(Task(together, [0, NOBODY])) == Work(5, 8, 1, 0, 0)
    (together,) = pack([company, row])
    assert work_of(Task(together, [NOBODY, 0])) == Work(5, 8, 1, 0, 0)


def test_padding_is_computed_too():
    (unit,) = pack([TEXT, sample([9], [[3]], [])], sharing="none", padding=True)  # rows of 4, 5, 4 and 2 tokens
    assert work_of(Task(unit, [0, 1])) == Work(20, 15, 1, 0, 0)


@pytest.mark.parametrize("sharing", ["all", "prompt", "none"])
@settings(deadline=None, max_examples=15, derandomize=True)
@given(rows=samples(images=True))
def test_unpacked_work_is_that_of_each_sample_alone_whatever_is_shared(rows, sharing):
    for unit in pack(rows, 120, sharing=sharing):
        own = list(dict.fromkeys(unit.sample_of.tolist()))
        alone = [work_of(Task(rows[place], [place])) for place in own]
        work = work_of(Task(unit, own))
        assert work.unpacked_tokens == sum(each.tokens for each in alone)
        assert work.unpacked_tokens == (unit.position_ids[0, unit.ends] + 1).sum()
        assert work.unpacked_vision_passes == sum(each.vision_passes for each in alone)
        assert (work.tokens, work.packs, work.vision_passes) == (unit.tokens, 1, unit.vision_passes)


def test_ranks_add_up_and_their_time_is_averaged():
    here = Throughput(Clock())
    here.on_epoch_begin(None, TrainerState(), None)
    here.add([Task(pack([ONE])[0], [0])])
    here.clock.now += 2 * SECOND
    other = [7, 13, 1, 0, 0, 4 * SECOND, 1]  # with TEXT, which took it twice as long
    assert here.metrics(lambda own: [a + b for a, b in zip(own, other, strict=True)]) == {
        "num_tokens": 17,
        "packing/tokens_per_second": 17 / 3,
        "packing/unpacked_tokens_per_second": 29 / 3,
        "packing/tokens_saved": pytest.approx(12 / 29),
        "packing/packs_per_step": 2.0,
        "packing/vision_passes_per_step": 1.0,
        "packing/unpacked_vision_passes_per_step": 2.0,
    }


def test_an_epoch_that_begins_between_two_logs_hides_none_of_the_time():
    here = Throughput(Clock())
    for _ in range(2):
        here.on_epoch_begin(None, TrainerState(), None)
        here.clock.now += 2 * SECOND
    here.add([Task(pack([ONE])[0], [0])])
    assert here.metrics(lambda own: own)["packing/tokens_per_second"] == 10 / 4


def test_nothing_is_logged_of_no_steps():
    assert Throughput().metrics(lambda numbers: numbers) == {}


def test_steps_of_unreadable_rows_alone_save_nothing():
    throughput = Throughput(Clock())
    throughput.add([])
    found = throughput.metrics(lambda numbers: numbers)
    assert (found["packing/tokens_saved"], found["packing/tokens_per_second"]) == (0.0, 0.0)
