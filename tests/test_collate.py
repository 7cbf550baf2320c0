"""From the rows of a step to packs: nothing lost, what cannot be used is named, and fillers change nothing."""

import pytest
import torch
from tiny import EOS, llava, sample

import vlmpack
from vlmpack.packing import PackingError
from vlmpack.training.batches import Numbered
from vlmpack.training.collate import Collator
from vlmpack.training.fillers import NOBODY, filler

TEXT = sample([1, 2, 3], [[4, EOS], [5, EOS]], [(0, 1)])
IMAGE = sample([1, 2], [[4, EOS], [5, EOS]], [(0, 1)], images=1, seed=1)
TIED = sample([1, 2], [[4, EOS], [5, EOS]], [])


def numbered(*rows):
    return [Numbered(10 + place, row) for place, row in enumerate(rows)]


def test_units_know_the_places_of_their_rows():
    inputs = Collator(None, max_tokens=12)(numbered(TEXT, IMAGE))
    assert inputs["places"] == [[10], [11]]
    assert inputs["weights"].tolist() == [2.0, 4.0, 0.0, 0.0, 2.0]
    assert not inputs["left_out"]


def test_an_unreadable_row_and_a_useless_one_are_left_out_counted_and_named_and_no_other_is_lost():
    def read(row):
        if row == "bad":
            raise ValueError("it is damaged")
        return row

    inputs = Collator(read, 100)(numbered("bad", TEXT, TIED, IMAGE))
    assert inputs["left_out"] == {10: "it is damaged", 12: "all its responses are tied"}
    assert inputs["weights"].tolist() == [2.0, 4.0, 1.0, 1.0, 4.0]
    assert inputs["places"] == [[11, 13]]


def test_a_batch_of_nothing_has_no_units():
    inputs = Collator(None, 100)([])
    assert inputs["units"] == [] and inputs["weights"].tolist() == [0.0] * 5


def test_a_row_larger_than_a_pack_is_an_error_that_names_its_place():
    with pytest.raises(PackingError, match="row 10 has 7 tokens .* max_tokens=6"):
        Collator(None, 6)(numbered(TEXT))


def test_a_pack_without_an_image_takes_the_filler_along_and_says_the_same_of_the_others():
    collate = Collator(None, 12, filler=filler(IMAGE))
    with_filler, plain = collate(numbered(TEXT, IMAGE)), Collator(None, 12)(numbered(TEXT, IMAGE))
    assert with_filler["places"] == [[10, NOBODY], [11]]
    first, before = with_filler["units"][0], plain["units"][0]
    assert first.vision_passes == 1 and before.vision_passes == 0
    assert first.pairs.tolist() == before.pairs.tolist()
    model = vlmpack.enable(llava())
    with torch.no_grad():
        scores, expected = (vlmpack.response_logps(model, pack) for pack in (first, before))
    torch.testing.assert_close(scores[:2], expected, rtol=1e-9, atol=1e-9)


def test_a_late_image_in_a_stream_of_text_is_refused_on_several_ranks():
    with pytest.raises(PackingError, match="an image turned up"):
        Collator(None, 100, filler=filler(TEXT))(numbered(IMAGE))
