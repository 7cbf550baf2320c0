"""Both backends against attention written out path by path, at any depth, with windows and grouped queries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import forests, paths
from test_plan import WAYS, WINDOWS, pictured, planned, seen_alone

from vlmpack import AttentionError, Forest, layout, masks, plan
from vlmpack.attention import attend, weigh


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
    packed = attend(query, key, value, made, scale=0.3, window=window)
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
        attend(query, key, value, each, window=window, **settings) for each in (dense, planned(made, "paths", cuts)[1])
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
        plain, *others = (weigh(query, key, value, mask, **asked) for mask in (None, table, added))
        for other in others:
            torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-14)


def test_dropout_drops_weights_of_a_capped_model_too():
    query, key = torch.zeros(2, 1, 1, 400, 4)
    value = torch.ones(1, 1, 400, 1)
    torch.manual_seed(0)
    mask = torch.ones(400, 400, dtype=torch.bool)
    share = weigh(query, key, value, mask, dropout=0.25, softcap=5.0)
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


@given(forests())
def test_folded_rows_hold_every_leaf_once_with_its_whole_path(forest):
    rows, walked = plan.fold(forest), paths(forest)
    leaves = set(range(len(forest.parents))) - set(forest.parents)
    for leaf in leaves:
        end = forest.starts[leaf] + forest.lengths[leaf] - 1
        (row,) = [row for row in rows if end in row]
        assert set(walked[end]) <= set(row)
    for row in rows:
        assert list(row) == sorted(set(row))
        needed = {token for end in row for token in walked[end]}
        assert needed == set(row)
    assert {token for row in rows for token in row} == set(range(forest.tokens))


def test_a_short_shared_beginning_is_repeated_rather_than_making_one_long_row():
    rows = plan.fold(Forest((-1, *[0] * 8), (3, *[400] * 8)))
    assert [len(row) for row in rows] == [403] * 8
    rows = plan.fold(Forest((-1, *[0] * 8), (400, *[3] * 8)))
    assert [len(row) for row in rows] == [424]


def test_a_run_after_a_short_context_is_plain_causal_attention():
    forest = Forest((-1, 0, 0), (3, 40, 40))
    made = plan.make(forest, masks.reach(forest), layout.position(forest), "paths")
    second = made.runs[1]
    assert (made.queries(second, None), made.run_mask(second, None)) == ((0, 2), None)
    assert made.queries(second, 5) == (2,)
    assert made.run_mask(second, 5).shape == (40, 43)


def test_an_unknown_backend_is_refused_with_those_that_exist():
    with pytest.raises(AttentionError, match=r"attention='flash' is not a backend; take one of .*'paths'"):
        plan.make(Forest((-1,), (2,)), torch.tensor([2, 2]), torch.tensor([0, 1]), "flash")


def test_auto_takes_one_call_for_a_short_pack_and_paths_for_a_long_one():
    short, long = Forest((-1, 0, 0), (10, 3, 3)), Forest((-1, 0, 0, 0, 0), (600, 4000, 4000, 4000, 4000))
    chosen = [plan.make(f, masks.reach(f), layout.position(f), "auto").backend for f in (short, long)]
    assert chosen == ["dense", "paths"]
