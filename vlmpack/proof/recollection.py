"""Can what a vision tower makes of images be kept? With and without, on a small model of the same architecture."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from vlmpack import scores
from vlmpack.families import model_config
from vlmpack.feature_store import FeatureStore
from vlmpack.frozen_tower import KnownFeatures
from vlmpack.model import enable
from vlmpack.pack import Pack
from vlmpack.packing import pack
from vlmpack.proof import trial
from vlmpack.proof.double import Doubled
from vlmpack.proof.miniature import build, miniature
from vlmpack.support import UnsupportedModelError

TOLERANCE = 1e-9  # relative; features of another image, or in another order, are off by far more


def check_recollection(config: PretrainedConfig) -> None:
    """Hold log-probabilities with kept features against those without, in float64.

    Made-up rows with images of several sizes come alone and together, known, unknown, and known in part. Nothing is
    known of the family: one whose tower mixes images, or gives outputs of another shape, does not pass.

    Args:
        config: of the model, or of a reward model around it.

    Raises:
        UnsupportedModelError: the family's features cannot be kept; says why.
    """
    name = model_config(config).model_type
    try:
        own = [torch.cuda.current_device()] if torch.cuda.is_available() else []  # for `build` seeds every device
        with torch.random.fork_rng(own):
            model = build(miniature(model_config(config))).requires_grad_(False)
        with Doubled(), torch.no_grad():
            samples = trial.samples(model)
            difference = _difference(enable(model, "dense", unproven=True), samples)
    except Exception as error:  # whatever the model's own code raises when it is given parts of its tower's outputs
        raise UnsupportedModelError(
            f"cache_vision_features: what {name}'s vision tower makes of images cannot be kept: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not difference <= TOLERANCE:
        raise UnsupportedModelError(
            f"cache_vision_features: {name}'s log-probabilities differ by {difference:.1e} when what its vision tower "
            f"makes of images is kept, so the tower does not make the same of an image beside others; leave it out"
        )


def _difference(model: nn.Module, samples: Sequence) -> float:
    """The largest relative difference over packs that begin with nothing known, whichever comes first."""
    (together,) = pack(samples)
    packs = [each for sample in samples for each in pack([sample])]
    expected = {id(each): _logps(model, each) for each in (*packs, together)}
    store, worst = FeatureStore(sys.maxsize), 0.0
    model.get_encoder("image").vlmpack_features = KnownFeatures(store, lambda _tower: "")
    for first in packs:
        store.clear()
        for each in (first, together, first):
            difference = float((_logps(model, each) - expected[id(each)]).norm() / expected[id(each)].norm())
            worst = max(worst, difference) if difference == difference else float("inf")
    return worst


def _logps(model: nn.Module, each: Pack) -> Tensor:
    return scores.response_logps(model, each)
