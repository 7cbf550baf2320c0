"""The most memory that a step holds at once: every block that torch hands out, counted one by one.

On a GPU torch's caching allocator keeps this count itself. On the CPU the profiler reports every block that torch's
allocator hands out and takes back, an operation's scratch space included; their running sum is exact, needs no second
run, and does not depend on what else the machine does. What a library takes past torch's allocator is not in it.
"""

import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch is imported: no chatter about devices not there

import torch
from torch.profiler import ProfilerActivity, profile

EVENT = "[memory]"


def peak_bytes(step: Callable[[], Any], device: torch.device | str = "cpu") -> int:
    """The most bytes that are live at once during a step, above what was live before it.

    The step runs once. Let it free nothing that was there before (clear gradients outside): on the CPU blocks from
    before are not known, so their end is not seen, while a GPU's count sinks. Run it once before, unmeasured, if it
    makes something only the first time.

    Args:
        step: takes nothing; what it returns is live to its end.
        device: "cpu" or a CUDA device.

    Raises:
        ValueError: memory of that kind of device cannot be counted.
    """
    device = torch.device(device)
    gc.collect()
    if device.type == "cuda":
        return _on_cuda(step, device)
    if device.type == "cpu":
        return highest(_blocks(step))
    raise ValueError(f"memory of a {device.type} device cannot be counted exactly; measure on the CPU or a CUDA device")


def highest(blocks: Iterable[tuple[int, int]]) -> int:
    """The highest sum of bytes live at once.

    Args:
        blocks: (address, bytes) in order of time: above 0 where a block is handed out, below where it is taken back.
            The end of a block whose beginning is not among them changes nothing.
    """
    live: dict[int, int] = {}
    total = most = 0
    for address, size in blocks:
        if size > 0:
            live[address] = size
            total += size
            most = max(most, total)
        else:
            total -= live.pop(address, 0)
    return most


def _on_cuda(step: Callable[[], Any], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    kept = step()
    torch.cuda.synchronize(device)
    most = torch.cuda.max_memory_allocated(device) - before
    del kept
    return most


def _blocks(step: Callable[[], Any]) -> list[tuple[int, int]]:
    """What torch's CPU allocator hands out and takes back during a step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = step()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = [each for each in json.loads(path.read_text())["traceEvents"] if each["name"] == EVENT]
    told = [(each["ts"], each["args"]) for each in events if each["args"]["Device Type"] == 0]
    return [(args["Addr"], args["Bytes"]) for _, args in sorted(told, key=lambda each: each[0])]
