"""Which backend computes a pack: what can run, what is predicted to be fastest, and what is said about it."""

import logging
from functools import cache

from torch import Tensor

from vlmpack.folding import ROW_COST, longest_path, price_of, size
from vlmpack.kernels import dense, flex, paths, varlen
from vlmpack.kernels.weighing import Settings
from vlmpack.plan import Plan

logger = logging.getLogger("vlmpack")

# What one more attention call costs in query-key pairs; see also `folding.ROW_COST` and `paths.CAUSAL_SHARE`.
# Measured on 2 CPU cores by examples/benchmarks/attention_rule.py.
CALL_COST = 10_000


def settled(plan: Plan) -> Plan:
    """The plan with all decided that does not depend on a layer, before the model runs.

    Args:
        plan: as asked for. On the CPU "auto" becomes the faster of `dense` and `paths`; on other devices it stays.
    """
    if plan.backend == "auto" and plan.reach.device.type == "cpu":
        plan = plan.by(_faster_and_say(plan, "on the CPU"))
    if plan.backend == "dense":
        for each in {plan, plan.of_layer(None)}:  # a model that is being compiled would trace how rows are dealt
            dense.rows(each)
    return plan


def chosen(query: Tensor, key: Tensor, value: Tensor, plan: Plan, window: int | None, settings: Settings) -> str:
    """The backend that is predicted to be the fastest of those that can compute a layer; says which, and why.

    Args:
        query, key, value: of the layer.
        plan: of the pack.
        window: of the layer.
        settings: of the layer.
    """
    if query.device.type == "cpu":
        return _faster_and_say(plan, "on the CPU")
    not_varlen = varlen.refusal(query, key, value, plan, window, settings)
    if not_varlen is None:
        return _said("varlen", "FlashAttention can compute it")
    not_flex = flex.refusal(query, key, value, settings)
    if not_flex is None:
        return _said("flex", f"varlen cannot: {not_varlen}")
    return _faster_and_say(plan, f"varlen cannot: {not_varlen}; flex cannot: {not_flex}")


def refusal(
    backend: str, query: Tensor, key: Tensor, value: Tensor, plan: Plan, window: int | None, settings: Settings
) -> str | None:
    """Why a backend cannot compute a layer; None if it can. `dense` and `paths` can compute every layer.

    Args:
        backend: its name.
        query, key, value, plan, window, settings: as in `chosen`.
    """
    if backend == "varlen":
        return varlen.refusal(query, key, value, plan, window, settings)
    return flex.refusal(query, key, value, settings) if backend == "flex" else None


def faster(plan: Plan) -> str:
    """Of `dense` and `paths` the one with the fewer query-key pairs to compute, overheads counted as pairs.

    Args:
        plan: of the pack.
    """
    runs = sum(CALL_COST + paths.area(plan.forest, run) for run in plan.runs)
    if runs < CALL_COST + _least_dense(plan):
        return "paths"  # without dealing rows, which takes longer than all the rest
    return "dense" if CALL_COST + price_of(*size(plan.forest)) <= runs else "paths"


def _least_dense(plan: Plan) -> float:
    """What no way to deal the paths into rows can cost less than: rows just long enough, and full."""
    longest = longest_path(plan.forest)
    length = max(longest, ROW_COST**0.5)  # the cheapest a token of full rows can be
    return max(price_of(1, longest), price_of(1, length) * plan.forest.tokens / length)


def _faster_and_say(plan: Plan, why: str) -> str:
    return _said(faster(plan), f"{why}; the fewer query-key pairs of dense and paths, overheads counted")


@cache  # each backend with each reason once
def _said(backend: str, reason: str) -> str:
    logger.info("attention='auto' takes %s: %s", backend, reason)
    return backend
