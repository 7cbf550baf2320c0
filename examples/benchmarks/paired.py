"""Several ways of computing the same, measured side by side in one process: A B A B.

What else the machine does strikes all ways alike, so ratios are taken round by round and their median is told. Every
way must find the same loss before anything is timed. Beside the seconds stand what does not depend on the machine: the
floating-point operations of the step, counted by torch, and the most memory that it holds at once.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peak_memory import peak_bytes
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], float]


class WaysDifferError(ValueError):
    """Ways that should compute the same do not, so that their times cannot be compared."""


@dataclass(frozen=True)
class Measured:
    """One way of computing a step, measured beside others.

    Attributes:
        loss: what the step returned.
        flops: counted, forward and backward; attention counts whole squares, whatever its mask hides.
        attention: those of them in attention kernels.
        peak: bytes, the most that are live at once above what was live before; None if it was not asked for.
        seconds: of each round.
    """

    loss: float
    flops: float
    attention: float
    peak: int | None
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Against:
    """A way against a baseline: how many times less it does, and how many times less time it takes.

    Attributes:
        ideal: FLOPs of the baseline over its own.
        measured: time of the baseline over its own, the median over rounds.
        memory: peak of the baseline over its own; None if it was not asked for.
    """

    ideal: float
    measured: float
    memory: float | None

    @property
    def of_ideal(self) -> float:
        """The fraction of what the arithmetic allows that is reached."""
        return self.measured / self.ideal


def measure(
    ways: Mapping[str, Step],
    *,
    rounds: int,
    before: Callable[[], Any] = lambda: None,
    device: torch.device | str = "cpu",
    tolerance: float = 1e-3,
    peaks: bool = True,
    counted: Mapping[str, Step] | None = None,
    least: float = 0.0,
) -> dict[str, Measured]:
    """Run every way in turn, `rounds` times.

    Args:
        ways: steps by name; each computes and returns its loss. The first is the one that others are held against.
        rounds: how often each is timed.
        before: called before each step, outside its time: clears gradients and what a new batch would not find.
        device: where the steps run.
        tolerance: the most that losses may differ by, relative.
        peaks: whether to measure peak memory, which takes one more run of each.
        counted: steps to count FLOPs of in place of those timed, where torch cannot count a compiled kernel.
        least: seconds; a step that takes less is repeated until it has taken about so long, each time it is timed.

    Raises:
        WaysDifferError: the losses are not the same.
    """
    losses, flops, peak = {}, {}, {}
    for name, step in ways.items():  # also the warm-up: what is done once in a run is neither counted nor timed
        before()
        losses[name] = step()
    check_same(losses, tolerance)
    for name, step in (counted or ways).items():
        before()
        flops[name] = count(step)
    for name, step in ways.items():
        before()
        peak[name] = peak_bytes(step, device) if peaks else None
    seconds = alternate(ways, rounds=rounds, before=before, device=device, least=least)
    return {name: Measured(losses[name], *flops[name], peak[name], tuple(seconds[name])) for name in ways}


def check_same(losses: Mapping[str, float], tolerance: float) -> None:
    """Raise if a loss differs from the first."""
    first, expected = next(iter(losses.items()))
    for name, loss in losses.items():
        if not abs(loss - expected) <= tolerance * abs(expected):
            raise WaysDifferError(
                f"{name} computes {loss}, {first} {expected}: they differ by more than {tolerance:g}, so they are not "
                f"two ways of one step; give both the same rows, weights and loss"
            )


def count(step: Callable[[], Any]) -> tuple[float, float]:
    """FLOPs of a step, forward and backward, and those of them in attention kernels."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        step()
    by_operation = counter.get_flop_counts().get("Global", {})
    attention = sum(flops for operation, flops in by_operation.items() if is_attention(str(operation)))
    return float(sum(by_operation.values())), float(attention)


def _added_in_place(total: Any, left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of a matrix product that is added to what is there, by the shapes; torch does not count them."""
    return 2 * math.prod(left) * right[-1]


def _attended(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of SDPA's kernel for CPUs, whole squares, which torch's counter knows for GPUs; by the shapes."""
    batch, heads, queries, size = query
    return 2 * batch * heads * queries * key[2] * (size + value[3])


def _attended_backward(
    gradient: Any, query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
):
    """Five products, one of them for the scores that are computed again, as torch counts it on GPUs."""
    batch, heads, queries, size = query
    return 2 * batch * heads * queries * key[2] * (3 * size + 2 * value[3])


IN_PLACE = {
    torch.ops.aten.addmm_: _added_in_place,
    torch.ops.aten.baddbmm_: _added_in_place,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attended,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attended_backward,
}


def is_attention(operation: str) -> bool:
    """Whether an operation, by its name, is an attention kernel: SDPA's, FlashAttention's or FlexAttention's."""
    return "attention" in operation or "attn" in operation


def alternate(
    ways: Mapping[str, Step],
    *,
    rounds: int,
    before: Callable[[], Any] = lambda: None,
    device: torch.device | str = "cpu",
    least: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of every way in each round: A B C, A B C; as in `measure`."""
    times = {name: _times(step, device, least) for name, step in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, step in ways.items():
            before()
            seconds[name].append(timed(step, device, times[name]))
    return seconds


def _times(step: Callable[[], Any], device: torch.device | str, least: float) -> int:
    """How often a step is run to take about so long; once without a look where nothing is asked."""
    return max(1, round(least / timed(step, device))) if least else 1


def timed(step: Callable[[], Any], device: torch.device | str = "cpu", times: int = 1) -> float:
    """Seconds of one step, until the device has finished it.

    Args:
        step: run as often as `times` says, one after the other.
        device: that it runs on.
        times: the mean of so many.
    """
    _wait_for(device)
    start = time.perf_counter()
    for _ in range(times):
        step()
    _wait_for(device)
    return (time.perf_counter() - start) / times


def _wait_for(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def median_ratio(baseline: Sequence[float], own: Sequence[float]) -> float:
    """How many times faster than the baseline, round by round; the median over rounds."""
    return statistics.median(other / mine for other, mine in zip(baseline, own, strict=True))


def against(baseline: Measured, own: Measured) -> Against:
    """A way held against a baseline that was measured beside it."""
    memory = baseline.peak / own.peak if baseline.peak and own.peak else None
    return Against(baseline.flops / own.flops, median_ratio(baseline.seconds, own.seconds), memory)


def record(found: Mapping[str, Measured], baselines: Sequence[str]) -> dict[str, dict]:
    """What was measured, and how every way stands to some of them, for a JSON file.

    Args:
        found: from `measure`.
        baselines: names of those that all are held against; one that is not there is left out.
    """
    return {
        name: {
            "loss": each.loss,
            "FLOPs": each.flops,
            "FLOPs of attention": each.attention,
            "peak bytes": each.peak,
            "seconds": list(each.seconds),
            "against": {
                base: {
                    "ideal": (ratios := against(found[base], each)).ideal,
                    "measured": ratios.measured,
                    "of ideal": ratios.of_ideal,
                    "memory": ratios.memory,
                }
                for base in baselines
                if base in found
            },
        }
        for name, each in found.items()
    }
