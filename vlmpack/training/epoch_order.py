"""An order of rows is another in every epoch; somebody must tell it which one begins."""

from typing import Any

from transformers import TrainerCallback, TrainerState

from vlmpack.ordering import Order


class EpochOrder(TrainerCallback):
    """Tells the order which epoch begins: `Trainer` tells a DataLoader with batches of its own nothing."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **others: Any) -> None:
        """Before the epoch's first batch is drawn, after a resume too."""
        self.order.set_epoch(int(state.epoch))
