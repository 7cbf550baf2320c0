"""A saved reward model is whole: it loads elsewhere, in plain transformers too where that can be, and as an adapter."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from test_adapters import lora
from test_trainers import dataset
from tiny import llama, llava, sample, text_config
from transformers import (
    AutoModelForSequenceClassification,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlavaForConditionalGeneration,
)

import scenes
import vlmpack
from vlmpack import RewardConfig, RewardModel, RewardTrainer, unpacked
from vlmpack.processors import PreferenceProcessor
from vlmpack.reward_model_config import RewardModelError

peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
ROWS = [sample([1, 2], [[3, 1], [2, 4, 6], [1]], [(0, 1)]), sample([5], [[3], [4, 4]], [(0, 1)])]
ROOT = Path(__file__).parent.parent


def speaking(folder=None, head="linear", pooling="last"):
    """A small Llama that reads text rows, as a reward model."""
    tokenizer = scenes.tokenizer()
    torch.manual_seed(0)
    config = text_config(vocab_size=len(tokenizer), max_position_embeddings=256)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model = RewardModel.from_backbone(LlamaForCausalLM(config), head, pooling)
    model.processor = PreferenceProcessor(tokenizer)
    if folder is not None:
        model.save_pretrained(folder)
    return model


TEXT_ROWS = [{"prompt": "What is there?", "responses": ["red ring", "a blue cross", "nothing"]} for _ in range(2)]


def test_a_text_reward_model_is_a_sequence_classifier_to_plain_transformers_with_equal_scores(tmp_path):
    model = speaking(tmp_path)
    classifier, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(classifier) is LlamaForSequenceClassification
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    answers = TEXT_ROWS[0]["responses"]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is there?"}, {"role": "assistant", "content": answer}], tokenize=False
        )
        for answer in answers
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    assert batch["attention_mask"].min() == 0  # some are padded
    with torch.no_grad():
        logits = classifier.eval()(**batch).logits
    assert logits.shape == (3, 1)
    (scores,) = model.score(TEXT_ROWS[:1], quiet=True)
    torch.testing.assert_close(logits[:, 0], torch.tensor(scores), rtol=1e-5, atol=1e-6)
    assert (
        "`AutoModelForSequenceClassification` (LlamaForSequenceClassification" in (tmp_path / "README.md").read_text()
    )


def test_where_padding_ends_responses_the_folder_has_no_padding_and_batches_are_refused_by_transformers(tmp_path):
    model = speaking()
    model.processor.tokenizer.pad_token = model.processor.tokenizer.eos_token
    model.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert classifier.config.pad_token_id is None
    with pytest.raises(ValueError, match="Cannot handle batch sizes > 1"):
        classifier(input_ids=torch.tensor([[1, 2, 3], [1, 2, 2]]))
    (pack,) = vlmpack.pack([sample([1, 2], [[3, 2]], [])])  # token 2 is the end
    one = classifier.eval()(input_ids=torch.tensor([[1, 2, 3, 2]])).logits[0, 0]
    torch.testing.assert_close(one, model(pack)[0])
    assert "one row at a time" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(("head", "pooling"), [("mlp", "last"), ("linear", "mean")])
def test_what_no_class_of_transformers_computes_claims_to_be_none(head, pooling, tmp_path):
    speaking(tmp_path, head, pooling)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "vlmpack_reward"
    assert "Only vlmpack loads this folder" in (tmp_path / "README.md").read_text()


def test_another_s_sequence_classifier_of_one_label_is_a_reward_model(tmp_path):
    torch.manual_seed(1)
    theirs = LlamaForSequenceClassification(text_config(num_labels=1)).eval()
    theirs.save_pretrained(tmp_path)
    ours = RewardModel.from_pretrained(tmp_path)
    (pack,) = vlmpack.pack(ROWS)
    ids = [torch.cat([s.prompt_ids, r])[None] for s in ROWS for r in s.response_ids]
    expected = torch.cat([theirs.score(theirs.model(each).last_hidden_state[:, -1])[:, 0] for each in ids])
    torch.testing.assert_close(ours(pack), expected)


def test_a_classifier_without_its_head_is_refused(tmp_path):
    model = LlamaForCausalLM(text_config(num_labels=1))
    model.config.architectures = ["LlamaForSequenceClassification"]
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(RewardModelError, match=r"lacks 1 weights of a reward model, such as reward_head.score.weight"):
        RewardModel.from_pretrained(tmp_path)


def test_the_folder_reads_rows_by_itself(tmp_path):
    processor = scenes.processor()
    model = RewardModel.from_backbone(LlavaForConditionalGeneration(scenes.llava_config(processor)))
    model.processor = PreferenceProcessor(processor)
    model.save_pretrained(tmp_path)
    rows = scenes.rows(2, seed=0)
    loaded = RewardModel.from_pretrained(tmp_path)
    assert loaded.score(rows, quiet=True) == model.score(rows, quiet=True)


def test_a_card_that_was_written_stays_and_training_data_stands_in_it(tmp_path):
    model = speaking()
    model.card_sections = ("## Training\n\nOn nothing much.",)
    model.save_pretrained(tmp_path / "first")
    text = (tmp_path / "first" / "README.md").read_text()
    assert "On nothing much." in text and "library_name: vlmpack" in text.split("---")[1]
    RewardModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert (tmp_path / "second" / "README.md").read_text() == text


def test_uploading_sends_the_whole_folder(tmp_path, monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token):
            sent["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, repo_id, folder_path, **where):
            sent.update(repo_id=repo_id, where=where, files={path.name for path in Path(folder_path).iterdir()})
            sent["scores"] = RewardModel.from_pretrained(folder_path).score(TEXT_ROWS, quiet=True)
            return "https://huggingface.co/owner/name/commit/1"

    monkeypatch.setattr("vlmpack.reward_folder.HfApi", Api)
    model = speaking()
    assert model.push_to_hub("owner/name", token="t", create_pr=True).endswith("/commit/1")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= sent["files"]
    assert (sent["repo_id"], sent["token"], sent["where"]["create_pr"]) == ("owner/name", "t", True)
    assert sent["scores"] == model.score(TEXT_ROWS, quiet=True)


def trained_adapter(folder, **settings):
    llava().float().save_pretrained(folder / "base")
    base = RewardModel.from_pretrained(folder / "base", **settings)
    config = RewardConfig(
        output_dir=str(folder / "adapter"), max_steps=3, learning_rate=0.1, report_to=[], disable_tqdm=True
    )
    adapter = lora("decoder and tower", modules_to_save=["reward_head"])
    trainer = RewardTrainer(base, config, train_dataset=dataset(), peft_config=adapter)
    trainer.train()
    trainer.save_model()
    return trainer


SCORE = """
import sys, torch
sys.path[:0] = [{tests!r}, {examples!r}]
from test_trainers import dataset
from vlmpack import RewardModel
torch.set_num_threads({threads})
torch.save(RewardModel.from_pretrained({folder!r}).score(dataset(4), quiet=True), {out!r})
"""


@pytest.mark.parametrize(
    "settings",
    [pytest.param({}, marks=pytest.mark.slow), {"head": "mlp", "pooling": "mean"}],
    ids=["linear", "mlp, mean"],
)
def test_a_trained_adapter_scores_bit_equal_in_a_new_process(settings, tmp_path):
    trainer = trained_adapter(tmp_path, **settings)
    untrained = RewardModel.from_pretrained(tmp_path / "base", **settings).score(dataset(4), quiet=True)
    expected = trainer.model.score(dataset(4), quiet=True)
    assert expected != untrained
    paths = {"tests": str(ROOT / "tests"), "examples": str(ROOT / "examples"), "folder": str(tmp_path / "adapter")}
    script = SCORE.format(**paths, out=str(tmp_path / "scores.pt"), threads=torch.get_num_threads())
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert torch.load(tmp_path / "scores.pt") == expected  # floats, to the last bit


def test_a_merged_adapter_is_a_reward_model_like_any_other(tmp_path):
    trainer = trained_adapter(tmp_path)
    expected = unpacked.rewards(vlmpack.model.unwrapped(trainer.model), dataset(4)).detach()
    model = RewardModel.from_pretrained(tmp_path / "adapter")
    with pytest.raises(RewardModelError, match="an adapter is on the reward model"):
        model.get_base_model().save_pretrained(tmp_path / "refused")
    merged = model.merge_and_unload()
    assert type(merged) is RewardModel
    merged.save_pretrained(tmp_path / "merged")
    loaded = RewardModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(unpacked.rewards(loaded, dataset(4)).detach(), expected)
    assert loaded.score(dataset(4), quiet=True) == merged.score(dataset(4), quiet=True)


def test_an_adapter_says_what_it_lacks(tmp_path):
    trainer = trained_adapter(tmp_path)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    nameless = {**settings, "base_model_name_or_path": None}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(nameless))
    with pytest.raises(RewardModelError, match=r"does not say what its base model is; give it: .*backbone=\.\.\."):
        RewardModel.from_pretrained(tmp_path / "adapter")
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base")
    given = RewardModel.from_pretrained(tmp_path / "adapter", backbone=base)
    assert given.score(dataset(4), quiet=True) == trainer.model.score(dataset(4), quiet=True)
    headless = peft.get_peft_model(llama().float(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    headless.save_pretrained(tmp_path / "headless")
    with pytest.raises(RewardModelError, match=r"holds no head, so rewards would be random"):
        RewardModel.from_pretrained(tmp_path / "headless")


def test_an_adapter_that_peft_alone_saved_is_not_guessed_at(tmp_path):
    llama().float().save_pretrained(tmp_path / "base")
    base = RewardModel.from_pretrained(tmp_path / "base", pooling="mean")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["reward_head"])
    adapted = peft.get_peft_model(base, settings)
    adapted.save_pretrained(tmp_path / "ad")
    with pytest.raises(RewardModelError, match="does not say what its head reads, for PEFT alone saved it"):
        RewardModel.from_pretrained(tmp_path / "ad")
    loaded = RewardModel.from_pretrained(tmp_path / "ad", pooling="mean")
    assert loaded.score(ROWS, quiet=True) == adapted.score(ROWS, quiet=True)
    with pytest.raises(RewardModelError, match=r"head='mlp', but the adapter .* a head of kind 'linear'"):
        RewardModel.from_pretrained(tmp_path / "ad", head="mlp", pooling="mean")
    loaded.normalize(ROWS, quiet=True)
    loaded.save_pretrained(str(tmp_path / "whole"))  # now it says all
    again = RewardModel.from_pretrained(tmp_path / "whole")
    assert again.score(ROWS, quiet=True) == loaded.score(ROWS, quiet=True)
    assert again.config.reward_std == loaded.config.reward_std != 1
    with pytest.raises(RewardModelError, match="pooling='last', but .* is a reward model with 'mean'"):
        RewardModel.from_pretrained(tmp_path / "whole", pooling="last")


def test_a_processor_that_is_set_on_a_loaded_adapter_reads_its_rows(tmp_path):
    trained_adapter(tmp_path)
    model = RewardModel.from_pretrained(tmp_path / "adapter")

    class Refusing:
        def candidates(self, row):
            raise ValueError("read by this one")

    model.processor = Refusing()
    with pytest.raises(vlmpack.judging.ScoringError, match="read by this one"):
        model.score([{"prompt": "a", "response": "b"}], quiet=True)


def test_trl_s_usual_adapter_trains(tmp_path):
    config = RewardConfig(output_dir=str(tmp_path), max_steps=1, report_to=[], disable_tqdm=True)
    adapter = lora(modules_to_save=["score"], task_type="SEQ_CLS")
    trainer = RewardTrainer(
        RewardModel.from_backbone(llava().float()), config, train_dataset=dataset(), peft_config=adapter
    )
    trainer.train()
    assert adapter.task_type == "SEQ_CLS"  # the user's own is left alone


def test_a_card_says_what_holds_now(tmp_path):
    speaking(tmp_path / "a")
    model = RewardModel.from_pretrained(tmp_path / "a")
    model.card_sections = ("## Training\n\nOn rows.",)
    model.save_pretrained(tmp_path / "b")
    again = RewardModel.from_pretrained(tmp_path / "b")
    again.normalize(TEXT_ROWS, quiet=True)
    again.save_pretrained(tmp_path / "c")
    card = (tmp_path / "c" / "README.md").read_text()
    assert "On rows." in card and "normalised rewards" in card
