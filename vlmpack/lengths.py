"""What samples cost, known before any pixel is decoded: one sample's lengths, and a table of very many."""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vlmpack.array_file import load_arrays, save_arrays
from vlmpack.ragged import Ragged

DIGEST = 16  # bytes of a digest


class SampleError(ValueError):
    """A sample's parts do not fit together, or it cannot be used as asked."""


@dataclass(frozen=True)
class Lengths:
    """What a sample will cost, known before any pixel is processed.

    Digests of images are made from files when a row is measured and from pixels when it is processed; whatever holds
    such digests only tells rows apart that were looked at in the same way.

    Attributes:
        prompt: tokens of the prompt, image tokens included.
        responses: R ints. Tokens of each response.
        images: a digest of each image in the prompt, equal for equal images.
        pairs: P (preferred, rejected) responses.
        margins: whether it is known how much better the preferred ones are.
        overlaps: R - 1 ints, or none. Tokens that a response has in common with the next one in sorted order, which
            is what it need not repeat; see `overlaps`.
        trunk: tokens at the prompt's beginning that samples with the same root share when they meet: up to its last
            image token, or all where the whole prompt is seen both ways. 0 without images.
        root: a digest of those tokens and of the images in them. Empty: there is no image, or nobody has looked.
        content: a digest of all that the model is given, in order and before truncation. Empty: nobody has looked.
    """

    prompt: int
    responses: tuple[int, ...]
    images: tuple[bytes, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    margins: bool = False
    overlaps: tuple[int, ...] = ()
    trunk: int = 0
    root: bytes = field(default=b"", compare=False)
    content: bytes = field(default=b"", compare=False)

    @property
    def packed(self) -> int:
        """Tokens when the prompt stands once, and what responses begin with alike."""
        return self.prompt + sum(self.responses) - sum(self.overlaps)

    @property
    def unpacked(self) -> int:
        """Tokens when the prompt is repeated for every response."""
        return self.prompt * len(self.responses) + sum(self.responses)

    def truncated(self, max_length: int | None) -> "Lengths":
        """The lengths after `Sample.truncated(max_length)`.

        Args:
            max_length: tokens of prompt + one response. None: nothing is cut.

        Raises:
            SampleError: the prompt leaves no room for a response.
        """
        left = room(self.prompt, max_length)
        cut = {name: tuple(min(n, left) for n in getattr(self, name)) for name in ("responses", "overlaps")}
        return replace(self, **cut)


def overlaps(responses: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """How many tokens each response has in common with the next one in sorted order.

    In sorted order the longest beginning that a response shares with any before it is that shared with its neighbour,
    so the sum is what a tree of all responses saves. Cutting tails at one length cuts these at that length.

    Example:
        >>> overlaps([[7, 1], [7, 2, 2], [9], [7, 2, 2]])
        (1, 3, 0)
    """
    ordered = sorted(responses)
    return tuple(
        next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        for one, other in pairwise(ordered)
    )


def room(prompt: int, max_length: int | None) -> int:
    """Tokens that a response may have after a prompt of so many.

    Raises:
        SampleError: there is no room.
    """
    if max_length is None:
        return sys.maxsize
    if prompt >= max_length:
        raise SampleError(no_room(prompt, max_length))
    return max_length - prompt


def no_room(prompt: int, max_length: int) -> str:
    """Why a prompt of so many tokens is too long."""
    return (
        f"the prompt has {prompt} tokens, which leaves no room for a response in max_length={max_length}; "
        f"raise max_length or drop the row (a prompt is never cut)"
    )


@dataclass(frozen=True, eq=False)
class LengthTable(Sequence[Lengths]):
    """The `Lengths` of n samples as columns: under 200 bytes a sample of four responses and six pairs.

    Attributes:
        prompt: [n] tokens of the prompt.
        responses: n rows of the tokens of each response.
        overlaps: n rows of what responses have in common.
        images: n rows of the number of each image; equal images have the same number, also in other samples.
        pairs: n rows of (preferred, rejected) responses.
        margins: [n] whether it is known how much better the preferred ones are.
        trunk: [n] tokens that samples of the same root share.
        roots: [n] the number of each sample's root; -1 if it has none.
        content: [n, 16] digests of all that the model is given; zeros if nobody has looked.
        image_digests: the digest of each image by its number, as rows of bytes.
        root_digests: likewise, of each root.
    """

    prompt: Int[np.ndarray, " n"]
    responses: Ragged
    overlaps: Ragged
    images: Ragged
    pairs: Ragged
    margins: Bool[np.ndarray, " n"]
    trunk: Int[np.ndarray, " n"]
    roots: Int[np.ndarray, " n"]
    content: UInt8[np.ndarray, "n 16"]
    image_digests: Ragged
    root_digests: Ragged

    @classmethod
    def of(cls, lengths: Iterable[Lengths]) -> "LengthTable":
        """The table of some lengths, which are taken one by one and not kept.

        Raises:
            ValueError: a `content` has not 16 bytes.
        """
        grown = _Growing()
        for each in lengths:
            grown.append(each)
        return cls.from_columns(grown.columns())

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray]) -> "LengthTable":
        """A table from arrays by name, as `columns` gives them."""
        ragged = {each.name for each in fields(cls) if each.type is Ragged}
        parts = {name: Ragged(columns[name], columns[f"{name}_starts"]) for name in ragged}
        return cls(**parts, **{each.name: columns[each.name] for each in fields(cls) if each.name not in ragged})

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name; a ragged column is two, the second with `_starts` behind its name."""
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        ragged = {name: part for name, part in parts.items() if isinstance(part, Ragged)}
        starts = {f"{name}_starts": part.starts for name, part in ragged.items()}
        return parts | {name: part.values for name, part in ragged.items()} | starts

    def save(self, path: Path) -> None:
        """Write the table to a file, whole or not at all."""
        save_arrays(path, self.columns())

    @classmethod
    def load(cls, path: Path) -> "LengthTable":
        """Read a table that `save` wrote."""
        return cls.from_columns(load_arrays(path))

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, place: int) -> Lengths:
        place = range(len(self))[place]
        root, content = int(self.roots[place]), self.content[place]
        return Lengths(
            prompt=int(self.prompt[place]),
            responses=tuple(self.responses[place].tolist()),
            images=tuple(self.image_digests[number].tobytes() for number in self.images[place].tolist()),
            pairs=tuple((preferred, rejected) for preferred, rejected in self.pairs[place].tolist()),
            margins=bool(self.margins[place]),
            overlaps=tuple(self.overlaps[place].tolist()),
            trunk=int(self.trunk[place]),
            root=self.root_digests[root].tobytes() if root >= 0 else b"",
            content=content.tobytes() if content.any() else b"",
        )

    def take(self, places: Sequence[int] | Int[np.ndarray, " k"]) -> "LengthTable":
        """Some samples, in the order named; the numbers of images and roots stay what they are."""
        places = np.asarray(places, dtype=np.int64)
        ragged = {name: getattr(self, name).take(places) for name in ("responses", "overlaps", "images", "pairs")}
        flat = {name: getattr(self, name)[places] for name in ("prompt", "margins", "trunk", "roots", "content")}
        return replace(self, **ragged, **flat)

    def fits(self, max_length: int | None) -> Bool[np.ndarray, " n"]:
        """Which prompts leave room for a response."""
        return self.prompt < (sys.maxsize if max_length is None else max_length)

    def truncated(self, max_length: int | None) -> "LengthTable":
        """As `Lengths.truncated`, of every sample.

        Raises:
            SampleError: a prompt leaves no room for a response; see `fits`.
        """
        if max_length is None or not len(self):
            return self
        room(int(self.prompt.max()), max_length)
        left = max_length - self.prompt.astype(np.int64)
        return replace(self, **{name: _cut(getattr(self, name), left) for name in ("responses", "overlaps")})

    @property
    def packed(self) -> Int[np.ndarray, " n"]:
        """Tokens of each sample when its prompt stands once, and what responses begin with alike."""
        return self.prompt + self.responses.sums - self.overlaps.sums

    @property
    def unpacked(self) -> Int[np.ndarray, " n"]:
        """Tokens of each sample when its prompt is repeated for every response."""
        return self.prompt * self.responses_of_row + self.responses.sums

    @property
    def responses_of_row(self) -> Int[np.ndarray, " n"]:
        """R of each sample."""
        return self.responses.counts

    @property
    def pair_counts(self) -> Int[np.ndarray, " n"]:
        """P of each sample."""
        return self.pairs.counts

    @property
    def first_image(self) -> Int[np.ndarray, " n"]:
        """The number of each sample's first image; -1 if it has none."""
        padded = np.append(self.images.values, -1)
        return np.where(self.images.counts > 0, padded[self.images.starts[:-1]], -1)

    @property
    def vision_passes(self) -> Int[np.ndarray, " n"]:
        """Different images of each sample."""
        images, kinds = self.images, len(self.image_digests)
        if images.counts.max(initial=0) <= 1:
            return images.counts
        different = np.unique(images.rows * kinds + images.values)
        return np.bincount(different // kinds, minlength=len(self))


def _cut(column: Ragged, most: Int[np.ndarray, " n"]) -> Ragged:
    values = np.minimum(column.values, np.repeat(most, column.counts))
    return Ragged(values.astype(column.values.dtype), column.starts)


class _Growing:
    """Columns that samples are added to; equal images get the same number, and so do equal roots."""

    def __init__(self) -> None:
        self.flat = {name: array("i") for name in ("prompt", "trunk", "roots")}
        self.ragged = {name: array("i") for name in ("responses", "overlaps", "images", "pairs")}
        self.starts = {name: array("q", [0]) for name in self.ragged}
        self.margins, self.content = bytearray(), bytearray()
        self.numbers: dict[str, dict[bytes, int]] = {"image_digests": {}, "root_digests": {}}

    def append(self, each: Lengths) -> None:
        """Add a sample at the end."""
        if len(each.content) not in (0, DIGEST):
            raise ValueError(f"content has {len(each.content)} bytes; give a digest of {DIGEST}, or none")
        images, roots = self.numbers["image_digests"], self.numbers["root_digests"]
        self.flat["prompt"].append(each.prompt)
        self.flat["trunk"].append(each.trunk)
        self.flat["roots"].append(roots.setdefault(each.root, len(roots)) if each.root else -1)
        self.margins.append(each.margins)
        self.content += each.content or bytes(DIGEST)
        self.ragged["responses"].extend(each.responses)
        self.ragged["overlaps"].extend(each.overlaps)
        self.ragged["images"].extend(images.setdefault(image, len(images)) for image in each.images)
        self.ragged["pairs"].extend(chain.from_iterable(each.pairs))
        for name, values in self.ragged.items():
            self.starts[name].append(len(values) // (2 if name == "pairs" else 1))

    def columns(self) -> dict[str, np.ndarray]:
        """All that was added, as `LengthTable.from_columns` takes it."""
        found = {name: np.array(values, dtype=np.int32) for name, values in (self.flat | self.ragged).items()}
        found |= {f"{name}_starts": np.array(starts, dtype=np.int64) for name, starts in self.starts.items()}
        for name, digests in self.numbers.items():
            found[name] = np.frombuffer(b"".join(digests), dtype=np.uint8)
            found[f"{name}_starts"] = np.cumsum([0, *map(len, digests)], dtype=np.int64)
        found["pairs"] = found["pairs"].reshape(-1, 2)
        found["margins"] = np.frombuffer(bytes(self.margins), dtype=np.bool_)
        found["content"] = np.frombuffer(bytes(self.content), dtype=np.uint8).reshape(-1, DIGEST)
        return found
