"""Both backends against attention written out path by path, at any depth, with windows and grouped queries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import forests, paths
from test_plan import WAYS, WINDOWS, pictured, planned, seen_alone

from vlmpack import AttentionError, Forest, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.kernels import paths as by_paths
from vlmpack.kernels.weighing import Settings, weigh


def naive(query, key, value, forest, window, scale):
    """Each token on its own: softmax over the keys of its path, the last `window` of them."""
    outputs = []
    for token, path in enumerate(paths(forest)):
        path = path if window is None else path[-window:]
        groups = query.shape[1] // key.shape[1]
        heads = []
        for head in range(query.shape[1]):
            scores = key[0, head // groups, path] @ query[0, head, token] * scale
            heads.append(scores.softmax(0) @ value[0, head // groups, path])
        outputs.append(torch.stack(heads))
    return torch.stack(outputs, dim=1)[None]


@pytest.mark.parametrize("backend", ["dense", "paths"])
@settings(deadline=None, max_examples=50)
@given(forest=forests(), window=st.none() | st.integers(1, 6), key_heads=st.sampled_from([1, 2, 4]))
def test_outputs_and_gradients_equal_attention_path_by_path(backend, forest, window, key_heads):
    made = plan.make(forest, masks.reach(forest), layout.position(forest), backend)
    generator = torch.Generator().manual_seed(forest.tokens)
    query, key, value = (
        torch.randn(1, n, forest.tokens, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (4, key_heads, key_heads)
    )
    packed = attend(query, key, value, made, window, Settings(scale=0.3))
    alone = naive(query, key, value, forest, window, 0.3)
    torch.testing.assert_close(packed, alone, rtol=1e-12, atol=1e-12)
    weights = torch.randn(packed.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((o * weights).sum(), (query, key, value)) for o in (packed, alone)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


def weighed(query, key, value, seen: list[list[int]], scale, softcap, sinks):
    """[N, T, E] written out: capped scores, their exponentials where seen, over the sum of these and the sink's."""
    scores = torch.einsum("nqd,nkd->nqk", query, key) * scale
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    table = torch.tensor([[key in keys for key in range(len(seen))] for keys in seen])
    powers = scores.exp() * table
    total = powers.sum(-1, keepdim=True) + (0 if sinks is None else sinks.exp()[:, None, None])
    return (powers / total) @ value


CAPPED = {"plain": (None, False), "capped": (0.7, False), "sinks": (None, True), "capped, with sinks": (0.7, True)}


@pytest.mark.parametrize(("softcap", "with_sinks"), CAPPED.values(), ids=CAPPED)
@pytest.mark.parametrize("both_ways", WAYS)
@settings(deadline=None, max_examples=3, derandomize=True)
@given(data=st.data(), window=WINDOWS, cuts=st.booleans())
def test_a_path_attends_in_a_pack_as_it_does_alone(both_ways, softcap, with_sinks, data, window, cuts):
    made = data.draw(pictured(both_ways, most=3))
    pack, dense, responses = planned(made, "dense", cuts)
    generator = torch.Generator().manual_seed(pack.tokens)
    query, key, value, weights = (
        torch.randn(1, 2, pack.tokens, 4, generator=generator, dtype=torch.float64, requires_grad=place < 3)
        for place in range(4)
    )
    sinks = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True) if with_sinks else None
    learnt = [query, key, value, *([sinks] if with_sinks else [])]
    settings = {"scale": 0.9, "softcap": softcap, "sinks": sinks}
    found = [
        attend(query, key, value, each, window, Settings(**settings))
        for each in (dense, planned(made, "paths", cuts)[1])
    ]
    expected = 0
    for sample, path in responses:
        alone = weighed(
            *(x[0][:, path] for x in (query, key, value)), seen_alone(sample, len(path), window, cuts), **settings
        )
        for output in found:
            torch.testing.assert_close(output[0][:, path], alone, rtol=1e-11, atol=1e-12)
        expected = expected + (alone * weights[0][:, path]).sum()
    expected = torch.autograd.grad(expected, learnt)
    for output in found:
        total = sum((output[0][:, path] * weights[0][:, path]).sum() for _, path in responses)
        torch.testing.assert_close(torch.autograd.grad(total, learnt), expected, rtol=1e-10, atol=1e-12)


def test_an_added_mask_a_table_and_plain_causal_attention_are_one_where_they_say_the_same():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 5, 4, generator=generator, dtype=torch.float64)
    table = torch.ones(5, 5, dtype=torch.bool).tril()
    added = torch.zeros(5, 5, dtype=torch.float64).masked_fill(~table, -torch.inf)
    for asked in ({}, {"softcap": 0.7}, {"sinks": torch.zeros(2, dtype=torch.float64)}):
        plain, *others = (weigh(query, key, value, mask, Settings(**asked)) for mask in (None, table, added))
        for other in others:
            torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-14)


def test_dropout_drops_weights_of_a_capped_model_too():
    query, key = torch.zeros(2, 1, 1, 400, 4)
    value = torch.ones(1, 1, 400, 1)
    torch.manual_seed(0)
    mask = torch.ones(400, 400, dtype=torch.bool)
    share = weigh(query, key, value, mask, Settings(dropout=0.25, softcap=5.0))
    assert share.mean().item() == pytest.approx(1.0, abs=0.01)  # what is left weighs more
    assert share.std().item() == pytest.approx((0.25 / 0.75 / 400) ** 0.5, rel=0.1)


@given(forests())
def test_runs_cover_every_token_once_and_follow_its_path(forest):
    walked, seen = paths(forest), []
    spans = [range(start, start + n) for start, n in zip(forest.starts, forest.lengths, strict=True)]
    for run in plan.runs(forest):
        own = [token for segment in run.own for token in spans[segment]]
        context = [token for segment in run.context for token in spans[segment]]
        for place, token in enumerate(own):
            assert walked[token] == context + own[: place + 1]
        seen += own
    assert seen == list(range(forest.tokens))


def test_a_run_after_a_short_context_is_plain_causal_attention():
    forest = Forest((-1, 0, 0), (3, 40, 40))
    made = plan.make(forest, masks.reach(forest), layout.position(forest), "paths")
    second = by_paths.calls(made, None, torch.float32)[1]
    assert (second.queries, second.mask) == ((0, 2), None)
    assert by_paths.calls(made, 5, torch.float32)[1].queries == (2,)
    assert by_paths.calls(made, 5, torch.float32)[1].mask.shape == (40, 43)


def test_an_unknown_backend_is_refused_with_those_that_exist():
    with pytest.raises(AttentionError, match=r"attention='flash' is not a backend; take one of .*'paths'"):
        plan.make(Forest((-1,), (2,)), torch.tensor([2, 2]), torch.tensor([0, 1]), "flash")


@pytest.mark.parametrize("backend", ["dense", "paths"])
def test_layers_keep_one_mask_for_the_backward_not_one_each(backend):
    """What a further layer keeps grows with its tokens only: no more for a prompt that is ten times as long."""
    kept = []
    for prompt in (100, 1000):
        forest = Forest((-1, 0, 0), (prompt, 50, 50))
        made = plan.make(forest, masks.reach(forest), layout.position(forest), backend)
        heads = torch.zeros(1, 1, forest.tokens, 8, requires_grad=True)
        sizes = []
        for _ in range(2):
            storages = {}

            def keep(tensor, storages=storages):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                output = attend(heads, heads, heads, made, None, Settings())
            sizes.append((storages, output))
        (first, _), (second, _) = sizes
        kept.append(sum(size for place, size in second.items() if place not in first) / forest.tokens)
    assert kept[1] <= 1.5 * kept[0]
