"""Features of images in host memory, up to a limit."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any

from torch import Tensor


class FeatureStore:
    """What a vision tower made of images, part by part.

    When it is full, those that came last make room for those that come, and the first ones stay: an epoch asks for
    every image once, so the least recently used is about the one that the next epoch asks for first. With room for
    half of the images, dropping that one finds none again in a fixed order and a seventh in a random one; this, half.

    Args:
        limit: bytes of features that are kept at most.

    Attributes:
        bytes: of the features that are kept.
        forms: how a tower's outputs are made up, by whatever tells towers apart; costs nothing and is never dropped.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.forms: dict[Hashable, Any] = {}
        self._kept: dict[Hashable, dict[Hashable, Tensor]] = {}  # by image in the order in which they came, by part

    def __len__(self) -> int:
        return len(self._kept)

    def __deepcopy__(self, memo: dict) -> "FeatureStore":
        """The same one: the limit holds for a model and its copies together."""
        return self

    def __reduce__(self) -> tuple:
        """Pickled, it knows no image: a saved model is its weights, not gibibytes of what they made."""
        return FeatureStore, (self.limit,)

    def get(self, image: Hashable, part: Hashable) -> Tensor | None:
        """What is kept of an image, in host memory; None if it is not known.

        Args:
            image: whatever tells images, and towers, apart.
            part: of the tower's outputs.
        """
        return self._kept.get(image, {}).get(part)

    def keep(self, part: Hashable, features: Mapping[Hashable, Tensor], beside: Collection[Hashable]) -> None:
        """Copy a part of what was made of some images to host memory, as far as there is room.

        Args:
            part: of the tower's outputs.
            features: by image, on any device.
            beside: images that are in use, which make no room.
        """
        for image, feature in features.items():
            if self._make_room(feature.nbytes, beside):
                self._kept.setdefault(image, {})[part] = feature.detach().to("cpu", copy=True)
                self.bytes += feature.nbytes

    def clear(self) -> None:
        """Know no image."""
        self._kept, self.bytes = {}, 0

    def _make_room(self, needed: int, beside: Collection[Hashable]) -> bool:
        while self.bytes + needed > self.limit:
            last = next((image for image in reversed(self._kept) if image not in beside), None)
            if last is None:
                return False
            self.bytes -= sum(part.nbytes for part in self._kept.pop(last).values())
        return True
