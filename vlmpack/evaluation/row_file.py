"""Rows of anybody's: a file in any row format, grouped by what it says of itself.

Every pair of responses of which the row says which is better counts as one. The micro average is over all pairs, the
macro average over groups.
"""

from typing import Any

from vlmpack.evaluation.benchmark import Benchmark, Raw

GROUP_COLUMNS = ("category", "source", "subset")


def to_row(raw: Raw) -> dict[str, Any]:
    """A row without the columns that only describe it here.

    Args:
        raw: in any row format of `vlmpack.processors`.
    """
    return {name: value for name, value in raw.items() if name not in ("id", *GROUP_COLUMNS)}


def group_of(raw: Raw) -> str:
    """What the first of `GROUP_COLUMNS` that a row has says of it, or "all".

    Args:
        raw: a row.
    """
    return next((str(raw[name]) for name in GROUP_COLUMNS if raw.get(name) is not None), "all")


ROWS = Benchmark("rows", needs=(), to_row=to_row, group_of=group_of, source="a file of rows")
