"""Prefix merging: samples that begin alike share their beginning, at any depth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.image import ImageInputs
from vlmpack.sample import Sample

KEY, ID, MARK = range(3)  # rows of a path: what a token is, its id, and 1 + the image that begins there


@dataclass(frozen=True, eq=False)
class Merged:
    """Samples as one forest in which no two siblings begin alike.

    Attributes:
        forest: S segments; one ends where a prompt or a response ends, or where paths part.
        input_ids: [T] token ids.
        prompts: for each sample, the segment in which its prompt ends.
        leaves: for each sample, the segment in which each response ends; it may have children.
        images: the distinct images.
        placements: [I] for each place of an image, in token order, the row of `images` that stands there.
    """

    forest: Forest
    input_ids: np.ndarray
    prompts: tuple[int, ...]
    leaves: tuple[tuple[int, ...], ...]
    images: tuple[ImageInputs, ...]
    placements: tuple[int, ...]


class _Node:
    """A stretch of tokens and what continues it, by the first key. A reference to a node means its last token."""

    __slots__ = ("children", "number", "parent", "path")

    def __init__(self, path: np.ndarray, parent: "_Node | None") -> None:
        self.path, self.parent = path, parent
        self.children: dict[int, _Node] = {}
        self.number = -1


def merge(samples: Sequence[Sample]) -> Merged:
    """Merge samples into one forest; siblings stand in the order in which samples first need them.

    Two tokens are the same if their whole paths are: ids, and for image tokens the image's content and the place
    inside the image. The position needs no comparing, for it follows from the path.

    Args:
        samples: one or more.
    """
    keys, ground = _Keys(), _Node(np.empty((3, 0), dtype=np.int64), None)
    prompts, leaves = [], []
    for sample in samples:
        prompts.append(_insert(ground, keys.of_prompt(sample)))
        leaves.append([_insert(prompts[-1], keys.of_response(response)) for response in sample.response_ids])
    nodes = list(_pre_order(ground))
    for number, node in enumerate(nodes):
        node.number = number
    path = np.concatenate([node.path for node in nodes], axis=1)
    marks = path[MARK][path[MARK] > 0] - 1
    rows: dict[int, int] = {}  # of the distinct images, in the order in which they first stand
    placements = tuple(rows.setdefault(number, len(rows)) for number in marks.tolist())
    return Merged(
        forest=Forest(tuple(node.parent.number for node in nodes), tuple(node.path.shape[1] for node in nodes)),
        input_ids=path[ID],
        prompts=tuple(node.number for node in prompts),
        leaves=tuple(tuple(node.number for node in each) for each in leaves),
        images=tuple(keys.images[number] for number in rows),
        placements=placements,
    )


def _insert(node: _Node, path: np.ndarray) -> _Node:
    """Follow the path from a node as far as it is known, add the rest, and return the node that ends it."""
    while path.shape[1]:
        child = node.children.get(int(path[KEY, 0]))
        if child is None:
            node.children[int(path[KEY, 0])] = added = _Node(path, node)
            return added
        alike = _common(child.path[KEY], path[KEY])
        node = child if alike == child.path.shape[1] else _split(child, alike)
        path = path[:, alike:]
    return node


def _split(node: _Node, tokens: int) -> _Node:
    """Cut a node after so many tokens. The lower part stays the same object, for others refer to its last token."""
    upper = _Node(node.path[:, :tokens], node.parent)
    node.parent.children[int(node.path[KEY, 0])] = upper
    node.path, node.parent = node.path[:, tokens:], upper
    upper.children[int(node.path[KEY, 0])] = node
    return upper


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two paths have in common at their beginning."""
    shorter = min(len(one), len(other))
    differ = one[:shorter] != other[:shorter]
    first = int(differ.argmax())
    return first if differ[first] else shorter


def _pre_order(ground: _Node) -> Iterator[_Node]:
    waiting = list(reversed(ground.children.values()))
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children.values()))


class _Keys:
    """Numbers that are equal for equal tokens only: ids for text, below zero what an id does not say."""

    def __init__(self) -> None:
        self.images: list[ImageInputs] = []
        self._of_image: dict[bytes, int] = {}  # content to row of `images`
        self._stretches: dict[tuple[bytes, ...], int] = {}

    def of_response(self, ids: Tensor) -> np.ndarray:
        """[3, L] the path of a response; its ids are its keys."""
        path = np.zeros((3, len(ids)), dtype=np.int64)
        path[KEY] = path[ID] = ids.cpu().numpy()
        return path

    def of_prompt(self, sample: Sample) -> np.ndarray:
        """[3, L] the path of a prompt, its image tokens told apart by what they show."""
        path = self.of_response(sample.prompt_ids)
        image_of = None if sample.image_of is None else sample.image_of.cpu().numpy()
        for number, image in enumerate(sample.images):
            places = np.flatnonzero(image_of == number)
            path[KEY, places] = self._stretch(image.content, path[ID, places].tobytes(), len(places))
            path[MARK, places[0]] = 1 + self._row(image)
        if sample.whole_prompt:
            contents = (image.content for image in sample.images)
            path[KEY] = self._stretch(b"whole" + b"".join(contents), path[ID].tobytes(), path.shape[1])
        return path

    def _stretch(self, content: bytes, ids: bytes, tokens: int) -> np.ndarray:
        """Keys of tokens that are the same only together: of one image, or of a prompt seen both ways."""
        number = self._stretches.setdefault((content, ids), len(self._stretches))
        return -1 - ((number << 32) + np.arange(tokens))

    def _row(self, image: ImageInputs) -> int:
        row = self._of_image.setdefault(image.content, len(self.images))
        if row == len(self.images):
            self.images.append(image)
        return row
