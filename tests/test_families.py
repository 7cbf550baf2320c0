"""Every family, from its own processor to the last gradient: packed equals unpacked to 1e-9 in float64."""

from dataclasses import replace
from random import Random

import family_models
import family_processors
import pytest
import torch
from PIL import Image
from tiny import assert_same, differentiate, in_samples_order, sample

import vlmpack
from vlmpack import unpacked
from vlmpack.processors import PreferenceProcessor
from vlmpack.proof.double import Doubled


def picture(width, height, seed):
    return Image.frombytes("RGB", (width, height), Random(seed).randbytes(3 * width * height))


WIDE, TALL = picture(90, 50, seed=1), picture(40, 130, seed=2)
RESPONSES = {"responses": ["the red square", "the red", " blue in the square"], "scores": [3, 1, 2]}
TWO_IMAGES = {"images": [WIDE, TALL], "prompt": "Which is wider?", **RESPONSES}
QUESTION = {"images": [WIDE], "prompt": "What is in the picture?", **RESPONSES}
ANOTHER = {"images": [WIDE], "prompt": "What is the colour?", **RESPONSES}
TEXT = {"images": [], "prompt": "Name a colour.", **RESPONSES}

families = pytest.mark.parametrize("family", family_processors.FAMILIES)
MADE = {}


def samples(family):
    """Two images in one prompt, two questions on one image, and a text-only row among them; K = 3."""
    if family not in MADE:
        reader = PreferenceProcessor(family_processors.processor(family))
        rows = [TWO_IMAGES, QUESTION, ANOTHER]
        MADE[family] = [reader(row) for row in rows] + [text_only(family, reader)]
    return MADE[family]


def text_only(family, reader):
    """PaliGemma's processor reads no prompt without an image, and its model does."""
    if family != "paligemma":
        return reader(TEXT)
    ids = torch.tensor(reader.tokenizer(TEXT["prompt"])["input_ids"])
    return replace(reader(QUESTION), prompt_ids=ids, images=(), image_of=None)


@families
@pytest.mark.parametrize("backend", ["dense", "paths"])
def test_log_probabilities_and_every_gradient_equal_the_unpacked(family, backend):
    model, made = family_models.model(family), samples(family)
    packs = vlmpack.pack(made, max_tokens=max(each.lengths.packed for each in made) * 2)
    with Doubled():
        vlmpack.enable(model, backend)
        packed = [vlmpack.response_logps(model, pack) for pack in packs]
        actual = differentiate(model, in_samples_order(packs, packed))
        assert_same(actual, differentiate(model, unpacked.response_logps(model, made)))


@families
def test_rewards_and_every_gradient_equal_the_unpacked(family):
    made = samples(family)
    model = vlmpack.RewardModel.from_backbone(family_models.model(family))
    (pack,) = vlmpack.pack(made)
    with Doubled():
        actual = differentiate(model, model(pack))
        assert_same(actual, differentiate(model, unpacked.rewards(model, made)))


@families
def test_an_image_is_seen_once_and_its_tokens_shared_where_the_family_allows(family):
    two, question, another, _ = samples(family)
    (pack,) = vlmpack.pack([question, another])
    assert pack.vision_passes == 1
    alone = question.lengths.packed + another.lengths.packed
    image_tokens = int(question.is_image.sum())
    if family == "paligemma":
        assert pack.tokens == alone
    else:
        assert pack.tokens < alone - image_tokens
    (pack,) = vlmpack.pack([two, question])
    assert pack.vision_passes == (3 if family == "llava_onevision" else 2)  # which cuts an image that stands alone


@families
def test_changing_a_response_moves_no_sibling_by_one_bit(family):
    model, made = family_models.model(family), samples(family)
    changed = [replace(each, response_ids=(each.response_ids[0].flip(0), *each.response_ids[1:])) for each in made]
    with Doubled(), torch.no_grad():
        vlmpack.enable(model, "paths")
        (before,), (after,) = vlmpack.pack(made), vlmpack.pack(changed)
        old, new = (vlmpack.response_logps(model, pack).view(-1, 3) for pack in (before, after))
    assert (old[:, 0] != new[:, 0]).all()
    torch.testing.assert_close(old[:, 1:], new[:, 1:], rtol=1e-13, atol=0)


EXACT = {
    "Llama": {},
    "Mistral, window of 3": {"sliding_window": 3},
    "Qwen2": {},
    "Qwen3, a windowed layer": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "Gemma": {},
    "Phi3": {},
    "Olmo2": {},
    "Granite": {},
    "GPTNeoX": {},
    "Gemma2, soft-capped scores": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3},
    "GptOss, attention sinks and experts": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 3,
    },
    "Mixtral, mixture of experts": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
}


@pytest.mark.parametrize("backend", ["dense", "paths"])
@pytest.mark.parametrize("family", EXACT)
def test_text_families_equal_the_unpacked(family, backend):
    model = family_models.text_model(family.split(",")[0], **EXACT[family]).eval().double()
    made = [sample([1, 2, 3], [[4, 5], [6], [2, 2, 1, 5]], [(0, 1)]), sample([7], [[3, 8, 9], [1], [3]], [(0, 1)])]
    (pack,) = vlmpack.pack(made)
    with Doubled():
        packed = differentiate(model, vlmpack.response_logps(vlmpack.enable(model, backend), pack))
        assert_same(packed, differentiate(model, unpacked.response_logps(model, made)))


def test_a_window_by_index_would_be_found():
    """The windowed families above cannot pass by having windows that never bite."""
    model = family_models.text_model("Mistral", sliding_window=3).eval().double()
    wide = family_models.text_model("Mistral", sliding_window=None).eval().double()
    (pack,) = vlmpack.pack([sample([1, 2, 3], [[4, 5], [6, 2, 2, 1]], [(0, 1)])])
    narrow, full = (vlmpack.response_logps(vlmpack.enable(m), pack) for m in (model, wide))
    assert (narrow - full).abs().min() > 1e-6


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_trainers_take_the_family_from_rows_to_weights(family, tmp_path):
    """Two steps in float32, packed and not: the same losses."""
    reader, rows = PreferenceProcessor(family_processors.processor(family)), [TWO_IMAGES, QUESTION, ANOTHER]
    losses = {}
    for packing in (True, False):
        args = vlmpack.DPOConfig(
            output_dir=str(tmp_path / str(packing)),
            packing=packing,
            verify=packing,
            max_steps=2,
            per_device_train_batch_size=3,
            logging_steps=1,
            learning_rate=1e-3,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        model = family_models.model(family).float()
        trainer = vlmpack.DPOTrainer(model, args=args, train_dataset=rows, processing_class=reader)
        trainer.train()
        losses[packing] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses[True]) == 2
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-4, atol=1e-5)
