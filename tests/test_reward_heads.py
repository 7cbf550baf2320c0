"""Every head and pooling: packed equals one by one, values and every gradient; saved, they come back as they were."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import MODELS, assert_same, differentiate, in_samples_order, llama, llava, sample, trees

import vlmpack
from vlmpack import RewardModel, unpacked
from vlmpack.reward_model_config import RewardModelConfig, RewardModelError

KINDS = [("linear", "mean"), ("mlp", "last"), ("mlp", "mean")]  # tests/test_equivalence.py has linear on the last
BUILT = {(name, *kind): RewardModel.from_backbone(build(), *kind) for name, build in MODELS.items() for kind in KINDS}
MADE = [sample([1, 2], [[3, 1], [2, 4, 0], [3, 1, 5]], [(0, 1)], 1), sample([5], [[3], [4, 4]], [(0, 1)])]


@pytest.mark.parametrize(("name", "head", "pooling"), BUILT)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data(), tight=st.booleans())
def test_rewards_and_every_gradient_equal_the_unpacked(name, head, pooling, data, tight):
    model = BUILT[name, head, pooling]
    made = data.draw(trees(images=name == "llava", depth=3))
    packs = vlmpack.pack(made, max_tokens=max(each.lengths.packed for each in made) if tight else 8192)
    packed = in_samples_order(packs, [model(pack) for pack in packs])
    assert_same(differentiate(model, packed), differentiate(model, unpacked.rewards(model, made)))


def test_the_mean_is_over_the_response_s_own_tokens_counted_by_hand():
    model = RewardModel.from_backbone(llava(), pooling="mean")
    hidden = []
    model.model.register_forward_hook(lambda module, arguments, output: hidden.append(output.last_hidden_state[0]))
    (pack,) = vlmpack.pack(MADE[:1])  # image 4, prompt 2; [3 1] stands once and [3 1 5] goes on after it; then [2 4 0]
    rewards = model(pack)
    states = hidden[0]
    tokens = pack.input_ids[0].tolist()
    assert tokens[6:] in ([3, 1, 5, 2, 4, 0], [2, 4, 0, 3, 1, 5])
    three, two = (6, 9) if tokens[6] == 3 else (9, 6)
    means = [states[three : three + 2].mean(0), states[two : two + 3].mean(0), states[three : three + 3].mean(0)]
    torch.testing.assert_close(rewards, torch.stack([model.reward_head.score.weight[0] @ mean for mean in means]))


def test_two_layers_are_what_they_are_called():
    model = RewardModel.from_backbone(llama(), head="mlp")
    head, hidden = model.reward_head, torch.randn(3, 16, dtype=torch.float64)
    inner = hidden @ head.dense.weight.T + head.dense.bias
    torch.testing.assert_close(head(hidden), (inner * torch.sigmoid(inner)) @ head.score.weight[0])
    assert head.dense.bias.abs().max() == 0 and head.dense.weight.abs().max() > 0  # a fresh one


@pytest.mark.parametrize(("head", "pooling"), itertools.product(["linear", "mlp"], ["last", "mean"]))
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_one_scores_bit_for_bit_the_same(name, head, pooling, tmp_path):
    model = RewardModel.from_backbone(MODELS[name]().float(), head, pooling)
    model.save_pretrained(tmp_path)
    loaded = RewardModel.from_pretrained(tmp_path)
    assert (loaded.config.head, loaded.config.pooling) == (head, pooling)
    (pack,) = vlmpack.pack(MADE if name == "llava" else MADE[1:])
    assert torch.equal(model(pack), loaded(pack))
    loaded.save_pretrained(tmp_path / "again")  # under the same names, though they were changed on the way in
    assert torch.equal(RewardModel.from_pretrained(tmp_path / "again")(pack), model(pack))


def test_the_head_computes_in_float32_on_a_bfloat16_backbone():
    model = RewardModel.from_backbone(llama().bfloat16(), "mlp", "mean")
    assert {parameter.dtype for parameter in model.reward_head.parameters()} == {torch.float32}
    (pack,) = vlmpack.pack(MADE[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pack).dtype == torch.float32


def test_another_head_than_the_saved_one_is_refused(tmp_path):
    RewardModel.from_backbone(llama().float(), "mlp").save_pretrained(tmp_path)
    with pytest.raises(RewardModelError, match=r"head='linear', but .* is a reward model with 'mlp'"):
        RewardModel.from_pretrained(tmp_path, head="linear")
    assert RewardModel.from_pretrained(tmp_path, head="mlp").config.head == "mlp"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "deep"}, r"head='deep', pooling='last': a head is one of linear, mlp"),
        ({"pooling": "max"}, r"a pooling one of last, mean"),
        ({"reward_std": 0.0}, r"reward_std=0.0 must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(RewardModelError, match=message):
        RewardModelConfig(llama().config, **settings)
