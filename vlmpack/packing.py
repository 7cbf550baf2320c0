"""Which samples share a pack."""

from collections.abc import Sequence

from vlmpack.pack import Pack, lay_out
from vlmpack.prefix import Merged, merge
from vlmpack.sample import Sample
from vlmpack.splitting import split


class PackingError(ValueError):
    """Samples cannot be packed as asked."""


def pack(samples: Sequence[Sample], max_tokens: int = 8192) -> list[Pack]:
    """Put samples into as few packs as first-fit-decreasing finds, every sample in exactly one.

    What samples have in common at their beginning, images included, stands once a pack: see `prefix.merge`. Samples
    that share are kept together while they fit; see `splitting.split`.

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
    merged = merge(samples)
    if merged.forest.tokens <= max_tokens:
        return [lay_out(samples, range(len(samples)), merged)]
    needs = [_responses(merged, sample) for sample in range(len(samples))]
    for row, (prompt, need) in enumerate(zip(merged.prompts, needs, strict=True)):
        _check_size(row, _stop(merged, prompt) + sum(merged.forest.lengths[segment] for segment in need), max_tokens)
    parts = split(merged.forest, merged.prompts, needs, max_tokens)
    return [lay_out([samples[row] for row in rows], rows) for rows in parts]


def _stop(merged: Merged, segment: int) -> int:
    """Tokens from the root to the end of a segment."""
    return merged.forest.depths[segment] + merged.forest.lengths[segment]


def _responses(merged: Merged, sample: int) -> frozenset[int]:
    """The segments of a sample's responses."""
    forest, stop = merged.forest, _stop(merged, merged.prompts[sample])
    needed = {segment for leaf in merged.leaves[sample] for segment in (*forest.ancestors(leaf), leaf)}
    return frozenset(segment for segment in needed if forest.depths[segment] >= stop)


def _check_size(row: int, tokens: int, max_tokens: int) -> None:
    if tokens > max_tokens:
        raise PackingError(
            f"sample {row} has {tokens} tokens (its prompt once and all its responses), more than "
            f"max_tokens={max_tokens}; raise max_tokens to {tokens}, or cut responses with max_length"
        )
