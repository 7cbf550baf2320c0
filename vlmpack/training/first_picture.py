"""One pack's picture beside the training's curves: a mask that has been seen before hours are spent on it."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from vlmpack.pack import Pack
from vlmpack.training.fillers import NOBODY
from vlmpack.training.task import Task

NAME, STEP = "train/packing/first_pack", 1  # where the first step's loss stands too
LARGEST = 32_768  # tokens of a pack up to which its picture is drawn


def show_first_pack(tasks: Sequence[Task], callbacks: Sequence[TrainerCallback], processor: Any) -> str:
    """Draw the first pack of a step, and hand it to TensorBoard and W&B, if they are among the callbacks.

    A training goes on without its picture: whatever goes wrong is told, not raised.

    Args:
        tasks: of the step, not moved to a device yet; fillers and what is computed unpacked are passed over.
        callbacks: the trainer's.
        processor: reads tokens and pixels back; None: tokens are shown as numbers.

    Returns:
        What the user should know; empty if there is nothing to tell.
    """
    boards = [board for each in callbacks if (board := _board(each))]
    packs = [t.unit for t in tasks if isinstance(t.unit, Pack) and any(place != NOBODY for place in t.places)]
    if not (boards and packs):
        return ""
    if packs[0].tokens > LARGEST:
        return f"the first pack is not drawn for the logs: it has {packs[0].tokens:,} tokens, more than {LARGEST:,}"
    try:
        from vlmpack.inspect import draw  # matplotlib, which trains nothing

        picture = _pixels(draw(packs[0], processor=processor))
    except Exception as error:  # a picture is not worth a training
        return _told(error)
    return "\n".join(filter(None, (_handed(board, picture) for board in boards)))


def _pixels(figure: Any) -> UInt8[np.ndarray, "height width 3"]:
    """A figure as loggers take it: W&B knows only figures that pyplot made, and no subclass of them."""
    from PIL import Image  # which matplotlib needs, too

    png = BytesIO()
    figure.savefig(png, format="png")
    return np.asarray(Image.open(png).convert("RGB"))


def _handed(board: Callable[[np.ndarray], None], picture: np.ndarray) -> str:
    try:
        board(picture)
    except Exception as error:  # nor is a logger that takes none
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    return (
        f"the picture of the first pack is left out of the logs, and training goes on "
        f"(log_first_pack=False asks for none): {type(error).__name__}: {error}"
    )


def _board(callback: TrainerCallback) -> Callable[[np.ndarray], None] | None:
    """What shows a picture where a callback logs; None if it does not log, or to something that shows none."""
    if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
        return lambda picture: _to_tensorboard(callback.tb_writer, picture)
    return _to_wandb if isinstance(callback, WandbCallback) else None


def _to_tensorboard(writer: Any, picture: np.ndarray) -> None:
    writer.add_image(NAME, picture, STEP, dataformats="HWC")
    writer.flush()


def _to_wandb(picture: np.ndarray) -> None:
    import wandb  # which has been set up by the time that a training runs

    wandb.log({NAME: wandb.Image(picture), "train/global_step": STEP})
