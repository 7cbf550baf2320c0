"""What a frozen vision tower makes of images, kept over the epochs: which models may, and whose features are alike."""

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from vlmpack.dropout import NAMES, RATES
from vlmpack.feature_store import FeatureStore
from vlmpack.frozen_tower import KnownFeatures
from vlmpack.model import unwrapped
from vlmpack.proof.recollection import check_recollection
from vlmpack.training.config import ConfigError, PreferenceConfig
from vlmpack.training.weights_digest import weights_digest

GIBIBYTE = 1 << 30


def remember(model: nn.Module, args: PreferenceConfig, accelerator: Accelerator) -> None:
    """Let a model's frozen vision tower keep what it makes of images, if the settings ask for it.

    What an earlier trainer let it keep is let go of in any case.

    Args:
        model: may be wrapped; changed in place.
        args: settings.
        accelerator: what says how the model is spread over ranks.

    Raises:
        ConfigError: the tower makes other features in the next epoch, or ranks must run it together.
        UnsupportedModelError: the family's features cannot be divided by image.
    """
    _forget(model)
    if not args.cache_vision_features:
        return
    _refuse_sharding(accelerator)
    tower = _tower(model)
    _refuse_changing(tower)
    _refuse_dropout(tower)
    check_recollection(unwrapped(model).config)
    _attach(tower, FeatureStore(int(args.cache_vision_features * GIBIBYTE)))


def remember_beside(reference: nn.Module, model: nn.Module) -> None:
    """Let a frozen reference keep features where, and only where, the policy does; equal ones are kept once.

    Args:
        reference: in eval mode; may be wrapped; changed in place. A copy of the policy keeps them already.
        model: the policy.

    Raises:
        ConfigError, UnsupportedModelError: as for `remember`.
    """
    known, own = known_features(model), known_features(reference)
    if known is not None and own is not None and own.store is known.store:
        return
    _forget(reference)
    if known is None:
        return
    tower = _tower(reference)
    _refuse_changing(tower)
    if unwrapped(reference).config.model_type != unwrapped(model).config.model_type:
        check_recollection(unwrapped(reference).config)
    _attach(tower, known.store)


def known_features(model: nn.Module) -> KnownFeatures | None:
    """What a model's vision tower is known to make of images; None if it keeps nothing, or there is no tower.

    Args:
        model: may be wrapped.
    """
    return getattr(unwrapped(model).get_encoder("image"), "vlmpack_features", None)


def _attach(tower: nn.Module, store: FeatureStore) -> None:
    known = KnownFeatures(store, weights_digest)
    known.weights(tower)  # weights that cannot be read are an error now, not at the first step
    tower.vlmpack_features = known


def _forget(model: nn.Module) -> None:
    if known_features(model) is not None:
        del unwrapped(model).get_encoder("image").vlmpack_features


def _tower(model: nn.Module) -> nn.Module:
    base = unwrapped(model)
    tower = base.get_encoder("image")
    if tower is None or base.get_decoder() in tower.modules():  # transformers may answer with the model itself
        raise _refusal(f"is for vision towers, and {type(base).__name__} ({base.config.model_type}) has none")
    return tower


def _refuse_sharding(accelerator: Accelerator) -> None:
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if accelerator.distributed_type == DistributedType.FSDP or (plugin is not None and plugin.zero_stage == 3):
        raise _refusal(
            "needs a vision tower that each rank runs when it must, and FSDP and DeepSpeed ZeRO-3 gather its weights "
            "on all ranks together"
        )


def _refuse_changing(tower: nn.Module) -> None:
    name = type(tower).__name__
    for path, module in tower.named_modules():
        if hasattr(module, "base_layer") or hasattr(module, "original_module"):  # as PEFT calls what it wraps
            raise _refusal(
                f"keeps one kind of features, and {name}'s {path} has an adapter, without which a reference runs; "
                f"leave the tower out of the adapter's target_modules"
            )
    trained = [path for path, parameter in tower.named_parameters() if parameter.requires_grad]
    if trained:
        raise _refusal(
            f"needs a frozen vision tower, and {name}'s {trained[0]} is trained; set freeze_vision_tower=True, and "
            f"freeze_multi_modal_projector=True where the projector stands inside the tower (Qwen-VL)"
        )


def _refuse_dropout(tower: nn.Module) -> None:
    for path, module in tower.named_modules():
        rates = {name: rate for name, rate in vars(module).items() if name.endswith(RATES) or name in NAMES}
        if isinstance(module, nn.Dropout):
            rates["p"] = module.p
        for name, rate in rates.items():
            if isinstance(rate, float) and rate > 0:
                raise _refusal(
                    f"needs a vision tower that draws nothing, and {type(tower).__name__}'s {path}.{name} is {rate}; "
                    f"set disable_dropout=True"
                )


def _refusal(why: str) -> ConfigError:
    return ConfigError(f"cache_vision_features {why}; or leave it out")
