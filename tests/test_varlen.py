"""The `varlen` backend with a kernel written out in float64: both forms are `dense`, gradients included."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import forests, paths

from vlmpack import AttentionError, Forest, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.kernels import varlen
from vlmpack.kernels.merging import merged
from vlmpack.kernels.parts import apart, cheaper_form, gathered, parts
from vlmpack.kernels.weighing import Settings

FORMS = {"gathered": gathered, "apart": apart}


class Written:
    """What a kernel must do, group by group and head by head, with a gradient that knows only what it is given."""

    def groups(self, part):
        ends = zip(part.query_ends.tolist(), part.query_ends.tolist()[1:], strict=False)
        keys = zip(part.key_ends.tolist(), part.key_ends.tolist()[1:], strict=False)
        return [(slice(*q), slice(*k)) for q, k in zip(ends, keys, strict=True)]

    def scores(self, query, key, part, window, asked):
        heads = query.shape[1] // key.shape[1]
        scores = torch.einsum("qnd,knd->nqk", query, key.repeat_interleave(heads, 1)) * asked.scale
        lag = torch.arange(len(query))[:, None] - torch.arange(len(key)) + len(key) - len(query)  # bottom right
        unseen = lag < 0 if window is None else (lag < 0) | (lag >= window)
        return scores.masked_fill(unseen, -torch.inf) if part.causal else scores

    def forward(self, query, key, value, part, window, asked):
        assert part.causal or window is None
        output, total = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
        for own, seen in self.groups(part):
            assert own.stop - own.start <= part.most_queries and seen.stop - seen.start <= part.most_keys
            scores = self.scores(query[own], key[seen], part, window, asked)
            wide = value[seen].repeat_interleave(query.shape[1] // key.shape[1], 1)
            output[own] = torch.einsum("nqk,knd->qnd", scores.softmax(-1), wide)
            total[:, own] = scores.logsumexp(-1)
        return output, total

    def backward(self, gradient, query, key, value, output, total, part, window, asked):
        found = [torch.zeros_like(x) for x in (query, key, value)]
        heads = query.shape[1] // key.shape[1]
        for own, seen in self.groups(part):
            weights = (self.scores(query[own], key[seen], part, window, asked) - total[:, own, None]).exp()
            wide_key, wide_value = (x[seen].repeat_interleave(heads, 1) for x in (key, value))
            of_weights = torch.einsum("qnd,knd->nqk", gradient[own], wide_value)
            shared = (gradient[own] * output[own]).sum(-1).T[..., None]
            of_scores = weights * (of_weights - shared) * asked.scale
            found[0][own] = torch.einsum("nqk,knd->qnd", of_scores, wide_key)
            for place, pairs in ((1, (of_scores, query)), (2, (weights, gradient))):
                wide = torch.einsum("nqk,qnd->knd", pairs[0], pairs[1][own])
                found[place][seen] += wide.unflatten(1, (-1, heads)).sum(2)
        return tuple(found)


def layer(forest: Forest, key_heads: int = 2):
    """Queries, keys and values of 4 heads, what the output's gradient is, and sinks; the same for a forest."""
    generator = torch.Generator().manual_seed(forest.tokens)
    shapes = [(4, forest.tokens, 8), (key_heads, forest.tokens, 8), (key_heads, forest.tokens, 8)]
    learnt = [torch.randn(1, *shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    sinks = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    return learnt, torch.randn(learnt[0].shape, generator=generator, dtype=torch.float64), sinks


def planned(forest: Forest, backend: str) -> plan.Plan:
    return plan.make(forest, masks.reach(forest), layout.position(forest), backend)


def same(forest: Forest, form, window: int | None, key_heads: int, with_sinks: bool) -> None:
    """Outputs and gradients of a form against `dense`."""
    learnt, weights, sinks = layer(forest, key_heads)
    asked, learnt = Settings(0.3, sinks=sinks if with_sinks else None), [*learnt, *([sinks] if with_sinks else [])]
    tokens = [x[0].transpose(0, 1) for x in learnt[:3]]
    found = merged(*tokens, form(planned(forest, "varlen")), Written(), window, asked).transpose(0, 1)[None]
    expected = attend(*learnt[:3], planned(forest, "dense"), window, asked)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    gradients = [torch.autograd.grad((output * weights).sum(), learnt) for output in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(forest=forests(), key_heads=st.sampled_from([1, 2, 4]), with_sinks=st.booleans())
def test_outputs_and_gradients_are_those_of_dense(form, forest, key_heads, with_sinks):
    same(forest, form, None, key_heads, with_sinks)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(forest=forests(), window=st.integers(1, 7), with_sinks=st.booleans())
def test_windows_are_those_of_dense(forest, window, with_sinks):
    same(forest, gathered, window, 2, with_sinks)


class Half(Written):
    """A kernel for tokens in bfloat16: it computes more precisely than it returns, but for the log-sum-exps."""

    def forward(self, query, key, value, part, window, asked):
        output, total = super().forward(*(x.double() for x in (query, key, value)), part, window, asked)
        return output.to(query.dtype), total.float()

    def backward(self, gradient, query, key, value, output, total, part, window, asked):
        known = (x.double() for x in (gradient, query, key, value, output, total))
        return tuple(x.to(query.dtype) for x in super().backward(*known, part, window, asked))


@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_parts_in_a_narrower_precision_are_merged_in_float32(dtype, near, form, with_sinks):
    forest = Forest((-1, 0, 1, 2, 2, 0), (3, 2, 4, 1, 2, 3))
    learnt, weights, sinks = layer(forest)
    asked = Settings(0.3, sinks=sinks if with_sinks else None)
    learnt = [x.detach().to(dtype).requires_grad_() for x in learnt]
    tokens = [x[0].transpose(0, 1) for x in learnt]
    found = merged(*tokens, form(planned(forest, "varlen")), Half(), None, asked).transpose(0, 1)[None]
    assert found.dtype == dtype
    wide = [x.detach().double().requires_grad_() for x in learnt]
    expected = attend(*wide, planned(forest, "dense"), None, asked)
    gradients = torch.autograd.grad((found * weights.to(dtype)).sum(), learnt)
    of_wide = torch.autograd.grad((expected * weights).sum(), wide)
    torch.testing.assert_close([x.double() for x in (found, *gradients)], [expected, *of_wide], rtol=near, atol=near)


class Ones(Written):
    """A kernel whose gradients are all 1."""

    def backward(self, gradient, query, key, value, output, total, part, window, asked):
        return tuple(torch.ones_like(x) for x in (query, key, value))


def test_many_parts_of_a_gradient_are_added_up_in_float32():
    """The last of 300 segments on a path, each with a branch beside it, meets every one in a part of its own.

    In bfloat16, 256 + 1 is 256.
    """
    forest = Forest((-1, *(parent for step in range(299) for parent in (2 * step, 2 * step))), (1,) * 599)
    parts_ = apart(planned(forest, "varlen"))
    tokens = [torch.zeros(599, 1, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    output = merged(*tokens, parts_, Ones(), None, Settings(0.3))
    (of_queries,) = torch.autograd.grad(output.sum(), tokens[:1])
    assert len(parts_) == 300 and of_queries[-1].unique().tolist() == [300]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_five_segments_deep_it_is_dense(form):
    """A chain of five with a branch beside every segment of it, and another tree."""
    same(Forest((-1, 0, 1, 2, 3, 3, 2, 1, 0, -1, 9, 9), (3, 2, 4, 1, 2, 3, 1, 2, 5, 2, 1, 3)), form, None, 2, True)


@given(forests())
def test_apart_every_query_meets_every_token_of_its_path_once(forest):
    met = [[] for _ in range(forest.tokens)]
    for part in apart(planned(forest, "varlen")):
        queries, keys = (range(forest.tokens) if x is None else x.tolist() for x in (part.queries, part.keys))
        assert len(set(queries)) == len(queries)  # what is merged is written to each once
        for own, seen in Written().groups(part):
            for place, query in enumerate(queries[own]):
                last = seen.stop - (own.stop - own.start) + place + 1 if part.causal else seen.stop
                met[query] += keys[seen.start : last]
    assert [sorted(each) for each in met] == paths(forest)


def test_parts_of_a_prompt_with_three_responses_are_as_written_here():
    own, below = apart(planned(Forest((-1, 0, 0, 0), (4, 2, 3, 1)), "varlen"))
    assert (own.queries, own.keys, own.query_ends.tolist(), own.causal) == (None, None, [0, 6, 9, 10], True)
    assert own.key_ends is own.query_ends  # one length each: no kernel need ask how to align them
    assert (below.queries.tolist(), below.keys.tolist(), below.causal) == ([6, 7, 8, 9], [0, 1, 2, 3], False)
    assert (below.query_ends.tolist(), below.key_ends.tolist()) == ([0, 4], [0, 4])
    (whole,) = gathered(planned(Forest((-1, 0, 0, 0), (4, 2, 3, 1)), "varlen"))
    assert whole.keys.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 6, 7, 8, 0, 1, 2, 3, 9]
    assert (whole.query_ends.tolist(), whole.key_ends.tolist()) == ([0, 6, 9, 10], [0, 6, 13, 18])
    assert (whole.most_queries, whole.most_keys, whole.causal) == (6, 7, True)


def test_long_prompts_are_not_gathered_for_short_responses_and_short_ones_are():
    long, short = Forest((-1, *[0] * 8), (4000, *[100] * 8)), Forest((-1, *[0] * 8), (50, *[400] * 8))
    assert [cheaper_form(each, heads=32, key_heads=8) for each in (long, short)] == [apart, gathered]
    assert len(parts(planned(long, "varlen"), None, 32, 8)) == 2
    assert len(parts(planned(long, "varlen"), 512, 32, 8)) == 1  # a window needs the path in one piece


def test_layers_share_the_parts_of_a_plan():
    made = planned(Forest((-1, 0, 0), (40, 2, 2)), "varlen")
    assert parts(made, None, 4, 2) is parts(made, None, 4, 2)


class OnCuda(torch.Tensor):
    """A tensor that says it is on a GPU."""

    device = torch.device("cuda", 0)


def heads(dtype: torch.dtype = torch.bfloat16, size: int = 64) -> torch.Tensor:
    return torch.zeros(1, 4, 8, size, dtype=dtype).as_subclass(OnCuda)


def refused(monkeypatch, query=None, value=None, window=None, blocks=None, capability=9, **asked) -> str | None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    query = heads() if query is None else query
    value = query if value is None else value
    known = replace(planned(Forest((-1, 0), (4, 4)), "varlen"), blocks=blocks)
    return varlen.refusal(query, query, value, known, window, Settings(**asked))


REFUSED = {
    "both ways": ({"blocks": torch.zeros(8, dtype=torch.int64)}, "see each other both ways"),
    "dropout": ({"dropout": 0.1}, "attention dropout=0.1"),
    "float32": ({"query": heads(torch.float32)}, "float16 or bfloat16, and the layer in torch.float32"),
    "an old GPU": ({"capability": 7}, "Ampere GPU or newer, not Tesla T4"),
    "large heads": ({"query": heads(size=320)}, "heads of up to 256 numbers.* are of 320 and 320"),
    "odd heads": ({"query": heads(size=20)}, "a multiple of 8"),
    "other values": ({"value": heads(size=32)}, "are of 64 and 32"),
    "capped scores": ({"softcap": 50.0}, "cannot cap scores.*softcap=50.0; the flash-attn package is not installed"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_flash_attention_cannot_do_is_refused_by_name(changes, said, monkeypatch):
    assert re.search(said, refused(monkeypatch, **changes))


def test_what_it_can_do_is_not_refused(monkeypatch):
    assert refused(monkeypatch) is None
    assert refused(monkeypatch, window=128, scale=0.2, sinks=torch.zeros(4)) is None


def test_the_first_kernel_that_can_run_is_the_last_that_is_asked(monkeypatch):
    asked = []
    kernels = [
        SimpleNamespace(refusal=lambda *layer, each=each: asked.append(each) or each) for each in ("no", None, "-")
    ]
    monkeypatch.setattr(varlen, "KERNELS", kernels)
    assert refused(monkeypatch) is None
    assert asked == ["no", None]


def test_on_the_cpu_it_is_refused_with_what_can_run():
    (learnt, _, _), made = layer(Forest((-1, 0), (4, 4))), planned(Forest((-1, 0), (4, 4)), "varlen")
    with pytest.raises(AttentionError, match="'varlen' cannot run: FlashAttention needs a CUDA device.*dense, paths"):
        attend(*learnt, made, None, Settings())
