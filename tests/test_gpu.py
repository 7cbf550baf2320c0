"""On a GPU: `flex` and `varlen` are as near to float64 as unpacked attention in bfloat16 is, and compile once."""

import pytest
import torch
from test_layout import paths
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention

from vlmpack import Forest, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.choosing import chosen
from vlmpack.kernels import varlen
from vlmpack.kernels.flash import KERNELS
from vlmpack.kernels.merging import merged
from vlmpack.kernels.parts import apart, gathered
from vlmpack.kernels.weighing import Settings

pytestmark = pytest.mark.gpu

DEEP = Forest((-1, 0, 1, 1, 0, -1, 5, 5), (300, 40, 130, 7, 260, 129, 1, 90))
WIDE = Forest((-1, *[0] * 6), (700, 33, 150, 128, 64, 1, 90))
FORESTS = {"deep": DEEP, "wide": WIDE}
HEADS, KEY_HEADS, SIZE = 8, 2, 64
FORMS = {"gathered": gathered, "apart": apart}


def planned(forest: Forest, backend: str) -> plan.Plan:
    return plan.make(forest, masks.reach(forest).cuda(), layout.position(forest).cuda(), backend)


def layer(forest: Forest) -> list[torch.Tensor]:
    """Queries, keys, values and the output's gradient, in values that bfloat16 knows exactly."""
    generator = torch.Generator().manual_seed(forest.tokens)
    shapes = [(HEADS, forest.tokens, SIZE), *[(KEY_HEADS, forest.tokens, SIZE)] * 2, (HEADS, forest.tokens, SIZE)]
    return [torch.randn(1, *shape, generator=generator).bfloat16().cuda() for shape in shapes]


def computed(function, made: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """The output, and the gradients of queries, keys and values, in float64."""
    *learnt, weights = (x.to(dtype) for x in made)
    learnt = [x.detach().requires_grad_() for x in learnt]
    output = function(*learnt)
    return [x.double() for x in (output.detach(), *torch.autograd.grad(output, learnt, weights))]


def alone(forest: Forest, window: int | None):
    """Every leaf's path as a sequence of its own; a token's output is that of the last path that holds it."""
    walked = paths(forest)
    leaves = [forest.starts[s] + forest.lengths[s] - 1 for s in set(range(len(forest.parents))) - set(forest.parents)]

    def function(query, key, value):
        output = torch.zeros_like(query)
        for leaf in leaves:
            rows = torch.tensor(walked[leaf], device=query.device)
            lag = torch.arange(len(rows), device=query.device)
            lag = lag[:, None] - lag
            mask = (lag >= 0) & (lag < (window or len(rows)))
            some = (x[:, :, rows].repeat_interleave(HEADS // x.shape[1], 1) for x in (query, key, value))
            output = output.index_copy(2, rows, scaled_dot_product_attention(*some, attn_mask=mask))
        return output

    return function


def check(function, forest: Forest, window: int | None = None) -> None:
    """No farther from float64 than twice what unpacked bfloat16 is, in the output and in each gradient."""
    made = layer(forest)
    exact = computed(alone(forest, window), made, torch.float64)
    unpacked = computed(alone(forest, window), made, torch.bfloat16)
    found = computed(function, made, torch.bfloat16)
    for name, true, usual, ours in zip(("output", "query", "key", "value"), exact, unpacked, found, strict=True):
        error, allowed = (ours - true).norm() / true.norm(), 2 * (usual - true).norm() / true.norm()
        assert error <= allowed, f"{name}: {error:.2e} against {allowed:.2e}"


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("forest", FORESTS.values(), ids=FORESTS)
@pytest.mark.parametrize("backend", ["dense", "paths", "flex", "varlen"])
def test_a_backend_is_as_near_as_unpacked_attention_is(backend, forest, window):
    made = planned(forest, backend)
    check(lambda *qkv: attend(*qkv, made, window, Settings()), forest, window)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("forest", FORESTS.values(), ids=FORESTS)
def test_both_forms_of_both_kernels_are_as_near(forest, form, kernel):
    if reason := kernel.refusal(layer(forest)[0], None, Settings()):
        pytest.skip(reason)
    parts = form(planned(forest, "varlen"))

    def function(*qkv):
        return merged(*(x[0].transpose(0, 1) for x in qkv), parts, kernel, None, Settings()).transpose(0, 1)[None]

    check(function, forest)


@pytest.mark.parametrize("backend", ["flex", "varlen"])
def test_sinks_are_those_of_dense(backend):
    made, sinks = layer(WIDE), torch.linspace(-2, 2, HEADS).cuda()
    outputs = [attend(*made[:3], planned(WIDE, b), None, Settings(sinks=sinks.bfloat16())) for b in (backend, "dense")]
    torch.testing.assert_close(outputs[0].float(), outputs[1].float(), rtol=2e-2, atol=2e-2)


def test_capped_scores_are_those_of_dense():
    made, asked = layer(WIDE), Settings(softcap=5.0)
    expected = attend(*made[:3], planned(WIDE, "dense"), None, asked)
    for backend in (
        "flex",
        *(["varlen"] if varlen.refusal(*made[:3], planned(WIDE, "varlen"), None, asked) is None else []),
    ):
        found = attend(*made[:3], planned(WIDE, backend), None, asked)
        torch.testing.assert_close(found.float(), expected.float(), rtol=2e-2, atol=2e-2)


def test_flex_compiles_no_more_for_new_lengths():
    made = []
    for tokens in (700, 300, 1000, 384, 1500, 2100):
        forest = Forest((-1, 0, 0), (tokens - 30, 10, 20))
        computed(
            lambda *qkv, f=forest: attend(*qkv, planned(f, "flex"), None, Settings()), layer(forest), torch.bfloat16
        )
        made.append(counters["stats"]["unique_graphs"])
    assert made[1:] == [made[1]] * 5


def test_auto_takes_flash_attention_in_half_precision_and_flex_in_float32():
    query, key, value, _ = layer(WIDE)
    assert chosen(query, key, value, planned(WIDE, "auto"), None, Settings()) == "varlen"
    assert chosen(query.float(), key.float(), value.float(), planned(WIDE, "auto"), None, Settings()) == "flex"
