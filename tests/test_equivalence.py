"""Packed equals unpacked: values, losses, every parameter's gradient, and the step that follows."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import (
    MODELS,
    assert_same,
    differentiate,
    in_samples_order,
    llava,
    pairs_of,
    sample,
    samples,
    trees,
)

import vlmpack
from vlmpack import losses, unpacked

CASES = [(name, backend) for name in MODELS for backend in ("dense", "paths")]
BUILT = {name: build() for name, build in MODELS.items()}
REFERENCES = {name: build(seed=1) for name, build in MODELS.items()}
REWARDS = {name: vlmpack.RewardModel.from_backbone(build()) for name, build in MODELS.items()}

property_based = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
thorough = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def packs_of(made, tight: bool):
    """One pack for all, or packs as small as the largest sample allows."""
    return vlmpack.pack(made, max_tokens=max(each.lengths.packed for each in made) if tight else 8192)


def check_logps_and_dpo(name, backend, made, tight):
    model, reference = (vlmpack.enable(each[name], backend) for each in (BUILT, REFERENCES))
    packs = packs_of(made, tight)
    pairs = pairs_of(made)

    oracle = unpacked.response_logps(model, made)
    with torch.no_grad():
        oracle_reference = unpacked.response_logps(reference, made)
        packed_reference = [vlmpack.response_logps(reference, pack) for pack in packs]
    packed = [vlmpack.response_logps(model, pack) for pack in packs]

    ordered = in_samples_order(packs, packed)
    assert_same(differentiate(model, ordered), differentiate(model, oracle))

    expected = losses.dpo(oracle, oracle_reference, pairs, beta=0.3, label_smoothing=0.1).sum()
    actual = sum(
        losses.dpo(logps, ref, pack.pairs, beta=0.3, label_smoothing=0.1).sum()
        for logps, ref, pack in zip(packed, packed_reference, packs, strict=True)
    )
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)
    oracle = unpacked.response_logps(model, made)  # the first graph is used up
    expected = losses.dpo(oracle, oracle_reference, pairs, beta=0.3, label_smoothing=0.1).sum()
    packed = [vlmpack.response_logps(model, pack) for pack in packs]
    actual = sum(
        losses.dpo(logps, ref, pack.pairs, beta=0.3, label_smoothing=0.1).sum()
        for logps, ref, pack in zip(packed, packed_reference, packs, strict=True)
    )
    assert_same(differentiate(model, actual[None], actual), differentiate(model, expected[None], expected))


def check_rewards_and_bradley_terry(name, backend, made, tight):
    model = vlmpack.enable(REWARDS[name], backend)
    packs = packs_of(made, tight)
    margins = torch.cat([torch.tensor(each.margins, dtype=torch.float64) for each in made])

    oracle = unpacked.rewards(model, made)
    packed = [model(pack) for pack in packs]
    assert_same(differentiate(model, in_samples_order(packs, packed)), differentiate(model, oracle))

    oracle = unpacked.rewards(model, made)
    expected = losses.bradley_terry(oracle, pairs_of(made), margin=margins).sum()
    actual = sum(losses.bradley_terry(model(pack), pack.pairs, margin=pack.margins).sum() for pack in packs)
    assert_same(differentiate(model, actual[None], actual), differentiate(model, expected[None], expected))


@pytest.mark.parametrize(("name", "backend"), CASES)
@property_based
@given(data=st.data(), tight=st.booleans())
def test_log_probabilities_dpo_losses_and_gradients_equal_the_unpacked(name, backend, data, tight):
    check_logps_and_dpo(name, backend, data.draw(samples(images=name == "llava")), tight)


@pytest.mark.parametrize(("name", "backend"), CASES)
@property_based
@given(data=st.data(), tight=st.booleans())
def test_rewards_their_losses_and_gradients_equal_the_unpacked(name, backend, data, tight):
    check_rewards_and_bradley_terry(name, backend, data.draw(samples(images=name == "llava")), tight)


@pytest.mark.parametrize(("name", "backend"), CASES)
@settings(property_based, max_examples=12)
@given(data=st.data(), tight=st.booleans(), depth=st.integers(1, 5))
def test_trees_of_tokens_and_images_equal_the_unpacked(name, backend, data, tight, depth):
    made = data.draw(trees(images=name == "llava", depth=depth))
    check_logps_and_dpo(name, backend, made, tight)
    check_rewards_and_bradley_terry(name, backend, made, tight)


@pytest.mark.parametrize("name", MODELS)
@settings(property_based, max_examples=4)
@given(data=st.data(), tight=st.booleans())
@torch.no_grad()
def test_values_by_flex_equal_the_unpacked(name, data, tight):
    """FlexAttention has no backward on the CPU: log-probabilities and rewards alone."""
    made = data.draw(samples(images=name == "llava"))
    packs = packs_of(made, tight)
    model, reward_model = (vlmpack.enable(each[name], "flex") for each in (BUILT, REWARDS))
    logps = in_samples_order(packs, [vlmpack.response_logps(model, pack) for pack in packs])
    rewards = in_samples_order(packs, [reward_model(pack) for pack in packs])
    torch.testing.assert_close(logps, unpacked.response_logps(model, made), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(rewards, unpacked.rewards(reward_model, made), rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), CASES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@settings(thorough, max_examples=100)
@given(data=st.data(), tight=st.booleans())
def test_many_random_trees_equal_the_unpacked(depth, name, backend, data, tight):
    """2,000 forests: 5 depths, 2 models, 2 backends, 100 each."""
    made = data.draw(trees(images=name == "llava", depth=depth))
    check_logps_and_dpo(name, backend, made, tight)
    check_rewards_and_bradley_terry(name, backend, made, tight)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), CASES)
@thorough
@given(data=st.data(), tight=st.booleans())
def test_many_random_packs_equal_the_unpacked(name, backend, data, tight):
    made = data.draw(samples(images=name == "llava", most=8))
    check_logps_and_dpo(name, backend, made, tight)
    check_rewards_and_bradley_terry(name, backend, made, tight)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_one_optimizer_step_equals_the_unpacked(name, backend):
    made = [
        sample([1, 2], [[3, 0], [4], [3, 3, 1]], [(0, 1), (2, 1)], images=int(name == "llava"), seed=k) for k in (1, 2)
    ]
    after = []
    for packed in (True, False):
        model = MODELS[name]()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if packed:
            (pack,) = vlmpack.pack(made)
            logps = vlmpack.response_logps(vlmpack.enable(model, backend), pack)
        else:
            logps = unpacked.response_logps(model, made)
        losses.dpo(logps, logps.detach() - 1, pairs_of(made)).mean().backward()
        optimizer.step()
        after.append(dict(model.named_parameters()))
    for parameter in after[0]:
        torch.testing.assert_close(after[0][parameter], after[1][parameter], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_changing_a_response_changes_no_sibling_by_one_bit(name, backend):
    images = int(name == "llava")
    model = vlmpack.enable(BUILT[name], backend)
    reward_model = vlmpack.enable(REWARDS[name], backend)
    before = [sample([1, 2], [[3, 1], [2, 4, 0], [1]], [(0, 1)], images), sample([5], [[3], [4, 4]], [(0, 1)], images)]
    after = [sample([1, 2], [[3, 1], [4, 1, 3], [1]], [(0, 1)], images), before[1]]
    untouched = torch.tensor([True, False, True, True, True])
    with torch.no_grad():
        for score in (lambda pack: vlmpack.response_logps(model, pack), reward_model):
            was, now = (score(vlmpack.pack(made)[0]) for made in (before, after))
            assert torch.equal(was[untouched], now[untouched])
            assert was[1] != now[1]


def test_an_enabled_model_computes_ordinary_batches_as_before():
    model = llava().eval()
    ids = torch.tensor([[1, 2, 3, 4], [2, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        after = vlmpack.enable(model)(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(before, after)


def test_low_precision_is_no_worse_packed_than_unpacked():
    """bfloat16: both are held against float64; packed may err as much as unpacked does, not more."""
    made = [sample([1, 2, 3], [[3, 0], [4], [3, 3, 1]], [(0, 1)], images=1, seed=k) for k in range(4)]
    exact = unpacked.response_logps(llava(), made)
    rough = vlmpack.enable(llava().bfloat16())
    unpacked_error = (unpacked.response_logps(rough, made) - exact).abs().max()
    (pack,) = vlmpack.pack(made)
    packed_error = (vlmpack.response_logps(rough, pack) - exact).abs().max()
    assert packed_error <= 1.5 * unpacked_error
