"""Reference log-probabilities from the disk: the same training, asked for once, and never another's."""

import tempfile
from copy import deepcopy

import pytest
import torch
from test_streaming import Stream
from test_trainers import curve, dataset, lora
from tiny import llava

import scenes
import vlmpack
from vlmpack import DPOConfig, DPOTrainer
from vlmpack.image import ImageInputs
from vlmpack.lengths import Lengths, LengthTable
from vlmpack.processors import PreferenceProcessor
from vlmpack.training.config import ConfigError
from vlmpack.training.reference_cache import CacheKey, ReferenceCache, ReferenceCacheError
from vlmpack.training.references import References
from vlmpack.training.task import Task


def trained(folder, rows=None, model=None, cached=True, steps=8, run=True, **others):
    settings = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_tokens": 60,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "precompute_ref_log_probs": cached,
    }
    arguments = {name: others.pop(name) for name in ("eval_dataset", "ref_model", "peft_config") if name in others}
    model = (llava() if model is None else model).float()
    trainer = DPOTrainer(
        model,
        DPOConfig(**{**settings, **others}),
        train_dataset=dataset() if rows is None else rows,
        **arguments,
    )
    if run:
        trainer.train()
    return trainer


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sharing": "pair"},
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ({"packing": False}, {"sharing": "none", "padding": True})
        ),
    ],
)
def test_the_training_is_that_with_a_reference_model_and_none_is_held(settings, tmp_path):
    settings = {"optim": "sgd", "max_tokens": 100, **settings}
    held = trained(tmp_path / "a", cached=False, **settings)
    cached = trained(tmp_path / "b", **settings)
    torch.testing.assert_close(curve(cached), curve(held), rtol=0, atol=1e-6)
    for a, b in zip(cached.model.parameters(), held.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert held.ref_model is not None and cached.ref_model is None
    assert held.reference_forwards > cached.reference_forwards > 0


def test_a_second_run_asks_the_reference_nothing(tmp_path):
    first = trained(tmp_path, eval_dataset=dataset(5))
    second = trained(tmp_path, eval_dataset=dataset(5))
    assert first.reference_forwards > 0 == second.reference_forwards
    assert torch.equal(curve(second), curve(first))
    assert second.evaluate()["eval_loss"] == first.evaluate()["eval_loss"]
    assert second.reference_forwards == 0


def with_a_pixel_changed(row):
    pixels = row.images[0].tensors["pixel_values"].clone()
    pixels[0, 0, 3, 3] = torch.nextafter(pixels[0, 0, 3, 3], torch.tensor(9.0, dtype=pixels.dtype))
    return type(row)(**{**vars(row), "images": (ImageInputs({"pixel_values": pixels}), *row.images[1:])})


def with_a_token_changed(row):
    first = row.response_ids[0].clone()
    first[0] += 1
    return type(row)(**{**vars(row), "response_ids": (first, *row.response_ids[1:])})


@pytest.mark.parametrize("change", [with_a_pixel_changed, with_a_token_changed])
def test_a_changed_row_is_asked_for_anew_and_no_other(change, tmp_path):
    rows = dataset()
    assert trained(tmp_path, rows).rows_asked == 12
    rows[1] = change(rows[1])
    assert trained(tmp_path, rows).rows_asked == 1
    assert trained(tmp_path, rows).rows_asked == 0


def test_a_changed_weight_setting_or_length_is_asked_for_anew(tmp_path):
    model = llava().float()
    assert trained(tmp_path, model=deepcopy(model)).rows_asked == 12
    assert trained(tmp_path, model=deepcopy(model), max_length=64).rows_asked == 12
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert trained(tmp_path, model=model).rows_asked == 12


def test_one_changed_pixel_of_a_file_is_a_miss_through_the_processor(tmp_path):
    processor = PreferenceProcessor(scenes.processor())
    rows = scenes.rows(2, seed=0)
    before = processor.measure(rows[0]).content
    assert processor.measure(rows[0]).content == before != processor.measure(rows[-1]).content
    changed = dict(rows[0])
    key = "images" if "images" in changed else "image"
    image = (changed[key][0] if key == "images" else changed[key]).copy()
    red, *others = image.getpixel((3, 3))
    image.putpixel((3, 3), (red ^ 1, *others))
    changed[key] = [image] if key == "images" else image
    assert processor.measure(changed).content != before


def test_after_a_crash_only_what_is_missing_is_asked_for(tmp_path, monkeypatch):
    asked = []
    ask = DPOTrainer.ask

    def crashing(self, task):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(task)
        return ask(self, task)

    monkeypatch.setattr("vlmpack.training.referencing.FLUSH_EVERY", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DPOTrainer, "ask", crashing)
        trained(tmp_path)
    known = sum(len(task.places) for task in asked)
    assert 0 < known < 12
    assert trained(tmp_path).rows_asked == 12 - known


def test_a_reference_model_that_is_given_is_asked_and_let_go(tmp_path):
    reference = llava(seed=3).float()
    held = trained(tmp_path / "a", cached=False, ref_model=deepcopy(reference))
    cached = trained(tmp_path / "b", ref_model=reference)
    torch.testing.assert_close(curve(cached), curve(held), rtol=0, atol=1e-6)
    assert cached.ref_model is None


def test_with_an_adapter_the_cache_is_that_of_the_base(tmp_path):
    held = trained(tmp_path / "a", cached=False, peft_config=lora(), learning_rate=0.1)
    cached = trained(tmp_path / "b", peft_config=lora(), learning_rate=0.1)
    torch.testing.assert_close(curve(cached), curve(held), rtol=0, atol=1e-6)
    assert trained(tmp_path / "b").rows_asked == 0  # without the adapter the weights are the same


def test_evaluation_before_training_asks_and_rows_never_seen_are_refused_after_it(tmp_path):
    trainer = trained(tmp_path, run=False)
    assert trainer.evaluate(dataset(3))["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)
    trainer.train()
    with pytest.raises(ConfigError, match="5 evaluation rows have no reference log-probabilities"):
        trainer.evaluate([with_a_token_changed(row) for row in dataset(5)])


def test_a_stream_cannot_be_asked_for_beforehand(tmp_path):
    with pytest.raises(ConfigError, match="needs rows that can be read twice"):
        trained(tmp_path, rows=Stream(dataset()))


def test_data_sets_that_come_and_go_never_get_each_others_references(tmp_path):
    trainer, held = trained(tmp_path / "a"), trained(tmp_path / "b", cached=False)
    rows = dataset()
    for first in range(8):  # each is surveyed anew and may take the place of one that is gone
        some = rows[first : first + 4]
        found, expected = trainer.evaluate(some), held.evaluate(some)
        assert found["eval_rewards/chosen"] == pytest.approx(expected["eval_rewards/chosen"], abs=1e-5)


def test_a_reference_model_beside_an_adapter_is_not_replaced_by_the_base(tmp_path):
    trainer = trained(tmp_path, ref_model=llava(seed=3).float(), peft_config=lora(), learning_rate=0.1)
    with pytest.raises(ConfigError, match="5 evaluation rows have no reference log-probabilities"):
        trainer.evaluate([with_a_token_changed(row) for row in dataset(5)])


def test_the_reference_is_asked_in_the_precision_of_training(tmp_path):
    trainer = trained(
        tmp_path,
        bf16=True,
        use_cpu=True,
        learning_rate=0.0,
        steps=3,
        per_device_train_batch_size=12,
        per_device_eval_batch_size=12,
        max_tokens=8192,
        train_sampling_strategy="sequential",
    )
    margins = [each["rewards/margins"] for each in trainer.state.log_history if "loss" in each]
    plain = trained(tmp_path, use_cpu=True, learning_rate=0.0, steps=1, run=False)
    task = Task(vlmpack.pack(dataset())[0], list(range(12)), trainer.train_dataset)
    with plain.accelerator.autocast():
        single = plain.ask(task)
    known = trainer.reference_scores(task)
    assert (known - single).abs().max() > 1e-3  # bfloat16 is seen
    assert margins == pytest.approx([0, 0, 0], abs=2e-3)


def test_evaluation_sets_may_have_any_name(tmp_path):
    trainer = trained(tmp_path, eval_dataset={"training": dataset(3), "other": dataset(4)})
    assert {"eval_training_loss", "eval_other_loss"} <= set(trainer.evaluate())


def test_rows_that_nobody_can_tell_apart_have_no_references():
    table = LengthTable.of([Lengths(3, (1, 1), pairs=((0, 1),))])
    with pytest.raises(ReferenceCacheError, match="gives rows no content"):
        References(ReferenceCache(tempfile.mkdtemp(), CacheKey("a", "b", "c")), table).missing()


def test_ranks_that_find_different_references_are_refused(tmp_path, monkeypatch):
    gathered = iter([lambda own: own, lambda own: [*own, ("other", b"")]])  # first the digests of the weights
    monkeypatch.setattr("vlmpack.training.referencing.gather_object", lambda own: next(gathered)(own))
    with pytest.raises(ConfigError, match="ranks find different reference log-probabilities"):
        trained(tmp_path)
