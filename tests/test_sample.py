import pytest
import torch
from tiny import picture, sample

from vlmpack import Sample, SampleError


@pytest.mark.parametrize(
    ("prompt", "responses", "pairs", "message"),
    [
        ([], [[1]], [], "the prompt has no tokens"),
        ([1], [], [], "no responses"),
        ([1], [[1], []], [], "response 1 has no tokens"),
        ([1], [[1], [2]], [(0, 2)], r"pair \(0, 2\) does not name two of the 2 responses"),
        ([1], [[1], [2]], [(1, 1)], r"pair \(1, 1\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(prompt, responses, pairs, message):
    with pytest.raises(SampleError, match=message):
        Sample(
            torch.tensor(prompt, dtype=torch.int64),
            tuple(torch.tensor(r, dtype=torch.int64) for r in responses),
            tuple(pairs),
        )


@pytest.mark.parametrize("image_of", [None, [-1, -1, -1], [0, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, -1]])
def test_images_and_their_tokens_must_fit_together(image_of):
    images = (picture(1),) if image_of == [0, 0, 1] else (picture(1), picture(2))
    with pytest.raises(SampleError, match=r"image_of places images \[.*\] .* there are \d"):
        Sample(
            torch.tensor([1, 2, 3]),
            (torch.tensor([4]),),
            images=images,
            image_of=None if image_of is None else torch.tensor(image_of),
        )


def test_margins_are_one_a_pair():
    with pytest.raises(SampleError, match="1 margins for 2 pairs"):
        Sample(torch.tensor([1]), (torch.tensor([2]), torch.tensor([3])), ((0, 1), (1, 0)), (0.5,))


def test_truncation_cuts_response_tails_and_never_the_prompt():
    whole = sample([1, 2, 3], [[4, 5, 6], [7]], [(0, 1)], images=1)  # 7 prompt tokens, 4 of the image
    cut = whole.truncated(9)
    assert [r.tolist() for r in cut.response_ids] == [[4, 5], [7]]
    assert torch.equal(cut.prompt_ids, whole.prompt_ids)
    assert cut.lengths == whole.lengths.truncated(9)
    assert whole.truncated(None).lengths == whole.lengths


@pytest.mark.parametrize("max_length", [7, 3])
def test_a_prompt_that_leaves_no_room_is_refused_not_cut(max_length):
    whole = sample([1, 2, 3], [[4, 5, 6], [7]], [(0, 1)], images=1)
    with pytest.raises(SampleError, match=f"the prompt has 7 tokens, .* max_length={max_length}"):
        whole.truncated(max_length)


BOTH_WAYS = {
    "no stretch": (None, [False, False, False, False, False, False]),
    "images": ("image", [False, True, False, True, True, False]),
    "the prompt": ("prompt", [True, True, True, True, True, True]),
}


@pytest.mark.parametrize(("both_ways", "seen"), BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_which_tokens_see_each_other_both_ways(both_ways, seen):
    image_of = torch.tensor([-1, 0, -1, 0, 1, -1])  # a separator inside the first image, the second beside it
    one = Sample(
        torch.tensor([1, 9, 2, 9, 9, 3]), (torch.tensor([4]),), (), None, (picture(1), picture(2)), image_of, both_ways
    )
    assert one.is_seen_both_ways.tolist() == seen
    assert one.is_image.tolist() == [False, True, False, True, True, False]
    alone = Sample(torch.tensor([1, 2]), (torch.tensor([4]),), both_ways=both_ways)
    assert alone.is_image.tolist() == [False, False]
    assert alone.is_seen_both_ways.tolist() == [both_ways == "prompt"] * 2


def test_a_way_of_seeing_that_does_not_exist_is_refused():
    with pytest.raises(SampleError, match="both_ways='all' is not one of None, 'image', 'prompt'"):
        Sample(torch.tensor([1]), (torch.tensor([2]),), both_ways="all")


def test_truncation_keeps_what_is_seen_both_ways():
    whole = Sample(torch.tensor([1, 2]), (torch.tensor([4, 5]),), both_ways="prompt")
    assert whole.truncated(3).both_ways == "prompt"
