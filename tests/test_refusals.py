"""What trainers refuse before the first step, and what they say."""

import pytest
import torch
from test_trainers import dataset, lora, train
from tiny import llama, llava

import scenes
import vlmpack
from vlmpack import DPOConfig, DPOTrainer, RewardConfig, RewardModel, RewardTrainer
from vlmpack.costs.survey import DatasetError
from vlmpack.training.config import ConfigError


def test_missing_margins_are_an_error_at_the_start(tmp_path):
    rows = [vlmpack.Sample(torch.tensor([1]), (torch.tensor([2]), torch.tensor([3])), ((0, 1),))]
    with pytest.raises(DatasetError, match="use_margin=True, but 1 training rows have neither .* row 0"):
        train("reward", tmp_path, rows=rows, use_margin=True)


def test_a_row_that_fits_only_when_it_is_shared_is_refused_at_the_start(tmp_path):
    train("reward", tmp_path, steps=1, max_tokens=27)
    with pytest.raises(
        DatasetError,
        match=r"rows have more tokens than max_tokens=27 with sharing='none' and padding=False, the first of them row",
    ):
        train("reward", tmp_path, steps=1, max_tokens=27, sharing="none")


def test_ranks_that_read_different_rows_are_refused(monkeypatch):
    from vlmpack.costs.survey import survey
    from vlmpack.training import loading

    rows = survey(dataset(3), None, name="training", quiet=True)
    loading._demand_agreement(rows)
    monkeypatch.setattr(loading, "gather_object", lambda own: [*own, "another rank's"])
    with pytest.raises(DatasetError, match="ranks see different rows"):
        loading._demand_agreement(rows)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (RewardConfig, {"max_tokens": 0}, "max_tokens=0 holds nothing"),
        (RewardConfig, {"max_length": 1}, "max_length=1 leaves no room"),
        (RewardConfig, {"attention": "flash"}, "attention='flash' is not one of auto, dense, paths"),
        (RewardConfig, {"max_bad_rows": 2.0}, "give 0 to 1"),
        (RewardConfig, {"auto_find_batch_size": True}, "lower max_tokens instead"),
        (RewardConfig, {"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0: its noise depends on the length"),
        (RewardConfig, {"label_smoothing_factor": 0.1}, "DPOConfig has label_smoothing"),
        (RewardConfig, {"bf16_full_eval": True}, "use bf16"),
        (RewardConfig, {"dataloader_in_order": False}, "would lose rows"),
        (RewardConfig, {"train_sampling_strategy": "batch_rebalance"}, "ranks are always kept level"),
        (RewardConfig, {"sharing": "some"}, "sharing='some' is not one of all, prompt, none, pair"),
        (RewardConfig, {"packing": False, "padding": True}, "packing=False computes without packs"),
        (RewardConfig, {"loss_type": "plackett_luce", "sharing": "pair"}, "which plackett_luce needs whole"),
        (RewardConfig, {"remove_unused_columns": True}, "remove_unused_columns=True would take away"),
        (DPOConfig, {"loss_type": "dpo"}, "loss_type=.dpo. is not one of sigmoid, "),
        (DPOConfig, {"label_smoothing": 0.7}, "label_smoothing=0.7"),
        (DPOConfig, {"beta": 0.0}, "beta=0.0 must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config(output_dir=str(tmp_path), **settings)


def test_a_model_that_is_its_own_reference_is_refused(tmp_path):
    model = llama().float()
    with pytest.raises(ConfigError, match="ref_model is the model itself"):
        DPOTrainer(
            model,
            DPOConfig(output_dir=str(tmp_path), report_to=[]),
            ref_model=model,
            train_dataset=dataset(2, images=False),
        )


def test_models_and_processors_of_the_wrong_kind_are_told_what_to_be(tmp_path):
    with pytest.raises(
        ConfigError, match=r"the model is a LlamaForCausalLM; give it a head with RewardModel\.from_backbone"
    ):
        RewardTrainer(llama(), RewardConfig(output_dir=str(tmp_path), report_to=[]))
    with pytest.raises(ConfigError, match="RewardModel has no language-model head"):
        DPOTrainer(RewardModel.from_backbone(llama()), DPOConfig(output_dir=str(tmp_path), report_to=[]))
    with pytest.raises(
        ConfigError, match=r"processing_class is a TokenizersBackend, .*PreferenceProcessor\(processor\)"
    ):
        config = DPOConfig(output_dir=str(tmp_path), report_to=[])
        DPOTrainer(llama().float(), config, train_dataset=[], processing_class=scenes.tokenizer())


def test_trainable_float16_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trainable weights are float16 .*load the model with dtype=torch\.float32"):
        DPOTrainer(llama().half(), DPOConfig(output_dir=str(tmp_path), report_to=[]))


def test_an_adapter_with_a_frozen_head_is_refused(tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
    model = peft.get_peft_model(RewardModel.from_backbone(llava().float()), lora())
    with pytest.raises(ConfigError, match=r"the head's layer 'score' is frozen"):
        RewardTrainer(model, RewardConfig(output_dir=str(tmp_path), report_to=[]))
