"""Is packing exact on this model? Packed against unpacked, on a small model of the same architecture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlmpack import scores, unpacked
from vlmpack.dropout import disable_dropout
from vlmpack.families import model_config
from vlmpack.model import enable
from vlmpack.packing import pack
from vlmpack.plan import AttentionError
from vlmpack.proof import trial
from vlmpack.proof.difference import diagnosis
from vlmpack.proof.double import Doubled
from vlmpack.proof.made_up import MadeUpError
from vlmpack.proof.miniature import MiniatureError, build, miniature
from vlmpack.sample import Sample
from vlmpack.support import UnsupportedModelError

TOLERANCE = 1e-9  # relative; float64 rounds at 1e-16, and a mistake is far larger
BACKENDS = ("dense", "paths")


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        model: class and model type, e.g. "LlavaForConditionalGeneration (llava)".
        outcome: "exact", "different" (packed is not unpacked), "refused" (the model says itself why it cannot be
            packed) or "not run" (it could not be built or called).
        difference: the largest relative difference of a log-probability or of a gradient tensor; None if not run.
        reason: what is wrong, and where it is first seen; empty if exact.
        about: what was compared, for the reader.
    """

    model: str
    outcome: str
    difference: float | None = None
    reason: str = ""
    about: str = ""

    @property
    def exact(self) -> bool:
        """Whether the model can be packed."""
        return self.outcome == "exact"

    def __str__(self) -> str:
        if self.exact:
            return f"{self.model}: {self.about}\nexact (max relative difference {self.difference:.0e})"
        about = f" {self.about}" if self.about else ""
        return f"{self.model}:{about}\n{self.outcome}: {self.reason}"


def verify(model: str | Path | PretrainedConfig, full: bool = False, seed: int = 0) -> Report:
    """Hold the packed computation of a model against the unpacked one: values, gradients, siblings, images.

    It knows nothing of the family: made-up rows run through a small model with random weights, in float64 and as in
    training. So it also finds what nobody has met, such as layers that carry information past the attention mask.

    Args:
        model: a hub id, a folder, a configuration, or its file. No code that comes with it is run.
        full: take the real weights, all layers of them, instead of a miniature of the architecture.
        seed: of weights and rows.

    Returns:
        What was found; never raises for a model that cannot be packed.
    """
    name = str(model) if isinstance(model, str | Path) else f"{type(model).__name__} ({model.model_type})"
    own = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(own):  # a training run that asks first draws the same numbers afterwards
        try:
            config = model if isinstance(model, PretrainedConfig) else _config(model)
            if getattr(config, "is_encoder_decoder", False):
                return Report(name, "refused", reason="it is an encoder-decoder: responses are read by another stack")
            built = _built(config, model if full else None, seed)
        except Exception as error:  # of any kind: a file, the hub, or a class that wants another configuration
            return Report(name, "not run", reason=f"the model could not be built: {_short(error)}")
        return _judged(f"{type(built).__name__} ({built.config.model_type})", built, seed)


def _judged(name: str, model: nn.Module, seed: int) -> Report:
    """Both ways of computing, with every backend."""
    disable_dropout(model)
    model.train()  # as trainers do; some layers compute otherwise then
    with Doubled():
        try:
            samples = trial.samples(model, seed)
            expected = _computed(model, unpacked.response_logps(model, samples))
            about = _about(model, samples)
        except MadeUpError as error:
            return Report(name, "not run", reason=str(error))
        except Exception as error:  # whatever the model's own code raises
            return Report(name, "not run", reason=f"it fails on made-up rows by itself: {_short(error)}")
        try:
            return _compared(name, model, samples, expected, about)
        except (UnsupportedModelError, AttentionError) as error:
            return Report(name, "refused", reason=str(error))
        except Exception as error:
            return Report(name, "refused", reason=f"it fails on a pack with {_short(error)}")


def _compared(name: str, model: nn.Module, samples: Sequence[Sample], expected: dict, about: str) -> Report:
    """Packed against the unpacked log-probabilities and gradients that are expected."""
    worst = 0.0
    for backend in BACKENDS:
        enable(model, backend, unproven=True)
        (packed,) = pack(samples)
        difference, where = _largest(_computed(model, scores.response_logps(model, packed)), expected)
        moved = _moved_siblings(model, samples)
        if not moved <= TOLERANCE:  # not a number is a difference too
            where = "siblings see each other: a response's log-probability moves when another response is changed"
        if not max(difference, moved) <= TOLERANCE:
            reason = f"{where} (relative difference {max(difference, moved):.1e}, {backend})"
            reason = f"{reason}\n{diagnosis(model, samples, packed)}"
            return Report(name, "different", max(difference, moved), reason, about)
        worst = max(worst, difference, moved)
    if missed := _without_gradient(model, expected):
        return Report(name, "not run", reason=f"the trial is void: {missed} gets no gradient", about=about)
    return Report(name, "exact", worst, about=about)


def _computed(model: nn.Module, logps: Float[Tensor, " R"]) -> dict[str, Tensor]:
    """Log-probabilities, and the gradient of every parameter for a sum in which each response weighs differently."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    weighted = (logps * torch.linspace(1, 2, len(logps))).sum()
    gradients = torch.autograd.grad(weighted, list(parameters.values()), allow_unused=True)
    found = {"log-probabilities": logps.detach()}
    return found | {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
    }


def _largest(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference, and of what.

    A gradient that is zero by mathematics, as a key's bias, is rounding noise: nothing is held against less than a
    thousandth of the whole gradient. A wrong one is still seen down to a billionth of that.
    """
    whole = torch.stack([g.norm() for name, g in expected.items() if name != "log-probabilities"]).norm()
    worst, where = 0.0, "nothing differs"
    for name, value in expected.items():
        scale = value.norm() if name == "log-probabilities" else torch.maximum(value.norm(), 1e-3 * whole)
        difference = float((actual[name] - value).norm() / scale)
        if not difference <= worst:  # not a number is a difference too
            worst = difference if difference == difference else float("inf")
            where = f"{name} differ" if name == "log-probabilities" else f"the gradient of {name} differs"
    return worst, where


@torch.no_grad()
def _moved_siblings(model: nn.Module, samples: Sequence[Sample]) -> float:
    """How far other responses' log-probabilities move when one response of each prompt is changed, relatively."""
    (before,) = pack(samples)
    changed = []
    for sample in samples:
        first = sample.response_ids[0].clone()
        first[-4:] = first[-4:].flip(0)
        changed.append(replace(sample, response_ids=(first, *sample.response_ids[1:])))
    (after,) = pack(changed)
    old, new = (scores.response_logps(model, each) for each in (before, after))
    others = torch.tensor([place > 0 for sample in samples for place in range(sample.responses)])
    moved = float(((new - old).abs() / old.abs())[others].max())
    return moved if moved == moved else float("inf")


def _without_gradient(model: nn.Module, expected: dict[str, Tensor]) -> str:
    """What of the model the trial did not reach, so that nothing would be proven of it."""
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    decoder |= {id(parameter) for parameter in (model.get_output_embeddings() or nn.Identity()).parameters()}
    parts: dict[str, list[float]] = {}
    for name, parameter in model.named_parameters():
        if name not in expected:
            continue
        part = "the decoder" if id(parameter) in decoder else "what makes image features"
        parts.setdefault(part, []).append(float(expected[name].norm()))
        if part != "the decoder" and "patch_embed" in name:  # where images enter: all of the tower lies behind it
            parts.setdefault("the embedding of image patches", []).append(float(expected[name].norm()))
    return ", ".join(part for part, norms in parts.items() if max(norms) == 0)


def _about(model: nn.Module, samples: Sequence[Sample]) -> str:
    """What is compared."""
    images = len({image.content for sample in samples for image in sample.images})
    pictures = f" and {images} images" if images else ""
    return (
        f"{model.get_decoder().config.num_hidden_layers} layers, {model.num_parameters():,} parameters, float64; "
        f"{len(samples)} prompts with {sum(sample.responses for sample in samples)} responses{pictures}"
    )


def _config(path: str | Path) -> PretrainedConfig:
    """The configuration in a folder or a file, or of a hub id."""
    from vlmpack import reward_model  # noqa: F401  so that transformers knows a saved reward model

    said = str(path)
    if not Path(path).exists() and (said[0] in "/.~" or said.endswith(".json") or said.count("/") > 1):
        raise MiniatureError(f"there is no {path}; give a hub id (owner/name), a folder or a config.json")
    return AutoConfig.from_pretrained(path, trust_remote_code=False)


def _built(config: PretrainedConfig, path: str | Path | None, seed: int) -> nn.Module:
    """A miniature with random weights, or the model with its own."""
    if path is None:
        return build(miniature(model_config(config)), seed)  # a reward model's own head is not in question
    if not isinstance(path, str | Path) or Path(path).is_file() or model_config(config) is not config:
        raise MiniatureError("full=True reads weights: give the folder or the hub id of a language model")
    vision = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    auto = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=torch.float64, use_safetensors=True, trust_remote_code=False).double()


def _short(error: Exception) -> str:
    """An error in one line; transformers' own may list every class that there is."""
    text = " ".join(str(error).split())
    text = text if isinstance(error, MiniatureError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 400 else f"{text[:400]}..."
