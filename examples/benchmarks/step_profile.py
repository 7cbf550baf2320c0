"""Where the time of an optimizer step goes: how much of it is spent outside the model.

    python examples/benchmarks/step_profile.py --dataset preferences.jsonl --workers 1

A few DPO steps run as in training: rows are read, decoded and packed by the workers, and each part of a step is timed,
without the parts inside it. Inside the model are forward, backward and the optimizer; outside are waiting for the next
batch, copying it to the device, planning its attention, and all the rest of the trainer. On a GPU, each part waits for
the device, so that what it started counts as its own.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import inputs
import report
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed

import vlmpack.model
from vlmpack import DPOConfig, DPOTrainer
from vlmpack.plan import Plan
from vlmpack.training.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"
WAITING, COPYING, PLANNING, REST = "waiting for the batch", "copying to the device", "planning", "all the rest"
INSIDE = (FORWARD, BACKWARD, OPTIMIZER)
PARTS = (*INSIDE, WAITING, COPYING, PLANNING, REST)
COLOURS = (*report.COLOURS, "#56b4e9", "#999999")
WARM_UP = 2  # steps that are not counted


class Stopwatch:
    """Seconds spent in each part, without the parts that it calls."""

    def __init__(self, part: str) -> None:
        self.seconds: dict[str, float] = {}
        self._open, self._since = [part], time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """While inside, the clock runs for this part and for no other."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def restart(self) -> None:
        """Forget all that was measured."""
        self._switch()
        self.seconds.clear()

    def stop(self) -> dict[str, float]:
        """Seconds of each part so far."""
        self._switch()
        return dict(self.seconds)

    def _switch(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


def timed(owner: type | object, name: str, part: str, stopwatch: Stopwatch) -> patch:
    """A function's calls counted as a part, for a while."""
    function = getattr(owner, name)

    def counted(*arguments, **options):
        with stopwatch.part(part):
            return function(*arguments, **options)

    return patch.object(owner, name, counted)


class AfterWarmUp(TrainerCallback):
    """Starts the clock when the first steps are over, and stops it with the last."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch, self.seconds = stopwatch, {}

    def on_step_end(self, args, state, control, **_) -> None:
        """After each step."""
        if state.global_step == WARM_UP:
            self.stopwatch.restart()
        elif state.global_step == state.max_steps:
            self.seconds = self.stopwatch.stop()


def profiled(trainer: DPOTrainer, train: Callable[[], object]) -> dict[str, float]:
    """Seconds of each part over all steps but the first ones."""
    stopwatch = Stopwatch(REST)
    after = AfterWarmUp(stopwatch)
    trainer.add_callback(after)
    trainer.create_optimizer()
    models = {type(model) for model in (trainer.model, trainer.ref_model) if isinstance(model, PreTrainedModel)}
    places = [
        *((model, "forward", FORWARD) for model in models),
        (type(trainer.accelerator), "backward", BACKWARD),
        (type(trainer.optimizer), "step", OPTIMIZER),
        (type(trainer.accelerator), "clip_grad_norm_", OPTIMIZER),
        (Trainer, "get_batch_samples", WAITING),
        (Task, "to", COPYING),
        (vlmpack.model, "make", PLANNING),
        (vlmpack.model, "settled", PLANNING),
        (Plan, "once", PLANNING),  # masks and what else the first layer asks of a plan
        (vlmpack.model, "position_ids", PLANNING),
    ]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(timed(owner, name, part, stopwatch))
        train()
    return after.seconds


def table(seconds: dict[str, float], steps: int, note: str) -> str:
    """The result as Markdown."""
    whole, outside = sum(seconds.values()), sum(value for part, value in seconds.items() if part not in INSIDE)
    lines = [
        note,
        "",
        f"Outside the model: {outside / whole:.1%} of a step of {1000 * whole / steps:,.0f} ms.",
        "",
        "| part of a step | ms | share |",
        "|---|---:|---:|",
    ]
    for part in PARTS:
        spent = seconds.get(part, 0.0)
        lines.append(f"| {part} | {1000 * spent / steps:,.1f} | {spent / whole:.2%} |")
    return "\n".join(lines)


def picture(seconds: dict[str, float], steps: int) -> "Figure":
    """A bar for the whole step, and one for what is outside the model alone, which would not be seen in the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, parts, title in zip(
        figure.subplots(2, 1), (PARTS, PARTS[len(INSIDE) :]), ("a step", "of it, outside the model"), strict=True
    ):
        left = 0.0
        for part in parts:
            width = 1000 * seconds.get(part, 0.0) / steps
            axes.barh(0, width, left=left, color=COLOURS[PARTS.index(part)], label=f"{part}: {width:,.1f} ms")
            left += width
        axes.set(yticks=[], title=title, xlabel="ms")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure, print and write the table; returns the seconds of each part."""
    parser = inputs.flags(__doc__, "outputs/step_profile", learning_rate=1e-4, epochs=1)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(max_steps=12, batch_size=8, workers=1)
    args = parser.parse_args(arguments)
    set_seed(args.seed)
    train, _ = inputs.rows(args)
    model, processor = inputs.model_and_processor(args, train)
    settings = inputs.training_arguments(args, from_scratch=1e-4)
    trainer = DPOTrainer(
        model, DPOConfig(**settings, disable_tqdm=True), train_dataset=train, processing_class=processor
    )
    steps = args.max_steps - WARM_UP
    print(f"measuring {steps} steps of {args.batch_size} rows after {WARM_UP} to warm up")
    seconds = profiled(trainer, trainer.train)
    device = trainer.args.device
    settings = {"rows": args.batch_size, "steps": steps, "workers": args.workers, "max_tokens": args.max_tokens}
    note = report.in_words(report.conditions(device) | settings)
    text, result = table(seconds, steps, f"A DPO step; {note}."), {"note": note, "steps": steps, "seconds": seconds}
    print(text)
    name = "gpu" if device.type == "cuda" else "cpu"
    print(f"result: {report.write(args.output_dir, name, result, text, lambda: picture(seconds, steps))}")
    return seconds


if __name__ == "__main__":
    inputs.run(main)
