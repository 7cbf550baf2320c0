"""The slow oracle: every response on its own, its prompt and images repeated, by the model's own attention.

It shares no code with the packed computation. What differs from it is wrong.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
                inputs = _inputs(reward_model, sample, response)
                hidden = reward_model.model(**inputs, use_cache=False).last_hidden_state
                with torch.autocast(hidden.device.type, enabled=False):
                    scores.append(reward_model.score(hidden[0, -1].to(reward_model.score.weight.dtype))[0])
    return torch.stack(scores)


@contextmanager
def own_attention(model: nn.Module) -> Iterator[None]:
    """Give an enabled model transformers' own SDPA back for a while."""
    decoders = [m for m in model.modules() if getattr(_config(m), "_attn_implementation", None) == "vlmpack"]
    for decoder in decoders:
        decoder.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        for decoder in decoders:
            decoder.set_attn_implementation("vlmpack")


def _inputs(model: nn.Module, sample: Sample, response: Int[Tensor, " _"]) -> dict[str, Tensor]:
    first = next(model.parameters())
    ids = torch.cat([sample.prompt_ids, response])[None].to(first.device)
    names = sample.images[0].tensors if sample.images else ()
    images = {name: torch.cat([each.tensors[name] for each in sample.images]).to(first.device) for name in names}
    images = {name: x.to(first.dtype) if x.is_floating_point() else x for name, x in images.items()}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images}


def _config(module: nn.Module):
    return getattr(module, "config", None) if hasattr(module, "set_attn_implementation") else None
