"""DPO against an oracle that others wrote: TRL's DPOTrainer on the same rows, model and reference."""

from copy import deepcopy

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration

import scenes
import vlmpack
from vlmpack.processors import PreferenceProcessor

trl = pytest.importorskip("trl", reason="TRL is the independent oracle; install vlmpack[dev]")


def chat(role: str, text: str) -> list[dict]:
    return [{"role": role, "content": text}]


def preference_rows(images: bool) -> list[dict]:
    """The best and the worst answer of each question."""
    rows = []
    for row in scenes.rows(3, seed=5):
        ranked = sorted(zip(row["scores"], row["responses"], strict=True), key=lambda pair: pair[0])
        pair = {"chosen": chat("assistant", ranked[-1][1]), "rejected": chat("assistant", ranked[0][1])}
        pictures = {"images": row["images"]} if images else {}
        rows.append({"prompt": chat("user", row["prompt"]), **pair, **pictures})
    return rows


def trl_loss_and_gradients(model, reference, rows, processing_class, folder):
    arguments = trl.DPOConfig(
        output_dir=str(folder), beta=0.1, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, max_length=None, remove_unused_columns=False,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=processing_class,
    )  # fmt: skip
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    loss = trainer._compute_loss(trainer.model, batch, False)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("backend", ["dense", "paths"])
@pytest.mark.parametrize("images", [True, False], ids=["llava", "llama"])
def test_dpo_loss_and_gradients_equal_trl(images, backend, tmp_path):
    processor = scenes.processor()
    config = scenes.llava_config(processor, hidden=32)
    build = LlavaForConditionalGeneration if images else LlamaForCausalLM
    processing_class = processor if images else processor.tokenizer
    torch.manual_seed(0)
    model, reference = (build(config if images else config.text_config).eval() for _ in range(2))
    rows = preference_rows(images)
    expected, expected_gradients = trl_loss_and_gradients(
        deepcopy(model), deepcopy(reference), rows, processing_class, tmp_path
    )

    ours = PreferenceProcessor(processing_class)
    packs = vlmpack.pack([ours(row) for row in rows], max_tokens=60)
    assert len(packs) > 1
    pairs = 0
    for pack in packs:
        logps = vlmpack.response_logps(vlmpack.enable(model, backend), pack)
        with torch.no_grad():
            reference_logps = vlmpack.response_logps(vlmpack.enable(reference, backend), pack)
        loss = vlmpack.losses.dpo(logps, reference_logps, pack.pairs, beta=0.1)
        (loss.sum() / len(rows)).backward()
        pairs += loss.detach().sum() / len(rows)

    torch.testing.assert_close(pairs, expected, rtol=1e-5, atol=0)
    assert expected > 0.1
    for name, parameter in model.named_parameters():
        gradient = expected_gradients[name]
        if gradient is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(
                parameter.grad, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()) + 1e-9
            )
