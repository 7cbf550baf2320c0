"""The `flex` backend: blocks that are right whatever the forest, values and gradients of `dense`, few graphs."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_layout import forests
from test_plan import WAYS, WINDOWS, pictured, planned
from tiny import sample
from torch._dynamo.utils import counters
from torch.nn.attention import flex_attention as torch_flex
from transformers import AutoConfig

import vlmpack
from vlmpack import AttentionError, Forest, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.kernels import block_mask, flex
from vlmpack.kernels.weighing import Settings
from vlmpack.proof.miniature import build, miniature


@contextmanager
def small_blocks():
    """Blocks of 4 tokens, so that small forests have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_mask, "BLOCK", 4)
        patch.setattr(flex, "BLOCK", 4)
        yield patch


@contextmanager
def written_out():
    """FlexAttention as torch writes it out: on the CPU it has gradients too, which torch refuses only by a check."""
    with small_blocks() as patch:
        patch.setattr(torch_flex, "_validate_device", lambda query, key, value: None)
        patch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        patch.setattr(flex, "_compiled", lambda device, kind: flex._attention)
        patch.setattr("vlmpack.attention.refusal", lambda *layer: None)
        yield


def made(forest: Forest, backend: str = "flex") -> plan.Plan:
    return plan.make(forest, masks.reach(forest), layout.position(forest), backend)


def check_blocks(known: plan.Plan, window: int | None, exact: bool) -> None:
    token = torch.arange(len(known.reach))
    table = known.seen(window)(0, 0, token[:, None], token[None, :])
    some, full = block_mask.blocks(known, window)
    for row, queries in enumerate(table.split(4)):
        for column, seen in enumerate(queries.split(4, dim=1)):
            assert some[row, column] or not seen.any()
            assert seen.all() or not full[row, column]
            if exact:
                assert some[row, column] == seen.any()
                assert full[row, column] == (seen.numel() == 16 and seen.all() and row != column)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(forest=forests(), padding=st.integers(0, 5))
@example(forest=Forest((-1,), (6,)), padding=0)  # a last block that is not whole sees all of the first
def test_a_forests_blocks_are_those_of_its_table(forest, padding):
    with small_blocks():
        check_blocks(block_mask.padded(made(forest), forest.tokens + padding), None, exact=True)


@pytest.mark.parametrize("both_ways", WAYS)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(data=st.data(), window=WINDOWS, cuts=st.booleans(), padding=st.integers(0, 5))
def test_no_block_is_missed_with_windows_and_stretches_seen_both_ways(both_ways, data, window, cuts, padding):
    pack, known, _ = planned(data.draw(pictured(both_ways)), "flex", cuts)
    with small_blocks():
        check_blocks(block_mask.padded(known, pack.tokens + padding), window, exact=False)


def test_a_window_leaves_blocks_out_and_a_long_prompt_has_whole_ones():
    """Prompt in blocks 0 to 3, the first response in 3 and 4, the second in 4, 5 and a last short one."""
    known = made(Forest((-1, 0, 0), (400, 200, 200)))
    some, full = block_mask.blocks(known, None)
    assert some.int().tolist() == torch.ones(7, 7).tril().int().tolist()
    assert [row.nonzero()[:, 0].tolist() for row in full] == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2], []]
    near, _ = block_mask.blocks(known, 100)
    assert [row.nonzero()[:, 0].tolist() for row in near] == [
        [0],
        [0, 1],
        [1, 2],
        [2, 3],
        [2, 3, 4],
        [2, 3, 4, 5],  # the second response's positions begin where the prompt ends
        [3, 4, 5, 6],
    ]


@settings(deadline=None, max_examples=15, derandomize=True)
@given(forest=forests(), window=st.none() | st.integers(1, 6), key_heads=st.sampled_from([1, 2, 4]))
def test_outputs_and_gradients_are_those_of_dense(forest, window, key_heads):
    same(made(forest), made(forest, "dense"), key_heads, window, Settings(0.3), [])


ASKED = {"plain": (None, False), "capped": (0.7, False), "sinks": (None, True), "capped, with sinks": (0.7, True)}


@pytest.mark.parametrize(("softcap", "with_sinks"), ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("both_ways", WAYS)
@settings(deadline=None, max_examples=3, derandomize=True)
@given(data=st.data(), window=WINDOWS, cuts=st.booleans())
def test_capped_scores_sinks_and_stretches_are_those_of_dense(both_ways, softcap, with_sinks, data, window, cuts):
    samples = data.draw(pictured(both_ways, most=3))
    known, dense = (planned(samples, backend, cuts)[1] for backend in ("flex", "dense"))
    sinks = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    asked = Settings(0.9, softcap=softcap, sinks=sinks if with_sinks else None)
    same(known, dense, 2, window, asked, [sinks] if with_sinks else [])


def same(known: plan.Plan, dense: plan.Plan, key_heads: int, window: int | None, asked: Settings, sinks: list) -> None:
    """Outputs and gradients of a plan against those of `dense`."""
    tokens = known.forest.tokens
    generator = torch.Generator().manual_seed(tokens)
    query, key, value, weights = (
        torch.randn(1, n, tokens, 8, generator=generator, dtype=torch.float64, requires_grad=place < 3)
        for place, n in enumerate((4, key_heads, key_heads, 4))
    )
    with written_out():
        found = attend(query, key, value, known, window, asked)
    expected = attend(query, key, value, dense, window, asked)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    learnt = [query, key, value, *sinks]
    gradients = [torch.autograd.grad((output * weights).sum(), learnt) for output in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)


def test_layers_share_the_blocks_of_a_plan_and_each_window_has_its_own():
    known = made(Forest((-1, 0, 0), (300, 20, 30)))
    masks_ = [block_mask.block_mask(known, window, 350) for window in (None, 64, None)]
    assert masks_[0] is masks_[2] and masks_[0] is not masks_[1]
    assert masks_[0].shape == (1, 1, 350, 350) and masks_[0].kv_indices.shape == (1, 1, 3, 3)


def test_gradients_on_the_cpu_are_refused_and_values_are_those_of_dense():
    forest = Forest((-1, 0, 0), (9, 5, 4))
    query, key, value = torch.randn(3, 1, 2, 18, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with pytest.raises(AttentionError, match="FlexAttention has no backward on the CPU. What can: dense, paths, or"):
        attend(query, key, value, made(forest), None, Settings())
    with torch.no_grad():
        found, expected = (attend(query, key, value, made(forest, b), None, Settings()) for b in ("flex", "dense"))
    torch.testing.assert_close(found, expected)


def test_dropout_is_refused_by_name():
    query = torch.randn(1, 2, 4, 16)
    with pytest.raises(AttentionError, match="FlexAttention has no dropout.*dropout=0.1"):
        attend(query, query, query, made(Forest((-1, 0), (2, 2))), None, Settings(dropout=0.1))


@torch.no_grad()
def test_a_family_that_caps_its_scores_has_its_values_on_the_cpu():
    config = miniature(AutoConfig.for_model("gemma2"))
    config.attn_logit_softcapping = 0.5
    model, (pack,) = build(config).double(), vlmpack.pack([sample([1, 2, 3], [[4, 1], [2], [3, 3, 3]], [(0, 1)])])
    found, expected = (vlmpack.response_logps(vlmpack.enable(model, backend), pack) for backend in ("flex", "dense"))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # its RMSNorm computes in float32
    config.attn_logit_softcapping = None
    for layer in model.get_decoder().layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (vlmpack.response_logps(model, pack) - expected).abs().max() > 1e-4  # the cap is felt


def counted(tokens: int, heads: int, size: int, window: int | None, asked: Settings) -> None:
    """Holds a pack's attention against `dense` and prints how many graphs there are by now."""
    known = made(Forest((-1, 0, 0), (tokens - 3, 1, 2)))
    query, key = torch.randn(1, 2 * heads, tokens, size), torch.randn(1, heads, tokens, size)
    with torch.no_grad():
        found = attend(query, key, key, known, window, asked)
        torch.testing.assert_close(found, attend(query, key, key, made(known.forest, "dense"), window, asked))
    print(counters["stats"]["unique_graphs"])


def graphs_of_many_lengths(softcap: float | None) -> None:
    """Packs of eight lengths, one after the other."""
    compiled = torch.compile
    torch.compile = lambda function, backend, **known: compiled(function, backend="aot_eager", **known)
    for tokens in (700, 300, 129, 5, 1000, 384, 64, 1500):
        counted(tokens, 2, 16, None, Settings(0.3, softcap=softcap))


def graphs_of_many_kinds() -> None:
    """More kinds of layers than torch allows graphs of one function, each with two lengths and two scales or caps."""
    for size in (8, 16, 24):
        for window in (None, 50):
            for softcap in (None, 0.7):
                for heads in (1, 2):
                    for tokens, scale, cap in ((300, 0.3, softcap), (700, 0.2, softcap and 0.9)):
                        counted(tokens, heads, size, window, Settings(scale, softcap=cap))


def printed(call: str) -> list[int]:
    """What a function of this file prints in a process of its own, without the checks of shapes, which break graphs."""
    folders = [Path(__file__).parent, Path(__file__).parent.parent / "examples", os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-c", f"import test_flex; test_flex.{call}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return [int(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("softcap", [None, 0.7])
def test_packs_of_many_lengths_share_their_graphs(softcap):
    # one for all lengths, and one for packs of less than a block, which are filled up
    assert printed(f"graphs_of_many_lengths({softcap})") == [1, 1, 1, 2, 2, 2, 2, 2]


@pytest.mark.slow
def test_a_process_has_as_many_kinds_of_layers_as_it_likes():
    assert printed("graphs_of_many_kinds()") == [kind for kind in range(1, 25) for _ in range(2)]
