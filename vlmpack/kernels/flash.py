"""FlashAttention for groups of different lengths: torch's own, and that of the `flash-attn` package.

Both align causal masks to the bottom right: a group's last query sees all its keys. What else torch may choose behind
the same function (cuDNN, which aligns packed groups to the top left) is switched off around the call.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from inspect import signature
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmpack.kernels.parts import Part
from vlmpack.kernels.weighing import Settings
from vlmpack.plan import AttentionError

LEAST_PACKAGE = (2, 7)  # of flash-attn: major, minor


class TorchFlash:
    """`torch.nn.attention.varlen`, torch 2.10 and later, whose arguments differ from version to version."""

    def refusal(self, query: Tensor, window: int | None, settings: Settings) -> str | None:
        """Why it cannot compute a layer; None if it can.

        Args:
            query: of the layer.
            window: of the layer.
            settings: of the layer.
        """
        if not _has("torch.nn.attention.varlen"):
            return f"torch {torch.__version__} has no torch.nn.attention.varlen (2.10 has)"
        if settings.softcap is not None:
            return f"torch's FlashAttention cannot cap scores, and the layer asks for softcap={settings.softcap}"
        takes = _arguments(_varlen().varlen_attn)
        if window is not None and "window_size" not in takes:
            return f"varlen_attn of torch {torch.__version__} has no windows, and the layer asks for {window} tokens"
        if "scale" not in takes and settings.scale not in (None, query.shape[-1] ** -0.5):
            return f"varlen_attn of torch {torch.__version__} has no scale, and the layer asks for {settings.scale}"
        return None

    def forward(
        self,
        query: Float[Tensor, "Q N D"],
        key: Float[Tensor, "K M D"],
        value: Float[Tensor, "K M D"],
        part: Part,
        window: int | None,
        settings: Settings,
    ) -> tuple[Float[Tensor, "Q N D"], Float[Tensor, "N Q"]]:
        """As in `merging.Kernel`."""
        takes = _arguments(_varlen().varlen_attn)
        known = {"scale": settings.scale, "window_size": _window(part, window), "enable_gqa": True}
        known["is_causal"] = part.causal  # torch 2.10's word for the window (-1, 0)
        ends = (part.query_ends, part.key_ends, part.most_queries, part.most_keys)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            output, total = _varlen().varlen_attn(
                *(query, key, value, *ends),
                return_aux=_varlen().AuxRequest(lse=True),
                **{name: each for name, each in known.items() if name in takes},
            )
        return output, _checked(total, query)

    def backward(
        self,
        gradient: Float[Tensor, "Q N D"],
        query: Float[Tensor, "Q N D"],
        key: Float[Tensor, "K M D"],
        value: Float[Tensor, "K M D"],
        output: Float[Tensor, "Q N D"],
        total: Float[Tensor, "N Q"],
        part: Part,
        window: int | None,
        settings: Settings,
    ) -> tuple[Float[Tensor, "Q N D"], Float[Tensor, "K M D"], Float[Tensor, "K M D"]]:
        """As in `merging.Kernel`."""
        before, after = _window(part, window)
        return torch.ops.aten._flash_attention_backward(
            *(gradient.contiguous(), query, key, value, output, total.contiguous()),
            *(part.query_ends, part.key_ends, part.most_queries, part.most_keys),
            0.0,  # dropout
            (before, after) == (-1, 0),
            torch.zeros(2, dtype=torch.uint64, device=query.device),  # dropout's state
            torch.empty(0, device=query.device),
            scale=settings.scale,
            window_size_left=before,
            window_size_right=after,
        )


class PackageFlash:
    """`flash_attn.flash_attn_varlen_func` of the `flash-attn` package, 2.7 and later; it caps scores too."""

    def refusal(self, query: Tensor, window: int | None, settings: Settings) -> str | None:
        """Why it cannot compute a layer; None if it can. Arguments as in `TorchFlash.refusal`."""
        return _without_package()

    def forward(
        self,
        query: Float[Tensor, "Q N D"],
        key: Float[Tensor, "K M D"],
        value: Float[Tensor, "K M D"],
        part: Part,
        window: int | None,
        settings: Settings,
    ) -> tuple[Float[Tensor, "Q N D"], Float[Tensor, "N Q"]]:
        """As in `merging.Kernel`."""
        output, total, _ = _package().flash_attn_varlen_func(
            *(query, key, value, part.query_ends, part.key_ends, part.most_queries, part.most_keys),
            softmax_scale=settings.scale,
            causal=part.causal,
            window_size=_window(part, window),
            softcap=settings.softcap or 0.0,
            return_attn_probs=True,
        )
        return output, _checked(total, query)

    def backward(
        self,
        gradient: Float[Tensor, "Q N D"],
        query: Float[Tensor, "Q N D"],
        key: Float[Tensor, "K M D"],
        value: Float[Tensor, "K M D"],
        output: Float[Tensor, "Q N D"],
        total: Float[Tensor, "N Q"],
        part: Part,
        window: int | None,
        settings: Settings,
    ) -> tuple[Float[Tensor, "Q N D"], Float[Tensor, "K M D"], Float[Tensor, "K M D"]]:
        """As in `merging.Kernel`."""
        before, after = _window(part, window)
        gradients = tuple(torch.empty_like(x) for x in (query, key, value))
        _package()._flash_attn_varlen_backward(
            *(gradient.contiguous(), query, key, value, output, total.contiguous(), *gradients),
            *(part.query_ends, part.key_ends, part.most_queries, part.most_keys),
            dropout_p=0.0,
            softmax_scale=query.shape[-1] ** -0.5 if settings.scale is None else settings.scale,
            causal=part.causal,
            window_size_left=before,
            window_size_right=after,
            softcap=settings.softcap or 0.0,
            alibi_slopes=None,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return gradients


KERNELS = (TorchFlash(), PackageFlash())


def _window(part: Part, window: int | None) -> tuple[int, int]:
    """Keys seen before and after a query's own place, counted from the bottom right; -1 for all."""
    if not part.causal:
        return -1, -1
    return (-1 if window is None else window - 1), 0


def _checked(total: Tensor, query: Float[Tensor, "Q N D"]) -> Float[Tensor, "N Q"]:
    """Older kernels pad the log-sum-exps of each group, which nothing here would notice."""
    if total.shape != (query.shape[1], len(query)):
        raise AttentionError(
            f"the FlashAttention at hand returns log-sum-exps of shape {tuple(total.shape)} for {query.shape[1]} heads "
            f"and {len(query)} queries; take a newer torch or flash-attn, or attention='flex'"
        )
    return total


@cache
def _arguments(function: Callable) -> frozenset[str]:
    return frozenset(signature(function).parameters)


@cache
def _has(module: str) -> bool:
    return find_spec(module) is not None


@cache
def _without_package() -> str | None:
    """Why the flash-attn package cannot be used; None if it can. What is installed may be broken, or another part."""
    if not _has("flash_attn"):
        return "the flash-attn package is not installed"
    try:
        _package()
        found = version("flash-attn")
    except ImportError as error:  # also that it has no version
        return f"the flash-attn package is installed and cannot be used: {error}"
    major, minor = map(int, found.split(".")[:2])
    return f"the flash-attn package is {found}, older than 2.7" if (major, minor) < LEAST_PACKAGE else None


def _varlen() -> ModuleType:
    return import_module("torch.nn.attention.varlen")


def _package() -> ModuleType:
    return import_module("flash_attn.flash_attn_interface")
