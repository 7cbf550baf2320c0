"""Where packed and unpacked first part: the embeddings, the positions, a layer, or the prediction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlmpack import scores, unpacked
from vlmpack.head import logit_map_of
from vlmpack.pack import Pack
from vlmpack.proof.trace import Trace, path_of, traced
from vlmpack.sample import Sample

NOISE = 1e-9


@torch.no_grad()
def diagnosis(model: nn.Module, samples: Sequence[Sample], pack: Pack) -> str:
    """Say in one line where a model's packed computation first differs from the unpacked one, and what that means.

    Args:
        model: enabled.
        samples: what was packed.
        pack: the samples in one pack.
    """
    decoder = model.get_decoder()
    logit_map_of(model)  # lets a few tokens through once, which are not to be traced
    with traced(decoder) as alone:
        unpacked.response_logps(model, samples)
    with traced(decoder) as packed:
        scores.response_logps(model, pack)
    if len(packed) != 1 or len(alone) != pack.responses:
        return "where it first differs is not known: the layers of this decoder cannot be watched"
    found = [
        (*part, response)
        for response in range(pack.responses)
        if (part := _first(packed[0], alone[response], path_of(pack, response))) is not None
    ]
    if not found:
        return (
            "first difference: after the last layer. All hidden states are equal, so a response's tokens are predicted "
            "from the wrong ones (a plain shift takes the token before in the pack, not on the path)"
        )
    stage, token, response = min(found)
    path = path_of(pack, response)
    where = f"token {token} of {len(path)} of response {response} (token {int(path[token])} of the pack)"
    return f"first difference: {_meaning(decoder, stage, pack, int(path[token]))}, at {where}"


def _first(packed: Trace, alone: Trace, path: Tensor) -> tuple[int, int] | None:
    """The first stage and token that differ: -2 embeddings, -1 positions, 0 and on the layers."""
    stages = list(zip(packed.states, alone.states, strict=True))
    if packed.angles is not None and alone.angles is not None:
        stages.insert(1, (packed.angles, alone.angles))
    shift = -2 if len(stages) > len(packed.states) else -1
    for place, (one, other) in enumerate(stages):
        differs = (one[path] - other).norm(dim=1) > NOISE * other.norm(dim=1).mean()
        if differs.any():
            stage = -2 if place == 0 else place + shift
            return stage, int(differs.nonzero()[0])
    return None


def _meaning(decoder: nn.Module, stage: int, pack: Pack, token: int) -> str:
    """What it means that the stage is the first that differs."""
    if stage == -2 and pack.image_of[0, token] >= 0:
        return "the embeddings of image tokens, so image features stand in the wrong place or order"
    if stage == -2:
        return "the embeddings of text, so something but the token itself goes into them, such as its place"
    if stage == -1:
        rows = getattr(decoder.config, "rope_parameters", None) or {}
        kind = "M-RoPE positions" if "mrope_section" in rows else "positions"
        return f"the rotary {kind}: they are not those of the response on its own"
    kinds = getattr(decoder.config, "layer_types", None)
    kind = kinds[stage] if kinds else "attention"
    window = getattr(decoder.config, "sliding_window", None) if kind != "full_attention" else None
    said = f"{kind}, window of {window}" if window else kind
    return f"layer {stage} ({said}), so its tokens do not see what they see in the response on its own"
