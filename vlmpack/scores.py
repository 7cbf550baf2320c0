"""From a model's outputs on a pack to one number a response."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
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

    # A token that several tokens continue stands here once each: a few rows more for the head, and no [N, V] gather.
    predictors = pack.previous[0, pack.targets]
    logits = run(model, pack, logits_to_keep=predictors).logits[0]
    if len(logits) == pack.tokens != len(predictors):
        logits = logits[predictors]  # a model that does not know logits_to_keep
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    token_logps = -F.cross_entropy(logits, pack.input_ids[0, pack.targets], reduction="none")
    tokens, responses = pack.terms.unbind(dim=1)
    return token_logps.new_zeros(len(pack.ends)).index_add(0, responses, token_logps[tokens])
