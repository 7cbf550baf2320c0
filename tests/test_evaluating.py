"""Evaluation and prediction: every pair once, none lost without a word."""

import math

import pytest
import torch
from test_trainers import dataset, train
from tiny import llava

import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer, unpacked
from vlmpack.costs.survey import DatasetError


def test_evaluation_weighs_every_pair_alike_whatever_the_batch(tmp_path):
    trainer = train("reward", tmp_path, steps=2)
    rows = dataset(7)
    results = []
    for batch, max_tokens in ((1, 30), (3, 27), (7, 8192)):
        trainer.args.per_device_eval_batch_size = batch
        trainer.data_collator = type(trainer.data_collator)(None, max_tokens)
        results.append(trainer.evaluate(rows))
    rewards = unpacked.rewards(trainer.model, rows).detach()
    first, losses = 0, []
    for row in rows:
        losses.append(
            vlmpack.losses.bradley_terry(rewards[first : first + len(row.response_ids)], torch.tensor(row.pairs))
        )
        first += len(row.response_ids)
    for result in results:
        assert result["eval_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
        assert 0 <= result["eval_rewards/accuracies"] <= 1
    assert {"eval_rewards/chosen", "eval_rewards/margins", "eval_accuracy", "eval_runtime"} <= set(results[0])


def test_predictions_and_compute_metrics_get_one_row_a_pair(tmp_path):
    trainer = train("dpo", tmp_path, steps=2)
    trainer.compute_metrics = lambda p: {"right": float((p.predictions[:, 0] > p.predictions[:, 1]).mean())}
    rows = dataset(5)
    output = trainer.predict(rows)
    assert output.predictions.shape == (sum(len(row.pairs) for row in rows), 2)
    assert output.metrics["test_right"] == pytest.approx(output.metrics["test_rewards/accuracies"])


def test_several_evaluation_sets_and_the_best_model_work_as_in_any_trainer(tmp_path):
    config = RewardConfig(
        output_dir=str(tmp_path), max_steps=6, learning_rate=10.0, eval_strategy="steps", eval_steps=2, save_steps=2, report_to=[],
        load_best_model_at_end=True, metric_for_best_model="eval_a_loss", greater_is_better=True, disable_tqdm=True, save_total_limit=3,
    )  # fmt: skip
    model = RewardModel.from_backbone(llava().float())
    trainer = RewardTrainer(model, config, train_dataset=dataset(), eval_dataset={"a": dataset(3), "b": dataset(4)})
    trainer.train()
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {"eval_a_loss", "eval_b_loss", "eval_b_rewards/accuracies"} <= logged
    best = RewardModel.from_pretrained(trainer.state.best_model_checkpoint)
    assert trainer.state.best_global_step == 2  # 'best' is the worst here: what the first, far too large step left
    for a, b in zip(trainer.model.parameters(), best.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_row_that_can_no_longer_be_read_when_it_is_evaluated_is_named_and_the_others_counted(tmp_path, capsys):
    rows, broken = dataset(120), []

    class Reader:
        def measure(self, row):
            return rows[row].lengths

        def __call__(self, row):
            if row in broken:
                raise ValueError(f"picture {row} is gone")
            return rows[row]

    config = RewardConfig(output_dir=str(tmp_path), report_to=[], disable_tqdm=True, max_steps=1)
    model = RewardModel.from_backbone(llava().float())
    trainer = RewardTrainer(model, config, train_dataset=list(range(12)), processing_class=Reader())
    whole = trainer.predict(list(range(120))).predictions
    broken.append(5)
    left = trainer.predict(list(range(120))).predictions
    first, lost = sum(len(row.pairs) for row in rows[:5]), len(rows[5].pairs)
    torch.testing.assert_close(
        torch.tensor(left), torch.tensor([*whole[:first].tolist(), *whole[first + lost :].tolist()]), rtol=0, atol=1e-4
    )
    said = capsys.readouterr().out
    assert "1 could not be read" in said and "row 5: picture 5 is gone" in said
    broken.append(6)
    with pytest.raises(DatasetError, match="2 of the 120 rows read so far cannot be read"):
        trainer.evaluate(list(range(120)))


def test_missing_margins_of_one_of_several_evaluation_sets_are_named(tmp_path):
    bare = vlmpack.Sample(torch.tensor([1]), (torch.tensor([2]), torch.tensor([3])), ((0, 1),))
    config = RewardConfig(output_dir=str(tmp_path), report_to=[], use_margin=True)
    model = RewardModel.from_backbone(llava().float())
    with pytest.raises(DatasetError, match="1 bare rows have neither scores nor a margin"):
        RewardTrainer(model, config, train_dataset=dataset(3), eval_dataset={"good": dataset(3), "bare": [bare]})


def test_policy_and_reference_agree_before_training_in_mixed_precision_too(tmp_path):
    config = DPOConfig(output_dir=str(tmp_path), report_to=[], disable_tqdm=True, bf16=True, use_cpu=True)
    scores = DPOTrainer(llava().float(), config, train_dataset=dataset()).evaluate(dataset(3))
    assert scores["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert scores["eval_rewards/margins"] == 0
