"""PreferenceProcessor: tokens are those of the whole conversation, the prompt and its images once."""

from dataclasses import replace

import datasets
import pytest
import torch
from PIL import Image, ImageFile

import scenes
import vlmpack
from vlmpack import families
from vlmpack.costs.undecoded import undecoded
from vlmpack.families import Family
from vlmpack.image import join
from vlmpack.processors import ImageError, PreferenceProcessor, PreferenceProcessorConfig, RowError, TemplateError

IMAGE_TOKENS = (scenes.PIXELS // scenes.PATCH) ** 2
PICTURE = Image.new("RGB", (50, 70), "green")
ROW = {
    "images": [PICTURE],
    "prompt": "What is at the top left?",
    "responses": ["red circle", "blue square"],
    "scores": [2, 1],
}


@pytest.fixture(scope="module")
def hf():
    return scenes.processor()


@pytest.fixture(scope="module")
def processor(hf):
    return PreferenceProcessor(hf)


def whole(hf, prompt, response, images):
    """The conversation processed by transformers in one go, prompt and response together."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt}]
    conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": response}]
    text = hf.apply_chat_template(conversation, tokenize=False)
    return hf(text=text, images=images or None, add_special_tokens=False, return_tensors="pt")


@pytest.mark.parametrize("images", [[], [PICTURE], [PICTURE, PICTURE.rotate(90)]], ids=len)
def test_prompt_and_response_are_the_tokens_of_the_whole_conversation(hf, processor, images):
    sample = processor({**ROW, "images": images})
    for response, text in zip(sample.response_ids, ROW["responses"], strict=True):
        expected = whole(hf, ROW["prompt"], text, images)
        assert torch.equal(torch.cat([sample.prompt_ids, response]), expected["input_ids"][0])
        if images:
            assert torch.equal(join(sample.images)["pixel_values"], expected["pixel_values"])
            assert sample.image_of[sample.prompt_ids == hf.image_token_id].tolist() == [
                number for number in range(len(images)) for _ in range(IMAGE_TOKENS)
            ]
            assert (sample.image_of[sample.prompt_ids != hf.image_token_id] == -1).all()
    assert (sample.prompt_ids == hf.image_token_id).sum() == IMAGE_TOKENS * len(images)
    assert sample.pairs == ((0, 1),)


@pytest.mark.parametrize("images", [[], [PICTURE], [PICTURE, PICTURE]], ids=len)
def test_measuring_tells_the_same_lengths_as_processing(processor, images):
    row = {**ROW, "images": images}
    measured, processed = processor.measure(row), processor(row).lengths
    assert replace(measured, images=()) == replace(processed, images=())
    assert len(measured.images) == len(processed.images) == len(images)
    assert len(set(measured.images)) == len(set(processed.images)) == min(len(images), 1)  # both are the same picture


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_measuring_decodes_no_pixel(form, processor, tmp_path, monkeypatch):
    wide = Image.new("RGB", (90, 40), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "wide", form, exif=exif)
    PICTURE.save(tmp_path / "picture", form)
    images = [str(tmp_path / "wide"), {"bytes": (tmp_path / "picture").read_bytes(), "path": None}]
    row = {**ROW, "images": images}
    processed = processor(row).lengths
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    measured = processor.measure(row)
    assert replace(measured, images=()) == replace(processed, images=())
    assert len(set(measured.images)) == 2
    assert measured.trunk == processed.trunk > 2 * IMAGE_TOKENS


def test_processing_decodes_an_image_once(processor, tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "a.png")
    files, decode = [], ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: (image.tile and files.append(image), decode(image))[1]
    )
    processor({**ROW, "images": [str(tmp_path / "a.png")]})
    assert len(files) == 1


def test_rows_on_one_picture_have_one_root(processor, tmp_path):
    PICTURE.save(tmp_path / "a.png")
    PICTURE.rotate(90).save(tmp_path / "b.png")
    prompts = [("a.png", "What is there?"), ("a.png", "How many?"), ("b.png", "What is there?")]
    rows = [{**ROW, "images": [str(tmp_path / name)], "prompt": prompt} for name, prompt in prompts]
    one, other, another = map(processor.measure, rows)
    assert one.root == other.root != another.root
    assert len({one.content, other.content, another.content}) == 3
    assert processor.measure(dict(rows[0])).content == one.content


def test_a_fingerprint_is_that_of_everything_that_decides_about_tokens(tmp_path):
    def changed(change):
        made = scenes.processor()
        change(made)
        return PreferenceProcessor(made).fingerprint

    config = PreferenceProcessorConfig(image_root=tmp_path)
    used = PreferenceProcessor(scenes.processor())
    used.measure(ROW)
    used.tokenizer(["a", "b c"], padding=True, truncation=True, max_length=2)
    first = changed(lambda hf: None)
    assert first == used.fingerprint
    assert len(first) == 32
    others = {
        changed(lambda hf: hf.tokenizer.add_tokens(["zebra"])),
        changed(lambda hf: setattr(hf, "chat_template", hf.chat_template + " ")),
        changed(lambda hf: setattr(hf.image_processor, "crop_size", {"height": 24, "width": 24})),
        changed(lambda hf: setattr(hf, "patch_size", 24)),
        changed(lambda hf: setattr(hf.tokenizer, "bos_token", "</s>")),
        PreferenceProcessor(scenes.processor().tokenizer).fingerprint,
        PreferenceProcessor(scenes.processor(), config).fingerprint,
    }
    assert len(others - {first}) == 7


def test_images_of_a_datasets_column_are_decoded_by_the_processor_alone(processor, monkeypatch):
    rows = [{"images": [PICTURE], "prompt": ROW["prompt"], "chosen": "red circle", "rejected": "blue square"}] * 2
    images = {
        "images": datasets.List(datasets.Image()),
        **dict.fromkeys(("prompt", "chosen", "rejected"), datasets.Value("string")),
    }
    stored = undecoded(datasets.Dataset.from_list(rows, features=datasets.Features(images)))
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("datasets decoded it"))
    assert set(stored[0]["images"][0]) == {"bytes", "path"}
    assert torch.equal(processor(stored[1]).prompt_ids, processor(rows[1]).prompt_ids)
    assert processor(stored[1]).images[0].content == processor(rows[1]).images[0].content


def test_both_formats_give_the_same_tokens(processor):
    trl = {"image": PICTURE, "prompt": ROW["prompt"], "chosen": "red circle", "rejected": "blue square"}
    ours, theirs = processor(ROW), processor(trl)
    assert torch.equal(ours.prompt_ids, theirs.prompt_ids)
    assert all(map(torch.equal, ours.response_ids, theirs.response_ids))


def test_images_stand_where_the_text_says(hf, processor):
    sample = processor({**ROW, "images": [PICTURE, PICTURE], "prompt": "First <image> then <image> which?"})
    is_image = (sample.prompt_ids == hf.image_token_id).int().tolist()
    runs = [run for run in "".join(map(str, is_image)).split("0") if run]
    assert [len(run) for run in runs] == [IMAGE_TOKENS] * 2
    assert hf.tokenizer.decode(sample.prompt_ids[: is_image.index(1)]).strip().endswith("First")


def test_text_blocks_may_place_images_too(processor):
    blocks = [{"type": "text", "text": "<image>\nWhat is at the top left?"}]
    row = {**ROW, "prompt": [{"role": "user", "content": blocks}]}
    measured, processed = processor.measure(row), processor(row).lengths
    assert replace(measured, images=()) == replace(processed, images=())
    assert len(measured.images) == 1


def test_a_template_that_leaves_images_out_is_refused():
    text_only = "{% for m in messages %}{% for b in m.content %}{{ b.text or '' }}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match="writes 0 image tokens for 1 images"):
        with_template(text_only).measure(ROW)


def test_a_text_only_row_goes_through_a_vision_processor(processor):
    assert processor({**ROW, "images": []}).images == ()


def test_a_tokenizer_reads_text_only_rows(hf):
    tokenizer = PreferenceProcessor(hf.tokenizer)
    row = {key: value for key, value in ROW.items() if key != "images"}
    assert torch.equal(tokenizer(row).prompt_ids, PreferenceProcessor(hf)(row).prompt_ids)
    with pytest.raises(RowError, match="the row has images, and .* reads text only"):
        tokenizer(ROW)


def test_saving_and_loading_keeps_the_tokens(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = PreferenceProcessor.from_pretrained(str(tmp_path))
    assert torch.equal(loaded(ROW).prompt_ids, processor(ROW).prompt_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [PICTURE], "prompt": "<image> and <image>?"}, "places for 2 images and the row holds 1"),
        ({"images": [PICTURE, PICTURE], "prompt": "only <image>?"}, "places for 1 images and the row holds 2"),
        ({"images": [], "prompt": "<image>?"}, "places for 1 images and the row holds 0"),
        ({"images": [], "prompt": [{"role": "user", "content": [{"type": "text", "text": "<image>?"}]}]}, "places for 1 images"),
        ({"responses": ["red <image>", "b"]}, "response 0 holds an image"),
        ({"responses": ["a", [{"role": "assistant", "content": [{"type": "image"}]}]]}, "response 1 holds an image"),
        ({"id": "q7", "scores": [1]}, "row 'q7': 'scores' holds 1 values"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_their_images_are_refused(processor, change, message):
    with pytest.raises(RowError, match=message):
        processor({**ROW, **change})
    with pytest.raises(RowError, match=message):
        processor.measure({**ROW, **change})


def test_an_image_error_names_the_row(hf, tmp_path):
    processor = PreferenceProcessor(hf, PreferenceProcessorConfig(image_root=tmp_path))
    with pytest.raises(ImageError, match=r"row 'q7': image gone\.png does not exist"):
        processor({**ROW, "id": "q7", "images": ["gone.png"]})


def with_template(template):
    hf = scenes.processor()
    hf.chat_template = hf.tokenizer.chat_template = template
    return PreferenceProcessor(hf)


def test_a_template_that_rewrites_the_prompt_is_refused():
    counts = "{{ messages | length }} messages: {% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(TemplateError, match="does not keep the prompt as a prefix"):
        with_template(counts)({**ROW, "images": []})


def test_a_template_whose_prompt_ends_inside_a_token_is_refused():
    merges = "{% for m in messages %}{{ m.content[0].text }}{% endfor %}"
    with pytest.raises(TemplateError, match=r"tokens are not a prefix of prompt \+ response 0.*strip white space"):
        with_template(merges)({**ROW, "images": [], "prompt": "Where is the bl", "responses": ["ue square", "x"]})


def test_a_missing_or_failing_template_is_named():
    with pytest.raises(TemplateError, match="has no chat template"):
        with_template(None)(ROW)
    with pytest.raises(TemplateError, match="the chat template refuses the conversation: no users here"):
        with_template("{{ raise_exception('no users here') }}")(ROW)


def test_a_processor_whose_outputs_are_unknown_is_refused():
    class Tiles(type(scenes.processor())):
        def __call__(self, *args, **kwargs):
            inputs = super().__call__(*args, **kwargs)
            inputs["image_sizes"] = torch.tensor([[1, 1]])
            return inputs

    tiles = scenes.processor()
    tiles.__class__ = Tiles
    for read in (PreferenceProcessor(tiles), PreferenceProcessor(tiles).measure):
        with pytest.raises(TemplateError, match=r"Tiles makes 'image_sizes' \(Tensor\) of a prompt with images"):
            read(ROW)


def test_questions_on_one_picture_share_it_whatever_file_it_came_from(processor, tmp_path):
    PICTURE.save(tmp_path / "a.png")
    PICTURE.save(tmp_path / "b.webp", lossless=True)
    rows = [{**ROW, "images": [str(tmp_path / name)], "prompt": name} for name in ("a.png", "b.webp")]
    (pack,) = vlmpack.pack([processor(row) for row in rows])
    assert pack.vision_passes == 1
    assert processor.measure(rows[0]).images != processor.measure(rows[1]).images  # forecasts compare files
    assert (pack.input_ids == processor.image_token_id).sum() == IMAGE_TOKENS


def test_pictures_that_differ_in_one_pixel_share_no_token_after_them(processor):
    size = (scenes.PIXELS, scenes.PIXELS)  # what the tower sees, so that no resizing hides the pixel
    other = Image.new("RGB", size, "green")
    other.putpixel((17, 40), (0, 129, 0))
    rows = [{**ROW, "images": [image]} for image in (Image.new("RGB", size, "green"), other)]
    samples = [processor(row) for row in rows]
    assert torch.equal(samples[0].prompt_ids, samples[1].prompt_ids)
    assert processor.measure(rows[0]).images != processor.measure(rows[1]).images
    (pack,) = vlmpack.pack(samples)
    assert pack.vision_passes == 2
    before = samples[0].prompt_ids.tolist().index(processor.image_token_id)
    assert pack.tokens == 2 * samples[0].lengths.packed - before


def test_a_family_that_forbids_sharing_a_part_of_a_prompt_is_obeyed(hf, monkeypatch):
    rows = [{**ROW, "prompt": "What is there?"}, {**ROW, "prompt": "What was there?"}]
    packs = {}
    for whole in (False, True):
        monkeypatch.setattr(
            families, "FAMILIES", (Family("llava", "LlavaProcessor", both_ways="prompt" if whole else None),)
        )
        samples = [PreferenceProcessor(hf)(row) for row in rows]
        (packs[whole],) = vlmpack.pack(samples)
    assert packs[True].tokens == sum(sample.lengths.packed for sample in samples)
    assert packs[False].tokens < packs[True].tokens - IMAGE_TOKENS
    assert packs[True].vision_passes == 1  # the features may be the same; the tokens may not


def test_a_reader_of_another_kind_has_another_fingerprint():
    class Prefixed(PreferenceProcessor):
        """Reads rows otherwise, with the same settings."""

    own = scenes.processor()
    assert PreferenceProcessor(own).fingerprint == PreferenceProcessor(own).fingerprint != Prefixed(own).fingerprint
