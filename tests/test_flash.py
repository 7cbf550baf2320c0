"""FlashAttention is called as torch and flash-attn want it, version by version: with stand-ins for their functions."""

from types import SimpleNamespace

import pytest
import torch
from test_layout import paths
from test_varlen import Written, heads, layer, planned
from torch import Tensor

from vlmpack import AttentionError, Forest
from vlmpack.attention import attend
from vlmpack.kernels import flash
from vlmpack.kernels.merging import merged
from vlmpack.kernels.parts import Part, apart, gathered
from vlmpack.kernels.weighing import Settings

FOREST = Forest((-1, 0, 1, 1, 0, -1, 5, 5), (4, 2, 3, 1, 5, 2, 1, 3))
WRITTEN = Written()


def as_part(query_ends, key_ends, most_queries, most_keys, causal) -> Part:
    return Part(None, None, query_ends, key_ends, most_queries, most_keys, causal)


def seen_by(before: int, after: int) -> tuple[bool, int | None]:
    """What a window of keys before and after says: whether it is causal, and how many tokens it spans."""
    assert after in (-1, 0)
    return after == 0, None if before < 0 else before + 1


def as_kernels_want(tokens, totals, ends) -> None:
    """Their CUDA code reads heads as they lie, and log-sum-exps and ends as if they were contiguous."""
    assert all(x.stride(-1) == 1 for x in tokens)
    assert all(x.is_contiguous() for x in (*totals, *ends)) and {x.dtype for x in ends} == {torch.int32}


def torch_2_15(query, key, value, q, k, most_q, most_k, *, return_aux, scale, window_size, enable_gqa, num_splits=None):
    assert return_aux == ("lse",) and enable_gqa
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # it would align to the top left
    as_kernels_want((query, key, value), (), (q, k))
    causal, window = seen_by(*window_size)
    return WRITTEN.forward(query, key, value, as_part(q, k, most_q, most_k, causal), window, Settings(scale))


def torch_2_11(query, key, value, q, k, most_q, most_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
    known = {"return_aux": return_aux, "scale": scale, "window_size": window_size, "enable_gqa": True}
    return torch_2_15(query, key, value, q, k, most_q, most_k, **known)


def torch_2_10(query, key, value, q, k, most_q, most_k, is_causal=False, return_aux=None):
    as_kernels_want((query, key, value), (), (q, k))
    part = as_part(q, k, most_q, most_k, is_causal)
    return WRITTEN.forward(query, key, value, part, None, Settings(query.shape[-1] ** -0.5))


def aten_backward(*known, scale, window_size_left, window_size_right):
    """In the order of aten's schema, which the test on meta tensors holds the call against."""
    gradient, query, key, value, output, total, q, k, most_q, most_k, dropout, is_causal, _, _ = known
    as_kernels_want((gradient, query, key, value, output), (total,), (q, k))
    causal, window = seen_by(window_size_left, window_size_right)
    assert dropout == 0 and is_causal == (causal and window is None)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    part = as_part(q, k, most_q, most_k, causal)
    return WRITTEN.backward(gradient, query, key, value, output, total, part, window, Settings(scale))


def package_forward(
    *known, softmax_scale, causal, window_size, softcap, return_attn_probs, dropout_p=0.0, alibi_slopes=None
):
    query, key, value, q, k, most_q, most_k = known
    as_kernels_want((query, key, value), (), (q, k))
    assert return_attn_probs and seen_by(*window_size)[0] == causal and softcap == 0
    part = as_part(q, k, most_q, most_k, causal)
    return (*WRITTEN.forward(query, key, value, part, seen_by(*window_size)[1], Settings(softmax_scale)), None)


deterministic_flags = []


@torch.library.custom_op("vlmpack_tests::_flash_attn_varlen_backward", mutates_args=("dq", "dk", "dv"))
def package_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    deterministic: bool,
    rng_state: Tensor | None = None,
) -> Tensor:
    """An operator of torch with these names, as in flash-attn 2.7 and later."""
    deterministic_flags.append(deterministic)
    assert softcap == 0 and alibi_slopes is None and rng_state is None
    found = aten_backward(
        *(dout, q, k, v, out, softmax_lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p),
        *(causal and window_size_left < 0, None, None),
        scale=softmax_scale,
        window_size_left=window_size_left,
        window_size_right=window_size_right,
    )
    for given, each in zip((dq, dk, dv), found, strict=True):
        given.copy_(each)
    return softmax_lse.clone()


VERSIONS = {"2.10": torch_2_10, "2.11": torch_2_11, "2.15": torch_2_15}
FORMS = {"gathered": gathered, "apart": apart}


def stand_in(monkeypatch, forward) -> None:
    module = SimpleNamespace(varlen_attn=forward, AuxRequest=lambda lse: ("lse",))
    monkeypatch.setattr(flash, "_varlen", lambda: module)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", aten_backward)


def check(kernel, form, scale: float | None, window: int | None = None) -> None:
    """Outputs and gradients are those of `dense`."""
    learnt, weights, _ = layer(FOREST)
    asked = Settings(scale)
    assert kernel.refusal(learnt[0], window, asked) is None
    tokens = (x[0].transpose(0, 1) for x in learnt)
    found = merged(*tokens, form(planned(FOREST, "varlen")), kernel, window, asked).transpose(0, 1)[None]
    expected = attend(*learnt, planned(FOREST, "dense"), window, asked)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    gradients = [torch.autograd.grad((output * weights).sum(), learnt) for output in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_torchs_is_asked_for_the_same_in_every_version(version, form, monkeypatch):
    stand_in(monkeypatch, VERSIONS[version])
    check(flash.TorchFlash(), form, 8**-0.5)
    if version != "2.10":
        check(flash.TorchFlash(), form, 0.3)
        check(flash.TorchFlash(), gathered, 0.3, window=3)


def test_what_torch_2_10_lacks_is_refused(monkeypatch):
    stand_in(monkeypatch, torch_2_10)
    query = heads()
    assert flash.TorchFlash().refusal(query, None, Settings()) is None
    assert "has no windows, and the layer asks for 7" in flash.TorchFlash().refusal(query, 7, Settings())
    assert "has no scale, and the layer asks for 0.5" in flash.TorchFlash().refusal(query, None, Settings(0.5))


@pytest.fixture
def package(monkeypatch):
    """Installs a stand-in for the flash-attn package: `package(version, error)`; the error is what importing raises."""

    def install(found: str = "2.7.4.post1", error: ImportError | None = None) -> None:
        module = SimpleNamespace(flash_attn_varlen_func=package_forward, _flash_attn_varlen_backward=package_backward)
        monkeypatch.setattr(flash, "_package", lambda: imported(module, error))
        monkeypatch.setattr(flash, "_has", lambda name: True)
        monkeypatch.setattr(flash, "version", lambda name: {"flash-attn": found}[name])
        flash._without_package.cache_clear()

    yield install
    flash._without_package.cache_clear()


def imported(module: SimpleNamespace, error: ImportError | None) -> SimpleNamespace:
    if error is not None:
        raise error
    return module


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_packages_is_asked_for_the_same(form, package):
    package()
    check(flash.PackageFlash(), form, 0.3)
    check(flash.PackageFlash(), gathered, 0.3, window=3)


def test_the_packages_gradients_are_deterministic_where_torchs_are_to_be(package, monkeypatch):
    package()
    for asked in (True, False):
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda asked=asked: asked)
        deterministic_flags.clear()
        check(flash.PackageFlash(), gathered, 0.3)
        assert deterministic_flags == [asked]


@pytest.mark.parametrize(("found", "able"), [("2.6.3", False), ("2.7.0.post2", True), ("2.10.1+cu12", True)])
def test_an_old_package_is_refused(found, able, package):
    package(found)
    said = None if able else f"the flash-attn package is {found}, older than 2.7"
    assert flash.PackageFlash().refusal(heads(), None, Settings()) == said


def test_a_package_that_cannot_be_imported_is_refused_with_what_it_said(package):
    package(error=ImportError("libcudart.so.12: cannot open shared object file"))
    said = flash.PackageFlash().refusal(heads(), None, Settings())
    assert said == "the flash-attn package is installed and cannot be used: " + (
        "libcudart.so.12: cannot open shared object file"
    )


@pytest.mark.parametrize("kernel", [flash.TorchFlash(), flash.PackageFlash()], ids=["torch", "package"])
def test_gradients_and_log_sum_exps_that_lie_otherwise_are_laid_out_for_the_kernels(kernel, package, monkeypatch):
    package()
    stand_in(monkeypatch, torch_2_15)
    (part,), (learnt, weights, _) = gathered(planned(FOREST, "varlen")), layer(FOREST)
    tokens = [x[0].transpose(0, 1).detach() for x in (weights, *learnt)]
    gradient, query, *seen = [tokens[0], tokens[1], *(x[part.keys] for x in tokens[2:])]
    output, total = kernel.forward(query, *seen, part, None, Settings(0.3))
    expected = kernel.backward(gradient, query, *seen, output, total, part, None, Settings(0.3))
    gradient, total = gradient.permute(2, 0, 1).contiguous().permute(1, 2, 0), total.T.contiguous().T
    found = kernel.backward(gradient, query, *seen, output, total, part, None, Settings(0.3))
    torch.testing.assert_close(found, expected)


def test_log_sum_exps_of_another_shape_are_refused(monkeypatch):
    def padded(*known, **others):
        output, total = torch_2_15(*known, **others)
        return output, total[None]

    padded.__wrapped__ = torch_2_15  # its signature
    stand_in(monkeypatch, padded)
    with pytest.raises(AttentionError, match=r"log-sum-exps of shape \(1, 4, 21\) for 4 heads and 21 queries"):
        check(flash.TorchFlash(), apart, 0.3)


@pytest.mark.skipif(not flash._has("torch.nn.attention.varlen"), reason="torch is older than 2.10")
@pytest.mark.parametrize("window", [None, 3])
def test_torchs_own_functions_take_what_they_are_given(window):
    """On meta tensors: shapes without numbers, through the functions of the torch that is installed."""
    tokens = [torch.empty(21, n, 64, dtype=torch.bfloat16, device="meta") for n in (4, 2, 2)]
    (part,) = gathered(planned(FOREST, "varlen"))
    kernel, keys = flash.TorchFlash(), sum(map(len, paths_of_runs()))
    taken = [tokens[0], *(x[:1].expand(keys, -1, -1) for x in tokens[1:])]
    ends = (x.to("meta") for x in (part.query_ends, part.key_ends))
    there = as_part(*ends, part.most_queries, part.most_keys, causal=True)
    output, total = kernel.forward(*taken, there, window, Settings(0.3))
    gradients = kernel.backward(output, *taken, output, total, there, window, Settings(0.3))
    assert [x.shape for x in (output, total)] == [(21, 4, 64), (4, 21)]
    assert [x.shape for x in gradients] == [x.shape for x in taken]


def paths_of_runs() -> list[list[int]]:
    """The path of each run's last token, walked naively."""
    walked, made = paths(FOREST), planned(FOREST, "varlen")
    return [walked[FOREST.starts[run.own[-1]] + FOREST.lengths[run.own[-1]] - 1] for run in made.runs]
