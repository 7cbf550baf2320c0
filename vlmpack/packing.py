"""Which samples share a pack."""

from collections.abc import Sequence

from vlmpack.bins import first_fit_decreasing
from vlmpack.pack import Pack, lay_out
from vlmpack.sample import Sample


class PackingError(ValueError):
    """Samples cannot be packed as asked."""


def pack(samples: Sequence[Sample], max_tokens: int = 8192) -> list[Pack]:
    """Put samples into as few packs as first-fit-decreasing finds, every sample in exactly one.

    Args:
        samples: in any order.
        max_tokens: the most tokens in one pack. A memory knob: it changes no result.

    Returns:
        Packs, each with its samples in the order given; `Pack.sample_of` says which they are.

    Raises:
        PackingError: there is no sample, `max_tokens` is not positive, or a sample is larger.
    """
    if not samples:
        raise PackingError("there are no samples to pack")
    if max_tokens <= 0:
        raise PackingError(f"max_tokens={max_tokens} holds nothing; give the tokens that fit into memory, e.g. 8192")
    sizes = [sample.lengths.packed for sample in samples]
    if max(sizes) > max_tokens:
        row = sizes.index(max(sizes))
        raise PackingError(
            f"sample {row} has {sizes[row]} tokens (its prompt once and all its responses), more than "
            f"max_tokens={max_tokens}; raise max_tokens to {sizes[row]}, or cut responses with max_length"
        )
    return [lay_out([samples[row] for row in rows], rows) for rows in first_fit_decreasing(sizes, max_tokens)]
