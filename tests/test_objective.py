"""What training minimises, by every name: packed equals unpacked, whatever the packs."""

import pytest
import torch
from test_trainers import curve, train
from tiny import llama, llava, sample
from transformers import HfArgumentParser

import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardModel, losses, unpacked
from vlmpack.costs.survey import DatasetError
from vlmpack.training.config import ConfigError
from vlmpack.training.objective import LOSSES
from vlmpack.training.task import Task

NEEDED = {"exo_pair": {"label_smoothing": 0.05}, "robust": {"label_smoothing": 0.1}, "aot": {"label_smoothing": 0.1}}
REFERENCE_FREE = [name for name, loss in LOSSES.items() if not loss.reference]
MPO = {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}
SETTINGS = {name: {"loss_type": name, **NEEDED.get(name, {})} for name in LOSSES} | {
    "mpo": MPO,
    "one prompt, one weight": {"prompt_weight": "one"},
    "lists, one weight": {"loss_type": "plackett_luce", "prompt_weight": "one"},
    "preferred, one weight": {"loss_type": ["sigmoid", "sft"], "prompt_weight": "one"},
    "best": {"pairing": "best"},
    "adjacent": {"pairing": "adjacent"},
}

# Each differs from the others in how packs could change it; the other formulas of pairs are trained in the slow ones.
FAST = ("aot", "plackett_luce", "mpo")


def slow_but(fast: tuple[str, ...], cases: dict) -> list:
    """Cases by name, those that are not among the fast ones marked as slow."""
    marks = {name: () if name in fast else (pytest.mark.slow,) for name in cases}
    return [pytest.param(case, id=name, marks=marks[name]) for name, case in cases.items()]


def ranked(count: int = 8) -> list:
    """Text samples with all pairs of a ranking with ties, of different sizes."""
    made = []
    for k in range(count):
        responses = [[1 + (k + r) % 5] * (1 + (k * r) % 3) + [0] for r in range(2 + k % 3)]
        scores = [(r * 7 + k) % 3 for r in range(len(responses))]
        pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]
        made.append(sample([1 + k % 7, 2, 3][: 1 + k % 3], responses, pairs or [(0, 1)], seed=k))
    return made


@pytest.mark.parametrize("settings", slow_but(FAST, SETTINGS))
def test_every_loss_trains_packed_as_unpacked_whatever_the_packs(settings, tmp_path):
    common = {"steps": 4, "optim": "sgd", "learning_rate": 0.05, "beta": 0.5, "rows": ranked(), **settings}
    common |= {"lr_scheduler_type": "constant", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    expected = train("dpo", tmp_path, model=llama(), packing=False, **common)
    assert curve(expected).std() > 1e-3
    for max_tokens in (14, 8192):
        packed = train("dpo", tmp_path, model=llama(), max_tokens=max_tokens, **common)
        torch.testing.assert_close(curve(packed), curve(expected), rtol=1e-4, atol=1e-4)
        for name, parameter in packed.model.named_parameters():
            other = expected.model.get_parameter(name)
            torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("loss_type", ["bradley_terry", "plackett_luce"])
@pytest.mark.parametrize("prompt_weight", ["pairs", "one"])
def test_every_reward_loss_trains_packed_as_unpacked(loss_type, prompt_weight, tmp_path):
    settings = {"loss_type": loss_type, "prompt_weight": prompt_weight, "center_rewards_coefficient": 0.1}
    common = {"steps": 4, "optim": "sgd", "rows": ranked(), **settings}
    expected = train("reward", tmp_path, model=llama(), packing=False, **common)
    packed = train("reward", tmp_path, model=llama(), max_tokens=14, **common)
    assert curve(expected).std() > 1e-3
    torch.testing.assert_close(curve(packed), curve(expected), rtol=1e-4, atol=1e-4)


def first_loss(kind: str, folder, rows, **settings) -> float:
    model = RewardModel.from_backbone(llama()) if kind == "reward" else llama()
    trainer = train(kind, folder, model=model, rows=rows, steps=1, learning_rate=0.0, **settings)
    return trainer, trainer.state.log_history[0]["loss"]


def test_a_prompt_of_weight_one_averages_its_pairs(tmp_path):
    rows = ranked(4)
    trainer, logged = first_loss("reward", tmp_path, rows, prompt_weight="one")
    means = []
    for row in rows:
        rewards = unpacked.rewards(trainer.model, [row]).detach()
        means.append(losses.bradley_terry(rewards, torch.tensor(row.pairs)).mean())
    assert logged == pytest.approx(torch.stack(means).mean().item(), rel=1e-5)


def test_lists_and_centring_by_hand(tmp_path):
    rows = ranked(4)
    trainer, logged = first_loss(
        "reward", tmp_path, rows, loss_type="plackett_luce", prompt_weight="one", center_rewards_coefficient=0.1
    )
    expected = []
    for row in rows:
        rewards, pairs = unpacked.rewards(trainer.model, [row]).detach(), torch.tensor(row.pairs)
        centring = (rewards[pairs].sum(1) ** 2).mean()
        expected.append(losses.plackett_luce(rewards, pairs).sum() + 0.1 * centring)
    assert logged == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_the_likelihood_of_preferred_responses_is_a_mean_over_their_tokens(tmp_path):
    rows = ranked(4)
    trainer, logged = first_loss("dpo", tmp_path, rows, loss_type="sft")
    nats = tokens = 0
    for row in rows:
        logps = unpacked.response_logps(trainer.model, [row]).detach()
        nats += sum(-logps[preferred] for preferred, _ in row.pairs)
        tokens += sum(len(row.response_ids[preferred]) for preferred, _ in row.pairs)
    assert logged == pytest.approx((nats / tokens).item(), rel=1e-5)


@pytest.mark.parametrize("loss_type", REFERENCE_FREE)
def test_losses_without_a_reference_hold_no_reference_model(loss_type, tmp_path):
    trainer = DPOTrainer(llama().float(), DPOConfig(output_dir=str(tmp_path), loss_type=loss_type, report_to=[]))
    assert trainer.ref_model is None
    assert trainer.reference_scores(Task(vlmpack.pack(ranked(2))[0], [0, 1])) is None


def test_evaluation_of_a_sorted_loss_is_that_of_the_batch(tmp_path):
    trainer = train("dpo", tmp_path, model=llama(), rows=ranked(), steps=2, loss_type="aot", learning_rate=0.1)
    found = []
    for max_tokens in (14, 8192):
        trainer.data_collator = type(trainer.data_collator)(None, max_tokens)
        found.append(trainer.evaluate(ranked())["eval_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "dpo"}, "loss_type='dpo' is not one of sigmoid"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, r"1 loss_weights for losses \[.sigmoid., .sft.\]"),
        ({"loss_type": "plackett_luce", "pairing": "adjacent"}, "pairing='adjacent' leaves no ranking"),
        ({"loss_type": "exo_pair"}, "'exo_pair' needs label_smoothing above 0"),
        ({"loss_type": "robust", "label_smoothing": 0.5}, "label_smoothing below 0.5"),
        ({"loss_type": "aot", "prompt_weight": "one"}, "it needs prompt_weight='pairs'"),
        ({"loss_type": "aot", "disable_dropout": False}, "disable_dropout=True"),
        ({"pairing": "worst"}, "pairing='worst' is not one of all, best, adjacent"),
        ({"prompt_weight": "two"}, "prompt_weight='two' is not one of pairs, one"),
        (
            {"group_by_image": True, "train_sampling_strategy": "sequential"},
            "group_by_image=True moves rows",
        ),
    ],
)
def test_losses_and_weights_that_cannot_work_are_refused(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        DPOConfig(output_dir=str(tmp_path), report_to=[], **settings)


def test_grouping_by_image_trains_on_every_row_and_shares_more(tmp_path):
    rows = [sample([1, k], [[2], [3]], [(0, 1)], images=1, seed=k % 4) for k in range(16)]
    passes = {}
    for grouped in (False, True):
        trainer = train("dpo", tmp_path, rows=rows, steps=4, group_by_image=grouped)
        batches = list(trainer.get_train_dataloader())
        assert sum(unit.responses for batch in batches for unit in batch["units"]) == 32
        passes[grouped] = sum(unit.vision_passes for batch in batches for unit in batch["units"])
    assert passes[True] == 4 < passes[False]


@pytest.mark.parametrize("packing", [True, False])
def test_rows_that_accumulate_to_one_step_share_their_image(packing, tmp_path):
    rows = [sample([1, k], [[2], [3]], [(0, 1)], images=1, seed=5) for k in range(6)]
    found = []
    for settings in (
        {"per_device_train_batch_size": 6},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    ):
        model, passes = llava(), []
        model.model.vision_tower.register_forward_hook(lambda tower, inputs, output, seen=passes: seen.append(1))
        trainer = train(
            "dpo",
            tmp_path,
            model=model,
            rows=rows,
            steps=2,
            optim="sgd",
            packing=packing,
            loss_type="simpo",
            **settings,
        )
        found.append(curve(trainer))
        assert len(passes) == (2 if packing else 2 * 6 * 2)
        assert trainer.evaluate(rows)["eval_loss"] > 0
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_evaluation_does_not_depend_on_its_batch_size(tmp_path):
    trainer = train("dpo", tmp_path, model=llama(), rows=ranked(), steps=1, loss_type=["sigmoid", "sft"])
    found = []
    for batch in (1, 3, 8):
        trainer.args.per_device_eval_batch_size = batch
        found.append(trainer.evaluate(ranked())["eval_loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_settings_are_read_from_a_command_line(tmp_path):
    (config,) = HfArgumentParser(DPOConfig).parse_args_into_dataclasses(["--output_dir", str(tmp_path)])
    assert config.weighted_losses == (("sigmoid", 1.0),)
    mpo = ["--loss_type", "sigmoid", "bco_pair", "sft", "--loss_weights", "0.8", "0.2", "1"]
    (config,) = HfArgumentParser(DPOConfig).parse_args_into_dataclasses(["--output_dir", str(tmp_path), *mpo])
    assert config.weighted_losses == (("sigmoid", 0.8), ("bco_pair", 0.2), ("sft", 1.0))


def test_margins_are_asked_of_evaluation_rows_too(tmp_path):
    rows = [vlmpack.Sample(row.prompt_ids, row.response_ids, row.pairs) for row in ranked(4)]
    trainer = train("reward", tmp_path, model=llama(), rows=ranked(4), steps=1, use_margin=True)
    with pytest.raises(DatasetError, match="use_margin=True, but 4 evaluation rows have neither scores nor a margin"):
        trainer.evaluate(rows)


def test_a_reward_of_a_bfloat16_model_is_a_float32_number(tmp_path):
    model = RewardModel.from_backbone(llama().to(torch.bfloat16))
    (pack,) = vlmpack.pack(ranked(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pack).dtype == torch.float32
    assert unpacked.rewards(model, ranked(3)).dtype == torch.float32
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    assert (again.reward_head.score.weight.dtype, again.model.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(again(pack), model(pack))
