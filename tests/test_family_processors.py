"""Every family's own processor: its tokens, its tensors divided by image, its lengths foretold."""

import pickle
from dataclasses import replace
from random import Random

import family_processors
import pytest
import torch
from PIL import Image

from vlmpack import families as table
from vlmpack.image import join
from vlmpack.image_counts import COUNTS
from vlmpack.processors import PreferenceProcessor, RowError, TemplateError
from vlmpack.processors.expansion import COMPARED


def picture(width, height, seed):
    return Image.frombytes("RGB", (width, height), Random(seed).randbytes(3 * width * height))


WIDE, TALL = picture(90, 50, seed=1), picture(40, 130, seed=2)
ROW = {"prompt": "\nWhat is in the picture?", "responses": ["the red square", " blue"], "scores": [1, 2]}
IMAGES = {"no image": [], "one": [WIDE], "two": [WIDE, TALL], "three": [TALL, WIDE, TALL]}
FEATURES = {  # tokens with features of a wide and of a tall picture
    "llava": (4, 4),
    "vipllava": (4, 4),
    "llava_next": (14, 16),
    "llava_onevision": (5, 5),  # beside other images; alone below
    "qwen2_vl": (6, 5),
    "qwen2_5_vl": (6, 5),
    "qwen3_vl": (6, 4),
    "internvl": (12, 16),
    "gemma3": (4, 4),
    "smolvlm": (20, 12),
    "idefics3": (20, 12),
    "idefics2": (3, 3),
    "mistral3": (12, 8),
    "paligemma": (4, 4),
    "glm4v": (6, 5),
    "aya_vision": (12, 16),
    "cohere2_vision": (20, 20),
}
ALONE = FEATURES | {"llava_onevision": (14, 16)}
families = pytest.mark.parametrize("family", family_processors.FAMILIES)


def processor(family):
    return PreferenceProcessor(family_processors.processor(family))


def whole(hf, images, response=None):
    """What transformers makes of the conversation in one go, a content block for every image."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": ROW["prompt"]}]
    conversation = [{"role": "user", "content": content}]
    suffix = {}
    if response and type(hf).__name__ == "PaliGemmaProcessor":  # whose way to continue a prompt is an argument
        suffix, response = {"suffix": [response]}, None
    if response:
        conversation.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
    text = hf.apply_chat_template(conversation, add_generation_prompt=response is None)
    pictures = {"images": [images]} if images else {}
    return hf(text=[text], **pictures, **suffix, add_special_tokens=False, return_tensors="pt")


def without_refused(family, images):
    if family == "paligemma" and not images:
        pytest.skip("PaliGemma's processor reads no prompt without an image")


@families
@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_prompt_and_response_are_the_tokens_of_the_whole_conversation(family, images):
    without_refused(family, images)
    ours, hf = processor(family), family_processors.processor(family)
    sample = ours({**ROW, "images": images})
    assert torch.equal(sample.prompt_ids, whole(hf, images)["input_ids"][0])
    for text, response in zip(ROW["responses"], sample.response_ids, strict=True):
        expected = whole(hf, images, text)["input_ids"][0]
        assert torch.equal(torch.cat([sample.prompt_ids, response]), expected)


@families
@pytest.mark.parametrize("images", list(IMAGES.values())[1:], ids=list(IMAGES)[1:])
def test_the_tensors_of_all_images_are_those_of_the_whole_prompt(family, images):
    hf = family_processors.processor(family)
    sample, expected = processor(family)({**ROW, "images": images}), whole(hf, images)
    joined = join(sample.images)
    if COUNTS in joined:
        assert expected[COUNTS].tolist() == [len(images)]
        assert joined.pop(COUNTS).tolist() == [len(images)] * len(images)
    texts = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels", COUNTS}
    assert set(joined) == set(expected) - texts
    for name, tensor in joined.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


@families
@pytest.mark.parametrize("images", list(IMAGES.values())[1:], ids=list(IMAGES)[1:])
def test_each_image_has_its_own_tokens_and_separators_have_none(family, images):
    ours, hf = processor(family), family_processors.processor(family)
    sample = ours({**ROW, "images": images})
    counts = FEATURES[family] if len(images) > 1 else ALONE[family]
    placed = sample.image_of[sample.image_of >= 0].tolist()
    assert placed == [n for n, image in enumerate(images) for _ in range(counts[image is TALL])]
    feature = {"gemma3": "<image_soft_token>", "aya_vision": "<|IMG_PATCH|>"}.get(family, hf.image_token)
    words = hf.tokenizer.convert_ids_to_tokens(sample.prompt_ids)
    assert [word == feature for word in words] == (sample.image_of >= 0).tolist()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "gemma3"])
def test_image_tokens_are_those_that_the_processor_types_as_such(family):
    sample = processor(family)({**ROW, "images": [WIDE, TALL]})
    expected = whole(family_processors.processor(family), [WIDE, TALL])
    types = expected["token_type_ids" if family == "gemma3" else "mm_token_type_ids"][0]
    assert torch.equal((sample.image_of >= 0).long(), types)


def test_paligemma_types_the_prompt_zero_and_the_response_one():
    sample = processor("paligemma")({**ROW, "images": [WIDE]})
    types = whole(family_processors.processor("paligemma"), [WIDE], ROW["responses"][0])["token_type_ids"][0]
    assert types.tolist() == [0] * len(sample.prompt_ids) + [1] * len(sample.response_ids[0])


@families
@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_measuring_tells_the_same_lengths_as_processing(family, images):
    without_refused(family, images)
    ours, row = processor(family), {**ROW, "images": images}
    measured, processed = ours.measure(row), ours(row).lengths
    assert replace(measured, images=()) == replace(processed, images=())
    assert len(measured.images) == len(images)


@families
def test_measuring_processes_no_pixels_and_no_size_twice(family, monkeypatch):
    ours, seen = processor(family), []
    kind = type(ours.processor.image_processor)
    process = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda *args, **options: seen.append(args[1]) or process(*args, **options))
    for height in (60, 70, 80, 90, 100, 110):
        for seed in range(2):
            ours.measure({**ROW, "images": [picture(90, height, seed)]})
    images = [images[0][0] if isinstance(images[0], list) else images[0] for images in seen]
    black = [image for image in images if isinstance(image, Image.Image)]
    assert [image.getextrema() for image in black] == [((0, 0),) * 3] * COMPARED  # until both are seen to be alike
    assert all(image.is_meta for image in images if image not in black)
    assert len(images) == 6 + COMPARED


def test_a_processor_that_takes_no_image_without_pixels_measures_black_ones(monkeypatch):
    rows = [{**ROW, "images": [picture(90, height, 0)]} for height in (60, 70, 80, 90, 100, 110)]
    expected = [processor("llava_next").measure(row) for row in rows]
    ours = processor("llava_next")
    process = type(ours.processor.image_processor).__call__

    def wrong(self, images, **options):
        outputs = process(self, images, **options)
        if not isinstance(images[0][0], Image.Image):
            outputs["image_sizes"] = outputs["image_sizes"] * 2
        return outputs

    monkeypatch.setattr(type(ours.processor.image_processor), "__call__", wrong)
    assert [ours.measure(row) for row in rows] == expected


@families
def test_a_picture_is_the_same_from_any_file_and_beside_any_other(family, tmp_path):
    WIDE.save(tmp_path / "a.png")
    WIDE.save(tmp_path / "b.webp", lossless=True)
    ours = processor(family)
    one, other = (ours({**ROW, "images": [str(tmp_path / name)]}).images[0] for name in ("a.png", "b.webp"))
    beside = ours({**ROW, "images": [TALL, WIDE]}).images
    assert one.content == other.content
    assert (one.content == beside[1].content) == (family != "llava_onevision")  # cut into tiles only if alone
    assert one.content != beside[0].content
    changed = ours({**ROW, "images": [picture(90, 50, seed=3)]}).images[0]
    assert one.content != changed.content


@pytest.mark.parametrize("family", ["llava_next", "idefics3"])
def test_a_processor_that_is_sent_to_a_worker_measures_there_too(family):
    ours, row = processor(family), {**ROW, "images": [WIDE, TALL]}
    assert pickle.loads(pickle.dumps(ours)).measure(row) == ours.measure(row)


def test_a_prompt_that_the_processor_does_not_read_is_refused():
    with pytest.raises(TemplateError, match=r"row 'q7': PaliGemmaProcessor refuses .* \(none\): `images` are expected"):
        processor("paligemma")({**ROW, "id": "q7", "images": []})
    with pytest.raises(TemplateError, match=r"Qwen2VLProcessor refuses .* \(900x2\): absolute aspect ratio"):
        processor("qwen2_vl").measure({**ROW, "images": [picture(900, 2, 0)]})


@pytest.mark.parametrize(
    "family, token", [("gemma3", "<image_soft_token>"), ("aya_vision", "<|IMG_PATCH|>"), ("qwen2_vl", "<|video_pad|>")]
)
def test_text_that_spells_a_token_for_pixels_is_refused(family, token):
    with pytest.raises(RowError, match="the prompt holds .*, a token that stands for pixels"):
        processor(family)({**ROW, "images": [WIDE], "prompt": f"What is {token}?"})
    with pytest.raises(RowError, match="response 1 holds .*, a token that stands for pixels"):
        processor(family).measure({**ROW, "images": [WIDE], "responses": ["a", token]})


def test_a_template_that_writes_an_image_twice_is_refused():
    hf = family_processors.FAMILIES["llava"]()
    hf.chat_template = hf.chat_template.replace("<image>", "<image><image>")
    for images in ([WIDE], [WIDE, TALL]):
        with pytest.raises(TemplateError, match=f"writes {2 * len(images)} image tokens for {len(images)} images"):
            PreferenceProcessor(hf).measure({**ROW, "images": images})


def planted(family, change):
    """A processor of the family whose outputs for several images are changed."""
    hf = family_processors.FAMILIES[family]()

    class Planted(type(hf)):
        def __call__(self, images=None, **options):
            outputs = super().__call__(images=images, **options)
            if images and len(images[0]) > 1:
                change(outputs)
            return outputs

    hf.__class__ = Planted
    return PreferenceProcessor(hf)


def test_an_image_that_is_processed_otherwise_beside_others_is_refused():
    faults = {
        "a value": lambda outputs: outputs["pixel_values"][0].mul_(2),
        "the order": lambda outputs: outputs.update(pixel_values=outputs["pixel_values"].flip(0)),
        "a row too many": lambda outputs: outputs.update(pixel_values=outputs["pixel_values"].repeat(2, 1, 1, 1)),
        "another type": lambda outputs: outputs.update(pixel_values=outputs["pixel_values"].double()),
        "left out": lambda outputs: outputs.pop("pixel_values"),
    }
    for fault in faults.values():
        with pytest.raises(TemplateError, match="Planted makes 'pixel_values' .* of 2 images together and"):
            planted("llava", fault)({**ROW, "images": [WIDE, TALL]})


def test_tokens_that_are_not_those_of_the_images_are_refused():
    def longer(outputs):
        outputs["input_ids"] = torch.cat([outputs["input_ids"], outputs["input_ids"]], dim=1)

    with pytest.raises(
        TemplateError, match=r"was heard to make 40 tokens of the prompt .* and the processor returned 80"
    ):
        planted("llava", longer)({**ROW, "images": [WIDE, TALL]})


def test_an_output_that_nobody_knows_is_refused():
    ours = planted("llava_next", lambda outputs: outputs.update(depth=torch.ones(2)))
    for read in (ours, ours.measure):
        with pytest.raises(
            TemplateError, match="Planted makes 'depth' .Tensor. .* no tensor that its image processor names"
        ):
            read({**ROW, "images": [WIDE, TALL]})


def test_images_stand_where_the_text_says_in_every_family():
    for family, hf in ((family, family_processors.processor(family)) for family in family_processors.FAMILIES):
        prompt = f"red {hf.image_token} square {hf.image_token} blue"
        sample = processor(family)({**ROW, "images": [WIDE, TALL], "prompt": prompt})
        words = hf.tokenizer.decode(sample.prompt_ids[sample.image_of < 0])
        between = hf.tokenizer.decode(
            sample.prompt_ids[int((sample.image_of == 0).nonzero().max()) : int((sample.image_of == 1).nonzero().min())]
        )
        assert "red" in words and "square" in between, family


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("idefics2", {"axes": {}}),
        ("idefics3", {"axes": {}}),
        ("smolvlm", {"axes": {}}),
        ("llava", {"axes": {"pixel_values": 1}}),
        ("llava_onevision", {"counts_images": False}),
    ],
)
def test_a_rule_of_the_table_that_is_wrong_is_an_error(family, change, monkeypatch):
    name = type(family_processors.processor(family)).__name__
    known = {each.processor: each for each in table.FAMILIES}
    wrong = replace(known.get(name, table.Family(family, name)), **change)
    monkeypatch.setattr(table, "FAMILIES", (wrong,))
    with pytest.raises(TemplateError, match="of 2 images together"):
        processor(family)({**ROW, "images": [WIDE, TALL]})
