"""From a model's outputs on a pack to one number a response."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vlmpack.pack import Pack


def response_logps(model: nn.Module, pack: Pack) -> Float[Tensor, " R"]:
    """Summed log-probability of every response given its prompt, from one forward pass of the pack.

    Only the positions that predict a response token go through the language-model head.

    Args:
        model: a causal language model or an image-text-to-text model, after `vlmpack.enable`.
        pack: on the model's device.

    Returns:
        [R] nats, in the pack's order of responses.

    Raises:
        AttentionError: the model was not enabled, or cannot be packed.
    """
    from vlmpack.model import run  # transformers is imported when a model is run, not with vlmpack

    predictors, place = pack.previous[0, pack.targets].unique(return_inverse=True)
    logits = run(model, pack, logits_to_keep=predictors).logits[0]
    token_logps = pick(logits, place, pack.input_ids[0, pack.targets])
    return token_logps.new_zeros(len(pack.ends)).index_add(0, pack.target_of, token_logps)


def pick(logits: Float[Tensor, "M V"], rows: Int[Tensor, " N"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of each token under the logits in its row; in float32 or better."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits[rows, tokens] - logits.logsumexp(dim=-1)[rows]
