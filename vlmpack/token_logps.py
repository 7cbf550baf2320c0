"""Log-probabilities of given tokens from hidden states, with no table of logits kept."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlmpack.logit_map import UNCHANGED, LogitMap

CHUNK_LOGITS = 2**24  # logits at a time: 64 MiB in float32


def token_logps(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Int[Tensor, " N"],
    logit_map: LogitMap = UNCHANGED,
    chunk: int | None = None,
) -> Float[Tensor, " N"]:
    """Log-probability of one token at each position, projected chunk by chunk.

    Logits are made, read and forgotten a chunk at a time, and made again for the backward pass, as in Wijmans et al.,
    2024 (https://arxiv.org/abs/2411.09009), so memory grows with N and with V but not with their product. If the head
    is not trained, they are made once: the gradient of each log-probability comes with it.

    Args:
        hidden: [N, H] what the head reads.
        weight: [V, H] of the head.
        bias: [V] of the head, if it has one.
        tokens: [N] the token at each position.
        logit_map: what the model does to its logits.
        chunk: positions at a time; None for about `CHUNK_LOGITS` logits.

    Returns:
        [N] nats; float64 if the model is, else float32.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = (
            x if x is None or x.dtype == torch.float64 else x.to(dtype) for x in (hidden, weight, bias)
        )
    chunk = chunk or max(128, CHUNK_LOGITS // len(weight))
    return _TokenLogps.apply(hidden.to(weight.dtype), weight, bias, tokens, logit_map, chunk)


class _TokenLogps(torch.autograd.Function):
    """Its backward makes the logits again, or has nothing left to make where the head is not trained."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, logit_map, chunk):
        """Keeps what the head reads; where the head is not trained, only the slopes in its direction."""
        ctx.logit_map, ctx.chunk, ctx.is_head_trained = logit_map, chunk, any(ctx.needs_input_grad[1:3])
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] and not ctx.is_head_trained else None
        logps = hidden.new_empty(len(hidden), dtype=_exact(hidden))
        for part, logits, buffer in _chunks(hidden, weight, bias, logit_map, chunk):
            every = torch.log_softmax(logits, dim=1, out=buffer)
            logps[part] = every.gather(1, tokens[part, None])[:, 0]
            if slopes is not None:
                slopes[part] = _slopes(tokens[part], every.exp_(), logits, logit_map).to(weight.dtype) @ weight
        ctx.save_for_backward(*((hidden, weight, bias, tokens) if ctx.is_head_trained else (slopes,)))
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Sums over chunks for the head, a product a chunk for the hidden states."""
        if not ctx.is_head_trained:
            (slopes,) = ctx.saved_tensors
            return (slopes * gradient[:, None]).to(slopes.dtype), None, None, None, None, None
        hidden, weight, bias, tokens = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight, dtype=_exact(weight))  # each chunk's product is rounded, their sum is not
        of_bias = None if bias is None else torch.zeros_like(bias, dtype=_exact(bias))
        for part, logits, buffer in _chunks(hidden, weight, bias, ctx.logit_map, ctx.chunk):
            every = torch.softmax(logits, dim=1, out=buffer)
            slopes = _slopes(tokens[part], every, logits, ctx.logit_map, gradient[part])
            if of_bias is not None:
                of_bias += slopes.sum(0)
            slopes = slopes.to(weight.dtype)
            torch.mm(slopes, weight, out=of_hidden[part])
            _add_product_(of_weight, slopes.T, hidden[part])
        of_bias = None if bias is None else of_bias.to(bias.dtype)
        return of_hidden, of_weight.to(weight.dtype), of_bias, None, None, None


def _chunks(hidden, weight, bias, logit_map: LogitMap, chunk: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For some positions at a time: their mapped logits, and as much room again; both are overwritten by the next."""
    rows = min(chunk, len(hidden))
    rooms = hidden.new_empty(2, rows, len(weight), dtype=_exact(hidden))
    narrow = None if hidden.dtype == rooms.dtype else hidden.new_empty(rows, len(weight))
    for start in range(0, len(hidden), chunk):
        some = hidden[start : start + chunk]
        logits, buffer = rooms[:, : len(some)]
        made = logits if narrow is None else narrow[: len(some)]
        if bias is None:
            torch.mm(some, weight.T, out=made)
        else:
            torch.addmm(bias, some, weight.T, out=made)
        if made is not logits:
            logits.copy_(made)
        yield slice(start, start + len(some)), logit_map(logits), buffer


def _slopes(tokens, probabilities, logits, logit_map: LogitMap, weights: Tensor | None = None) -> Tensor:
    """Gradient of the tokens' log-probabilities, weighted, by the head's logits; overwrites the probabilities."""
    weights = logits.new_ones(len(logits)) if weights is None else weights.to(logits.dtype)
    slopes = probabilities.mul_(-weights[:, None])
    slopes[torch.arange(len(tokens), device=tokens.device), tokens] += weights
    return logit_map.chain(slopes, logits)


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
