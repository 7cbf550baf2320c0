"""The predicted saving against what is counted while it is computed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import IMAGE_TOKENS, llava, sample, samples
from torch.utils.flop_counter import FlopCounterMode

import vlmpack
from vlmpack import Lengths, RewardModel, unpacked
from vlmpack.costs.saving import Cost, cost_of, packed_flops, saving, shared_flops, unpacked_flops
from vlmpack.folding import size
from vlmpack.head import logit_map_of
from vlmpack.lengths import LengthTable

MADE = [
    sample([1, 2], [[3, 1], [2, 4, 0], [1]], [(0, 1)], images=1),
    sample([5, 1, 1], [[3], [4, 4]], [(0, 1)], images=2, seed=1),
]


def test_flops_of_a_sample_worked_out_by_hand():
    lengths = LengthTable.of([Lengths(prompt=3, responses=(2, 1), images=(b"one",))])
    cost = Cost(token=10, pair=1, prediction=100, image=1000)
    # 6 tokens; pairs 3+2+1, then 4+5 for the first response and 4 for the second; 2 + 1 predictions
    assert packed_flops(lengths, cost).item() == 60 + (6 + 9 + 4) + 300 + 1000
    # 5 + 4 tokens; pairs 15 and 10; 2 + 1 predictions; two images
    assert unpacked_flops(lengths, cost).item() == 90 + 25 + 300 + 2000


def test_a_shared_beginning_of_responses_costs_once():
    cost = Cost(token=10, pair=1, prediction=100)
    # prompt of 3, then 2 shared tokens with pairs 4 + 5, then 1 and 2 of their own with pairs 6 and 6 + 7
    lengths = LengthTable.of([Lengths(3, (3, 4), overlaps=(2,))])
    assert packed_flops(lengths, cost).item() == 80 + (6 + 9 + 6 + 13) + 500


def test_an_image_that_stands_twice_in_a_prompt_is_passed_once():
    cost, twice = Cost(token=0, pair=0, image=1000), Lengths(9, (1, 1), images=(b"one", b"one"))
    table = LengthTable.of([twice, Lengths(5, (1,))])
    assert packed_flops(table, cost).tolist() == [1000, 0]
    assert unpacked_flops(table, cost).tolist() == [4000, 0]


def test_rows_of_one_root_share_its_trunk_and_its_images():
    one = Lengths(9, (2, 1), images=(b"one",), trunk=4, root=b"root")
    table = LengthTable.of([one, Lengths(9, (2, 1), images=(b"one",)), Lengths(9, (2, 1))])
    assert shared_flops(table, Cost(token=10, pair=1, prediction=100, image=1000)).tolist() == [40 + 10 + 1000, 0, 0]


@settings(deadline=None, max_examples=30)
@given(samples(images=True))
def test_flops_of_many_samples_are_those_of_each_path_token_by_token(made):
    cost = Cost(token=10.0, pair=1.0, prediction=100.0, image=1000.0)
    packed, alone = 0.0, 0.0
    for each in made:
        prompt, pictures = len(each.prompt_ids), {image.content for image in each.images}
        paths = {
            tuple(response[:end].tolist()) for response in each.response_ids for end in range(1, len(response) + 1)
        }
        packed += sum(10 + 100 + prompt + len(path) for path in paths) + 1000 * len(pictures)
        packed += sum(10 + place + 1 for place in range(prompt))
        for response in each.response_ids:
            alone += sum(10 + place + 1 for place in range(prompt + len(response)))
            alone += 100 * len(response) + 1000 * len(each.images)
    assert saving([each.lengths for each in made], cost).flops == (alone, packed)


@given(samples(images=True, most=1), st.integers(14, 20))
def test_the_tokens_foretold_for_a_sample_are_those_it_has_in_a_pack(made, max_length):
    (each,) = made
    foretold = each.lengths.truncated(max_length).packed
    assert foretold == vlmpack.pack([each.truncated(max_length)])[0].tokens


def squares(query, key, value, *_, **__) -> int:
    """FLOPs of SDPA's kernel for CPUs, by the shapes; some versions of torch count GPUs' alone."""
    return 2 * query[0] * query[1] * query[2] * key[2] * (query[3] + value[3])


def counted(compute) -> int:
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: squares}
    with FlopCounterMode(display=False, custom_mapping=known) as counter, torch.no_grad():
        compute()
    return counter.get_total_flops()


@pytest.mark.parametrize("reward", [True, False], ids=["reward", "dpo"])
def test_the_prediction_is_close_to_what_is_counted(reward):
    """torch counts attention as full squares; the prediction counts only what the mask lets through, so here they
    are added as torch counts them."""
    model = vlmpack.enable(RewardModel.from_backbone(llava()) if reward else llava(), "dense")
    cost = cost_of(model)
    linear = Cost(cost.token, 0.0, cost.prediction, cost.image)
    (pack,) = vlmpack.pack(MADE)
    if not reward:
        logit_map_of(model)  # lets a few tokens through, once
    packed = counted(lambda: model(pack) if reward else vlmpack.response_logps(model, pack))
    oracle = unpacked.rewards if reward else unpacked.response_logps
    alone = counted(lambda: oracle(model, MADE))
    predicted = saving([each.lengths for each in MADE], linear)
    if not reward:  # the oracle projects every position, which is not part of the saving
        positions = sum(each.lengths.unpacked - sum(each.lengths.responses) for each in MADE)
        alone -= positions * cost.prediction
    squares = sum((each.lengths.prompt + r) ** 2 for each in MADE for r in each.lengths.responses)
    rows, longest = size(pack.forest)
    assert predicted.flops[1] + cost.pair * rows * longest**2 == pytest.approx(packed, rel=0.005)
    assert predicted.flops[0] + cost.pair * squares == pytest.approx(alone, rel=0.005)


def test_a_saving_reads_as_one_line():
    said = str(saving([each.lengths for each in MADE], cost_of(llava())))
    tokens = (IMAGE_TOKENS + 2) * 3 + 6 + (2 * IMAGE_TOKENS + 3) * 2 + 3
    assert "\n" not in said
    assert said.startswith(
        f"packing 2 prompts with 5 responses (2 pairs): tokens {tokens} → {17 + 9} (1.88x), vision passes 7 → 3"
    )


def test_images_that_rows_have_in_common_are_said():
    twice = [sample([1, k], [[3], [2]], [(0, 1)], images=1, seed=5) for k in (1, 2, 3)]
    said = str(saving([each.lengths for each in twice], cost_of(llava())))
    assert said.endswith("; 2 of the vision passes show an image again, which rows of one batch share")
