"""Log-probabilities without logits against a table of them: values, every gradient, and what is kept."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from vlmpack.logit_map import LogitMap
from vlmpack.token_logps import token_logps

MAPS = {"plain": LogitMap(), "scaled": LogitMap(0.3), "capped": LogitMap(2.0, 5.0)}


def made(positions=11, bias=True, dtype=torch.float64, **trained):
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape, name):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_(trained.get(name, True))

    tokens = torch.randint(9, (positions,), generator=generator)
    hidden, weight = tensor(positions, 6, name="hidden"), tensor(9, 6, name="weight")
    return hidden, weight, tensor(9, name="bias") if bias else None, tokens


def by_table(hidden, weight, bias, tokens, logit_map):
    """[N] from all logits, written out."""
    logits = (hidden @ weight.T + (0 if bias is None else bias)) * logit_map.scale
    logits = logits if logit_map.cap is None else logit_map.cap * (logits / logit_map.cap).tanh()
    return logits.log_softmax(1)[torch.arange(len(tokens)), tokens]


@pytest.mark.parametrize("logit_map", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head_trained", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 11, None])
def test_values_and_gradients_equal_those_of_a_table_of_logits(logit_map, bias, head_trained, chunk):
    inputs = made(bias=bias, weight=head_trained, bias_trained=head_trained)
    if inputs[2] is not None:
        inputs[2].requires_grad_(head_trained)
    learnt = [each for each in inputs[:3] if each is not None and each.requires_grad]
    weights = torch.linspace(-1, 2, 11, dtype=torch.float64)
    found, expected = token_logps(*inputs, logit_map, chunk), by_table(*inputs, logit_map)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    gradients = [torch.autograd.grad(values, learnt, weights) for values in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


def test_a_head_whose_bias_alone_is_trained_gets_its_gradient():
    inputs = made(hidden=False, weight=False)
    found = torch.autograd.grad(token_logps(*inputs).sum(), inputs[2])
    torch.testing.assert_close(found, torch.autograd.grad(by_table(*inputs, LogitMap()).sum(), inputs[2]))


@pytest.mark.parametrize("head_trained", [True, False])
def test_nothing_as_large_as_a_table_of_logits_is_kept(head_trained):
    positions, kept = 500, []
    hidden, weight, bias, tokens = made(positions, weight=head_trained)
    bias.requires_grad_(head_trained)

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logps(hidden, weight, bias, tokens, chunk=100)
    assert kept and max(kept) == hidden.numel() < positions * len(weight)


def test_bfloat16_is_no_worse_than_a_table_of_logits():
    exact = made(400)
    weights = torch.linspace(-1, 2, 400, dtype=torch.float64)
    expected = torch.autograd.grad(by_table(*exact, LogitMap()), exact[:3], weights)
    errors = []
    for compute in (lambda *a: token_logps(*a, chunk=20), _as_models_do):
        rough = [x if x.dtype == torch.int64 else x.detach().bfloat16().requires_grad_() for x in exact]
        gradients = torch.autograd.grad(compute(*rough), rough[:3], weights.float())
        errors.append([(g.double() - e).norm() for g, e in zip(gradients, expected, strict=True)])
    assert all(ours <= 1.2 * theirs for ours, theirs in zip(*errors, strict=True)), errors


def _as_models_do(hidden, weight, bias, tokens):
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return -torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")


def test_autocast_computes_in_its_dtype_and_returns_float32():
    inputs = made(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logps(*inputs)
        expected = _as_models_do(*inputs)
    assert found.dtype == torch.float32 and not torch.equal(found, token_logps(*inputs))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(values.sum(), inputs[:3]) for values in (found, expected)]
    assert all(gradient.dtype == torch.float32 for gradient in gradients[0])
    torch.testing.assert_close(*gradients, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("head_trained", [True, False])
def test_no_more_logits_are_made_at_a_time_than_asked_for(head_trained, monkeypatch):
    rows, softmax = [], torch.log_softmax

    def watched(logits, **options):
        rows.append(len(logits))
        return softmax(logits, **options)

    monkeypatch.setattr("vlmpack.token_logps.CHUNK_LOGITS", 9 * 200)
    monkeypatch.setattr(torch, "log_softmax", watched)
    token_logps(*made(500, weight=head_trained))
    assert rows == [200, 200, 100]


def test_a_frozen_heads_gradient_keeps_a_scale_that_its_dtype_cannot_hold():
    hidden, weight, _, tokens = made(bias=False, dtype=torch.float16, weight=False)
    values = token_logps(hidden * 0, weight, None, tokens)
    (found,) = torch.autograd.grad(token_logps(hidden, weight * 0, None, tokens), hidden, torch.full_like(values, 7e4))
    assert torch.equal(found, torch.zeros_like(found))


def test_a_float64_model_stays_float64_under_autocast():
    inputs = made()
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logps(*inputs)
    assert torch.equal(found, token_logps(*inputs))
