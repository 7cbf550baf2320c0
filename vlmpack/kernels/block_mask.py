"""Which blocks of queries see which blocks of keys, from `reach` alone: never a table of tokens by tokens."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from vlmpack.plan import Plan

BLOCK = 128  # tokens; what FlexAttention takes unless told otherwise


def block_mask(plan: Plan, window: int | None, length: int) -> BlockMask:
    """The mask of a layer, by blocks; made for the first layer with this window.

    Args:
        plan: of the pack.
        window: of the layer.
        length: tokens with padding after the pack's own, each of which sees itself alone.
    """
    return plan.once(("flex", window, length), lambda: _made(padded(plan, length), window))


def _made(plan: Plan, window: int | None) -> BlockMask:
    some, full = blocks(plan, window)
    length = len(plan.reach)
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full),
        *_listed(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=plan.seen(window),
        seq_lengths=(length, length),
    )


def padded(plan: Plan, length: int) -> Plan:
    """The plan with its tokens' arrays filled up; what fills them sees and is seen by itself alone.

    Args:
        plan: of the pack.
        length: tokens, at least the pack's own.
    """
    missing = length - len(plan.reach)
    if not missing:
        return plan
    return replace(
        plan,
        reach=torch.cat([plan.reach, torch.arange(length - missing, length, device=plan.reach.device) + 1]),
        position=F.pad(plan.position, (0, missing)),
        blocks=None if plan.blocks is None else F.pad(plan.blocks, (0, missing), value=-1),
    )


def blocks(plan: Plan, window: int | None) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """Which blocks of queries (rows) see any token of which blocks of keys, and which see all of them.

    With windows and with stretches seen both ways the first may say yes and the second no where it is not so: in
    blocks that are seen in part, the mask of tokens has the last word.

    Args:
        plan: of the pack, padding included.
        window: of the layer.
    """
    length = len(plan.reach)
    first = torch.arange(0, length, BLOCK, device=plan.reach.device)
    last = (first + BLOCK).clamp(max=length) - 1
    least, most = _extremes(plan.reach)
    whole = last - first == BLOCK - 1  # a kernel reads past the end of the last block, under the mask of tokens
    before = first[None, :] < first[:, None]
    some = (before & (most[None, :] > first[:, None])) | (first[None, :] == first[:, None])
    full = before & (least[None, :] > last[:, None]) & whole[:, None]
    beside = torch.zeros_like(some) if plan.blocks is None else _beside(plan.blocks)
    if window is None:
        return some | beside, full
    near, all_near = _near(plan.position, window)
    some = (some | beside) & near if plan.window_cuts_blocks else (some & near) | beside
    return some, full & all_near


def _near(position: Int[Tensor, " T"], window: int) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """Which pairs of blocks may hold tokens within the window of each other, and which hold no others."""
    least, most = _extremes(position)
    return least[:, None] - most[None, :] < window, most[:, None] - least[None, :] < window


def _beside(stretches: Int[Tensor, " T"]) -> Bool[Tensor, "n n"]:
    """Which pairs of blocks may hold tokens of one stretch that is seen both ways."""
    least, _ = _extremes(stretches.masked_fill(stretches < 0, torch.iinfo(stretches.dtype).max))
    _, most = _extremes(stretches)
    return (least[:, None] <= most[None, :]) & (least[None, :] <= most[:, None])


def _extremes(tokens: Int[Tensor, " T"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The least and the most of each block; the last token stands for what the last block lacks."""
    missing = -len(tokens) % BLOCK
    whole = torch.cat([tokens, tokens[-1:].expand(missing)]).view(-1, BLOCK)
    return whole.amin(1), whole.amax(1)


def _listed(table: Bool[Tensor, "n n"]) -> tuple[Int[Tensor, "1 1 n"], Int[Tensor, "1 1 n n"]]:
    """For each block of queries, how many blocks of keys are marked, and all of them, the marked ones first."""
    places = table.int().argsort(dim=1, descending=True, stable=True)
    return table.sum(1).int()[None, None], places.int()[None, None].contiguous()
