"""Prefix merging: samples that begin alike share their beginning, at any depth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlmpack.forest import Forest
from vlmpack.image import ImageInputs
from vlmpack.sample import Sample

# What a token may be: it receives an image's features; it is the image's first; it sees its neighbours both ways.
IMAGE, FIRST, BOTH_WAYS = 1, 2, 4


@dataclass(frozen=True, eq=False)
class Merged:
    """Samples as one forest; from `merge`, no two siblings in it begin alike.

    Attributes:
        forest: S segments; one ends where a prompt or a response ends, or where paths part.
        prompts: for each sample, the segment in which its prompt ends, for the first time if it is repeated.
        leaves: for each sample, the segment in which each response ends; it may have children.
        images: those that run through the tower; from `merge`, the distinct ones.
        placements: [I] for each place of an image, in token order, the row of `images` that stands there.
        spans: S arrays of token ids.
        kinds: S arrays of what each token is: sums of `IMAGE`, `FIRST` and `BOTH_WAYS`.
        padding: tokens that count for nothing; see `padding.padded`.
    """

    forest: Forest
    prompts: tuple[int, ...]
    leaves: tuple[tuple[int, ...], ...]
    images: tuple[ImageInputs, ...]
    placements: tuple[int, ...]
    spans: tuple[np.ndarray, ...]
    kinds: tuple[np.ndarray, ...]
    padding: int = 0

    @property
    def input_ids(self) -> np.ndarray:
        """[T] token ids."""
        return np.concatenate(self.spans)

    @property
    def image_of(self) -> np.ndarray:
        """[T] for each token, the place of an image whose features it receives; -1 for text.

        Places are counted in token order. An image's tokens are never parted, so the last place that began is theirs.
        """
        kinds = np.concatenate(self.kinds)
        return np.where(kinds & IMAGE, (kinds & FIRST > 0).cumsum() - 1, -1)

    @property
    def blocks(self) -> np.ndarray:
        """[T] for each token that sees its neighbours both ways, the number of their stretch; -1 for others.

        A stretch stands within one segment, and what continues it is no such token.
        """
        both_ways = np.concatenate(self.kinds) & BOTH_WAYS > 0
        begins = both_ways & ~np.concatenate([[False], both_ways[:-1]])
        return np.where(both_ways, begins.cumsum() - 1, -1)


@dataclass(frozen=True, eq=False, slots=True)
class _Path:
    """Tokens on a path: what makes each the same as another, its id, its kind, and where images begin."""

    keys: np.ndarray
    ids: np.ndarray
    kinds: np.ndarray
    marks: tuple[tuple[int, int], ...] = ()  # (place on the path, row of the image that begins there)

    def before(self, place: int) -> "_Path":
        """The tokens before a place."""
        marks = tuple((at, image) for at, image in self.marks if at < place) if self.marks else ()
        return _Path(self.keys[:place], self.ids[:place], self.kinds[:place], marks)

    def after(self, place: int) -> "_Path":
        """The tokens from a place on."""
        marks = tuple((at - place, image) for at, image in self.marks if at >= place) if self.marks else ()
        return _Path(self.keys[place:], self.ids[place:], self.kinds[place:], marks)


class _Node:
    """A stretch of tokens and what continues it, by the first key. A reference to a node means its last token."""

    __slots__ = ("children", "number", "parent", "path")

    def __init__(self, path: _Path, parent: "_Node | None") -> None:
        self.path, self.parent = path, parent
        self.children: dict[int, _Node] = {}
        self.number = -1  # in pre-order; the ground, which has no tokens, keeps this one


def merge(samples: Sequence[Sample]) -> Merged:
    """Merge samples into one forest; siblings stand in the order in which samples first need them.

    Two tokens are the same if their whole paths are: ids, and for image tokens the image's content and the place
    inside the image. The position needs no comparing, for it follows from the path.

    Args:
        samples: one or more.
    """
    keys, ground = _Keys(), _Node(_Path(np.empty(0), np.empty(0), np.empty(0)), None)
    prompts, leaves = [], []
    for sample in samples:
        prompts.append(_insert(ground, keys.of_prompt(sample)))
        leaves.append([_insert(prompts[-1], keys.of_response(response)) for response in sample.response_ids])
    nodes = _numbered(ground)
    rows: dict[int, int] = {}  # of the distinct images, in the order in which they first stand
    placements = tuple(rows.setdefault(image, len(rows)) for node in nodes for _, image in node.path.marks)
    return Merged(
        forest=Forest(tuple(node.parent.number for node in nodes), tuple(len(node.path.ids) for node in nodes)),
        prompts=tuple(node.number for node in prompts),
        leaves=tuple(tuple(node.number for node in each) for each in leaves),
        images=tuple(keys.images[number] for number in rows),
        placements=placements,
        spans=tuple(node.path.ids for node in nodes),
        kinds=tuple(node.path.kinds for node in nodes),
    )


def _insert(node: _Node, path: _Path) -> _Node:
    """Follow the path from a node as far as it is known, add the rest, and return the node that ends it."""
    while len(path.keys):
        first = int(path.keys[0])
        child = node.children.get(first)
        if child is None:
            node.children[first] = added = _Node(path, node)
            return added
        alike = _common(child.path.keys, path.keys)
        node = child if alike == len(child.path.keys) else _split(child, alike)
        path = path.after(alike)
    return node


def _split(node: _Node, tokens: int) -> _Node:
    """Cut a node after so many tokens. The lower part stays the same object, for others refer to its last token."""
    upper = _Node(node.path.before(tokens), node.parent)
    node.parent.children[int(node.path.keys[0])] = upper
    node.path, node.parent = node.path.after(tokens), upper
    upper.children[int(node.path.keys[0])] = node
    return upper


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two paths have in common at their beginning."""
    shorter = min(len(one), len(other))
    differ = one[:shorter] != other[:shorter]
    first = int(differ.argmax())
    return first if differ[first] else shorter


def _numbered(ground: _Node) -> list[_Node]:
    """All nodes but the ground in pre-order, each told its place."""
    nodes: list[_Node] = []
    waiting = list(reversed(ground.children.values()))
    while waiting:
        node = waiting.pop()
        node.number = len(nodes)
        nodes.append(node)
        waiting.extend(reversed(node.children.values()))
    return nodes


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of every run of true values."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


class _Keys:
    """Numbers that are equal for equal tokens only: ids for text, below zero what an id does not say."""

    def __init__(self) -> None:
        self.images: list[ImageInputs] = []
        self._of_image: dict[bytes, int] = {}  # content to row of `images`
        self._stretches: dict[tuple[bytes, ...], int] = {}

    def of_response(self, response: Tensor) -> _Path:
        """The path of a response; its ids are its keys."""
        ids = response.to("cpu", torch.int64).numpy()
        return _Path(ids, ids, np.zeros(len(ids), dtype=np.int8))

    def of_prompt(self, sample: Sample) -> _Path:
        """The path of a prompt, its image tokens told apart by what they show."""
        path = self.of_response(sample.prompt_ids)
        if not sample.images and not sample.both_ways:
            return path
        keys, kinds, marks = path.ids.copy(), path.kinds.copy(), []
        image_of = np.full(len(keys), -1) if sample.image_of is None else sample.image_of.cpu().numpy()
        crossed = sample.is_seen_both_ways.cpu().numpy()
        whole = crossed.copy()  # what is shared whole or not at all: what sees itself both ways, and all of its image
        for number, image in enumerate(sample.images):
            places = np.flatnonzero(image_of == number)
            first, last = int(places[0]), int(places[-1])
            ids = path.ids[first : last + 1]  # and what stands between them, which begins no other image
            keys[first : last + 1] = self._stretch(image.content, ids.tobytes(), len(ids))
            whole[first : last + 1] |= sample.both_ways is not None
            kinds[places] |= IMAGE
            kinds[first] |= FIRST
            marks.append((first, self._row(image)))
        kinds[crossed] |= BOTH_WAYS
        for first, stop in _runs(whole):
            contents = [sample.images[number].content for number in np.unique(image_of[first:stop]) if number >= 0]
            content = b"both ways" + b"".join(contents)
            keys[first:stop] = self._stretch(content, path.ids[first:stop].tobytes(), stop - first)
        return _Path(keys, path.ids, kinds, tuple(marks))

    def _stretch(self, content: bytes, ids: bytes, tokens: int) -> np.ndarray:
        """Keys of tokens that are the same only together: of one image, or of a prompt seen both ways."""
        number = self._stretches.setdefault((content, ids), len(self._stretches))
        return -1 - ((number << 32) + np.arange(tokens))

    def _row(self, image: ImageInputs) -> int:
        row = self._of_image.setdefault(image.content, len(self.images))
        if row == len(self.images):
            self.images.append(image)
        return row
