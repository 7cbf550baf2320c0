"""What a terminal shows of an evaluation: aligned columns, and remarks a line each."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vlmpack.evaluation.verdicts import Share, Verdict

SHOWN = 5  # rows named with their reasons; the rest are counted
NAMED = 8  # groups named in a remark; more are only counted
Line = tuple[str, ...]


def percent(value: float | None) -> str:
    """A share in percent, to a hundredth; "-" of nothing.

    Args:
        value: 0 to 1.
    """
    return "-" if value is None else f"{value:.2%}"


def aligned(head: Line, lines: Sequence[Line]) -> str:
    """Lines as columns, the first to the left and the others to the right.

    Args:
        head: the columns' names.
        lines: of as many cells or fewer.
    """
    cells = [tuple(line) + ("",) * (len(head) - len(line)) for line in (head, *lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in cells
    )


def head(lost: Mapping[str, int], keyed: bool) -> Line:
    """Names of the columns.

    Args:
        lost: rows of each group that were not scored.
        keyed: whether ids are judged too.
    """
    ids = ("ids right", "of", "ACC+") if keyed else ()
    return ("group", "right", "of", "accuracy", *ids, *_lost("not scored", lost))


def lost_by_group(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many rows of each group were not scored; groups without such rows are left out.

    Args:
        verdicts: of all rows.
    """
    return dict(Counter(each.group for each in verdicts if each.error))


def group_lines(groups: Mapping[str, Share], lost: Mapping[str, int], ids: Mapping[str, Share] | None) -> list[Line]:
    """A line a group.

    Args:
        groups: the share of each.
        lost: rows of each that were not scored.
        ids: the share of each group's ids; None if ids are not judged.
    """
    return [
        (name or "(none)", *_cells(each), *_ids(name, ids), *_lost(lost.get(name, ""), lost))
        for name, each in groups.items()
    ]


def section_lines(sections: Mapping[str, float | None]) -> list[Line]:
    """A line a section, of which only the accuracy is said, for it may be weighted.

    Args:
        sections: the accuracy of each.
    """
    return [(name, "", "", percent(value)) for name, value in sections.items()]


def total_line(total: Share, lost: int, ids: Share | None) -> Line:
    """The line of all groups.

    Args:
        total: the share of all pairs.
        lost: rows that were not scored.
        ids: the share of all ids; None if ids are not judged.
    """
    return ("overall (micro)", *_cells(total), *(() if ids is None else _cells(ids)), *([str(lost)] if lost else []))


def macro_remark(sections: Mapping[str, float | None]) -> str:
    """What the macro average is the mean of, and what it lacks.

    Args:
        sections: the accuracy of each.
    """
    known = [name for name, value in sections.items() if value is not None]
    lacking = [name for name, value in sections.items() if value is None]
    line = f"macro: the mean of {_named(known)}" if known else "macro: there is nothing to average"
    return f"{line}; nothing was scored of {_named(lacking)}, which it leaves out" if lacking else line


def count_remark(counts: Mapping[str, int]) -> str:
    """How many rows there are and what became of them.

    Args:
        counts: of an evaluation.
    """
    parts = [f"rows: {counts['rows']:,}, scored: {counts['scored']:,}, not scored: {counts['not_scored']:,}"]
    if counts["without_preference"]:
        parts.append(f"without a preference, and so in no average: {counts['without_preference']:,}")
    parts.append(f"pairs: {counts['pairs']:,}, tied, and so wrong: {counts['ties']:,}")
    if counts["not_a_number"]:
        parts.append(f"rows with a reward that is not a number, and so wrong: {counts['not_a_number']:,}")
    return "; ".join(parts)


def image_remark(tokens: Mapping[str, float | int]) -> str:
    """How much the model saw.

    Args:
        tokens: mean and largest number of image tokens a row.
    """
    if not tokens["largest"]:
        return "image tokens a row: none, text only"
    return f"image tokens a row: {tokens['mean']:,.1f} on average, {tokens['largest']:,} at most"


def not_scored_remark(not_scored: Sequence[Verdict], rows: int) -> Iterator[str]:
    """Which rows are in no average, and what that means.

    Args:
        not_scored: verdicts with a reason.
        rows: how many there are in all.
    """
    if not not_scored:
        return
    yield (
        f"{len(not_scored):,} of {rows:,} rows could not be scored. The averages leave them out, so they are not "
        f"comparable with published figures:"
    )
    for each in not_scored[:SHOWN]:
        name = f" ({each.name})" if each.name else ""
        yield f"  row {each.place}{name}: {each.error.splitlines()[0]}"
    if len(not_scored) > SHOWN:
        yield f"  and {len(not_scored) - SHOWN:,} more"


def _named(groups: Sequence[str]) -> str:
    return f"{len(groups):,} groups" if len(groups) > NAMED else ", ".join(name or "(none)" for name in groups)


def _cells(each: Share) -> Line:
    return f"{each.right:,}", f"{each.of:,}", percent(each.value)


def _ids(name: str, ids: Mapping[str, Share] | None) -> Line:
    return () if ids is None else _cells(ids.get(name, Share(0, 0)))


def _lost(cell: str | int, lost: Mapping[str, int]) -> Line:
    """The last column, which is there only if rows were lost."""
    return (str(cell),) if lost else ()
