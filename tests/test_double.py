"""Inside `Doubled` nothing is rounded to less than float64, and outside everything is as before."""

import pytest
import torch

from vlmpack.proof.double import Doubled

REQUESTS = {
    "float()": lambda x: x.float(),
    "half()": lambda x: x.half(),
    "bfloat16()": lambda x: x.bfloat16(),
    "float() with a memory format": lambda x: x.float(memory_format=torch.preserve_format),
    "to(dtype)": lambda x: x.to(torch.float32),
    "to(dtype=)": lambda x: x.to(dtype=torch.bfloat16),
    "to(device, dtype)": lambda x: x.to("cpu", torch.float16),
    "type(dtype)": lambda x: x.type(torch.float32),
    "softmax": lambda x: x.softmax(0, dtype=torch.float32),
    "sum": lambda x: x.sum(dtype=torch.float32),
    "new_zeros": lambda x: x.new_zeros(2, dtype=torch.float32),
    "arange": lambda _: torch.arange(2, dtype=torch.float32),
    "a literal": lambda _: torch.tensor(0.1),
}


@pytest.mark.parametrize("ask", REQUESTS.values(), ids=REQUESTS)
def test_whatever_asks_for_less_gets_float64(ask):
    third = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    with Doubled():
        inside = ask(third)
    assert inside.dtype == torch.float64
    assert ask(third).dtype != torch.float64


def test_no_digit_is_lost_on_the_way():
    third = torch.tensor([1 / 3], dtype=torch.float64)
    with Doubled():
        assert torch.equal(third.float().to(torch.bfloat16).half().double(), third)
    assert not torch.equal(third.float().double(), third)


def test_integers_and_truth_values_stay_what_they_are():
    with Doubled():
        assert torch.ones(2, dtype=torch.float32).to(torch.int32).dtype == torch.int32
        assert (torch.ones(2) > 0).dtype == torch.bool
        assert torch.tensor([1]).dtype == torch.int64


def test_an_error_inside_leaves_the_usual_type_behind():
    with pytest.raises(ZeroDivisionError), Doubled(), Doubled():
        _ = 1 / 0
    assert torch.get_default_dtype() == torch.float32
    assert torch.ones(1).dtype == torch.ones(1, dtype=torch.float64).float().dtype == torch.float32


def test_gradients_flow_in_float64():
    x = torch.tensor([1 / 3], dtype=torch.float64, requires_grad=True)
    with Doubled():
        (gradient,) = torch.autograd.grad(x.float().pow(3).sum(), x)
    assert gradient.item() == pytest.approx(1 / 3, rel=1e-15)
