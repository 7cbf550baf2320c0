"""From a model's outputs on a pack to one number a response."""

from jaxtyping import Float
from torch import Tensor, nn

from vlmpack.pack import Pack


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
