"""What a training run held in memory, for the user."""

import torch
from accelerate.utils import gather_object
from torch import nn

from vlmpack.training.remembering import GIBIBYTE, known_features


def memory_note(model: nn.Module, device: torch.device) -> str:
    """The most that a GPU held, weights and optimizer included, and what is kept of images.

    transformers' own `skip_memory_metrics=False` measures what each phase adds; this is what has to fit. All ranks call
    it together.

    Args:
        model: may be wrapped.
        device: on which this rank trained.

    Returns:
        Lines for the user; empty on a CPU, whose memory torch does not count, if no features are kept.
    """
    lines = []
    if device.type == "cuda":
        peaks = gather_object([torch.cuda.max_memory_allocated(device)])
        lines.append(f"peak memory: {max(peaks) / GIBIBYTE:.1f} GiB on the fullest of {len(peaks)} GPUs")
    known = known_features(model)
    if known is not None:
        kept, room = known.store.bytes / GIBIBYTE, known.store.limit / GIBIBYTE
        lines.append(f"vision features: {len(known.store):,} images kept in {kept:.3g} of {room:.3g} GiB")
    return "\n".join(lines)
