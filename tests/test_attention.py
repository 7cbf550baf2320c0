"""Both backends against attention written out path by path, at any depth, with windows and grouped queries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import forests, paths

from vlmpack import AttentionError, Forest, layout, masks, plan
from vlmpack.attention import attend


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
