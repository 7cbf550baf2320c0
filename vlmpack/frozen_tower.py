"""A frozen vision tower makes the same of an image in every epoch: what it made is not computed again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from vlmpack.feature_store import FeatureStore
from vlmpack.pack import Pack

Part = tuple[str] | tuple[str, int]  # an output by name, or one of a list of outputs


class FeatureError(ValueError):
    """What a vision tower makes of an image cannot be kept."""


class KnownFeatures:
    """What a tower is known to make of images; stands on it as `vlmpack_features`.

    A copy of it, pickled ones too, looks at its own tower's weights anew.

    Args:
        store: where that is kept.
        digest: what tells weights apart; towers that agree in it know the same.
    """

    def __init__(self, store: FeatureStore, digest: Callable[[nn.Module], str]) -> None:
        self.store, self.digest = store, digest
        self._weights: str | None = None
        self._seen: tuple[list[nn.Parameter], list[tuple]] = ([], [])

    def __reduce__(self) -> tuple:
        return KnownFeatures, (self.store, self.digest)

    def weights(self, tower: nn.Module) -> str:
        """The digest of a tower's weights, taken anew if they may have changed; if they have, no image is known.

        Weights may have changed where torch has counted a write in place, and where they are other parameters or lie
        elsewhere in memory. What is written through `.data` torch does not count: a write that leaves weights where
        they are goes unseen, and so does one to weights that were made in inference mode.

        Args:
            tower: on which this stands.
        """
        parameters = list(tower.parameters())  # held on to, so that no other parameter gets the id of one of them
        marks = [_mark(parameter) for parameter in parameters]
        if self._weights is None or marks != self._seen[1]:
            weights = self.digest(tower)
            if self._weights not in (None, weights):
                self.store.clear()
            self._weights, self._seen = weights, (parameters, marks)
        return self._weights


@contextmanager
def remembered(model: nn.Module, pack: Pack) -> Iterator[None]:
    """While inside, the model's tower runs on those of a pack's images only that are not known, if it keeps them.

    Outputs are put together of what is known and what is computed, and only those are kept that the model reads.
    Batches of other images round otherwise; but for that, it is what the tower itself would give.

    Args:
        model: a transformers model, not wrapped.
        pack: what the model is called with.

    Raises:
        FeatureError: the tower is being trained, or its arguments or outputs cannot be divided by image.
    """
    tower = model.get_encoder("image") if pack.contents else None
    known = getattr(tower, "vlmpack_features", None)
    if known is None:
        yield
        return
    _refuse_trained(tower)
    weights = known.weights(tower)
    own, forward = vars(tower).get("forward"), tower.forward

    def recall(*arguments: Any, **options: Any) -> Recalled:
        return Recalled(_Call(type(tower).__name__, forward, known.store, weights, pack, arguments, options))

    tower.forward = recall
    try:
        yield
    finally:
        if own is None:
            del tower.forward
        else:
            tower.forward = own


class Recalled:
    """A tower's outputs, each put together when it is read."""

    def __init__(self, call: "_Call") -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        """An output that the model has not set itself."""
        form = {} if name.startswith("_") else self._call.form
        if name not in form:
            raise AttributeError(f"the vision tower gives no {name}")
        if form[name] is None:
            return None
        return Several(self._call, name, form[name]) if form[name] else self._call.read((name,))

    def to_tuple(self) -> tuple["Recalled"]:
        """As transformers' outputs have it, by which a model takes another of its own outputs: nothing is read yet."""
        return (self,)


class Several(Sequence):
    """A list of outputs, each put together when it is read."""

    def __init__(self, call: "_Call", name: str, count: int) -> None:
        self._call, self._name, self._count = call, name, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(self._count)[place]]
        return self._call.read((self._name, range(self._count)[place]))


@dataclass(eq=False)
class _Call:
    """One call of a tower with the images of a pack."""

    name: str
    forward: Callable
    store: FeatureStore
    weights: str
    pack: Pack
    arguments: tuple
    options: dict[str, Any]
    ran: dict[tuple[int, ...], Any] = field(default_factory=dict)  # outputs by the images for which it ran

    @property
    def form(self) -> dict[str, int | None]:
        """The tower's outputs by name: how many, if it is a list of them; 0 if it is one; None if it is not given."""
        forms = self.store.forms
        if self.weights not in forms:
            forms[self.weights] = _form(self._run(tuple(range(len(self.keys)))))
        return forms[self.weights]

    def read(self, part: Part) -> Tensor:
        """A part of the outputs for all images of the call, in their order."""
        kept = {number: self.store.get(key, part) for number, key in enumerate(self.keys)}
        missing = tuple(number for number, feature in kept.items() if feature is None)
        found = [feature for feature in kept.values() if feature is not None]
        if not missing:
            return torch.cat(_on_device(found, self._pixels.device))
        made = _part(self._run(missing), part)
        each = self._divided(made, missing)
        self.store.keep(part, {self.keys[n]: feature for n, feature in zip(missing, each, strict=True)}, self.keys)
        if not found:
            return made
        old, new = iter(_on_device(found, made.device)), iter(each)
        return torch.cat([next(new if number in missing else old) for number in kept])

    @cached_property
    def keys(self) -> list[tuple]:
        """What tells the features of each image apart: its content, and how and by what they were computed."""
        pixels, device = self._pixels, self._pixels.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        how = (self.weights, tuple(pixels.shape[1:]), pixels.dtype, precision)
        return [(content, *how) for content in self.pack.contents]

    @cached_property
    def rows(self) -> list[int]:
        """Rows of each image in the tower's first argument: a row has the last axes of an image's own pixels."""
        axes = self._pixels.ndim - 1
        rows = [prod(shape[: len(shape) - axes]) for shape in self.pack.pixel_shapes]
        if sum(rows) != len(self._pixels):
            raise FeatureError(
                f"{self.name} is called with {len(self._pixels)} rows for images of {rows}, so it cannot be told which "
                f"belong to which; leave out cache_vision_features"
            )
        return rows

    @property
    def _pixels(self) -> Tensor:
        return next(value for value in (*self.arguments, *self.options.values()) if isinstance(value, Tensor))

    @torch.no_grad()
    def _run(self, images: tuple[int, ...]) -> Any:
        if images not in self.ran:
            arguments = [self._of(images, value) for value in self.arguments]
            options = {name: self._of(images, value) for name, value in self.options.items()}
            self.ran[images] = self.forward(*arguments, **options)
        return self.ran[images]

    def _of(self, images: tuple[int, ...], value: Any) -> Any:
        """An argument for some of the images."""
        if not isinstance(value, Tensor) or value.ndim == 0 or len(images) == len(self.rows):
            return value
        if len(value) not in (sum(self.rows), len(self.rows)):
            raise FeatureError(
                f"{self.name} takes an argument of shape {list(value.shape)}, which is neither one row for each of "
                f"{len(self.rows)} images nor for each of their {sum(self.rows)} rows; leave out cache_vision_features"
            )
        each = value.split(self.rows if len(value) == sum(self.rows) else 1)
        return torch.cat([each[number] for number in images])

    def _divided(self, output: Tensor, images: tuple[int, ...]) -> Sequence[Tensor]:
        """An output by image: each of its rows stands for as many of the first argument."""
        rows = [self.rows[number] for number in images]
        merged = sum(rows) // max(1, len(output))
        if merged * len(output) != sum(rows) or any(each % merged for each in rows):
            raise FeatureError(
                f"{self.name} makes {list(output.shape)} of images of {rows} rows, which cannot be divided by image; "
                f"leave out cache_vision_features"
            )
        return output.split([each // merged for each in rows])


def _mark(parameter: nn.Parameter) -> tuple:
    """Changes when the parameter is another one, lies elsewhere in memory, or was written in place."""
    return id(parameter), parameter.data_ptr(), None if parameter.is_inference() else parameter._version


def _form(outputs: Any) -> dict[str, int | None]:
    if not is_dataclass(outputs):
        raise FeatureError(
            f"a vision tower that gives a {type(outputs).__name__}, not outputs with names, is not known here; leave "
            f"out cache_vision_features"
        )
    values = {each.name: getattr(outputs, each.name) for each in fields(outputs)}
    return {
        name: None if value is None else 0 if isinstance(value, Tensor) else len(value)
        for name, value in values.items()
    }


def _part(outputs: Any, part: Part) -> Tensor:
    name, *place = part
    output = getattr(outputs, name)
    return output[place[0]] if place else output


def _on_device(features: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Features from host memory, copied in one go and, to a GPU, without waiting for it."""
    if not features or device.type == "cpu":
        return list(features)
    whole = torch.empty((sum(map(len, features)), *features[0].shape[1:]), dtype=features[0].dtype, pin_memory=True)
    torch.cat(features, out=whole)
    return list(whole.to(device, non_blocking=True).split([len(feature) for feature in features]))


def _refuse_trained(tower: nn.Module) -> None:
    trained = next((name for name, parameter in tower.named_parameters() if parameter.requires_grad), None)
    if trained is not None:
        raise FeatureError(
            f"{type(tower).__name__} is trained ({trained}), and what it makes of images is kept as if it were not; "
            f"freeze it, or leave out cache_vision_features"
        )
