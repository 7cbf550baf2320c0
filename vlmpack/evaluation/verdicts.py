"""Who was right, and how often: a verdict a row, and averages of verdicts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vlmpack.scored import Scored


@dataclass(frozen=True)
class Verdict:
    """What a reward model made of one row.

    A pair is right only if the preferred response's reward is the larger one: a tie is wrong, and so is a
    reward that is not a number.

    Attributes:
        place: of the row in its data set, from 0.
        name: its id, empty if it has none.
        group: that it is averaged in.
        rewards: R floats, empty if it was not scored.
        pairs: how many pairs of responses it says somebody is better of.
        right: how many of them are right.
        tied: how many of them have two equal rewards.
        image_tokens: tokens of its prompt that stand for pixels.
        error: why it was not scored, empty if it was.
    """

    place: int
    name: str
    group: str
    rewards: tuple[float, ...] = ()
    pairs: int = 0
    right: int = 0
    tied: int = 0
    image_tokens: int = 0
    error: str = ""


@dataclass(frozen=True)
class Share:
    """How many of how many.

    Attributes:
        right: those that are right.
        of: all of them.
    """

    right: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None of nothing."""
        return self.right / self.of if self.of else None


def verdict_of(place: int, name: str, group: str, scored: Scored) -> Verdict:
    """Judge a row by its rewards.

    Args:
        place: of the row in its data set.
        name: its id.
        group: that it is averaged in.
        scored: its rewards, or why there are none.

    Returns:
        The verdict; without pairs if the row was not scored.
    """
    if scored.error:
        return Verdict(place, name, group, error=scored.error)
    rewards = scored.rewards
    right = sum(rewards[preferred] > rewards[rejected] for preferred, rejected in scored.pairs)
    tied = sum(rewards[preferred] == rewards[rejected] for preferred, rejected in scored.pairs)
    return Verdict(place, name, group, rewards, len(scored.pairs), right, tied, scored.image_tokens)


def share(verdicts: Iterable[Verdict]) -> Share:
    """The share of pairs that are right: the micro average, in which every pair weighs the same.

    Args:
        verdicts: of any rows; those that were not scored have no pairs.
    """
    verdicts = list(verdicts)
    return Share(sum(each.right for each in verdicts), sum(each.pairs for each in verdicts))


def by_group(verdicts: Iterable[Verdict], order: Iterable[str] = ()) -> dict[str, Share]:
    """The share of each group that a row stands in, scored or not.

    Args:
        verdicts: of all rows.
        order: groups to begin with, as far as there are any; the others follow as they come.
    """
    members: dict[str, list[Verdict]] = {name: [] for name in order}
    for each in verdicts:
        members.setdefault(each.group, []).append(each)
    return {name: share(each) for name, each in members.items() if each}


def by_id(verdicts: Iterable[Verdict]) -> tuple[Share, dict[str, Share]]:
    """ACC+: the share of ids all of whose rows are right.

    An id counts only if every row of it was scored: of one that lacks a row nobody knows whether all are right. It
    stands in the group of its first row.

    Args:
        verdicts: of all rows; those without a name are left out.

    Returns:
        The share of all ids, and that of each group.
    """
    rows: dict[str, list[Verdict]] = {}
    for each in verdicts:
        if each.name:
            rows.setdefault(each.name, []).append(each)
    judged: dict[str, list[bool]] = {members[0].group: [] for members in rows.values()}
    for members in rows.values():
        if not any(each.error for each in members):
            judged[members[0].group].append(all(each.right == each.pairs for each in members))
    every = [right for found in judged.values() for right in found]
    return Share(sum(every), len(every)), {name: Share(sum(found), len(found)) for name, found in judged.items()}


def by_section(
    groups: Mapping[str, Share], section_of: Callable[[str], str], weights: Mapping[str, int]
) -> dict[str, float | None]:
    """The accuracy of each section: of its groups, weighted.

    A group without scored pairs is left out, and its weight too. Weighted by its pairs, a section is the share of
    its pairs that are right.

    Args:
        groups: the share of each.
        section_of: the section of a group, empty if it is in none.
        weights: of groups; one that is not named weighs as many as its pairs.

    Returns:
        Shares, 0 to 1; None for a section in which nothing was scored.
    """
    parts: dict[str, list[tuple[float, int]]] = {}
    for name, each in groups.items():
        if section := section_of(name):
            weighed = parts.setdefault(section, [])
            if each.of:
                weight = weights.get(name, each.of)
                weighed.append((each.right * weight / each.of, weight))
    return {
        section: sum(part for part, _ in weighed) / sum(weight for _, weight in weighed) if weighed else None
        for section, weighed in parts.items()
    }


def mean(values: Iterable[float | None]) -> float | None:
    """The macro average, in which every value weighs the same.

    Args:
        values: those that are None are left out.

    Returns:
        Their mean; None if nothing is left.
    """
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
