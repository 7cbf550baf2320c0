"""Vanilla, batch-sorted, padded or packed: every way of sharing computes the same, and costs what it says."""

from dataclasses import replace

import family_models
import family_processors
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import MODELS, assert_same, differentiate, in_samples_order, pairs_of, picture, sample, samples, trees, woven

import vlmpack
from vlmpack import PackingError, losses, unpacked
from vlmpack.preferences import preferences_of
from vlmpack.processors import PreferenceProcessor
from vlmpack.proof.double import Doubled

SHARINGS = ("all", "prompt", "none", "pair")
WAYS = [(sharing, padding) for sharing in SHARINGS for padding in (False, True)]
ways = pytest.mark.parametrize(("sharing", "padding"), WAYS)
backends = pytest.mark.parametrize("backend", ["dense", "paths"])
few = settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

BUILT = {name: build() for name, build in MODELS.items()}
REWARDS = {name: vlmpack.RewardModel.from_backbone(build()) for name, build in MODELS.items()}

WIDE = Image.frombytes("RGB", (90, 50), bytes(range(250)) * 54)
ROWS = [
    {"images": [WIDE], "prompt": "What is it?", "responses": ["a red square", "a red", "blue"], "scores": [3, 1, 2]},
    {"images": [WIDE.rotate(90, expand=True)], "prompt": "A colour?", "responses": ["the red", "b"], "scores": [0, 1]},
]

# A: 6 tokens of prompt; two responses begin alike. B: the same image twice, 9 tokens. C: text alone, 1 token.
A = woven([1, picture(7), 2], [[3, 4], [5], [3, 4, 0]], [(0, 1), (2, 1), (2, 0)])
B = woven([1, picture(7), picture(7)], [[3], [6, 6]], [(1, 0)])
C = woven([8], [[3, 3, 3, 3, 3], [4]], [(0, 1)])

TOKENS = {
    ("all", False): (1 + 4) + (1 + 2 + 1 + 1) + (4 + 1 + 2) + (1 + 5 + 1),
    ("all", True): 2 * (5 + 5 + 7),
    ("prompt", False): (6 + 2 + 1 + 3) + (9 + 1 + 2) + (1 + 5 + 1),
    ("prompt", True): 3 * (6 + 2 + 1 + 3),
    ("none", False): (8 + 7 + 9) + (10 + 11) + (6 + 2),
    ("none", True): 7 * 11,
    ("pair", False): (8 + 7) + (9 + 7) + (9 + 8) + (11 + 10) + (6 + 2),
    ("pair", True): 10 * 11,
}
PASSES = {"all": 1, "prompt": 2, "none": 3 * 1 + 2 * 2, "pair": 6 * 1 + 2 * 2}


def needed(made, sharing, padding) -> int:
    """Tokens of the largest sample alone."""
    return max(map(sum, map(rows_of, made, [sharing] * len(made), [padding] * len(made))))


def rows_of(sample, sharing, padding) -> list[int]:
    """Tokens of each of a sample's trees, if no two of its responses begin alike."""
    prompt, lengths = len(sample.prompt_ids), [len(response) for response in sample.response_ids]
    if sharing in ("all", "prompt"):
        return [prompt + sum(lengths)]
    responses = [each for pair in sample.pairs for each in pair] if sharing == "pair" else range(len(lengths))
    rows = [prompt + lengths[response] for response in responses]
    return [max(rows)] * len(rows) if padding else rows


def expected_values(oracle, made, sharing):
    """One value a response, or two a pair."""
    return oracle[pairs_of(made).flatten()] if sharing == "pair" else oracle


def check(model, score, oracle, made, sharing, padding, max_tokens):
    """Values, Bradley-Terry losses of all pairs and every parameter's gradient are those of the oracle."""
    packs = vlmpack.pack(made, max_tokens, sharing=sharing, padding=padding)
    check_packs(model, score, oracle, made, sharing, packs)


def check_packs(model, score, oracle, made, sharing, packs):
    values = [score(pack) for pack in packs]
    actual = in_samples_order(packs, values)
    reference = oracle(made)
    torch.testing.assert_close(actual, expected_values(reference, made, sharing), rtol=1e-9, atol=1e-11)
    loss = sum(losses.bradley_terry(each, pack.pairs).sum() for each, pack in zip(values, packs, strict=True))
    expected = losses.bradley_terry(reference, pairs_of(made)).sum()
    assert_same(differentiate(model, loss[None], loss), differentiate(model, expected[None], expected))


def check_logps(name, backend, made, sharing, padding, max_tokens=8192):
    model = vlmpack.enable(BUILT[name], backend)
    oracle = lambda made: unpacked.response_logps(model, made)  # noqa: E731
    check(model, lambda pack: vlmpack.response_logps(model, pack), oracle, made, sharing, padding, max_tokens)


def check_rewards(name, backend, made, sharing, padding, max_tokens=8192):
    model = vlmpack.enable(REWARDS[name], backend)
    check(model, model, lambda made: unpacked.rewards(model, made), made, sharing, padding, max_tokens)


@ways
@backends
@few
@given(data=st.data(), tight=st.booleans(), depth=st.integers(0, 3))
def test_every_way_gives_the_log_probabilities_and_gradients_of_the_unpacked(
    sharing, padding, backend, data, tight, depth
):
    made = data.draw(trees(images=True, depth=depth) if depth else samples(images=True))
    check_logps("llava", backend, made, sharing, padding, needed(made, sharing, padding) if tight else 8192)


@ways
@few
@given(data=st.data(), tight=st.booleans(), backend=st.sampled_from(["dense", "paths"]))
def test_every_way_gives_the_rewards_and_gradients_of_the_unpacked(sharing, padding, backend, data, tight):
    made = data.draw(samples(images=False))
    check_rewards("llama", backend, made, sharing, padding, needed(made, sharing, padding) if tight else 8192)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "paligemma", "gemma3", "llava_onevision"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_positions_on_grids_and_prompts_seen_both_ways_bear_padding(family, sharing):
    model = vlmpack.RewardModel.from_backbone(family_models.model(family))
    reader = PreferenceProcessor(family_processors.processor(family))
    made = [reader(row) for row in ROWS]
    with Doubled():
        vlmpack.enable(model, "dense" if sharing == "pair" else "paths")
        check(model, model, lambda made: unpacked.rewards(model, made), made, sharing, True, 8192)


@ways
def test_tokens_and_vision_passes_are_those_counted_by_hand(sharing, padding):
    (pack,) = vlmpack.pack([A, B, C], sharing=sharing, padding=padding)
    assert pack.tokens == TOKENS[sharing, padding]
    assert pack.padding == (TOKENS[sharing, True] - TOKENS[sharing, False] if padding else 0)
    assert pack.vision_passes == PASSES[sharing] == len(pack.images["pixel_values"])


@ways
def test_the_vision_tower_runs_as_often_as_is_said(sharing, padding):
    model, seen = vlmpack.enable(BUILT["llava"]), []
    (pack,) = vlmpack.pack([A, B, C], sharing=sharing, padding=padding)
    hook = model.model.vision_tower.register_forward_pre_hook(
        lambda module, given, named: seen.append(len(given[0] if given else named["pixel_values"])), with_kwargs=True
    )
    with torch.no_grad():
        vlmpack.response_logps(model, pack)
    hook.remove()
    assert seen == [PASSES[sharing]]


@ways
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_every_sample_stands_in_exactly_one_pack_that_fits(sharing, padding, data):
    made = data.draw(samples(images=True, most=6))
    most = needed(made, sharing, padding)
    packs = vlmpack.pack(made, most, sharing=sharing, padding=padding)
    rows = [sorted(set(pack.sample_of.tolist())) for pack in packs]
    assert sorted(row for each in rows for row in each) == list(range(len(made)))
    assert all(pack.tokens <= most for pack in packs)
    if padding:
        assert [row for each in rows for row in each] == list(range(len(made)))
    for each, pack in zip(rows, packs, strict=True):
        responses = [2 * len(made[row].pairs) if sharing == "pair" else made[row].responses for row in each]
        assert pack.sample_of.tolist() == [
            row for row, count in zip(each, responses, strict=True) for _ in range(count)
        ]
        assert pack.margins.tolist() == [margin for row in each for margin in made[row].margins]
        if sharing in ("none", "pair"):
            prompts = [
                len(made[row].prompt_ids) for row, count in zip(each, responses, strict=True) for _ in range(count)
            ]
            lengths = [p + n for p, n in zip(prompts, pack.response_lengths.tolist(), strict=True)]
            assert pack.tokens == (len(lengths) * max(lengths) if padding else sum(lengths))


def test_pairs_have_two_responses_of_their_own_and_weigh_what_they_weighed():
    (pack,) = vlmpack.pack([A, B, C], sharing="pair")
    assert pack.pairs.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert pack.response_lengths.tolist() == [2, 1, 3, 1, 3, 2, 2, 1, 5, 1]
    assert pack.sample_of.tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert pack.margins.tolist() == [0.5, 1.5, 2.5, 0.5, 0.5]
    weights = preferences_of(pack, torch.device("cpu")).pair_weights("one")
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0, 1.0]))


def test_a_sample_without_pairs_keeps_its_responses():
    (pack,) = vlmpack.pack([sample([1], [[2], [3, 3]], []), C], sharing="pair")
    assert (pack.responses, pack.tokens, pack.pairs.tolist()) == (4, 2 + 3 + 6 + 2, [[2, 3]])


def test_padded_rows_are_a_prompt_a_response_and_what_fills_them_up():
    (pack,) = vlmpack.pack([C], sharing="none", padding=True)
    assert (pack.forest.parents, pack.forest.lengths) == ((-1, 0, -1, 2, 3), (1, 5, 1, 1, 4))
    assert pack.input_ids.tolist() == [[8, 3, 3, 3, 3, 3, 8, 4, 4, 4, 4, 4]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 4, 5] * 2]
    assert (pack.targets.tolist(), pack.ends.tolist()) == ([1, 2, 3, 4, 5, 7], [5, 7])


def test_padding_makes_no_path_longer_than_the_longest():
    wide, narrow = sample([1], [[2, k] for k in range(8)], [(0, 1)]), sample([8], [[3], [4]], [(0, 1)])
    (pack,) = vlmpack.pack([wide, narrow], sharing="prompt", padding=True)
    assert pack.forest.lengths == (1, *[2] * 8, 1, 1, 1, *[1], *[3] * 4, 1)
    assert pack.forest.parents == (-1, *[0] * 8, -1, 9, 9, 11, *[-1] * 5)
    assert (pack.tokens, pack.padding) == (2 * 17, 14)
    assert pack.position_ids.max() == 2


def test_padded_packs_are_cut_in_the_order_given_so_that_sorting_shows():
    long, short = [sample([1] * 8, [[2], [3]], [(0, 1)])] * 2, [sample([1], [[2], [3]], [(0, 1)])] * 2
    mixed = vlmpack.pack([long[0], short[0], long[1], short[1]], 36, sharing="none", padding=True)
    ordered = vlmpack.pack([*long, *short], 36, sharing="none", padding=True)
    assert [(pack.sample_of.tolist(), pack.tokens) for pack in mixed] == [([0, 0, 1, 1], 36), ([2, 2, 3, 3], 36)]
    assert [(pack.sample_of.tolist(), pack.tokens) for pack in ordered] == [([0, 0, 1, 1], 36), ([2, 2, 3, 3], 8)]


def test_without_padding_trees_are_put_where_they_fit():
    made = [sample([1] * size, [[2], [3]], [(0, 1)]) for size in (2, 5, 1, 4)]  # 6, 12, 4, 10 tokens each repeated
    packs = vlmpack.pack(made, 16, sharing="none")
    assert [sorted(set(pack.sample_of.tolist())) for pack in packs] == [[0, 3], [1, 2]]
    assert [pack.tokens for pack in packs] == [16, 16]


@backends
@pytest.mark.parametrize("sharing", SHARINGS)
def test_what_fills_up_could_be_anything(backend, sharing):
    model = vlmpack.enable(BUILT["llava"], backend)
    (pack,) = vlmpack.pack([A, B, C], sharing=sharing, padding=True)
    fillers = filling(pack)
    assert len(fillers) == pack.padding
    other = replace(pack, input_ids=pack.input_ids.index_fill(1, fillers, 11))
    with torch.no_grad():
        assert torch.equal(vlmpack.response_logps(model, pack), vlmpack.response_logps(model, other))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_padding_that_counted_would_be_found(sharing):
    model, reward_model = vlmpack.enable(BUILT["llava"]), vlmpack.enable(REWARDS["llava"])
    (pack,) = vlmpack.pack([A, B, C], sharing=sharing, padding=True)
    token = filling(pack)[:1]
    targets = torch.cat([pack.targets, token])  # one filler is predicted for the last response
    terms = torch.cat([pack.terms, torch.tensor([[len(targets) - 1, pack.responses - 1]])])
    predicted = replace(pack, targets=targets, terms=terms)
    with pytest.raises(AssertionError):
        oracle = lambda made: unpacked.response_logps(model, made)  # noqa: E731
        check_packs(model, lambda p: vlmpack.response_logps(model, p), oracle, [A, B, C], sharing, [predicted])
    ended = replace(pack, ends=torch.cat([pack.ends[:-1], filling(pack)[-1:]]))  # read where the row ends
    with pytest.raises(AssertionError):
        oracle = lambda made: unpacked.rewards(reward_model, made)  # noqa: E731
        check_packs(reward_model, reward_model, oracle, [A, B, C], sharing, [ended])


def filling(pack) -> torch.Tensor:
    """Tokens that are on no response's path, found by walking back from the responses' ends."""
    before, used = pack.previous[0].tolist(), set()
    for token in pack.ends.tolist():
        while token >= 0:
            used.add(token)
            token = before[token]
    return torch.tensor(sorted(set(range(pack.tokens)) - used))


@pytest.mark.parametrize(
    ("sharing", "padding", "message"),
    [
        ("some", False, r"sharing='some' is none of \('all', 'prompt', 'none', 'pair'\)"),
        ("prompt", False, "sample 0 has 12 tokens .its prompt once and all its responses"),
        ("none", False, "sample 0 has 24 tokens .its prompt before every response"),
        ("none", True, "sample 0 has 27 tokens .*filled up to equal lengths.* raise max_tokens to 27"),
        ("pair", False, "sample 0 has 48 tokens .its prompt before both responses of every pair"),
        ("pair", True, "sample 0 has 54 tokens"),
    ],
)
def test_a_sample_that_is_too_large_is_refused_with_the_tokens_it_has(sharing, padding, message):
    with pytest.raises(PackingError, match=message):
        vlmpack.pack([A], 11, sharing=sharing, padding=padding)
