"""What a benchmark is: where its rows come from, how one is read, and what is averaged."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmpack.evaluation.verdicts import Verdict

Raw = Mapping[str, Any]


class EvaluationError(ValueError):
    """Rows are not a benchmark's, or one of them cannot be read; the message says what is missing."""


@dataclass(frozen=True)
class Benchmark:
    """A set of pairs with groups, and how accuracies are averaged over them.

    Attributes:
        name: as the command line has it.
        needs: columns without which a file is not this benchmark's.
        to_row: a raw row in a form that a processor reads; raises `EvaluationError` if it cannot be.
        group_of: a raw row's group. Never raises: a row that cannot be read stands in a group too.
        hub: name of its data set on the hub; None if there is none, or none that has its images.
        split: of that data set, or of a saved one.
        source: where a copy is had, for messages.
        paths: whether the hub's rows name image files that are not part of the data set.
        id_column: what a row is called.
        keyed: whether rows with the same id are also judged together, as ACC+.
        groups: names of the groups that it should have, in the order in which they are shown.
        section_of: the section that a group is averaged in; empty if it is in none.
        weights: by which a section's groups are averaged; those that are not named count as their pairs.
        answer_of: a line of the file that its own script reads; None if it has no such script.
    """

    name: str
    needs: tuple[str, ...]
    to_row: Callable[[Raw], dict[str, Any]]
    group_of: Callable[[Raw], str]
    hub: str | None = None
    split: str = "train"
    source: str = ""
    paths: bool = False
    id_column: str = "id"
    keyed: bool = False
    groups: tuple[str, ...] = ()
    section_of: Callable[[str], str] = str
    weights: Mapping[str, int] = field(default_factory=dict)
    answer_of: Callable[[Raw, Verdict], dict[str, Any]] | None = None

    def standing_of(self, raw: Any) -> tuple[str, str]:
        """A row's id as text, and its group; empty where it has none. Never raises.

        Args:
            raw: a row as the benchmark has it, readable or not.
        """
        if not isinstance(raw, Mapping):
            return "", ""
        name = raw.get(self.id_column)
        return "" if name is None else str(name), self.group_of(raw)


def asked(benchmark: Benchmark, raw: Any) -> dict[str, Any] | str:
    """A raw row as a processor reads it, or what is wrong with it.

    Args:
        benchmark: whose row it is.
        raw: the row.

    Returns:
        Columns, or a text.
    """
    try:
        for column in benchmark.needs:
            if raw.get(column) is None:
                raise EvaluationError(f"{column!r} is empty or missing")
        return benchmark.to_row(raw)
    except ValueError as error:
        return str(error)
    except Exception as error:  # one row's surprise must not take the others with it
        return f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Readable:
    """The rows of a benchmark that are to be scored: those that can be read, in order, as a processor reads them.

    They are read as they are asked for, and as often: each of a scorer's processes may go through them.

    Attributes:
        benchmark: whose rows they are.
        raw_rows: as the benchmark has them.
    """

    benchmark: Benchmark
    raw_rows: Iterable[Any]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rows = (asked(self.benchmark, raw) for raw in self.raw_rows)
        return (row for row in rows if not isinstance(row, str))


def check_columns(benchmark: Benchmark, raw_rows: Any) -> None:
    """See that rows are of this benchmark before anything is computed.

    Args:
        benchmark: whose rows they should be.
        raw_rows: a data set with `column_names`, or a sequence of mappings.

    Raises:
        EvaluationError: there are no rows, they can be read only once, or none has a column that the benchmark needs.
    """
    if not hasattr(raw_rows, "__len__"):
        raise EvaluationError(f"rows are a {type(raw_rows).__name__}, which can be read only once; give a list of them")
    if len(raw_rows) == 0:
        raise EvaluationError(f"there are no rows to evaluate on {benchmark.name}")
    columns = getattr(raw_rows, "column_names", None)
    if columns is None:
        columns = list(dict.fromkeys(name for raw in raw_rows if isinstance(raw, Mapping) for name in raw))
    missing = [name for name in benchmark.needs if name not in columns]
    if missing:
        where = f"; give {benchmark.source}" if benchmark.source else ""
        raise EvaluationError(
            f"the data set has no column {', '.join(map(repr, missing))}, which {benchmark.name} reads; "
            f"it has {', '.join(columns) or 'none'}{where}, or name another --benchmark"
        )
