"""float64 throughout: what separates a wrong computation from a rounded one."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SINGLE = (torch.float32, torch.bfloat16, torch.float16)


class Doubled(TorchFunctionMode):
    """While inside, whatever asks for a smaller floating type gets float64.

    Models compute norms, softmaxes and rotary angles in float32 whatever they are given, so that two correct ways of
    computing differ by 1e-7; in float64 they differ by 1e-15, and a mistake has nowhere to hide.

    Example:
        >>> with Doubled():
        ...     print(torch.ones(1).float().dtype, torch.arange(2, dtype=torch.float32).softmax(0).dtype)
        torch.float64 torch.float64
    """

    def __enter__(self) -> "Doubled":
        self._usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(self._usual)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (Tensor.float, Tensor.half, Tensor.bfloat16):
            function, args = Tensor.double, args[:1]
        return function(*map(_doubled, args), **{name: _doubled(value) for name, value in (kwargs or {}).items()})


def _doubled(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in SINGLE else value
