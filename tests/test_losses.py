"""Losses against numbers worked out by hand, and against what their formulas promise."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmpack import losses
from vlmpack.losses import LossError, bradley_terry, dpo, plackett_luce

PAIRS = torch.tensor([[0, 1], [2, 1]])
THREE_PAIRS = torch.tensor([[0, 1], [2, 1], [2, 0]])
POLICY = torch.tensor([-3.0, -5.0, -4.0])
REFERENCE = torch.tensor([-4.0, -4.0, -4.5])  # log ratios 1, -1, 0.5
LENGTHS = torch.tensor([2, 4, 3])

CONTRASTS = {
    "dpo": dpo,
    "robust": lambda *logps, **knobs: losses.robust(*logps, label_smoothing=0.1, **knobs),
    "hinge": losses.hinge,
    "ipo": lambda policy, reference, pairs, **knobs: losses.ipo(policy, reference, pairs, LENGTHS, **knobs),
    "sigmoid_norm": lambda policy, reference, pairs, **knobs: losses.sigmoid_norm(
        policy, reference, pairs, LENGTHS, **knobs
    ),
    "exo_pair": lambda *logps, **knobs: losses.exo_pair(*logps, label_smoothing=0.1, **knobs),
    "nca_pair": losses.nca_pair,
    "bco_pair": losses.bco_pair,
    "sppo_hard": losses.sppo_hard,
    "apo_zero": losses.apo_zero,
    "apo_down": losses.apo_down,
    "discopop": losses.discopop,
}
SORTED = {"aot": losses.aot, "aot_unpaired": losses.aot_unpaired}
REFERENCE_FREE = {
    "sft": lambda policy, pairs: losses.sft(policy, pairs, mean_length=1.5),
    "cpo": losses.cpo,
    "simpo": lambda policy, pairs: losses.simpo(policy, pairs, LENGTHS, beta=2.0, gamma=0.5),
    "orpo": lambda policy, pairs: losses.orpo(policy, pairs, LENGTHS),
    "bradley_terry": bradley_terry,
    "centering": losses.centering,
}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_dpo_is_minus_log_sigmoid_of_beta_times_the_difference_of_log_ratios():
    loss = dpo(POLICY, REFERENCE, PAIRS, beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([-log_sigmoid(0.5 * 2), -log_sigmoid(0.5 * 1.5)]))


def test_label_smoothing_mixes_in_the_flipped_pair():
    loss = dpo(POLICY, REFERENCE, PAIRS[:1], beta=0.5, label_smoothing=0.2)
    torch.testing.assert_close(loss, torch.tensor([-0.8 * log_sigmoid(1.0) - 0.2 * log_sigmoid(-1.0)]))


def test_the_dpo_gradient_pushes_preferred_up_and_rejected_down_by_the_same_amount():
    policy = torch.tensor([-3.0, -5.0], requires_grad=True)
    dpo(policy, torch.tensor([-3.0, -5.0]), torch.tensor([[0, 1]]), beta=0.5).sum().backward()
    torch.testing.assert_close(policy.grad, torch.tensor([-0.25, 0.25]))  # beta * sigmoid(0)


BY_HAND = {  # of log ratios 1 and -1 over 2 and 4 tokens, beta 0.5: the margin is 1
    "dpo": -log_sigmoid(1.0),
    "robust": (-0.9 * log_sigmoid(1.0) + 0.1 * log_sigmoid(-1.0)) / 0.8,
    "hinge": 0.0,
    "ipo": (1 / 2 + 1 / 4 - 1) ** 2,
    "sigmoid_norm": -log_sigmoid(0.5 * 0.75),
    "exo_pair": sigmoid(1.0) * math.log(sigmoid(1.0) / 0.9) + sigmoid(-1.0) * math.log(sigmoid(-1.0) / 0.1),
    "nca_pair": -log_sigmoid(0.5) - 0.5 * log_sigmoid(-0.5) - 0.5 * log_sigmoid(0.5),
    "bco_pair": -2 * log_sigmoid(0.5),
    "sppo_hard": 0.0,  # 1 and -1 are what it aims at
    "apo_zero": 2 * sigmoid(-0.5),
    "apo_down": sigmoid(0.5) + sigmoid(-1.0),
    "discopop": sigmoid(-20.0) * -log_sigmoid(1.0) + sigmoid(20.0) * math.exp(-1.0),
}


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_contrast_with_a_reference_is_what_its_formula_says(name):
    loss = CONTRASTS[name](POLICY, REFERENCE, PAIRS, beta=0.5)
    assert loss[0].item() == pytest.approx(BY_HAND[name], rel=1e-6)


def test_hinge_falls_in_a_straight_line_down_to_0():
    assert losses.hinge(POLICY, REFERENCE, PAIRS, beta=0.25).tolist() == [0.5, 0.625]
    assert losses.hinge(POLICY, REFERENCE, PAIRS, beta=1.0).tolist() == [0.0, 0.0]


def test_robust_without_smoothing_is_dpo():
    loss = losses.robust(POLICY, REFERENCE, PAIRS, beta=0.5, label_smoothing=0)
    torch.testing.assert_close(loss, dpo(POLICY, REFERENCE, PAIRS, beta=0.5))


def test_robust_is_the_dpo_loss_in_the_mean_over_flips():
    smoothing, flipped = 0.3, PAIRS.flip(1)
    seen = losses.robust(POLICY, REFERENCE, PAIRS, label_smoothing=smoothing)
    seen_flipped = losses.robust(POLICY, REFERENCE, flipped, label_smoothing=smoothing)
    torch.testing.assert_close((1 - smoothing) * seen + smoothing * seen_flipped, dpo(POLICY, REFERENCE, PAIRS))


def test_exo_pair_is_0_where_the_policy_chooses_as_the_labels_do():
    policy = torch.tensor([math.log(0.9 / 0.1), 0.0])
    loss = losses.exo_pair(policy, torch.zeros(2), PAIRS[:1], beta=1.0, label_smoothing=0.1)
    torch.testing.assert_close(loss, torch.zeros(1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_exo_pair_names_what_it_needs(smoothing):
    with pytest.raises(LossError, match=rf"label_smoothing={smoothing}: exo_pair .*\n.* such as 1e-3"):
        losses.exo_pair(POLICY, REFERENCE, PAIRS, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5])
def test_robust_names_what_it_needs(smoothing):
    with pytest.raises(LossError, match=rf"label_smoothing={smoothing}: .*\n.*at least 0 and below 0\.5"):
        losses.robust(POLICY, REFERENCE, PAIRS, label_smoothing=smoothing)


def test_aot_compares_the_policys_gaps_with_the_references_rank_by_rank():
    policy, reference = torch.tensor([-1.0, -4.0, -2.0]), torch.tensor([-2.0, -3.0, -1.0])
    loss = losses.aot(policy, reference, PAIRS, beta=0.5)  # gaps 3, 2 and 1, 2; sorted 2, 3 and 1, 2
    torch.testing.assert_close(loss, torch.full((2,), -log_sigmoid(0.5)))


def test_aot_unpaired_compares_preferred_with_rejected_rank_by_rank():
    policy, pairs = torch.tensor([2.0, 1.0, 0.0, -3.0]), torch.tensor([[0, 2], [1, 3]])
    loss = losses.aot_unpaired(policy, torch.zeros(4), pairs, beta=0.5)  # preferred 1, 2; rejected -3, 0
    torch.testing.assert_close(loss, torch.tensor([-log_sigmoid(2.0), -log_sigmoid(1.0)]))


@pytest.mark.parametrize("name", SORTED)
def test_sorted_losses_do_not_depend_on_the_order_of_pairs(name):
    loss = SORTED[name](POLICY, REFERENCE, PAIRS, label_smoothing=0.1)
    torch.testing.assert_close(SORTED[name](POLICY, REFERENCE, PAIRS.flip(0), label_smoothing=0.1), loss)


@pytest.mark.parametrize("name", CONTRASTS)
def test_with_a_reference_each_pair_has_a_value_of_its_own(name):
    loss = CONTRASTS[name](POLICY, REFERENCE, THREE_PAIRS, beta=0.5)
    assert len(set(loss.tolist())) == 3
    for pair, value in zip(THREE_PAIRS, loss, strict=True):
        torch.testing.assert_close(CONTRASTS[name](POLICY, REFERENCE, pair[None], beta=0.5), value[None])


@pytest.mark.parametrize("name", REFERENCE_FREE)
def test_without_a_reference_each_pair_has_a_value_of_its_own(name):
    loss = REFERENCE_FREE[name](POLICY, THREE_PAIRS)
    assert loss[0] != loss[1]
    for pair, value in zip(THREE_PAIRS, loss, strict=True):
        torch.testing.assert_close(REFERENCE_FREE[name](POLICY, pair[None]), value[None])


@pytest.mark.parametrize("name", [*CONTRASTS, *SORTED])
def test_gradients_with_a_reference_are_those_of_the_values(name):
    policy, reference = POLICY.double().requires_grad_(), REFERENCE.double()
    function = {**CONTRASTS, **SORTED}[name]
    assert torch.autograd.gradcheck(lambda logps: function(logps, reference, PAIRS, beta=0.3), policy)


@pytest.mark.parametrize("name", REFERENCE_FREE)
def test_gradients_without_a_reference_are_those_of_the_values(name):
    policy = POLICY.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda logps: REFERENCE_FREE[name](logps, PAIRS), policy)


AGREEMENT = {
    "dpo": math.log(2), "robust": math.log(2), "hinge": 1, "sigmoid_norm": math.log(2), "nca_pair": 2 * math.log(2),
    "bco_pair": 2 * math.log(2), "apo_zero": 1, "apo_down": 1, "aot": math.log(2), "aot_unpaired": math.log(2),
}  # fmt: skip


@pytest.mark.parametrize("name", AGREEMENT)
def test_where_policy_and_reference_agree_the_loss_is_what_is_documented(name):
    loss = {**CONTRASTS, **SORTED}[name](POLICY, POLICY, PAIRS)
    torch.testing.assert_close(loss, torch.full((2,), float(AGREEMENT[name])))


@pytest.mark.parametrize("far", [1e4, -1e4])
@pytest.mark.parametrize("name", [*CONTRASTS, *SORTED])
def test_losses_and_gradients_stay_finite_far_from_the_reference(name, far):
    policy = torch.tensor([far, -far, far], requires_grad=True)
    loss = {**CONTRASTS, **SORTED}[name](policy, torch.zeros(3), PAIRS)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert policy.grad.isfinite().all()


def test_sft_averages_over_the_tokens_of_the_preferred_responses():
    mean_length = LENGTHS[PAIRS[:, 0]].float().mean()
    whole = losses.sft(POLICY, PAIRS, mean_length=mean_length)
    assert whole.mean().item() == pytest.approx((3 + 4) / (2 + 3))
    parts = [losses.sft(POLICY, pair[None], mean_length=mean_length) for pair in PAIRS]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_cpo_is_dpo_with_a_uniform_reference():
    loss = losses.cpo(POLICY, PAIRS, beta=0.5, label_smoothing=0.1)
    torch.testing.assert_close(loss, dpo(POLICY, torch.full((3,), -7.0), PAIRS, beta=0.5, label_smoothing=0.1))


def test_simpo_asks_for_gamma_between_averages():
    loss = losses.simpo(POLICY, PAIRS, LENGTHS, beta=2.0, gamma=0.5)  # averages -1.5, -1.25, -1.33
    torch.testing.assert_close(loss, torch.tensor([-log_sigmoid(-1.0), -log_sigmoid(-2 / 3)]))


def test_orpo_compares_the_odds_of_average_tokens():
    logps = torch.tensor([2 * math.log(0.8), 4 * math.log(0.5), 3 * math.log(0.2)])  # odds 4, 1, 1/4
    loss = losses.orpo(logps, PAIRS, LENGTHS, beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([-0.5 * math.log(4 / 5), -0.5 * math.log(1 / 5)]))


@pytest.mark.parametrize("logp", [-1e-30, -1e-8, -1e-3, -0.7, -5.0, -100.0])
def test_orpo_is_exact_for_certain_and_for_unlikely_tokens(logp):
    logps = torch.tensor([logp, math.log(0.5)], requires_grad=True)
    loss = losses.orpo(logps, PAIRS[:1], torch.tensor([1, 1]), beta=1.0)
    loss.sum().backward()
    odds = math.exp(logp) / -math.expm1(logp)  # against odds of 1
    assert loss.item() == pytest.approx(math.log1p(1 / odds), rel=1e-5, abs=1e-7)
    assert logps.grad[0].item() == pytest.approx(-1 / (1 + odds) / -math.expm1(logp), rel=1e-5)


def test_orpo_stays_finite_where_tokens_are_certain():
    logps = torch.zeros(2, requires_grad=True)
    loss = losses.orpo(logps, PAIRS[:1], torch.tensor([1, 1]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logps.grad.isfinite().all()


def test_bradley_terry_is_minus_log_sigmoid_of_the_difference_less_the_margin():
    rewards = torch.tensor([1.5, 0.5, 2.0])
    torch.testing.assert_close(bradley_terry(rewards, PAIRS), torch.tensor([-log_sigmoid(1.0), -log_sigmoid(1.5)]))
    with_margin = bradley_terry(rewards, PAIRS, margin=torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(with_margin, torch.tensor([-log_sigmoid(0.75), -log_sigmoid(0.5)]))


def test_centering_is_the_square_of_the_sum():
    assert losses.centering(torch.tensor([1.5, 0.5, -2.0]), PAIRS).tolist() == [4.0, 2.25]


def test_bradley_terry_stays_finite_far_from_zero():
    rewards = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bradley_terry(rewards, torch.tensor([[0, 1]]))
    loss.sum().backward()
    assert loss.item() == 2e4
    assert rewards.grad.tolist() == [-1.0, 1.0]


def ranked(places: list[int]) -> torch.Tensor:
    """All pairs of a strict ranking, the best place first."""
    return torch.tensor([(i, j) for rank, i in enumerate(places) for j in places[rank + 1 :]])


def negative_log_likelihood(scores: torch.Tensor, places: list[int]) -> torch.Tensor:
    """-log of the Plackett-Luce product, written out: each place is chosen from those still left."""
    chance = torch.ones((), dtype=scores.dtype)
    for rank, place in enumerate(places):
        chance = chance * scores[place].exp() / scores[places[rank:]].exp().sum()
    return -chance.log()


@given(gap=st.floats(-40, 40), score=st.floats(-5, 5))
@settings(deadline=None)
def test_plackett_luce_of_two_responses_is_bradley_terry(gap, score):
    scores, pair = torch.tensor([score + gap, score], dtype=torch.float64, requires_grad=True), torch.tensor([[0, 1]])
    ours, expected = plackett_luce(scores, pair), bradley_terry(scores, pair)
    torch.testing.assert_close(ours[:1], expected, rtol=1e-12, atol=1e-30)
    assert ours[1] == 0
    (gradient,) = torch.autograd.grad(ours.sum(), scores)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), scores)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-30)


@st.composite
def rankings(draw) -> tuple[list[list[int]], list[float]]:
    """One to three prompts, each with a strict ranking of its responses, and a score for each response."""
    places, first = [], 0
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(2, 6))
        places.append([first + place for place in draw(st.permutations(range(count)))])
        first += count
    return places, draw(st.lists(st.floats(-6, 6), min_size=first, max_size=first))


@given(rankings(), st.randoms())
@settings(deadline=None)
def test_plackett_luce_is_the_product_over_the_places_of_each_prompts_ranking(ranking, random):
    places, values = ranking
    scores = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    pairs = torch.cat([ranked(each) for each in places])
    pairs = pairs[random.sample(range(len(pairs)), len(pairs))]
    ours = plackett_luce(scores, pairs)
    expected = torch.stack([negative_log_likelihood(scores, each) for each in places])
    torch.testing.assert_close(torch.stack([ours[each].sum() for each in places]), expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(ours.sum(), scores)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), scores)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)


def test_the_chances_of_all_rankings_sum_to_1():
    scores = torch.tensor([0.3, -1.2, 2.0, 0.9], dtype=torch.float64)
    chances = [math.exp(-plackett_luce(scores, ranked(list(places))).sum()) for places in permutations(range(4))]
    assert sum(chances) == pytest.approx(1, rel=1e-12)


def test_tied_responses_are_compared_with_others_and_not_with_each_other():
    scores = torch.log(torch.tensor([4.0, 2.0, 3.0, 1.0]))
    pairs = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]])  # 1 and 2 are tied
    expected = torch.tensor([10 / 4, 3 / 2, 4 / 3, 1.0]).log()
    torch.testing.assert_close(plackett_luce(scores, pairs), expected)


def test_a_response_in_no_pair_has_no_loss_and_no_gradient():
    scores = torch.tensor([1.0, 2.0, 1e4], requires_grad=True)
    loss = plackett_luce(scores, torch.tensor([[0, 1]]))
    loss.sum().backward()
    assert loss[2] == 0
    assert scores.grad[2] == 0
    assert plackett_luce(scores, torch.empty(0, 2, dtype=torch.int64)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_plackett_luce_stays_finite_far_from_zero(dtype):
    scores = torch.tensor([-1e4, 1e4, 0.0], dtype=dtype, requires_grad=True)
    loss = plackett_luce(scores, ranked([0, 1, 2]))
    loss.sum().backward()
    assert loss.tolist() == [2e4, 0.0, 0.0]
    assert scores.grad.tolist() == [-1.0, 1.0, 0.0]


def test_plackett_luce_gradients_are_those_of_the_values():
    scores = torch.tensor([0.3, -1.2, 2.0, 0.9], dtype=torch.float64, requires_grad=True)
    pairs = torch.tensor([[2, 0], [2, 1], [2, 3], [1, 0], [3, 0]])
    assert torch.autograd.gradcheck(lambda s: plackett_luce(s, pairs), scores)
    assert torch.autograd.gradcheck(lambda s: plackett_luce(s, pairs), (1e4 * scores).detach().requires_grad_())


def test_dpo_plackett_luce_of_two_responses_is_dpo():
    loss = losses.dpo_plackett_luce(POLICY, REFERENCE, PAIRS, beta=0.5)
    torch.testing.assert_close(loss[[0, 2]], dpo(POLICY, REFERENCE, PAIRS, beta=0.5))
    assert loss[1] == 0


def test_dpo_plackett_luce_is_the_product_over_ranked_log_ratios():
    loss = losses.dpo_plackett_luce(POLICY, REFERENCE, ranked([1, 2, 0]), beta=0.5)
    first, second, third = math.exp(-0.5), math.exp(0.25), math.exp(0.5)
    expected = -math.log(first / (first + second + third) * second / (second + third))
    assert loss.sum().item() == pytest.approx(expected, rel=1e-6)


def test_every_loss_can_be_asked_for_by_name():
    assert all(callable(getattr(losses, name)) for name in losses.__all__)
    assert {*CONTRASTS, *SORTED, *REFERENCE_FREE, "plackett_luce", "dpo_plackett_luce", "LossError"} == {
        *losses.__all__
    }
