"""From a model's outputs on a pack to one number, or one hidden state, a response."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmpack.pack import Pack

POOLINGS = ("last", "mean")


def response_logps(model: nn.Module, pack: Pack) -> Float[Tensor, " R"]:
    """Summed log-probability of every response given its prompt, from one forward pass of the pack.

    Only the positions that predict a response token go through the language-model head, and no [N, V] table of their
    logits is kept.

    Args:
        model: a causal language model or an image-text-to-text model, after `vlmpack.enable`.
        pack: on the model's device.

    Returns:
        [R] nats, in the pack's order of responses.

    Raises:
        AttentionError: the model was not enabled, or cannot be packed.
    """
    from vlmpack.head import target_logps  # transformers is imported when a model is run, not with vlmpack

    token_logps = target_logps(model, pack)
    tokens, responses = pack.terms.unbind(dim=1)
    return token_logps.new_zeros(len(pack.ends)).index_add(0, responses, token_logps[tokens])


def response_states(hidden: Float[Tensor, "T H"], pack: Pack, pooling: str) -> Float[Tensor, "R H"]:
    """One hidden state a response: that of its last token, or the mean over its own tokens.

    A token that siblings share, or that one of them continues, counts for each whose path it lies on.

    Args:
        hidden: [T, H] the last hidden state of every token of the pack.
        pack: on the same device.
        pooling: "last" or "mean".
    """
    if pooling == "last":
        return hidden[pack.ends]
    tokens, responses = pack.terms.unbind(dim=1)
    own = hidden[pack.targets[tokens]]
    own = own.to(torch.promote_types(own.dtype, torch.float32))  # a sum over thousands of tokens needs the digits
    sums = own.new_zeros(len(pack.ends), own.shape[1]).index_add(0, responses, own)
    return sums / pack.response_lengths[:, None]
