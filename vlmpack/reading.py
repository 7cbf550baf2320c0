"""How tokens and pixels are read back: by the tokenizer and the image processor that made them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BROKEN = "\ufffd"  # what a tokenizer writes for bytes that are no whole character
LONGEST = 4  # bytes of a character in UTF-8, so tokens too


@dataclass(frozen=True, eq=False)
class Reading:
    """What a sample remembers of its processor, so that it can be looked at.

    It stays in its process: pickled, as samples are that data loader workers send, it becomes None, for a tokenizer
    weighs more than they do.

    Attributes:
        tokenizer: of transformers; None if tokens have no text.
        image_processor: of transformers; None if pixels are to be shown as they are.
    """

    tokenizer: Any = None
    image_processor: Any = None
    _known: dict[int, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, processor: Any) -> "Reading":
        """What a `PreferenceProcessor`, a transformers processor or a tokenizer reads back.

        Args:
            processor: any of these.
        """
        own = getattr(processor, "reading", None)
        if isinstance(own, Reading):
            return own
        inner = getattr(processor, "processor", processor)  # a `PreferenceProcessor` that was pickled has no reading
        return cls(getattr(inner, "tokenizer", inner), getattr(inner, "image_processor", None))

    def __reduce__(self) -> tuple:
        return type(None), ()

    def __copy__(self) -> "Reading":
        return self

    def __deepcopy__(self, memo: dict) -> "Reading":
        return self

    def text(self, ids: Sequence[int]) -> str:
        """What tokens say together, special ones included.

        Args:
            ids: one after the other on a path.
        """
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token says, spaces before it included.

        A character whose bytes are several tokens stands at the first of them.

        Args:
            ids: one after the other on a path.
        """
        self._learn(set(ids) - self._known.keys())
        pieces = [self._known[number] for number in ids]
        broken = [BROKEN in piece for piece in pieces]
        start = 0
        while start < len(ids):
            stop = start + 1
            while broken[start] and stop < min(start + LONGEST, len(ids)) and broken[stop]:
                stop += 1
                if BROKEN not in (whole := self.text(ids[start:stop])):
                    pieces[start:stop] = [whole] + [""] * (stop - start - 1)
                    break
            else:
                stop = start + 1
            start = stop
        return pieces

    def _learn(self, ids: set[int]) -> None:
        """Decode each id behind an anchor: alone, many tokenizers take away the space that a token begins with."""
        anchor = self.tokenizer.encode("a", add_special_tokens=False)[-1:]
        before = self.text(anchor)
        for number in sorted(ids):
            behind = self.text([*anchor, number])
            self._known[number] = behind.removeprefix(before) if behind.startswith(before) else self.text([number])
