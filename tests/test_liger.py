"""Liger's kernels against our own, run by Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny import llama, sample

import vlmpack
from vlmpack.head import use_liger
from vlmpack.liger import LigerError, check_liger, liger_logps
from vlmpack.logit_map import LogitMap
from vlmpack.token_logps import token_logps

needs_liger = pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is not installed")


def compared_with_ours(*logit_maps: LogitMap, device: str = "cpu") -> None:
    """Values and gradients, with a bias and without."""
    for logit_map in logit_maps:
        for has_bias in (False, True):
            shapes = [(11, 16), (40, 16), *([(40,)] if has_bias else [])]
            learnt = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
            hidden, weight, bias = learnt if has_bias else (*learnt, None)
            tokens, weights = torch.randint(40, (11,), device=device), torch.randn(11, device=device)
            found, expected = (way(hidden, weight, bias, tokens, logit_map) for way in (liger_logps, token_logps))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            gradients = [torch.autograd.grad(values, learnt, weights) for values in (found, expected)]
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def compared_in_a_model() -> None:
    """A pack's log-probabilities with Liger's kernels and without."""
    (pack,) = vlmpack.pack([sample([1, 2], [[3, 1], [2, 4, 0], [3]], [(0, 1)])])
    model = vlmpack.enable(llama().float())
    ours = vlmpack.response_logps(model, pack)
    use_liger(model)
    calls = []
    liger = vlmpack.head.liger_logps
    vlmpack.head.liger_logps = lambda *inputs: calls.append(1) or liger(*inputs)
    torch.testing.assert_close(vlmpack.response_logps(model, pack), ours, rtol=1e-5, atol=1e-5)
    assert calls


@needs_liger
@pytest.mark.slow
def test_ligers_kernels_equal_ours():
    """Not with a cap, which the interpreter cannot do."""
    what = "compared_with_ours(LogitMap(), LogitMap(0.25)); compared_in_a_model()"
    here = Path(__file__).parent
    folders = os.pathsep.join([str(here), str(here.parent / "examples"), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", f"import vlmpack.head; from test_liger import *; {what}"],
        env={**os.environ, "PYTHONPATH": folders, "TRITON_INTERPRET": "1"},  # read when Triton is imported
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]


@needs_liger
@pytest.mark.gpu
def test_ligers_kernels_equal_ours_on_a_gpu():
    compared_with_ours(LogitMap(), LogitMap(0.25), LogitMap(2.0, 5.0), device="cuda")


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("vlmpack.liger.version", missing)
    with pytest.raises(LigerError, match="pip install 'vlmpack\\[liger\\]'"):
        check_liger()
    with pytest.raises(LigerError):
        use_liger(llama())


@pytest.mark.parametrize("found", ["0.8.1", "0.7.10", "0.8.1.dev3"])
def test_a_version_with_wrong_gradients_is_refused(monkeypatch, found):
    monkeypatch.setattr("vlmpack.liger.version", lambda name: found)
    with pytest.raises(LigerError, match=f"liger-kernel {found} gives single tokens' losses wrong gradients"):
        check_liger()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_and_interpreted_it_is_not(monkeypatch):
    monkeypatch.setattr("vlmpack.liger.version", lambda name: "0.10.0")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(LigerError, match="needs a GPU, and there is none"):
        check_liger()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    check_liger()
