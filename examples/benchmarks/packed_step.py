"""A preference step over packs, as training takes it: the reference's forward, forward and backward, pack by pack."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from paired import Measured
from torch import Tensor, nn

import vlmpack
from vlmpack import Forest, Pack, RewardModel, folding, losses
from vlmpack.costs.saving import cost_of

BETA = 0.1  # of DPO
DPO_STEP = 3.5 + 1  # attention of a step by that of its forward: two products and five, and the reference's two


def packed_step(model: nn.Module, reference: nn.Module | None, packs: Sequence[Pack]) -> float:
    """One optimizer batch. Gradients are left on the model; the loss is the mean over all pairs.

    Args:
        model: a policy, or a reward model; enabled.
        reference: enabled; None for a reward model.
        packs: on the model's device.
    """
    total, pairs = 0.0, sum(len(pack.pairs) for pack in packs)
    for pack in packs:
        loss = _losses(model, reference, pack).sum() / pairs
        loss.backward()
        total += loss.item()
    return total


def packed_step_by(backend: str, model: nn.Module, reference: nn.Module, packs: Sequence[Pack]) -> float:
    """`packed_step` by a backend; cheaper than `vlmpack.enable`, which tries the model out each time."""
    for each in (model, reference):
        each.get_decoder().vlmpack_attention = backend
    return packed_step(model, reference, packs)


def _losses(model: nn.Module, reference: nn.Module | None, pack: Pack) -> Tensor:
    """[P], DPO's or Bradley and Terry's."""
    if isinstance(model, RewardModel):
        return losses.bradley_terry(model(pack), pack.pairs)
    with torch.no_grad():
        reference_logps = vlmpack.response_logps(reference, pack)
    return losses.dpo(vlmpack.response_logps(model, pack), reference_logps, pack.pairs, beta=BETA)


def as_before(models: Iterable[nn.Module]) -> None:
    """Make everything as a new batch finds it: no gradients, and nothing known of how the packs are attended to.

    Args:
        models: whose gradients are cleared.
    """
    for each in vars(folding).values():
        if hasattr(each, "cache_clear"):  # a pack's attention is planned once in training, so each time here
            each.cache_clear()
    for model in models:
        model.zero_grad(set_to_none=True)


def seen_pairs(forest: Forest) -> int:
    """Query-key pairs that are seen: each token, and every token before it on its path.

    Example:
        >>> seen_pairs(Forest((-1, 0, 0), (2, 1, 1)))
        9
    """
    lengths, before = np.array(forest.lengths, dtype=np.int64), np.array(forest.depths, dtype=np.int64)
    return int((lengths * before + lengths * (lengths + 1) // 2).sum())


def needed_attention(model: nn.Module, packs: Sequence[Pack]) -> float:
    """FLOPs of attention that a DPO step asks for, whatever its kernels compute besides, such as hidden squares.

    Args:
        model: a language model, or a LLaVA whose vision tower is trained.
        packs: of the step.
    """
    decoder = cost_of(model).pair * sum(seen_pairs(pack.forest) for pack in packs)
    passes = sum(pack.vision_passes for pack in packs)
    if not passes:
        return DPO_STEP * decoder
    tower = model.config.vision_config
    tokens = (tower.image_size // tower.patch_size) ** 2 + 1
    return DPO_STEP * (decoder + 4.0 * tower.num_hidden_layers * tower.hidden_size * tokens**2 * passes)


def needed(measured: Measured, model: nn.Module, packs: Sequence[Pack]) -> Measured:
    """A step over packs with what its attention asks for in place of what was counted."""
    attention = needed_attention(model, packs)
    return replace(measured, flops=measured.flops - measured.attention + attention, attention=attention)
