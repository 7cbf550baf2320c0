"""The predicted saving against what is counted while it is computed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import IMAGE_TOKENS, llava, sample, samples
from torch.utils.flop_counter import FlopCounterMode

import vlmpack
from vlmpack import Lengths, RewardModel, unpacked
from vlmpack.plan import fold
from vlmpack.saving import Cost, cost_of, packed_flops, saving, unpacked_flops

MADE = [
    sample([1, 2], [[3, 1], [2, 4, 0], [1]], [(0, 1)], images=1),
    sample([5, 1, 1], [[3], [4, 4]], [(0, 1)], images=2, seed=1),
]


def test_flops_of_a_sample_worked_out_by_hand():
    lengths = Lengths(prompt=3, responses=(2, 1), images=(b"one",))
    cost = Cost(token=10, pair=1, prediction=100, image=1000)
    # 6 tokens; pairs 3+2+1, then 4+5 for the first response and 4 for the second; 2 + 1 predictions
    assert packed_flops(lengths, cost) == 60 + (6 + 9 + 4) + 300 + 1000
    # 5 + 4 tokens; pairs 15 and 10; 2 + 1 predictions; two images
    assert unpacked_flops(lengths, cost) == 90 + 25 + 300 + 2000


def test_a_shared_beginning_of_responses_costs_once():
    cost = Cost(token=10, pair=1, prediction=100)
    # prompt of 3, then 2 shared tokens with pairs 4 + 5, then 1 and 2 of their own with pairs 6 and 6 + 7
    assert packed_flops(Lengths(3, (3, 4), overlaps=(2,)), cost) == 80 + (6 + 9 + 6 + 13) + 500


@given(samples(images=True, most=1), st.integers(14, 20))
def test_the_tokens_foretold_for_a_sample_are_those_it_has_in_a_pack(made, max_length):
    (each,) = made
    foretold = each.lengths.truncated(max_length).packed
    assert foretold == vlmpack.pack([each.truncated(max_length)])[0].tokens


def counted(compute) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
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
    packed = counted(lambda: model(pack) if reward else vlmpack.response_logps(model, pack))
    oracle = unpacked.rewards if reward else unpacked.response_logps
    alone = counted(lambda: oracle(model, MADE))
    predicted = saving([each.lengths for each in MADE], linear)
    if not reward:  # the oracle projects every position, which is not part of the saving
        positions = sum(each.lengths.unpacked - sum(each.lengths.responses) for each in MADE)
        alone -= positions * cost.prediction
    squares = sum((each.lengths.prompt + r) ** 2 for each in MADE for r in each.lengths.responses)
    rows = fold(pack.forest)
    assert predicted.flops[1] + cost.pair * len(rows) * max(map(len, rows)) ** 2 == pytest.approx(packed, rel=0.005)
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
