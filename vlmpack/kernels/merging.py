"""Attention computed part by part and merged by log-sum-exp, with the exact gradient of the whole."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vlmpack.kernels.parts import Part
from vlmpack.kernels.weighing import Settings


@runtime_checkable
class Kernel(Protocol):
    """What computes one part: groups of queries against groups of keys, from which gradients flow back.

    A kernel's `backward` takes each query's output and log-sum-exp over *all* its keys, also those of other parts:
    the softmax is then that of the whole, and what it returns is this part's share of the gradients.
    """

    def forward(
        self,
        query: Float[Tensor, "Q N D"],
        key: Float[Tensor, "K M D"],
        value: Float[Tensor, "K M D"],
        part: Part,
        window: int | None,
        settings: Settings,
    ) -> tuple[Float[Tensor, "Q N D"], Float[Tensor, "N Q"]]:
        """The output, and the log of the sum of each softmax's exponentials."""
        ...

    def backward(
        self,
        gradient: Float[Tensor, "Q N D"],
        query: Float[Tensor, "Q N D"],
        key: Float[Tensor, "K M D"],
        value: Float[Tensor, "K M D"],
        output: Float[Tensor, "Q N D"],
        total: Float[Tensor, "N Q"],
        part: Part,
        window: int | None,
        settings: Settings,
    ) -> tuple[Float[Tensor, "Q N D"], Float[Tensor, "K M D"], Float[Tensor, "K M D"]]:
        """The gradients of queries, keys and values, given the output's; output and total are those of the whole."""
        ...


def merged(
    query: Float[Tensor, "T N D"],
    key: Float[Tensor, "T M D"],
    value: Float[Tensor, "T M D"],
    parts: tuple[Part, ...],
    kernel: Kernel,
    window: int | None,
    settings: Settings,
) -> Float[Tensor, "T N D"]:
    """Attention over several parts, as if every query had met all its keys in one softmax.

        total = log(sum_i exp(total_i)),  output = sum_i exp(total_i - total) * output_i

    A head's sink is one more part, whose output is 0.

    Args:
        query, key, value: of all tokens.
        parts: the first holds every query; each further one some.
        kernel: computes a part.
        window: of the layer.
        settings: of the layer; without dropout.
    """
    of_parts = Settings(settings.scale, softcap=settings.softcap)
    return _Merged.apply(query, key, value, settings.sinks, parts, kernel, window, of_parts)


class _Merged(torch.autograd.Function):
    """With P the softmax over all parts, its gradient `P * (dP - sum(dP * P))` needs of a part only its own scores."""

    @staticmethod
    def forward(ctx: Any, query, key, value, sinks, parts, kernel, window, settings):
        """Parts in turn, each merged with what was found before."""
        first, *others = parts
        output, total = kernel.forward(query, *_taken((key, value), first.keys), first, window, settings)
        if others or sinks is not None:
            output, total = output.to(_wide(output)), total.clone()
        for part in others:
            (some,) = _taken((query,), part.queries)
            more, also = kernel.forward(some, *_taken((key, value), part.keys), part, window, settings)
            before, seen = total.index_select(1, part.queries), output.index_select(0, part.queries)
            both = torch.logaddexp(before, also)
            total.index_copy_(1, part.queries, both)
            output.index_copy_(0, part.queries, seen * _share(before, both) + more * _share(also, both))
        if sinks is not None:
            before, total = total, torch.logaddexp(total, sinks[:, None].to(total.dtype))
            output = output * _share(before, total)
        output = output.to(query.dtype)
        ctx.save_for_backward(query, key, value, sinks, output, total)
        ctx.settled = parts, kernel, window, settings
        return output

    @staticmethod
    def backward(ctx: Any, gradient):
        """Each part's share of the gradients, under the softmax of the whole, added up in float32 or wider."""
        query, key, value, sinks, output, total = ctx.saved_tensors
        parts, kernel, window, settings = ctx.settled
        sums = [torch.zeros_like(x, dtype=_wide(x)) for x in (query, key, value)]
        for part in parts:
            seen, found = part.queries, _taken((gradient, query), part.queries)
            whole = (*_taken((output,), seen), total if seen is None else total.index_select(1, seen))
            found = kernel.backward(*found, *_taken((key, value), part.keys), *whole, part, window, settings)
            for each, more, rows in zip(sums, found, (seen, part.keys, part.keys), strict=True):
                _add(each, more, rows)
        of_sinks = None if sinks is None else _sinks_gradient(gradient, sinks, output, total)
        narrow = (each.to(x.dtype) for each, x in zip(sums, (query, key, value), strict=True))
        return (*narrow, of_sinks, None, None, None, None)


def _sinks_gradient(gradient, sinks, output, total) -> Float[Tensor, " N"]:
    shares = (sinks[:, None] - total).exp()  # of each softmax that is the sink's
    return -(shares * (gradient.to(total.dtype) * output).sum(-1).T).sum(1).to(sinks.dtype)


def _share(part: Float[Tensor, "N Q"], whole: Float[Tensor, "N Q"]) -> Float[Tensor, "Q N 1"]:
    return (part - whole).exp().T[..., None]


def _wide(tensor: Tensor) -> torch.dtype:
    """What sums are kept in."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _taken(tokens: tuple[Tensor, ...], rows: Tensor | None) -> tuple[Tensor, ...]:
    return tokens if rows is None else tuple(x.index_select(0, rows) for x in tokens)


def _add(sums: Tensor, more: Tensor, rows: Tensor | None) -> None:
    if rows is None:
        sums += more
    else:
        sums.index_add_(0, rows, more.to(sums.dtype))
