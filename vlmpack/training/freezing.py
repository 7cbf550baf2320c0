"""Parts of a model that are not trained: vision tower, projector, language model."""

from collections.abc import Iterable

from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmpack.model import unwrapped
from vlmpack.training.config import ConfigError
from vlmpack.vision import feature_maker

TOWERS = ("tower", "vision_model")  # how the names of towers end that stand beside the first one
INNER_PROJECTORS = ("merger", "connector")  # what names hold of projectors that stand inside a tower


def freeze(model: nn.Module, *, vision_tower: bool, multi_modal_projector: bool, language_model: bool) -> str:
    """Take parts of a model out of training; a reward model's head, which belongs to none of them, is always trained.

    Args:
        model: changed in place. Adapters inside a part are frozen with it.
        vision_tower: see `parts_of` for what belongs to each.
        multi_modal_projector: likewise.
        language_model: likewise.

    Returns:
        What is frozen, and how much remains trainable, for the user; empty if nothing was asked for.

    Raises:
        ConfigError: the model has no such part, or nothing would be left to train.
    """
    asked = {
        "vision_tower": vision_tower,
        "multi_modal_projector": multi_modal_projector,
        "language_model": language_model,
    }
    chosen = [part for part, wanted in asked.items() if wanted]
    if not chosen:
        return ""
    parts = parts_of(model)
    for part in chosen:
        _refuse_missing(model, part, parts)
        for parameter in parts[part].values():
            parameter.requires_grad_(False)
    said = ", ".join(f"{part} ({_count(parts[part].values()):,} parameters)" for part in chosen)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ConfigError(f"freezing {said} leaves nothing of {_name(model)} to train; freeze less")
    return f"frozen: {said}; {_count(trainable):,} parameters remain trainable"


def parts_of(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """A model's parameters by part, found by transformers' own ways, so that they have these names in any family.

    vision_tower: what reads images. multi_modal_projector: all else that makes image features, as a connector, a
    resampler or a line break between tiles; a merger inside the tower (Qwen-VL) is one too, as in LLaMA-Factory.
    language_model: the decoder with its embeddings and its head.

    Args:
        model: may be wrapped.

    Returns:
        For each part that the model has, its parameters by the names that `model` gives them.
    """
    base = unwrapped(model)
    decoder, head, maker = base.get_decoder(), base.get_output_embeddings(), feature_maker(base)
    language = _inside(decoder) | (_inside(head) if head is not None else set())
    towers = _towers(base)
    merged = {p for tower in towers for name, each in tower.named_children() if _projects(name) for p in _inside(each)}
    vision = {p for tower in towers for p in _inside(tower)} - merged
    makes = _inside(maker) if maker is not None else set()
    members = {
        "vision_tower": vision,
        "multi_modal_projector": makes - vision - language,
        "language_model": language,
    }
    return {
        part: {name: p for name, p in model.named_parameters() if p in held} for part, held in members.items() if held
    }


def spare_frozen_tower(model: nn.Module) -> None:
    """Let a vision tower in which nothing is trained keep no activations under gradient checkpointing either.

    transformers then makes the output of every input embedding need a gradient, a tower's patches included, for
    reentrant checkpoints need one. A tower without trained weights would be kept, recomputed and differentiated in
    vain. Embeddings that are asked already have their output detached; others are no longer found. Where a tower is
    trained after all, what an earlier call did is undone.

    Args:
        model: may be wrapped; changed in place if it has such a tower.
    """
    trained = parts_of(model).get("vision_tower", {}).values()
    change = _ask_again if any(parameter.requires_grad for parameter in trained) else _spare
    for tower in _towers(unwrapped(model)):
        for module in tower.modules():
            if isinstance(module, PreTrainedModel):
                change(module)


def _spare(module: PreTrainedModel) -> None:
    if hasattr(module, "vlmpack_spared"):
        return
    try:
        embeddings = module.get_input_embeddings()
    except NotImplementedError:
        return  # transformers finds none either
    hooked = isinstance(embeddings, nn.Module)
    module.vlmpack_spared = embeddings.register_forward_hook(_detached) if hooked else None
    module.get_input_embeddings = _none


def _ask_again(module: PreTrainedModel) -> None:
    """Undo `_spare`: gradients flow from the embeddings as before."""
    if not hasattr(module, "vlmpack_spared"):
        return
    if module.vlmpack_spared is not None:
        module.vlmpack_spared.remove()
    del module.vlmpack_spared, module.get_input_embeddings


def _detached(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
    return output.detach()


def _none() -> None:
    """What a tower says of its input embeddings; no method of it, so that a copied model calls nothing of the first."""


def _towers(base: nn.Module) -> list[nn.Module]:
    """The modules that read images, and other towers beside them; none in a text model."""
    maker, first, decoder = feature_maker(base), base.get_encoder("image"), base.get_decoder()
    if maker is None or first is None:
        return []
    found = [first, *(each for name, each in maker.named_children() if name.endswith(TOWERS))]
    found = list(dict.fromkeys(found))
    return [tower for tower in found if decoder not in tower.modules()]  # transformers may answer with the model itself


def _projects(name: str) -> bool:
    return any(word in name for word in INNER_PROJECTORS)


def _inside(module: nn.Module) -> set[nn.Parameter]:
    return set(module.parameters())  # parameters are hashed by identity


def _refuse_missing(model: nn.Module, part: str, parts: dict) -> None:
    if part not in parts:
        raise ConfigError(
            f"freeze_{part}=True, but {_name(model)} has no {part}; its parts are: {', '.join(parts)}. Leave it out"
        )


def _name(model: nn.Module) -> str:
    base = unwrapped(model)
    return f"{type(base).__name__} ({base.config.model_type})"


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
