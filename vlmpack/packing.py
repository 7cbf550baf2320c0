"""Which samples share a pack."""

from collections.abc import Sequence

from vlmpack.bins import first_fit_decreasing
from vlmpack.pack import Pack, lay_out
from vlmpack.padding import padded, padded_tokens, rows_in_order
from vlmpack.prefix import Merged
from vlmpack.sample import Sample
from vlmpack.sharing import SHARINGS, arrange, in_trees
from vlmpack.splitting import split


class PackingError(ValueError):
    """Samples cannot be packed as asked."""


def pack(
    samples: Sequence[Sample], max_tokens: int = 8192, *, sharing: str = "all", padding: bool = False
) -> list[Pack]:
    """Put samples into as few packs as first-fit-decreasing finds, every sample in exactly one.

    What samples have in common at their beginning, images included, stands once a pack: see `prefix.merge`. Samples
    that share are kept together while they fit; see `splitting.split`.

    The settings compute the same in other ways, for comparison: vanilla training is sharing="none" with padding, and
    batch sorting is that on samples in the order of their lengths.

    Args:
        samples: in any order.
        max_tokens: the most tokens in one pack. A memory knob: it changes no result.
        sharing: what stands once. "all": whatever begins alike, across samples too. "prompt": each sample's own
            prompt and images. "none": nothing, each response has its prompt before it, and each image runs through
            the tower once a response. "pair": nothing, and each pair has two responses of its own, `pairs` being
            (0, 1), (2, 3) and so on; for losses over pairs only.
        padding: fill every tree of a pack up to the longest one with tokens that count for nothing, as rows of a
            padded batch are. Packs are then cut in the order given, where rows times the longest would exceed
            `max_tokens`.

    Returns:
        Packs, each with its samples in the order given; `Pack.sample_of` says which they are.

    Raises:
        PackingError: there is no sample, `max_tokens` is not positive, a sample is larger, or there is no such
            sharing.
    """
    if not samples:
        raise PackingError("there are no samples to pack")
    if max_tokens <= 0:
        raise PackingError(f"max_tokens={max_tokens} holds nothing; give the tokens that fit into memory, e.g. 8192")
    if sharing not in SHARINGS:
        raise PackingError(f"sharing={sharing!r} is none of {SHARINGS}")
    samples = [in_trees(sample, sharing) for sample in samples]
    merged = arrange(samples, sharing)
    parts = _parts(merged, max_tokens, sharing, padding)
    packs = []
    for rows in parts:
        chosen = [samples[row] for row in rows]
        whole = merged if len(parts) == 1 else arrange(chosen, sharing)
        packs.append(lay_out(chosen, rows, padded(whole) if padding else whole))
    return packs


def _parts(merged: Merged, max_tokens: int, sharing: str, padding: bool) -> list[list[int]]:
    """The samples of each pack."""
    forest, samples = merged.forest, range(len(merged.leaves))
    if forest.tokens <= max_tokens and not padding:
        return [list(samples)]
    needs = [_segments(merged, sample) for sample in samples]
    sizes = [sum(forest.lengths[segment] for segment in need) for need in needs]
    if padding:
        filled = [padded_tokens(forest, need) for need in needs]
        _check_sizes(filled, max_tokens, f"{_HOLDS[sharing]}, filled up to equal lengths")
        return rows_in_order(forest, needs, max_tokens)
    _check_sizes(sizes, max_tokens, _HOLDS[sharing])
    if sharing != "all":
        return first_fit_decreasing(sizes, max_tokens)
    after_prompts = [_after_prompt(merged, sample, need) for sample, need in enumerate(needs)]
    return split(forest, merged.prompts, after_prompts, max_tokens)


def _segments(merged: Merged, sample: int) -> frozenset[int]:
    """The segments of a sample's prompt and responses."""
    return frozenset(s for leaf in merged.leaves[sample] for s in (*merged.forest.ancestors(leaf), leaf))


def _after_prompt(merged: Merged, sample: int, segments: frozenset[int]) -> frozenset[int]:
    """Those that stand after the prompt."""
    forest, prompt = merged.forest, merged.prompts[sample]
    stop = forest.depths[prompt] + forest.lengths[prompt]
    return frozenset(segment for segment in segments if forest.depths[segment] >= stop)


_HOLDS = {
    "all": "its prompt once and all its responses",
    "prompt": "its prompt once and all its responses",
    "none": "its prompt before every response",
    "pair": "its prompt before both responses of every pair",
}


def _check_sizes(sizes: Sequence[int], max_tokens: int, what: str) -> None:
    for row, tokens in enumerate(sizes):
        if tokens > max_tokens:
            raise PackingError(
                f"sample {row} has {tokens} tokens ({what}), more than max_tokens={max_tokens}; raise max_tokens to "
                f"{tokens}, or cut responses with max_length"
            )
