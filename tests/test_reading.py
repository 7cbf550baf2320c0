"""Tokens read back as text, each by itself, whatever the tokenizer does with spaces and bytes."""

import pickle
from copy import deepcopy
from pathlib import Path

import pytest
import torch

import scenes
from vlmpack import Sample, pack
from vlmpack.processors import PreferenceProcessor
from vlmpack.reading import Reading

VOCABULARY = Path(__file__).parent.parent.parent / "shared" / "data" / "tokenizers" / "mistral" / "tokenizer.model.v1"


@pytest.fixture(scope="module")
def byte_level():
    return scenes.tokenizer()


@pytest.fixture(scope="module")
def sentence_piece():
    if not VOCABULARY.exists():
        pytest.skip(f"needs {VOCABULARY.name} beside the checkout")
    small_models = pytest.importorskip("small_models")
    return small_models.load_tokenizer(str(VOCABULARY))


def pieces(tokenizer, text):
    return Reading(tokenizer).pieces(tokenizer.encode(text, add_special_tokens=False))


def test_a_piece_keeps_the_space_it_begins_with(byte_level):
    assert pieces(byte_level, "What is there? ASSISTANT: red ring") == [
        "What", " is", " there", "?", " ASSISTANT", ":", " red", " ring",
    ]  # fmt: skip


def test_sentence_pieces_keep_their_spaces_too(sentence_piece):
    assert pieces(sentence_piece, "A photo of the lake")[1:] == [" photo", " of", " the", " lake"]
    assert "".join(pieces(sentence_piece, "It is  3 °C,\nwet.")).strip() == "It is  3 °C,\nwet."


@pytest.mark.parametrize("text", ["déjà vu", "湖の写真", "👩‍🚀 waves"])
def test_a_character_of_several_tokens_stands_at_the_first(text, byte_level):
    found = pieces(byte_level, text)
    assert "".join(found) == text
    assert "" in found


def test_each_character_stands_at_its_own_first_token_also_where_the_last_is_cut(byte_level):
    ids = byte_level.encode("湖の", add_special_tokens=False)
    assert len(ids) == 6
    assert Reading(byte_level).pieces(ids) == ["湖", "", "", "の", "", ""]
    assert Reading(byte_level).pieces(ids[:5]) == ["湖", "", "", "\ufffd", "\ufffd"]


def test_bytes_that_are_no_character_are_shown_as_what_they_are(byte_level):
    first = byte_level.encode("é", add_special_tokens=False)[:1]
    assert Reading(byte_level).pieces(first) == ["\ufffd"]


def test_special_tokens_are_read(byte_level):
    assert Reading(byte_level).pieces([byte_level.bos_token_id, byte_level.eos_token_id]) == ["<s>", "</s>"]


def test_samples_of_a_processor_remember_it_and_so_does_their_pack():
    processor = PreferenceProcessor(scenes.processor())
    samples = [processor(row) for row in scenes.rows(1, seed=0)]
    (whole,) = pack(samples)
    assert whole.reading is processor.reading is deepcopy(whole.reading)
    other = PreferenceProcessor(scenes.processor())(scenes.rows(1, seed=1)[0])
    assert pack([*samples, other])[0].reading is None  # read by two, which need not agree


def test_what_is_sent_to_another_process_leaves_it_behind():
    processor = PreferenceProcessor(scenes.processor())
    sample = processor(scenes.rows(1, seed=0)[0])
    sent = pickle.dumps(sample)
    assert pickle.loads(sent).reading is None
    alone = Sample(sample.prompt_ids, sample.response_ids, sample.pairs, sample.margins, sample.images, sample.image_of)
    assert len(sent) < len(pickle.dumps(alone)) + 100
    assert torch.equal(pickle.loads(sent).prompt_ids, sample.prompt_ids)


def test_a_processor_or_a_tokenizer_reads(byte_level):
    processor = scenes.processor()
    assert Reading.of(byte_level).tokenizer is byte_level
    assert Reading.of(processor).image_processor is processor.image_processor
    ours = PreferenceProcessor(processor)
    assert Reading.of(ours) is ours.reading
    sent = pickle.loads(pickle.dumps(ours))
    assert sent.reading is None
    assert Reading.of(sent).image_processor is sent.processor.image_processor
