"""What there is to see of a pack, whoever draws it: segments by name, tokens, images, and what was saved."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from vlmpack import layout, masks
from vlmpack.forest import Forest
from vlmpack.inspect.account import Account, account
from vlmpack.inspect.naming import Response, leaves, listed, responses
from vlmpack.inspect.thumbnails import thumbnails
from vlmpack.pack import Pack
from vlmpack.packing import pack
from vlmpack.reading import Reading
from vlmpack.sample import Sample

Tokens = Int[np.ndarray, " T"]


class InspectError(ValueError):
    """What was given cannot be looked at."""


@dataclass(frozen=True)
class Part:
    """A stretch of a segment: text, or the tokens of one image.

    Attributes:
        start, stop: indices of its first token and of the one after its last.
        place: the image's place, a row of `Exhibit.images`; -1 for text.
    """

    start: int
    stop: int
    place: int = -1


@dataclass(frozen=True)
class Segment:
    """A segment by name.

    Attributes:
        number: its row in the forest.
        name: "prompt A", "prompts A, B" for what they share, "A2", "A1, A2" for what responses share, "padding"; of a
            forest alone "segment 4".
        kind: "prompt", "response" (of one response alone), "shared" (of several), or "padding".
        hue: of the one response whose own it is, see `Response.hue`; -1 for others.
        depth: segments before it on its path.
        stands_for: responses on whose path it stands: so many times it would stand without packing.
        parts: what it consists of.
    """

    number: int
    name: str
    kind: str
    hue: int
    depth: int
    stands_for: int
    parts: tuple[Part, ...]

    @property
    def start(self) -> int:
        """Index of its first token."""
        return self.parts[0].start

    @property
    def stop(self) -> int:
        """One past the index of its last token; what continues it comes after."""
        return self.parts[-1].stop


@dataclass(frozen=True)
class Placed:
    """An image where it stands.

    Attributes:
        image: its number among those that run through the vision tower, from 0.
        tokens: so many receive its features.
    """

    image: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Exhibit:
    """What there is to see of a pack, or of a forest alone, which has neither texts nor images.

    The token arrays are the pack's own, not derived anew from its forest: what is wrong with them is seen.

    Attributes:
        forest: S segments.
        segments: S, by name.
        responses: R, in the pack's order.
        images: a row for each place of an image, in token order.
        reach, position, previous, blocks, image_of: [T] as in `Pack`.
        pieces: T texts, one a token; None if nothing says how tokens are read.
        account: what was saved.
        pack: what is looked at; None for a forest.
        reading: how its tokens and pixels are read; None if nothing says it.
    """

    forest: Forest
    segments: tuple[Segment, ...]
    responses: tuple[Response, ...]
    images: tuple[Placed, ...]
    reach: Tokens
    position: Tokens
    previous: Tokens
    blocks: Tokens
    image_of: Tokens
    pieces: tuple[str, ...] | None
    account: Account
    pack: Pack | None = None
    reading: Reading | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return self.forest.tokens

    @cached_property
    def thumbnails(self) -> tuple[Image.Image | None, ...]:
        """For each image that runs, what the vision tower is shown, small; None where its layout is not known."""
        if self.pack is None:
            return ()
        return thumbnails(self.pack, None if self.reading is None else self.reading.image_processor)

    def text(self, start: int, stop: int) -> str | None:
        """What neighbouring tokens of one segment say; None if nothing says how they are read."""
        return None if self.pieces is None else "".join(self.pieces[start:stop])


def exhibit(shown: Pack | Sample | Forest, processor: Any = None) -> Exhibit:
    """Find out what there is to see.

    Args:
        shown: a sample is packed on its own; a forest's leaves are taken for responses.
        processor: a `PreferenceProcessor`, a transformers processor or a tokenizer that reads the tokens back; without
            it the one that made the samples, which they forget when they are pickled.

    Raises:
        InspectError: this is none of the three, or the processor reads nothing back.
    """
    if isinstance(shown, Forest):
        return _of_forest(shown)
    if isinstance(shown, Sample):
        (shown,) = pack([shown], max_tokens=len(shown.prompt_ids) + sum(map(len, shown.response_ids)))
    if not isinstance(shown, Pack):
        raise InspectError(f"a {type(shown).__name__} cannot be looked at; give a Pack, a Sample or a Forest")
    return _of_pack(shown.to("cpu"), shown.reading if processor is None else _reading(processor))


def _reading(processor: Any) -> Reading:
    reading = Reading.of(processor)
    if not hasattr(reading.tokenizer, "decode"):
        raise InspectError(
            f"a {type(processor).__name__} reads no tokens back; give a PreferenceProcessor, a transformers processor "
            f"or a tokenizer"
        )
    return reading


def _of_pack(pack: Pack, reading: Reading | None) -> Exhibit:
    names = responses(pack)
    arrays = {name: getattr(pack, name)[0].numpy() for name in ("reach", "position_ids", "previous", "blocks")}
    image_of = pack.image_of[0].numpy()
    segments = _segments(pack.forest, names, image_of)
    sizes = np.bincount(image_of[image_of >= 0], minlength=len(pack.placements)).tolist()
    return Exhibit(
        forest=pack.forest,
        segments=segments,
        responses=names,
        images=tuple(Placed(image, size) for image, size in zip(pack.placements, sizes, strict=True)),
        reach=arrays["reach"],
        position=arrays["position_ids"],
        previous=arrays["previous"],
        blocks=arrays["blocks"],
        image_of=image_of,
        pieces=None if reading is None or reading.tokenizer is None else _pieces(pack, reading),
        account=account(pack.forest, names, arrays["reach"], arrays["blocks"], image_of, pack.vision_passes),
        pack=pack,
        reading=reading,
    )


def _of_forest(forest: Forest) -> Exhibit:
    nothing = np.full(forest.tokens, -1)
    names, reach = leaves(forest), masks.reach(forest).numpy()
    segments = [replace(each, name=f"segment {each.number}") for each in _segments(forest, names, nothing)]
    return Exhibit(
        forest=forest,
        segments=tuple(segments),
        responses=names,
        images=(),
        reach=reach,
        position=layout.position(forest).numpy(),
        previous=layout.previous(forest).numpy(),
        blocks=nothing,
        image_of=nothing,
        pieces=None,
        account=account(forest, names, reach, nothing, nothing, 0),
    )


def _segments(forest: Forest, responses: Sequence[Response], image_of: Tokens) -> tuple[Segment, ...]:
    passing: list[list[Response]] = [[] for _ in forest.parents]
    for response in responses:
        for segment in response.path:
            passing[segment].append(response)
    prompts, names = list(dict.fromkeys(each.prompt for each in responses)), [each.name for each in responses]
    found = []
    for number, (start, length) in enumerate(zip(forest.starts, forest.lengths, strict=True)):
        owners = [each for each in passing[number] if forest.depths[number] >= each.prompt_tokens]
        others = [each for each in passing[number] if forest.depths[number] < each.prompt_tokens]
        name, kind = _named(owners, others, names, prompts)
        found.append(
            Segment(
                number=number,
                name=name,
                kind=kind,
                hue=owners[0].hue if kind == "response" else -1,
                depth=len(forest.ancestors(number)),
                stands_for=len(passing[number]),
                parts=_parts(image_of[start : start + length], start),
            )
        )
    return tuple(found)


def _named(
    owners: Sequence[Response], others: Sequence[Response], names: Sequence[str], prompts: Sequence[str]
) -> tuple[str, str]:
    """A segment's name and kind: by the responses it is a part of, and by those of whose prompt it is.

    Args:
        owners, others: both.
        names, prompts: all there are.
    """
    if not owners and not others:
        return "padding", "padding"
    lettered = [each.prompt for each in others]
    if not owners:
        return f"prompt{'s' * (len(set(lettered)) > 1)} {listed(lettered, prompts)}", "prompt"
    name = listed([each.name for each in owners], names)
    name += f" (prompt {listed(lettered, prompts)})" if others else ""
    return name, "response" if len(owners) == 1 and not others else "shared"


def _parts(image_of: Tokens, start: int) -> tuple[Part, ...]:
    """Stretches of text, and of an image from its first token to its last."""
    places = image_of.copy()
    for place in np.unique(image_of[image_of >= 0]):
        tokens = np.flatnonzero(image_of == place)
        places[tokens[0] : tokens[-1] + 1] = place
    parts = []
    for place, run in groupby(places.tolist()):
        stop = start + len(list(run))
        parts.append(Part(start, stop, place))
        start = stop
    return tuple(parts)


def _pieces(pack: Pack, reading: Reading) -> tuple[str, ...]:
    ids = pack.input_ids[0].split(pack.forest.lengths)
    return tuple(piece for each in ids for piece in reading.pieces(each.tolist()))
