"""Which backend is taken: by a rule that is measured, said once, and never another one than was asked for."""

import logging
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import forests
from test_varlen import heads
from tiny import llama, sample

import vlmpack
from vlmpack import AttentionError, Forest, choosing, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.folding import price_of, size
from vlmpack.kernels.weighing import Settings

SHORT, LONG = Forest((-1, 0, 0), (10, 3, 3)), Forest((-1, *[0] * 4), (600, *[4000] * 4))
PLAIN = Settings()


def planned(forest: Forest, attention: str = "auto") -> plan.Plan:
    return plan.make(forest, masks.reach(forest), layout.position(forest), attention)


@pytest.fixture
def on_ampere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    choosing._said.cache_clear()
    yield
    choosing._said.cache_clear()


def test_on_the_cpu_a_short_pack_takes_one_call_and_a_long_one_paths():
    assert [choosing.faster(planned(each)) for each in (SHORT, LONG)] == ["dense", "paths"]
    assert [choosing.settled(planned(each)).backend for each in (SHORT, LONG)] == ["dense", "paths"]
    query = torch.randn(1, 2, 16, 8)
    assert choosing.chosen(query, query, query, planned(SHORT), None, PLAIN) == "dense"


def test_a_pack_of_paths_is_not_dealt_into_rows(monkeypatch):
    """Nor is one that is asked for by name: dealing takes longer than the rest of a plan."""
    monkeypatch.setattr("vlmpack.folding.split", None)
    prompts = Forest((-1, *[0] * 5, -1, *[6] * 5), (640, *[120] * 5, 600, *[121] * 5))
    assert choosing.settled(planned(prompts)).backend == "paths"
    assert choosing.settled(planned(SHORT, "paths")).backend == "paths"


@settings(deadline=None)
@given(forests(), st.integers(1, 300))
def test_dense_never_costs_less_than_what_is_held_against_paths(forest, times):
    forest = Forest(forest.parents, tuple(times * length for length in forest.lengths))
    assert choosing._least_dense(planned(forest)) <= price_of(*size(forest)) * (1 + 1e-12)


CHOICES = {
    "half precision": ({}, PLAIN, "varlen", "FlashAttention can compute it"),
    "float32": ({"dtype": torch.float32}, PLAIN, "flex", "varlen cannot: .*layer in torch.float32"),
    "capped scores": ({}, Settings(softcap=30.0), "flex", "varlen cannot: .*softcap=30.0"),
    "dropout": ({}, Settings(dropout=0.1), "dense", "varlen cannot: .*dropout=0.1; flex cannot: .*dropout=0.1"),
    "small heads": ({"size": 8}, PLAIN, "varlen", "FlashAttention can"),
    "float64": ({"dtype": torch.float64}, PLAIN, "dense", "flex cannot: .*torch.float64"),
}


@pytest.mark.parametrize(("kind", "asked", "backend", "reason"), CHOICES.values(), ids=CHOICES)
def test_on_a_gpu_the_fastest_that_can_run_is_taken_and_said_once(kind, asked, backend, reason, on_ampere, caplog):
    query = heads(**kind)
    with caplog.at_level(logging.INFO, logger="vlmpack"):
        for _ in range(2):
            assert choosing.chosen(query, query, query, planned(SHORT), None, asked) == backend
    (said,) = [record.getMessage() for record in caplog.records if record.name == "vlmpack"]
    assert said.startswith(f"attention='auto' takes {backend}: ")
    assert re.search(reason, said)


def test_what_is_asked_for_by_name_is_taken_or_refused_with_what_can_run():
    query = torch.randn(1, 2, 16, 16, requires_grad=True)
    for name in ("flex", "varlen"):
        with pytest.raises(
            AttentionError, match=f"attention='{name}' cannot run: .* What can: dense, paths, or 'auto'"
        ):
            attend(query, query, query, planned(SHORT, name), None, PLAIN)


def test_enabling_refuses_at_once_what_can_never_run():
    with pytest.raises(AttentionError, match="LlamaAttention.*'varlen' cannot run: FlashAttention needs a CUDA device"):
        vlmpack.enable(llama(), "varlen")


@torch.no_grad()
def test_flex_gives_a_models_values_on_the_cpu():
    model, (pack,) = llama(), vlmpack.pack([sample([1, 2, 3], [[4, 1], [2], [3, 3, 3]], [(0, 1)])])
    expected = vlmpack.response_logps(vlmpack.enable(model, "dense"), pack)
    found = vlmpack.response_logps(vlmpack.enable(model, "flex"), pack)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_flex_says_on_the_cpu_that_it_cannot_train():
    model, (pack,) = llama(), vlmpack.pack([sample([1, 2, 3], [[4, 1], [2]], [(0, 1)])])
    vlmpack.enable(model, "flex")
    with pytest.raises(AttentionError, match="no backward on the CPU. What can: dense, paths, or 'auto'"):
        vlmpack.response_logps(model, pack)


@torch.no_grad()
def test_under_autocast_a_backend_is_given_its_precision(monkeypatch):
    """Torch casts for its own attention alone; FlashAttention would refuse queries that a norm left in float32."""
    given, query = [], torch.randn(1, 2, 16, 16)
    monkeypatch.setattr("vlmpack.attention.refusal", lambda _, *layer: given.extend(x.dtype for x in layer[:3]))
    for heads_in in (query, query.double()):
        with torch.autocast("cpu", torch.bfloat16):
            attend(heads_in, heads_in, heads_in, planned(SHORT, "paths"), None, PLAIN)
    assert given == [torch.bfloat16] * 3 + [torch.float64] * 3
