"""Who is preferred to whom among several responses: which pairs are compared, and how much each weighs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack.lengths import Lengths, LengthTable
from vlmpack.pack import Pack
from vlmpack.sample import Sample

PAIRINGS = ("all", "best", "adjacent")
PROMPT_WEIGHTS = ("pairs", "one")

Pairs = tuple[tuple[int, int], ...]


def selected(pairs: Pairs, pairing: str) -> tuple[int, ...]:
    """Which of a prompt's pairs are compared. Ties make no pair, so none are there to select.

    Args:
        pairs: (preferred, rejected) of all responses that are not tied.
        pairing: "all" of them; the "best" against the rest: pairs whose preferred one is rejected by none; or
            "adjacent" ones: pairs with no third response in between.

    Returns:
        Places in `pairs`.

    Example:
        >>> ranking = ((0, 1), (0, 2), (1, 2))
        >>> selected(ranking, "best"), selected(ranking, "adjacent")
        ((0, 1), (0, 2))
    """
    better = {}  # for each response, those that it is preferred to
    for preferred, rejected in pairs:
        better.setdefault(preferred, set()).add(rejected)
    beaten = {rejected for _, rejected in pairs}
    keeps = {
        "all": lambda preferred, rejected: True,
        "best": lambda preferred, rejected: preferred not in beaten,
        "adjacent": lambda preferred, rejected: not any(rejected in better.get(k, ()) for k in better[preferred]),
    }[pairing]
    return tuple(place for place, pair in enumerate(pairs) if keeps(*pair))


def compared(item: Sample | Lengths | LengthTable, pairing: str) -> Sample | Lengths | LengthTable:
    """A sample, or what it or many cost, with only the pairs that are compared."""
    if isinstance(item, LengthTable):
        return _compared_table(item, pairing)
    places = selected(item.pairs, pairing)
    if len(places) == len(item.pairs):
        return item
    pairs = tuple(item.pairs[place] for place in places)
    if isinstance(item, Lengths) or item.margins is None:
        return replace(item, pairs=pairs)
    return replace(item, pairs=pairs, margins=tuple(item.margins[place] for place in places))


def _compared_table(table: LengthTable, pairing: str) -> LengthTable:
    """Each pattern of pairs is looked at once; among a million prompts there are few."""
    if pairing == "all":
        return table
    pairs, kept = table.pairs, np.ones(len(table.pairs.values), dtype=np.bool_)
    known: dict[bytes, np.ndarray] = {}
    for row in np.flatnonzero(pairs.counts > 1).tolist():
        pattern = pairs[row].tobytes()
        if pattern not in known:
            every = tuple((preferred, rejected) for preferred, rejected in pairs[row].tolist())
            known[pattern] = np.isin(np.arange(len(every)), selected(every, pairing))
        kept[pairs.starts[row] : pairs.starts[row + 1]] = known[pattern]
    return replace(table, pairs=pairs.where(kept))


@dataclass(frozen=True, eq=False)
class Preferences:
    """What a loss must know of R responses besides their scores.

    Attributes:
        pairs: [P, 2] (preferred, rejected) responses.
        margins: [P] how much better the preferred one is; None if not all are known.
        lengths: [R] tokens of each response.
        sample_of: [R] the prompt that each response answers; any numbers that differ between prompts.
    """

    pairs: Int[Tensor, "P 2"]
    margins: Float[Tensor, " P"] | None
    lengths: Int[Tensor, " R"]
    sample_of: Int[Tensor, " R"]

    def to(self, device: torch.device | str) -> "Preferences":
        """The same on another device."""
        margins = None if self.margins is None else self.margins.to(device)
        return Preferences(self.pairs.to(device), margins, self.lengths.to(device), self.sample_of.to(device))

    def pair_weights(self, prompt_weight: str) -> Float[Tensor, " P"]:
        """How much each pair weighs, so that its prompt weighs one, or as much as it has pairs."""
        prompts, counts = self._prompts
        counts = counts[prompts[self.pairs[:, 0]]]
        return 1.0 / counts if prompt_weight == "one" else torch.ones_like(counts)

    def list_weights(self, prompt_weight: str) -> Float[Tensor, " R"]:
        """How much each response's term of a listwise loss weighs, so that its prompt weighs the same as in pairs."""
        prompts, counts = self._prompts
        counts = counts[prompts]
        return (counts > 0).to(counts) if prompt_weight == "one" else counts

    @cached_property
    def _prompts(self) -> tuple[Int[Tensor, " R"], Float[Tensor, " prompts"]]:
        """Each response's prompt, numbered from 0, and how many pairs each prompt has."""
        numbers, prompts = self.sample_of.unique(return_inverse=True)
        ones = torch.ones(len(self.pairs), device=self.pairs.device)
        return prompts, ones.new_zeros(len(numbers)).index_add(0, prompts[self.pairs[:, 0]], ones)


def preferences_of(unit: Pack | Sample, device: torch.device) -> Preferences:
    """The preferences among a pack's responses, or a sample's."""
    if isinstance(unit, Pack):
        return Preferences(unit.pairs, unit.margins, unit.response_lengths, unit.sample_of)
    return Preferences(
        pairs=torch.tensor(unit.pairs, dtype=torch.int64, device=device).reshape(-1, 2),
        margins=None if unit.margins is None else torch.tensor(unit.margins, device=device),
        lengths=torch.tensor([len(response) for response in unit.response_ids], device=device),
        sample_of=torch.zeros(len(unit.response_ids), dtype=torch.int64, device=device),
    )


def joined(parts: Sequence[Preferences]) -> Preferences:
    """Several parts of a batch as one; responses are numbered on, and prompts stay apart."""
    pairs, sample_of, responses, prompts = [], [], 0, 0
    for part in parts:
        pairs.append(part.pairs + responses)
        numbers, own = part.sample_of.unique(return_inverse=True)
        sample_of.append(own + prompts)
        responses, prompts = responses + len(part.lengths), prompts + len(numbers)
    known = all(part.margins is not None for part in parts)
    return Preferences(
        pairs=torch.cat(pairs),
        margins=torch.cat([part.margins for part in parts]) if known else None,
        lengths=torch.cat([part.lengths for part in parts]),
        sample_of=torch.cat(sample_of),
    )


def weight(item: Sample | Lengths, prompt_weight: str) -> float:
    """What a prompt adds to the whole that a step's loss is divided by: its pairs, or one if it has any."""
    return float(min(len(item.pairs), 1) if prompt_weight == "one" else len(item.pairs))


def preferred_tokens(item: Sample | Lengths, prompt_weight: str) -> float:
    """Tokens of the preferred responses of a prompt's pairs, each pair with its weight."""
    if not item.pairs:
        return 0.0
    lengths = item.responses if isinstance(item, Lengths) else [len(response) for response in item.response_ids]
    tokens = sum(lengths[preferred] for preferred, _ in item.pairs)
    return tokens * weight(item, prompt_weight) / len(item.pairs)


def mean_preferred_length(items: Sequence[Sample | Lengths], prompt_weight: str) -> float:
    """Tokens of a preferred response, averaged over the pairs of a data set with their weights."""
    if isinstance(items, LengthTable):
        return _mean_of_table(items, prompt_weight)
    tokens = sum(preferred_tokens(each, prompt_weight) for each in items)
    return tokens / sum(weight(each, prompt_weight) for each in items)


def _mean_of_table(table: LengthTable, prompt_weight: str) -> float:
    pairs, responses = table.pairs, table.responses
    tokens = responses.values[responses.starts[pairs.rows] + pairs.values[:, 0]]
    weights = 1 / pairs.counts[pairs.rows] if prompt_weight == "one" else np.ones(len(tokens))
    return float((tokens * weights).sum() / weights.sum())
