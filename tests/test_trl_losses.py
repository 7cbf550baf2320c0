"""Every loss against an oracle that others wrote: TRL's own code on the same tokens, model and reference.

TRL runs its padded batch through its own forward pass; here every response runs alone, and its log-probability is
picked out of the logits in plain sight. Values and all parameters' gradients are compared, in float64.
"""

import pytest
import torch
from datasets import Dataset
from tiny import double, llama, text_config
from transformers import LlamaForSequenceClassification

import scenes
from vlmpack import DPOConfig, losses
from vlmpack.preferences import Preferences
from vlmpack.training.objective import LOSSES, Scored, objective, rewards

trl = pytest.importorskip("trl", reason="TRL is the independent oracle; install vlmpack[dev]")
cpo, orpo = pytest.importorskip("trl.experimental.cpo"), pytest.importorskip("trl.experimental.orpo")

ROWS = [  # prompt, preferred, rejected
    ([5, 9, 3], [7, 2, 11, 4, 1], [6, 1]),
    ([8, 2], [3, 12], [14, 5, 5, 9, 10, 1]),
    ([4, 4, 17, 6], [9, 13, 8, 1], [2, 18, 1]),
    ([10], [16], [15, 3, 7, 1]),
]
PAIRS = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])  # rows of the responses in the order of ROWS
LENGTHS = torch.tensor([5, 2, 2, 6, 4, 3, 1, 4])
MEAN_LENGTH = 3.0  # (5 + 2 + 4 + 1) / 4

LINE = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])

WITH_A_REFERENCE = [name for name, loss in LOSSES.items() if loss.reference and name != "plackett_luce"]


def arguments(config, folder, **settings):
    return config(
        output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        remove_unused_columns=False, **settings,
    )  # fmt: skip


def token_logps(model, ids: list[int]) -> torch.Tensor:
    """Log-probability of each token but the first, from one sequence on its own."""
    logits = model(torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(dim=-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


def response_logps(model) -> torch.Tensor:
    """[8] summed log-probability of each response, in the order of ROWS."""
    sums = [
        token_logps(model, prompt + response)[-len(response) :].sum() for prompt, *both in ROWS for response in both
    ]
    return torch.stack(sums)


def assert_same_value_and_gradients(loss, model, expected, expected_model):
    """To 1e-5 of the value and of each gradient tensor: TRL's logits are float32 whatever its model is."""
    torch.testing.assert_close(loss.detach(), expected.detach().double(), rtol=1e-5, atol=0)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected_gradients = torch.autograd.grad(expected, list(expected_model.parameters()))
    for (name, _), gradient, other in zip(model.named_parameters(), gradients, expected_gradients, strict=True):
        assert (gradient - other).norm() <= 1e-5 * other.norm(), name


@pytest.fixture(scope="module")
def dpo_trainer(tmp_path_factory):
    """A trainer that knows one line of text; what it is asked for is collated from ROWS."""
    return trl.DPOTrainer(
        model=llama(0), ref_model=llama(1), train_dataset=LINE, processing_class=scenes.tokenizer(),
        args=arguments(trl.DPOConfig, tmp_path_factory.mktemp("dpo")),
    )  # fmt: skip


def trl_dpo_loss(trainer, types: list[str], weights: list[float], *, beta: float, label_smoothing: float):
    trainer.loss_types, trainer.loss_weights = types, weights
    trainer.beta, trainer.label_smoothing = beta, label_smoothing
    keys = ("prompt_ids", "chosen_ids", "rejected_ids")
    batch = trainer.data_collator([dict(zip(keys, row, strict=True)) for row in ROWS])
    return trainer._compute_loss(trainer.model, batch, False)


def configured(**changes) -> DPOConfig:
    """Settings without `TrainingArguments`' own set-up, which would reset accelerate under TRL's trainers."""
    config = DPOConfig.__new__(DPOConfig)
    vars(config).update({"beta": 0.1, "label_smoothing": 0.0, "loss_type": ["sigmoid"], "loss_weights": None})
    vars(config).update({"discopop_tau": 0.05, "simpo_gamma": 0.5, "cpo_alpha": 1.0, "prompt_weight": "pairs"})
    vars(config).update(changes)
    return config


def trained(model, reference, **settings) -> torch.Tensor:
    """What a trainer with these settings minimises on ROWS."""
    scored = Scored(
        policy=response_logps(model),
        reference=None if reference is None else response_logps(reference).detach(),
        preferences=Preferences(PAIRS, None, LENGTHS, sample_of=torch.arange(8) // 2),
        mean_length=MEAN_LENGTH,
    )
    return objective(scored, configured(**settings)) / len(PAIRS)


@pytest.mark.parametrize("beta, label_smoothing", [(0.1, 0.2), (1.4, 0.001)])
@pytest.mark.parametrize("loss_type", WITH_A_REFERENCE)
def test_every_dpo_type_and_its_gradients_equal_trl(loss_type, beta, label_smoothing, dpo_trainer):
    expected = trl_dpo_loss(dpo_trainer, [loss_type], [1.0], beta=beta, label_smoothing=label_smoothing)
    smoothing = 0.0 if loss_type == "sigmoid" else label_smoothing  # of which TRL's sigmoid takes no notice
    model = llama(0)
    loss = trained(model, llama(1), loss_type=[loss_type], beta=beta, label_smoothing=smoothing)
    assert_same_value_and_gradients(loss, model, expected, dpo_trainer.model)


def test_sft_and_its_gradients_equal_trl(dpo_trainer):
    expected = trl_dpo_loss(dpo_trainer, ["sft"], [1.0], beta=0.1, label_smoothing=0.0)
    model = llama(0)
    loss = trained(model, None, loss_type=["sft"])
    assert_same_value_and_gradients(loss, model, expected, dpo_trainer.model)


def test_mixed_preference_optimization_and_its_gradients_equal_trl(dpo_trainer):
    types, weights = ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]
    expected = trl_dpo_loss(dpo_trainer, types, weights, beta=0.1, label_smoothing=0.0)
    model = llama(0)
    loss = trained(model, llama(1), loss_type=types, loss_weights=weights)
    assert_same_value_and_gradients(loss, model, expected, dpo_trainer.model)


@pytest.mark.parametrize("beta", [0.1, 1.4])
def test_implicit_rewards_are_those_that_trl_logs(beta, dpo_trainer):
    dpo_trainer._metrics["train"].clear()
    trl_dpo_loss(dpo_trainer, ["sigmoid"], [1.0], beta=beta, label_smoothing=0.0)
    logged = dpo_trainer._metrics["train"]
    preferences = Preferences(PAIRS, None, LENGTHS, sample_of=torch.arange(8) // 2)
    scored = Scored(response_logps(llama(0)), response_logps(llama(1)).detach(), preferences, MEAN_LENGTH)
    chosen, rejected = rewards(scored, configured(beta=beta))[PAIRS].unbind(1)
    assert chosen.mean().item() == pytest.approx(logged["rewards/chosen"][0], rel=1e-5)
    assert rejected.mean().item() == pytest.approx(logged["rewards/rejected"][0], rel=1e-5)


def test_trl_refuses_what_exo_pair_refuses(tmp_path):
    settings = arguments(trl.DPOConfig, tmp_path, loss_type=["exo_pair"])
    with pytest.raises(ValueError, match="Label smoothing must be greater than 0.0"):
        trl.DPOTrainer(model=llama(), args=settings, train_dataset=LINE, processing_class=scenes.tokenizer())
    with pytest.raises(losses.LossError, match="label_smoothing"):
        losses.exo_pair(torch.zeros(2), torch.zeros(2), PAIRS[:1], label_smoothing=settings.label_smoothing)


def reference_free_trainer(module: str, folder):
    """TRL's CPO or ORPO trainer, which tokenizes and pads in its own way."""
    config, trainer = {"cpo": (cpo.CPOConfig, cpo.CPOTrainer), "orpo": (orpo.ORPOConfig, orpo.ORPOTrainer)}[module]
    settings = arguments(config, folder, max_length=64)
    return trainer(model=llama(0), args=settings, train_dataset=LINE, processing_class=scenes.tokenizer())


def reference_free_loss(trainer) -> torch.Tensor:
    examples = []
    for prompt, *both in ROWS:
        example = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side, response in zip(("chosen", "rejected"), both, strict=True):
            example[f"{side}_input_ids"] = prompt + response
            example[f"{side}_attention_mask"] = [1] * len(prompt + response)
            example[f"{side}_labels"] = [-100] * len(prompt) + response
        examples.append(example)
    return trainer.get_batch_loss_metrics(trainer.model, trainer.data_collator(examples))[0]


@pytest.fixture(scope="module")
def cpo_trainer(tmp_path_factory):
    return reference_free_trainer("cpo", tmp_path_factory.mktemp("cpo"))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_cpo_with_its_likelihood_term_and_their_gradients_equal_trl(beta, label_smoothing, cpo_trainer):
    cpo_trainer.loss_type, cpo_trainer.cpo_alpha = "sigmoid", 0.5
    cpo_trainer.beta, cpo_trainer.label_smoothing = beta, label_smoothing
    expected = reference_free_loss(cpo_trainer)

    model = llama(0)
    knobs = {"beta": beta, "label_smoothing": label_smoothing, "cpo_alpha": 0.5}
    assert_same_value_and_gradients(
        trained(model, None, loss_type=["cpo"], **knobs), model, expected, cpo_trainer.model
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("beta, gamma", [(0.1, 0.5), (2.0, 1.6)])
def test_simpo_and_its_gradients_equal_trl(beta, gamma, label_smoothing, cpo_trainer):
    cpo_trainer.loss_type, cpo_trainer.cpo_alpha, cpo_trainer.simpo_gamma = "simpo", 0.0, gamma
    cpo_trainer.beta, cpo_trainer.label_smoothing = beta, label_smoothing
    expected = reference_free_loss(cpo_trainer)

    model = llama(0)
    knobs = {"beta": beta, "simpo_gamma": gamma, "label_smoothing": label_smoothing}
    loss = trained(model, None, loss_type=["simpo"], **knobs)
    assert_same_value_and_gradients(loss, model, expected, cpo_trainer.model)


@pytest.fixture(scope="module")
def orpo_trainer(tmp_path_factory):
    return reference_free_trainer("orpo", tmp_path_factory.mktemp("orpo"))


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_orpo_and_its_gradients_equal_trl_but_for_the_prompts_likelihood(beta, orpo_trainer):
    """TRL averages the likelihood over the prompt's tokens too; the paper, and so we, over the preferred response's."""
    orpo_trainer.beta = beta
    expected = reference_free_loss(orpo_trainer)

    model = llama(0)
    theirs = torch.cat([token_logps(model, prompt + preferred) for prompt, preferred, _ in ROWS]).mean()
    ours = response_logps(model)[PAIRS[:, 0]].sum() / LENGTHS[PAIRS[:, 0]].sum()
    loss = trained(model, None, loss_type=["orpo"], beta=beta)
    assert_same_value_and_gradients(loss + ours - theirs, model, expected, orpo_trainer.model)


def reward_model():
    torch.manual_seed(0)
    return double(LlamaForSequenceClassification(text_config(num_labels=1)))


def last_rewards(model) -> torch.Tensor:
    """[8] reward of each response, in the order of ROWS: the head's output at its last token."""
    ids = [torch.tensor([prompt + response]) for prompt, *both in ROWS for response in both]
    return torch.cat([model.score(model.model(each).last_hidden_state[:, -1])[:, 0] for each in ids])


@pytest.mark.parametrize("coefficient", [None, 0.01, 0.5])
@pytest.mark.parametrize("margins", [None, [0.5, 0.0, 2.0, -1.0]], ids=["no margin", "margins"])
def test_reward_model_losses_and_their_gradients_equal_trl(margins, coefficient, tmp_path):
    trainer = trl.RewardTrainer(
        model=reward_model(), train_dataset=LINE, processing_class=scenes.tokenizer(),
        args=arguments(trl.RewardConfig, tmp_path, center_rewards_coefficient=coefficient),
    )  # fmt: skip
    examples = [{"chosen_ids": prompt + preferred, "rejected_ids": prompt + other} for prompt, preferred, other in ROWS]
    if margins is not None:
        examples = [{**example, "margin": margin} for example, margin in zip(examples, margins, strict=True)]
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(examples))

    model = reward_model()
    values = last_rewards(model)
    loss = losses.bradley_terry(values, PAIRS, margin=0.0 if margins is None else torch.tensor(margins).double())
    loss = loss + (coefficient or 0.0) * losses.centering(values, PAIRS)
    assert_same_value_and_gradients(loss.mean(), model, expected, trainer.model)
