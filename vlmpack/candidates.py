"""Rows to be judged, read and packed: each row's prompt once, with as many of its responses as fit a pack."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from vlmpack.pack import Pack
from vlmpack.packing import pack
from vlmpack.sample import Sample, SampleError
from vlmpack.scored import Scored

WINDOW = 32  # rows that are read and packed together

Numbered = tuple[int, Any]  # a row's place among all, and the row


@dataclass(frozen=True, eq=False)
class Window:
    """Some rows, ready to be scored.

    Attributes:
        rows: what is known of each before it is scored: whether it can be, and what its responses are.
        packs: all responses of those that can be.
        owners: for each response of each pack, the row of `rows` whose response it is, and which.
    """

    rows: tuple[Scored, ...]
    packs: tuple[Pack, ...]
    owners: tuple[tuple[tuple[int, int], ...], ...]


def windows(rows: Iterable[Any], size: int = WINDOW, first: int = 0) -> Iterator[list[Numbered]]:
    """Rows with their places, so many at a time.

    Args:
        rows: in their order.
        size: of a window.
        first: the place of the first row.
    """
    numbered = enumerate(rows, first)
    while window := list(islice(numbered, size)):
        yield window


@dataclass(frozen=True)
class Preparation:
    """Reads the rows of a window and packs them; what is wrong with one row is told, and takes no other with it.

    Attributes:
        read: a row to a `Sample`, or a `ValueError` that says what is wrong with it. None: rows are samples.
        max_tokens: of a pack. A row that is larger is scored in several packs, each with its prompt.
        max_length: tokens of prompt + response; response tails are cut. None: nothing is.
        longest: tokens of the longest prompt + response that the model can be given in a pack; see `support`.
    """

    read: Callable[[Any], Sample] | None
    max_tokens: int
    max_length: int | None = None
    longest: float = math.inf

    def __call__(self, rows: Sequence[Numbered]) -> Window:
        """A window of rows with their places."""
        known, parts, owners = [], [], []
        for number, (place, row) in enumerate(rows):
            try:
                sample = self._sample(row)
                cut = _parts(sample, self.max_tokens)
                self._check_longest(sample)
            except Exception as error:  # one row's surprise must not take the others with it
                told = isinstance(error, ValueError | OSError)
                known.append(Scored(place, error=str(error) if told else f"{type(error).__name__}: {error}"))
                continue
            known.append(_unscored(place, sample))
            parts += [part for part, _ in cut]
            owners += [[(number, response) for response in responses] for _, responses in cut]
        packs = pack(parts, self.max_tokens) if parts else []
        return Window(tuple(known), tuple(packs), tuple(_owners(each, owners) for each in packs))

    def _check_longest(self, sample: Sample) -> None:
        longest = len(sample.prompt_ids) + max(map(len, sample.response_ids))
        if longest > self.longest:
            raise SampleError(
                f"a response has {longest} tokens with its prompt, and the model, whose rotary embedding is scaled by "
                f"the longest path, takes {self.longest:.0f}; cut responses with max_length"
            )

    def _sample(self, row: Any) -> Sample:
        if isinstance(row, Sample):
            return row.truncated(self.max_length)
        if self.read is None:
            raise SampleError(f"it is a {type(row).__name__}, not a Sample, and there is no processor to read it")
        return self.read(row).truncated(self.max_length)


def _unscored(place: int, sample: Sample) -> Scored:
    return Scored(
        place,
        pairs=tuple(sample.pairs),
        margins=None if sample.margins is None else tuple(map(float, sample.margins)),
        lengths=tuple(map(len, sample.response_ids)),
        images=len(sample.images),
        image_tokens=int(sample.is_image.sum()),
    )


def _parts(sample: Sample, max_tokens: int) -> list[tuple[Sample, range]]:
    """A sample's prompt with consecutive responses, as many at a time as fit; exact, for rewards meet in no sum."""
    prompt, parts, first, tokens = len(sample.prompt_ids), [], 0, len(sample.prompt_ids)
    for place, response in enumerate(sample.response_ids):
        if prompt + len(response) > max_tokens:
            raise SampleError(
                f"response {place} has {prompt + len(response)} tokens with its prompt, more than "
                f"max_tokens={max_tokens}; raise max_tokens, or cut responses with max_length"
            )
        if tokens + len(response) > max_tokens:
            parts.append(range(first, place))
            first, tokens = place, prompt
        tokens += len(response)
    parts.append(range(first, sample.responses))
    return [(_with_responses(sample, part), part) for part in parts]


def _with_responses(sample: Sample, part: range) -> Sample:
    return replace(sample, response_ids=sample.response_ids[part.start : part.stop], pairs=(), margins=None)


def _owners(each: Pack, owners: Sequence[Sequence[tuple[int, int]]]) -> tuple[tuple[int, int], ...]:
    """Whose each response of a pack is; its samples' responses stand in their order, one after the other."""
    parts = list(dict.fromkeys(each.sample_of.tolist()))
    return tuple(owner for part in parts for owner in owners[part])
