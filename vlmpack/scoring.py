"""The rewards of very many rows, a window at a time, in their order."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vlmpack.at_rest import at_rest
from vlmpack.candidates import Preparation, Window, windows
from vlmpack.model import unwrapped
from vlmpack.sample import Sample
from vlmpack.scored import Scored
from vlmpack.support import longest_path


def scored(
    model: nn.Module,
    rows: Iterable[Any],
    read: Callable[[Any], Sample] | None,
    *,
    max_tokens: int = 8192,
    max_length: int | None = None,
) -> Iterator[Scored]:
    """Score rows as they come; each row's prompt and images are encoded once, whatever the number of its responses.

    Args:
        model: a `RewardModel`, or PEFT's model around one; on the device that computes.
        rows: samples, or whatever `read` reads.
        read: a row to a `Sample`. None: rows are samples.
        max_tokens: of a pack, as many as fit into memory; it changes no reward.
        max_length: tokens of prompt + response; response tails are cut. None: nothing is.

    Returns:
        One for each row, in the rows' order; rewards are the model's own, not normalised.
    """
    prepare = Preparation(read, max_tokens, max_length, longest_path(unwrapped(model)))
    for window in windows(rows):
        yield from judged(model, prepare(window))


def judged(model: nn.Module, window: Window) -> tuple[Scored, ...]:
    """Score the rows of a window. Nothing is kept for a backward pass, and nothing is random.

    Args:
        model: as for `scored`.
        window: from `Preparation`.
    """
    device = next(model.parameters()).device
    with at_rest(model), torch.inference_mode():
        found = [model(each.to(device)).double() for each in window.packs]
        values = torch.cat(found).tolist() if found else []  # the device is waited for once a window
    rewards: list[dict[int, float]] = [{} for _ in window.rows]
    for (row, response), value in zip((owner for each in window.owners for owner in each), values, strict=True):
        rewards[row][response] = value
    return tuple(_with_rewards(row, found) for row, found in zip(window.rows, rewards, strict=True))


def _with_rewards(row: Scored, found: dict[int, float]) -> Scored:
    if row.error:
        return row
    rewards = tuple(found[response] for response in range(len(row.lengths)))
    wrong = [response for response, value in enumerate(rewards) if not math.isfinite(value)]
    if wrong:
        return replace(row, error=f"the reward of response {wrong[0]} is {rewards[wrong[0]]}; look at the weights")
    return replace(row, rewards=rewards)
