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
from vlmpack.training.memory_note import GIBIBYTE
from vlmpack.training.weights_digest import weights_digest


def remember(model: nn.Module, args: PreferenceConfig, accelerator: Accelerator) -> None:
    """Let a model's frozen vision tower keep what it makes of images, if the settings ask for it.

    Args:
        model: may be wrapped; changed in place.
        args: settings.
        accelerator: what says how the model is spread over ranks.

    Raises:
        ConfigError: the tower makes other features in the next epoch, or ranks must run it together.
        UnsupportedModelError: the family's features cannot be divided by image.
    """
    if not args.cache_vision_features:
        return
    _refuse_sharding(accelerator)
    tower = _tower(model)
    _refuse_changing(tower)
    _refuse_dropout(tower)
    check_recollection(unwrapped(model).config)
    _attach(tower, FeatureStore(int(args.cache_vision_features * GIBIBYTE)))


def remember_beside(reference: nn.Module, model: nn.Module) -> None:
    """Let a frozen reference keep features where the policy does; those that both make alike are kept once.

    Args:
        reference: in eval mode; may be wrapped; changed in place. A copy of the policy keeps them already.
        model: the policy; nothing happens if it keeps none.

    Raises:
        ConfigError, UnsupportedModelError: as for `remember`.
    """
    known = getattr(unwrapped(model).get_encoder("image"), "vlmpack_features", None)
    if known is None or hasattr(tower := _tower(reference), "vlmpack_features"):
        return
    _refuse_changing(tower)
    if unwrapped(reference).config.model_type != unwrapped(model).config.model_type:
        check_recollection(unwrapped(reference).config)
    _attach(tower, known.store)


def _attach(tower: nn.Module, store: FeatureStore) -> None:
    """Towers are told apart by their weights; loading others begins anew."""
    tower.vlmpack_features = KnownFeatures(store, weights_digest(tower))
    tower.register_load_state_dict_post_hook(_loaded)


def _loaded(tower: nn.Module, _incompatible: object) -> None:
    tower.vlmpack_features = KnownFeatures(tower.vlmpack_features.store, weights_digest(tower))


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
