"""The slow oracle: every response on its own, its prompt and images repeated, by the model's own attention.

It shares no code with the packed computation. What differs from it is wrong.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vlmpack.sample import Sample


def response_logps(model: nn.Module, samples: Sequence[Sample]) -> Float[Tensor, " R"]:
    """Summed log-probability of every response given its prompt, one forward pass each.

    Args:
        model: a causal language model or an image-text-to-text model, enabled or not.
        samples: on any device.

    Returns:
        [R] nats, sample by sample.
    """
    sums = []
    with own_attention(model):
        for sample in samples:
            for response in sample.response_ids:
                inputs = _inputs(model, sample, response)
                logits = model(**inputs, use_cache=False).logits[0, len(sample.prompt_ids) - 1 : -1]
                logits = logits if logits.dtype == torch.float64 else logits.float()
                tokens = inputs["input_ids"][0, len(sample.prompt_ids) :]
                sums.append(logits.log_softmax(dim=-1).gather(1, tokens[:, None]).sum())
    return torch.stack(sums)


def rewards(reward_model: nn.Module, samples: Sequence[Sample]) -> Float[Tensor, " R"]:
    """Reward of every response, one forward pass each.

    Args:
        reward_model: a `vlmpack.RewardModel`, enabled or not.
        samples: on any device.

    Returns:
        [R] rewards, sample by sample.
    """
    scores = []
    with own_attention(reward_model):
        for sample in samples:
            for response in sample.response_ids:
                inputs = _inputs(reward_model.model, sample, response)
                hidden = reward_model.model(**inputs, use_cache=False).last_hidden_state[0]
                if reward_model.config.pooling == "mean":
                    own = hidden[len(sample.prompt_ids) :]
                    state = own.to(torch.promote_types(own.dtype, torch.float32)).mean(dim=0)
                else:
                    state = hidden[-1]
                scores.append(reward_model.reward_head(state[None])[0])
    return torch.stack(scores)


@contextmanager
def own_attention(model: nn.Module) -> Iterator[None]:
    """Give a model transformers' own attention for a while: SDPA, or eager where that would leave something out.

    Args:
        model: enabled or not; afterwards it has what it had before.

    Returns:
        A context manager.
    """
    changed = [(m, own) for m in model.modules() if (own := _other_attention(m)) is not None]
    before = [decoder.config._attn_implementation for decoder, _ in changed]
    for decoder, own in changed:
        decoder.set_attn_implementation(own)
    try:
        yield
    finally:
        for (decoder, _), implementation in zip(changed, before, strict=True):
            decoder.set_attn_implementation(implementation)


def _other_attention(module: nn.Module) -> str | None:
    """The attention that a module must be given for its own computation; None if it has that."""
    implementation = getattr(_config(module), "_attn_implementation", None)
    if implementation not in ("vlmpack", "sdpa"):
        return None
    own = "eager" if _needs_eager(module) else "sdpa"
    return None if own == implementation else own


def _needs_eager(decoder: nn.Module) -> bool:
    """SDPA knows neither soft-capped scores, which some versions silently leave out, nor attention sinks."""
    sinks = any(name.endswith("sinks") for name, _ in decoder.named_parameters())
    return sinks or bool(getattr(decoder.config, "attn_logit_softcapping", None)) or not decoder._supports_sdpa


def _inputs(model: nn.Module, sample: Sample, response: Int[Tensor, " _"]) -> dict[str, Tensor]:
    first = next(model.parameters())
    ids = torch.cat([sample.prompt_ids, response])[None]
    names = sample.images[0].tensors if sample.images else ()
    images = {name: _joined(name, sample) for name in names}
    images = {name: x.to(first.dtype) if x.is_floating_point() else x for name, x in images.items()}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **_types(model, sample, response), **images}
    return {name: tensor.to(first.device) for name, tensor in inputs.items()}


def _joined(name: str, sample: Sample) -> Tensor:
    """One argument for all images of a prompt, the smaller ones padded with zeros as image processors do."""
    tensors = [image.tensors[name] for image in sample.images]
    if name == "batch_num_images":
        return tensors[0]  # every image of the prompt says how many there are
    axis = sample.images[0].axes.get(name, 0)
    whole = tensors[0].new_zeros(
        [
            sum(each.shape[d] for each in tensors) if d == axis else max(each.shape[d] for each in tensors)
            for d in range(tensors[0].ndim)
        ]
    )
    start = 0
    for each in tensors:
        corner = [slice(0, size) for size in each.shape]
        corner[axis] = slice(start, start := start + each.shape[axis])
        whole[tuple(corner)] = each
    return whole


def _types(model: nn.Module, sample: Sample, response: Int[Tensor, " _"]) -> dict[str, Tensor]:
    """Token types as the models' own processors make them: 1 for an image; a prefix-LM's prompt is 0, the rest 1."""
    inner = getattr(model, "get_base_model", lambda: model)()
    if not any(hasattr(type(module), "get_image_features") for module in inner.modules()):
        return {}  # in a language model, token types would mean something else
    rest = torch.zeros_like(response)
    seen = torch.zeros_like(sample.prompt_ids) if sample.image_of is None else (sample.image_of >= 0).long()
    types = torch.cat([seen, rest])[None]
    if sample.both_ways == "prompt":
        prefix = torch.cat([torch.zeros_like(sample.prompt_ids), rest + 1])[None]
        return {"token_type_ids": prefix}
    takes = signature(inner.forward).parameters
    return {name: types for name in ("mm_token_type_ids", "token_type_ids") if name in takes}


def _config(module: nn.Module):
    return getattr(module, "config", None) if hasattr(module, "set_attn_implementation") else None
