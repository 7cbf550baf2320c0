"""Scoring: packed as one by one, in the rows' order, whatever fits a pack; bad rows take no others with them."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import MODELS, llama, llava, sample, samples

from vlmpack import RewardModel, unpacked
from vlmpack.candidates import WINDOW
from vlmpack.scoring import scored

BUILT = {name: RewardModel.from_backbone(build()).eval() for name, build in MODELS.items()}
EIGHT = [[1 + r % 5] * (1 + r % 4) for r in range(8)]


def rewards_of(model, rows, **settings) -> torch.Tensor:
    return torch.tensor(
        [reward for each in scored(model, rows, None, **settings) for reward in each.rewards], dtype=torch.float64
    )


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data(), max_tokens=st.sampled_from([14, 20, 8192]))
@torch.no_grad()
def test_rewards_equal_those_of_each_response_alone(name, data, max_tokens):
    made = data.draw(samples(images=name == "llava", most=6))
    model = BUILT[name]
    expected = unpacked.rewards(model, made)
    longest = max(len(s.prompt_ids) + len(r) for s in made for r in s.response_ids)
    torch.testing.assert_close(
        rewards_of(model, made, max_tokens=max(max_tokens, longest)), expected, rtol=1e-9, atol=1e-10
    )


@torch.no_grad()
def test_eight_candidates_of_a_picture_equal_one_by_one_to_1e_9():
    row = sample([1, 2], EIGHT, [], images=1)
    expected = unpacked.rewards(BUILT["llava"], [row])
    ((only),) = scored(BUILT["llava"], [row], None)
    assert (torch.tensor(only.rewards, dtype=torch.float64) - expected).abs().max() < 1e-9
    assert only.lengths == (1, 2, 3, 4, 1, 2, 3, 4)
    assert (only.images, only.image_tokens) == (1, 4)


def test_one_pass_and_one_image_for_all_candidates_and_several_where_they_do_not_fit():
    model = BUILT["llava"]
    packs = []
    handle = model.register_forward_pre_hook(lambda module, arguments: packs.append(arguments[0]))
    candidates = [[1 + r % 5, 1 + r // 5 % 5, 1 + r // 25] for r in range(64)]
    row = sample([1, 2], candidates, [], images=1)
    whole = rewards_of(model, [row])
    assert (len(packs), packs[0].vision_passes, packs[0].responses) == (1, 1, 64)
    packs.clear()
    parts = rewards_of(model, [row], max_tokens=30)  # 6 tokens of prompt, so 8 candidates of 3 at a time
    handle.remove()
    assert [pack.responses for pack in packs] == [8] * 8
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)


def test_order_and_places_over_several_windows_with_bad_rows_between():
    rows = [sample([1 + k % 5], [[1 + k % 4, 2]], [], seed=k) for k in range(2 * WINDOW + 5)]
    rows[3], rows[WINDOW] = "no row", sample([1] * 40, [[2]], [])
    found = list(scored(BUILT["llama"], rows, None, max_tokens=32))
    assert [each.place for each in found] == list(range(2 * WINDOW + 5))
    assert {each.place: each.error for each in found if each.error} == {
        3: "it is a str, not a Sample, and there is no processor to read it",
        WINDOW: "response 0 has 41 tokens with its prompt, more than max_tokens=32; raise max_tokens, or cut responses "
        "with max_length",
    }
    good = [each for each in found if not each.error]
    expected = unpacked.rewards(BUILT["llama"], [rows[each.place] for each in good])
    torch.testing.assert_close(torch.tensor([each.rewards[0] for each in good], dtype=torch.float64), expected.detach())


def test_a_surprise_in_one_row_is_told_by_its_kind():
    def read(row):
        return {}[row] if row == "odd" else sample([1], [[2]], [])

    odd, even = scored(BUILT["llama"], ["odd", "even"], read)
    assert odd.error == "KeyError: 'odd'"
    assert len(even.rewards) == 1


def test_rewards_that_are_no_numbers_are_an_error_and_not_a_score():
    model = RewardModel.from_backbone(llama())
    torch.nn.init.constant_(model.reward_head.score.weight, float("nan"))
    (only,) = scored(model, [sample([1], [[2], [3]], [])], None)
    assert (only.error, only.rewards) == ("the reward of response 0 is nan; look at the weights", ())


def test_longer_responses_are_cut_where_that_is_asked_for():
    model = BUILT["llama"]
    cut = rewards_of(model, [sample([1, 2], [[3, 4, 5, 1]], [])], max_length=4)
    assert torch.equal(cut, rewards_of(model, [sample([1, 2], [[3, 4]], [])]))


def test_dropout_is_off_modes_come_back_and_the_model_can_be_trained_afterwards():
    model = RewardModel.from_backbone(llava())
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    model.model.vision_tower.eval()  # as a frozen one is
    rows = [sample([1, 2], EIGHT, [], images=1)]
    first, second = rewards_of(model, rows), rewards_of(model, rows)
    assert torch.equal(first, second)
    assert model.training and model.model.language_model.training and not model.model.vision_tower.training
    from vlmpack import pack

    model(pack(rows)[0]).sum().backward()  # nothing of inference mode was left behind
    assert model.reward_head.score.weight.grad.abs().max() > 0
