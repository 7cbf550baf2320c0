"""The parts of a model that the grid measures: the prefix of two completions repeated, and standing once."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import paired
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

import vlmpack
from vlmpack import Forest, Sample, layout, masks, plan
from vlmpack.attention import attend
from vlmpack.kernels.weighing import Settings

REPEATED = "repeated"


@dataclass(frozen=True)
class Size:
    """What is computed, and where.

    Attributes:
        lengths: tokens of prefixes and of completions; the grid is all pairs of them.
        heads, head_dim, layers, vocabulary: of the model; it is heads times head_dim wide, its MLP 2.7 times as much.
        device, dtype: of all of it.
    """

    lengths: tuple[int, ...]
    heads: int
    head_dim: int
    layers: int
    vocabulary: int
    device: str
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """H, the width of the model."""
        return self.heads * self.head_dim


Ways = dict[str, paired.Step]


def forest(prefix: int, completion: int, repeated: bool = False) -> Forest:
    """Two completions after one prefix, or each after its own."""
    if repeated:
        return Forest((-1, 0, -1, 2), (prefix, completion) * 2)
    return Forest((-1, 0, 0), (prefix, completion, completion))


def attention(size: Size, prefix: int, completion: int, backends: Sequence[str]) -> Ways:
    """Attention alone: plain causal SDPA on two rows, and `attend` on the pack."""
    once = [_random((1, size.heads, prefix + 2 * completion, size.head_dim), size) for _ in range(3)]
    twice = [_leaf(_rows(each, prefix, dim=2)) for each in once]

    def pack(backend: str) -> Tensor:
        return attend(*once, _plan(size, prefix, completion, backend), None, Settings())[:, :, prefix:]

    rows = _backward(lambda: scaled_dot_product_attention(*twice, is_causal=True)[:, :, prefix:], twice)
    return {REPEATED: rows} | {backend: _backward(lambda b=backend: pack(b), once) for backend in backends}


def mlp(size: Size, prefix: int, completion: int, backends: Sequence[str]) -> Ways:
    """An MLP, which knows no attention: all that counts is how many tokens there are."""
    module = LlamaMLP(_config(size)).to(size.device, size.dtype)
    once = _random((1, prefix + 2 * completion, size.width), size)
    twice = _leaf(_rows(once, prefix, dim=1))
    inputs = {REPEATED: twice} | dict.fromkeys(backends, once)
    return {
        name: _backward(lambda x=tokens: module(x)[:, prefix:], [tokens, *module.parameters()])
        for name, tokens in inputs.items()
    }


def attention_layer(size: Size, prefix: int, completion: int, backends: Sequence[str]) -> Ways:
    """Attention between its projections, without rotary positions."""
    layer = _Layer(size)
    once = _random((1, prefix + 2 * completion, size.width), size)
    twice = _leaf(_rows(once, prefix, dim=1))

    def rows() -> Tensor:
        return layer(twice, lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True))[:, prefix:]

    def pack(backend: str) -> Tensor:
        made = _plan(size, prefix, completion, backend)
        return layer(once, lambda q, k, v: attend(q, k, v, made, None, Settings()))[:, prefix:]

    weights = list(layer.parameters())
    ways = {REPEATED: _backward(rows, [twice, *weights])}
    return ways | {backend: _backward(lambda b=backend: pack(b), [once, *weights]) for backend in backends}


class _Layer(nn.Module):
    """Projections before and after whatever attends."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.into, self.out = (
            nn.Linear(size.width, n * size.width, bias=False, device=size.device, dtype=size.dtype) for n in (3, 1)
        )

    def forward(self, tokens: Tensor, attended: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """[B, T, H] from [B, T, H]."""
        parts = self.into(tokens).chunk(3, dim=-1)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in parts)
        return self.out(attended(query, key, value).transpose(1, 2).flatten(2))


def whole_model(size: Size, prefix: int, completion: int, backends: Sequence[str]) -> Ways:
    """A Llama with its head and loss: packs in which the prefix stands once, or nothing does, by the same backend."""
    model = LlamaForCausalLM(_config(size)).to(size.device, size.dtype)
    tokens = torch.randint(size.vocabulary, (prefix + 2 * completion,))
    sample = Sample(tokens[:prefix], tuple(tokens[prefix:].chunk(2)), ((0, 1),))
    once, twice = (
        vlmpack.pack([sample], 2 * (prefix + completion), sharing=sharing)[0].to(size.device)
        for sharing in ("prompt", "none")
    )
    models = {backend: vlmpack.enable(deepcopy(model), backend) for backend in backends}

    def way(model: nn.Module, pack: vlmpack.Pack) -> paired.Step:
        return _backward(lambda: vlmpack.response_logps(model, pack), list(model.parameters()))

    return {REPEATED: way(models[backends[0]], twice)} | {name: way(each, once) for name, each in models.items()}


WAYS = {"attention": attention, "MLP": mlp, "attention layer": attention_layer, "whole model": whole_model}


def _backward(outputs: Callable[[], Tensor], leaves: Sequence[Tensor]) -> paired.Step:
    """Forward, and the gradients of a scalar of what stands after the prefix."""

    def step() -> float:
        loss = outputs().float().square().mean()
        loss.backward()
        for leaf in leaves:
            leaf.grad = None
        return loss.item()

    return step


def _random(shape: tuple[int, ...], size: Size) -> Tensor:
    return _leaf(torch.randn(shape).to(size.device, size.dtype))


def _leaf(values: Tensor) -> Tensor:
    return values.detach().clone().requires_grad_()


def _rows(tokens: Tensor, prefix: int, dim: int) -> Tensor:
    """Prefix and two completions as two rows, the prefix in both."""
    before, after = tokens.tensor_split([prefix], dim=dim)
    return torch.cat([torch.cat([before, completion], dim=dim) for completion in after.chunk(2, dim=dim)])


def _plan(size: Size, prefix: int, completion: int, backend: str) -> plan.Plan:
    made = forest(prefix, completion)
    return plan.make(made, masks.reach(made).to(size.device), layout.position(made).to(size.device), backend)


def _config(size: Size) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=round(2.6875 * size.width),
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=size.head_dim,
        max_position_embeddings=2 * max(size.lengths),
        pad_token_id=None,
    )
