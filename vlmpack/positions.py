"""The rotary positions of a pack's tokens, as the model itself would give them to every path on its own."""

from collections.abc import Sequence
from inspect import signature

import torch
from jaxtyping import Int
from torch import Tensor, nn

from vlmpack.families import family_of
from vlmpack.layout import path
from vlmpack.pack import Pack
from vlmpack.plan import AttentionError


def position_ids(model: nn.Module, pack: Pack) -> Int[Tensor, "*A 1 T"]:
    """What the model takes as `position_ids` for a pack.

    With M-RoPE an image's tokens stand on a grid, and what follows starts at the largest position + 1, not at the
    token count. Each path is asked of the model's own `get_rope_index`, which needs its configuration only; tokens
    that paths share must come out alike.

    Args:
        model: a transformers model, not wrapped.
        pack: on any device.

    Returns:
        [1, T], or [A, 1, T] where the model has positions on A axes.

    Raises:
        AttentionError: the model gives a shared token different positions on different paths.
    """
    makers = [module for module in model.modules() if hasattr(type(module), "get_rope_index")]
    if not makers or not pack.placements:
        return pack.position_ids + family_of(model.config).first_position
    forest, maker = pack.forest, makers[-1]  # the innermost; those around it only call it
    paths = [path(forest, leaf) for leaf in sorted(set(range(len(forest.parents))) - set(forest.parents))]
    owns = _rope_indexes(maker, pack, paths)
    positions = torch.full((max(map(len, owns)), forest.tokens), -1)
    for indices, own in zip(paths, owns, strict=True):
        known = positions[:, indices]
        if not torch.equal(torch.where(known < 0, own, known), own.expand_as(known)):
            raise AttentionError(
                f"{type(maker).__name__}.get_rope_index gives tokens that responses share different positions on "
                f"their paths, so they cannot be shared. This model cannot be packed."
            )
        positions[:, indices] = own
    return positions[:, None].to(pack.input_ids.device)


def _rope_indexes(maker: nn.Module, pack: Pack, paths: Sequence[Int[Tensor, " _"]]) -> list[Int[Tensor, "A _"]]:
    """The model's positions of every path, as if it stood alone; one axis stands for all where there is no image."""
    takes = signature(maker.get_rope_index).parameters
    grids = {name: x.cpu() for name, x in pack.images.items() if name in takes and name.endswith(("thw", "hw"))}
    ids, image_of, counts = pack.input_ids.cpu(), pack.image_of[0].cpu(), pack.position_ids.cpu()
    owns = []
    for indices in paths:
        places = image_of[indices]
        images = [pack.placements[place] for place in places[places >= 0].unique_consecutive().tolist()]
        if not images:
            owns.append(counts[:, indices])
            continue
        types = {"mm_token_type_ids": (places >= 0).int()[None]} if "mm_token_type_ids" in takes else {}
        grid = {name: x[images] for name, x in grids.items()}
        owns.append(maker.get_rope_index(input_ids=ids[:, indices], **types, **grid)[0][:, 0])
    return owns
