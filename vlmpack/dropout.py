"""What is random in training, switched off: packed and unpacked would draw differently."""

from torch import nn

RATES = ("dropout", "jitter_noise")  # how modules call the numbers that they hand to functions
NAMES = ("dropout_p", "layerdrop", "drop_prob", "drop_path", "drop_path_rate")


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0, stochastic depth and routers' noise too.

    Args:
        model: changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and (name.endswith(RATES) or name in NAMES):
                setattr(module, name, 0.0)
