"""How fast a training goes, and what packing saves of it, measured while it runs."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerState

from vlmpack.training.task import Task
from vlmpack.training.work import Work, work_of

SECOND = 1_000_000_000  # nanoseconds


class Throughput(TrainerCallback):
    """Counts a training's work and its time since the last log; no device is waited for before a log is made.

    The clock runs from the first epoch's beginning, between the logs, over everything that training takes: waiting
    for rows, steps, and logging itself. It stands still inside `paused()`, in which the trainer evaluates, saves and
    draws; what callbacks do on their own account after these, uploads for one, counts.

    Args:
        clock: nanoseconds since whenever.

    Attributes:
        tokens: computed by all ranks up to the last log, before a resume too.
    """

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.clock = clock
        self.tokens = 0
        self._begin_anew()
        self._since: int | None = None  # when the clock was set going; None: it stands still

    def _begin_anew(self) -> None:
        self._work, self._steps, self._elapsed = Work(), 0, 0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **others: Any) -> None:
        """A training begins, or goes on from a checkpoint; its first epoch is yet to begin."""
        self._begin_anew()
        self._since, self.tokens = None, state.num_input_tokens_seen

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **others: Any) -> None:
        """Set the clock going: by now a reference has been asked, and an evaluation at the start is over."""
        if self._since is None:
            self._since = self.clock()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While inside, the clock stands still; it may be inside already."""
        if self._since is None:
            yield
            return
        self._elapsed += self.clock() - self._since
        self._since = None
        try:
            yield
        finally:
            self._since = self.clock()

    def add(self, tasks: Iterable[Task]) -> None:
        """Count what this rank computes in one optimizer step, before any of it is on a device."""
        self._steps += 1
        self._work = sum(map(work_of, tasks), self._work)

    def tokens_so_far(self, reduce: Callable[[list[int]], list[int]]) -> int:
        """Tokens computed by all ranks since the training began; all ranks ask together.

        Args:
            reduce: sums each number over all ranks.
        """
        return self.tokens + reduce([self._work.tokens])[0]

    def metrics(self, reduce: Callable[[list[int]], list[int]]) -> dict[str, int | float]:
        """What is logged of the steps since the last log, by name; then count anew. All ranks ask together.

        Args:
            reduce: sums each number over all ranks.

        Returns:
            numbers as `docs/training.md` names them; none if there was no step.
        """
        if not self._steps:
            return {}
        now = self.clock()
        self._elapsed += now - self._since if self._since is not None else 0
        *counts, elapsed, ranks = reduce([*self._work.counts, self._elapsed, 1])
        work, steps, seconds = Work(*counts), self._steps, max(1, elapsed) / ranks / SECOND
        self.tokens += work.tokens
        self._begin_anew()
        self._since = None if self._since is None else now
        return {
            "num_tokens": self.tokens,
            "packing/tokens_per_second": work.tokens / seconds,
            "packing/unpacked_tokens_per_second": work.unpacked_tokens / seconds,
            "packing/tokens_saved": work.saved,
            "packing/packs_per_step": work.packs / steps,
            "packing/vision_passes_per_step": work.vision_passes / steps,
            "packing/unpacked_vision_passes_per_step": work.unpacked_vision_passes / steps,
        }
