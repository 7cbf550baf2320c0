"""After training, the rewards of the evaluation set are measured: with images and without, packed and unpacked alike."""

import json

import pytest
import torch
from test_trainers import dataset
from tiny import llama, llava, sample

from vlmpack import RewardConfig, RewardModel, RewardTrainer, unpacked
from vlmpack.quality import Judged, quality
from vlmpack.training.config import ConfigError


def trainer_of(folder, evaluation, model=None, **settings):
    common = {"output_dir": str(folder), "max_steps": 2, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    torch.manual_seed(3)
    reward_model = RewardModel.from_backbone(llava().float() if model is None else model)
    config = RewardConfig(**common, per_device_eval_batch_size=2, learning_rate=1e-2, **settings)
    return RewardTrainer(reward_model, config, train_dataset=dataset(), eval_dataset=evaluation)


def measured_by_hand(model, rows):
    """From rewards of each response alone."""
    with torch.no_grad():
        seen, blind = (unpacked.rewards(model, each).double() for each in (rows, [without_image(row) for row in rows]))
    starts = [sum(row.responses for row in rows[:place]) for place in range(len(rows))]
    row_of = torch.tensor([place for place, row in enumerate(rows) for _ in row.response_ids]).numpy()
    return quality(
        Judged(
            rewards=seen.numpy(),
            lengths=torch.tensor([len(r) for row in rows for r in row.response_ids]).numpy(),
            row_of=row_of,
            pairs=torch.tensor(
                [(s + w, s + r) for s, row in zip(starts, rows, strict=True) for w, r in row.pairs]
            ).numpy(),
            shows_image=torch.tensor([bool(row.images) for row in rows for _ in row.response_ids]).numpy(),
            margins=torch.tensor([m for row in rows for m in row.margins], dtype=torch.float64).numpy(),
            blind_rewards=blind.numpy(),
        )
    )


def without_image(row):
    """The prompt's text alone, written out: images stand at the beginning of it here."""
    text = row.prompt_ids[row.image_of < 0].tolist() if row.images else row.prompt_ids.tolist()
    return sample(text, [each.tolist() for each in row.response_ids], list(row.pairs))


def numbers(value, name=""):
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: number for key, each in inside for path, number in numbers(each, f"{name}/{key}").items()}
    return {name: value} if isinstance(value, int | float) else {}


@pytest.mark.parametrize(
    "settings",
    [{}, pytest.param({"packing": False}, marks=pytest.mark.slow), {"sharing": "pair"}],
    ids=["packed", "unpacked", "compared in pairs"],
)
def test_what_is_measured_is_what_each_response_alone_gives(settings, tmp_path):
    rows = dataset(9)
    trainer = trainer_of(tmp_path, rows, **settings)
    trainer.train()
    expected = numbers(measured_by_hand(trainer.model, rows).to_dict())
    found = numbers(trainer.qualities[""].to_dict())
    assert any("blind" in name for name in expected)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert numbers(json.loads((tmp_path / "quality.json").read_text())) == found
    assert (tmp_path / "quality.png").stat().st_size > 10_000
    assert "![How good the rewards are](quality.png)" in (tmp_path / "quality.md").read_text()


def test_several_evaluation_sets_have_a_report_each_and_text_needs_no_images_taken_out(tmp_path):
    texts = [sample([1, 2 + k % 3], [[3, k % 4], [4]], [(0, 1)]) for k in range(5)]
    trainer = trainer_of(tmp_path, {"photos": dataset(6), "texts": texts})
    trainer.train()
    assert set(trainer.qualities) == {"photos", "texts"}
    assert trainer.qualities["texts"].blind is None and trainer.qualities["photos"].blind is not None
    assert (tmp_path / "quality_texts.md").exists() and (tmp_path / "quality_photos.png").exists()


def test_nothing_is_measured_without_an_evaluation_set_or_where_it_is_not_wanted(tmp_path):
    for evaluation, settings in ((None, {}), (dataset(4), {"report_quality": False})):
        trainer = trainer_of(tmp_path, evaluation, **settings)
        trainer.train()
        assert trainer.qualities == {} and not (tmp_path / "quality.json").exists()


def test_rewards_are_normalised_on_the_evaluation_set_and_saved_so(tmp_path):
    rows = dataset(8)
    trainer = trainer_of(tmp_path, rows, normalize_rewards=True)
    trainer.train()
    trainer.save_model()
    scores = torch.tensor([r for each in RewardModel.from_pretrained(tmp_path).score(rows, quiet=True) for r in each])
    torch.testing.assert_close(scores.mean().item(), 0.0, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.std(correction=0).item(), 1.0, rtol=0, atol=1e-5)
    raw = unpacked.rewards(trainer.model, rows).detach()
    assert trainer.model.config.reward_mean == pytest.approx(raw.mean().item(), abs=1e-5)
    with pytest.raises(ConfigError, match="normalize_rewards=True calibrates on the evaluation set"):
        trainer_of(tmp_path, None, normalize_rewards=True)


def test_the_card_says_data_saving_and_accuracy(tmp_path):
    trainer = trainer_of(tmp_path, dataset(6), llama().float())
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "README.md").read_text()
    assert (
        "## Training\n\n2 steps of 8 prompts on each process, loss bradley_terry. Forward passes of an epoch, " in card
    )
    assert f"{trainer.saving}." in card
    assert "## How good the rewards are\n" in card and "accuracy, 95 % interval" in card


def test_measuring_another_data_set_leaves_no_files(tmp_path):
    trainer = trainer_of(tmp_path, None)
    found = trainer.measured(dataset(5))
    assert found.counts.rows == 5 and not list(tmp_path.glob("quality*"))
    with pytest.raises(ConfigError, match="the evaluation set is a NoneType"):
        trainer.measured()


def test_with_and_without_images_the_same_responses_are_judged_though_they_are_cut(tmp_path):
    rows = [sample([1, 2], [[3, 4, 1, 2, 3, 4], [2, 2, 2, 2, 2]], [(0, 1)], images=1, seed=k) for k in range(3)]
    trainer = trainer_of(tmp_path, None, max_length=9)  # an image is 4 tokens, so 3 are left for a response
    surveyed = trainer.surveyed(rows, "evaluation")
    seen, blind = (trainer._held_out(surveyed, blind=blind) for blind in (False, True))
    assert {each.lengths for each in seen} == {each.lengths for each in blind} == {(3, 3)}
    expected = [sample([1, 2], [[3, 4, 1], [2, 2, 2]], []) for _ in rows]
    with torch.no_grad():
        alone = unpacked.rewards(trainer.model, expected)
    torch.testing.assert_close(torch.tensor([r for each in blind for r in each.rewards]), alone.float())


def test_what_goes_wrong_after_training_loses_no_model(tmp_path, capsys):
    trainer = trainer_of(tmp_path, dataset(4), normalize_rewards=True)
    torch.nn.init.constant_(trainer.model.reward_head.score.weight, float("nan"))
    trainer.train()
    trainer.save_model()
    said = capsys.readouterr().out
    assert "the model is trained, but the quality of its rewards is not reported: none of 4 rows has a reward" in said
    assert "the model is trained, but its rewards are not normalised" in said


def test_an_old_calibration_does_not_outlive_the_training(tmp_path):
    trainer = trainer_of(tmp_path, None)
    trainer.model.config.reward_mean, trainer.model.config.reward_std = 5.0, 3.0
    trainer.train()
    assert (trainer.model.config.reward_mean, trainer.model.config.reward_std) == (0.0, 1.0)
