"""The model's own head, made to give log-probabilities of given tokens in place of logits."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmpack.liger import check_liger, liger_logps
from vlmpack.logit_map import LogitMap
from vlmpack.model import few_tokens, run, unwrapped
from vlmpack.pack import Pack
from vlmpack.token_logps import CHUNK_LOGITS, token_logps

log = logging.getLogger("vlmpack")

# Powers of two, so that a scale is found to the last bit; the largest shows a cap.
_PROBE = [2.0**power * sign for power in (0, 2, 4, 6, 40) for sign in (1, -1)]

# A cap so far away that nothing comes near it: what is divided by it is its own tanh, to the last bit.
_NO_CAP = 2.0**80


def target_logps(model: nn.Module, pack: Pack) -> Float[Tensor, " N"]:
    """Log-probability of each of a pack's targets, in one pass, without a table of logits.

    The model's forward is called as ever; while it runs, its head reads only the positions that predict a target and
    returns one number each. It does so inside its own call, so whatever gathers sharded weights around that works. A
    model whose logits are changed after the head in a way that is not known gives all its logits instead, and so does
    one that is compiled.

    Args:
        model: enabled; may be wrapped.
        pack: on the model's device.

    Returns:
        [N] nats, in the order of `Pack.targets`.
    """
    base = unwrapped(model)
    # A token that several tokens continue stands here once each: a few rows more for the head, and no [N, V] gather.
    positions, tokens = pack.previous[0, pack.targets], pack.input_ids[0, pack.targets]
    logit_map = logit_map_of(model)
    if logit_map is None or hasattr(model, "_orig_mod"):  # a compiled model would compile anew for another head
        return _of_own_logits(model, pack, positions, tokens)

    def read(hidden: Tensor) -> Tensor:
        chosen = _chosen(hidden, positions, pack.tokens)
        project = liger_logps if getattr(base, "vlmpack_liger", False) else token_logps
        return _read(base, ordinary, chosen, tokens, logit_map, project)

    with _head_gives(base, lambda hidden: (read(hidden) / logit_map.scale)[None, :, None]) as ordinary:
        outputs = run(model, pack, logits_to_keep=positions)
    return outputs.logits[0, :, 0]  # its scale undid the division


def use_liger(model: nn.Module) -> None:
    """Let a model's head run on Liger's kernels, which need a GPU.

    Args:
        model: may be wrapped.

    Raises:
        LigerError: liger-kernel is not installed or too old, or there is no GPU.
    """
    check_liger()
    unwrapped(model).vlmpack_liger = True


def logit_map_of(model: nn.Module) -> LogitMap | None:
    """What a model does to its logits after the head, found out once by letting three tokens through.

    Args:
        model: enabled; as wrapped as it will be called, for the wrapper may be what brings its weights together.

    Returns:
        None if it is neither a scale nor a scale and a cap; that is logged.
    """
    base = unwrapped(model)
    if not hasattr(base, "vlmpack_logit_map"):
        base.vlmpack_logit_map = _measured(model, base)
        if base.vlmpack_logit_map is None:
            log.warning(
                "%s changes its logits after the head in a way that is not known; all logits of a pack's responses "
                "are kept for the backward pass",
                type(base).__name__,
            )
    return base.vlmpack_logit_map


def _measured(model: nn.Module, base: nn.Module) -> LogitMap | None:
    """The map that gives what the model returns for known logits of its whole vocabulary, uncapped and capped."""
    pack, words = few_tokens(base), _words(base)
    device = pack.input_ids.device
    probe = torch.tensor(_PROBE, dtype=torch.float64, device=device).repeat(-(-words // len(_PROBE)))[:words]

    def give(hidden: Tensor) -> Tensor:
        return probe.expand(1, hidden.shape[1], -1).clone()

    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        with _head_gives(base, give):
            scaled = run(model, pack).logits[0, -1].double()
        with _head_gives(base, give, capped=True):
            returned = run(model, pack).logits[0, -1].double()
    caps = {None} if torch.equal(scaled, returned) else {_cap(config) for config in _configs(base)} - {None}
    found = [LogitMap((scaled[0] / probe[0]).item(), cap) for cap in caps]
    right = [each for each in found if torch.allclose(each(probe), returned)]
    return right[0] if right and torch.allclose(LogitMap(right[0].scale)(probe), scaled) else None


@contextmanager
def _head_gives(base: nn.Module, forward: Callable[[Tensor], Tensor], capped: bool = False) -> Iterator[Callable]:
    """While inside, the head's forward is another one, and the model caps nothing unless `capped`.

    Yields:
        The head's own forward.
    """
    head = base.get_output_embeddings()
    ordinary, own = head.forward, vars(head).get("forward")  # something else may have put its own in place
    configs = [(config, cap) for config in _configs(base) if not capped and (cap := _cap(config)) is not None]
    for config, _ in configs:
        config.final_logit_softcapping = _NO_CAP
    head.forward = forward
    try:
        yield ordinary
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own
        for config, cap in configs:
            config.final_logit_softcapping = cap


def _words(base: nn.Module) -> int:
    head = base.get_output_embeddings()
    return getattr(head, "out_features", None) or base.config.get_text_config().vocab_size


def _configs(base: nn.Module) -> list[Any]:
    """The configurations in which a model's parts look for their settings, each once."""
    return list({id(config): config for config in (base.config, base.config.get_text_config())}.values())


def _cap(config: Any) -> float | None:
    return getattr(config, "final_logit_softcapping", None)


def _chosen(hidden: Float[Tensor, "1 M H"], positions: Int[Tensor, " N"], tokens: int) -> Float[Tensor, "N H"]:
    """What the head reads at the given positions; some models hand it all tokens, for they know no logits_to_keep."""
    return hidden[0, positions] if hidden.shape[1] == tokens != len(positions) else hidden[0]


def _read(
    base: nn.Module, forward: Callable, hidden: Tensor, tokens: Tensor, logit_map: LogitMap, project: Callable
) -> Tensor:
    """Log-probabilities of tokens by a head's own forward; where that is a plain product, with none of its tables."""
    head = base.get_output_embeddings()
    if type(head).forward is nn.Linear.forward and getattr(forward, "__func__", None) is nn.Linear.forward:
        return project(hidden, head.weight, head.bias, tokens, logit_map)

    def some(hidden: Tensor, tokens: Tensor) -> Tensor:
        return _logps(logit_map(forward(hidden)), tokens)

    rows = max(128, CHUNK_LOGITS // _words(base))
    parts = zip(hidden.split(rows), tokens.split(rows), strict=True)
    return torch.cat([checkpoint(some, *part, use_reentrant=False) for part in parts])


def _of_own_logits(model: nn.Module, pack: Pack, positions: Tensor, tokens: Tensor) -> Float[Tensor, " N"]:
    logits = run(model, pack, logits_to_keep=positions).logits
    return _logps(_chosen(logits, positions, pack.tokens), tokens)


def _logps(logits: Float[Tensor, "N V"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -nn.functional.cross_entropy(logits, tokens, reduction="none")
