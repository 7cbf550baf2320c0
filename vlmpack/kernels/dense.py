"""The `dense` backend: one call a layer, the trees as rows of a batch, each under its own mask."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vlmpack.folding import table
from vlmpack.kernels.weighing import Settings, added, weigh
from vlmpack.plan import Plan


def rows(plan: Plan) -> tuple[Int[Tensor, "B L"], Int[Tensor, " T"]]:
    """The pack's tokens as rows, and one place of each token in the flattened rows; see `folding.table`."""
    return plan.once(("dense", "rows"), lambda: tuple(x.to(plan.reach.device) for x in table(plan.forest)))


def mask(plan: Plan, window: int | None) -> Bool[Tensor, "B 1 L L"]:
    """Who sees whom in each row; what fills a row sees itself, so that no softmax is empty."""
    tokens, _ = rows(plan)
    query, key = tokens[:, :, None], tokens[:, None, :]
    seen = plan.seen(window)(0, 0, query, key) & (key >= 0)
    seen |= torch.eye(tokens.shape[1], dtype=torch.bool, device=seen.device)
    return seen[:, None]


def attend(
    query: Float[Tensor, "1 N T D"],
    key: Float[Tensor, "1 M T D"],
    value: Float[Tensor, "1 M T E"],
    plan: Plan,
    window: int | None,
    settings: Settings,
) -> Float[Tensor, "1 N T E"]:
    """Attention over a pack; arguments as in `vlmpack.attention.attend`."""
    tokens, places = rows(plan)
    folded = (_fold(x, tokens) for x in (query, key, value))
    seen = plan.once(("dense", "seen", window, query.dtype), lambda: added(mask(plan, window), query.dtype))
    output = weigh(*folded, seen, settings)
    return rearrange(output, "b n l e -> n (b l) e").index_select(1, places)[None]


def _fold(heads: Float[Tensor, "1 N T D"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B N L D"]:
    """Tokens as rows; what fills a short row is any token, for nobody sees it."""
    flat = heads[0].index_select(1, tokens.flatten().clamp(min=0))
    return rearrange(flat, "n (b l) d -> b n l d", b=len(tokens))
