"""A look at every row before training: what it costs, and whether it can be used at all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm.auto import tqdm

from vlmpack.preferences import compared
from vlmpack.sample import Lengths, Sample, SampleError

SHOWN = 10  # rows named in a message; the rest are counted


class DatasetError(ValueError):
    """A data set cannot be trained on as asked; names the rows and the remedy."""


class SurveyedRows(Dataset):
    """The rows of a data set that can be used, and what each costs.

    Attributes:
        rows: the data set as given.
        kept: the row numbers in it that are used, ascending.
        lengths: what each kept row costs, after truncation.
        notes: one line for every kind of row left out, with the count and the first of them.
    """

    def __init__(self, rows: Any, kept: list[int], lengths: list[Lengths], notes: list[str]) -> None:
        self.rows, self.kept, self.lengths, self.notes = rows, kept, lengths, notes

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, place: int) -> Any:
        return self.rows[self.kept[place]]


@dataclass(frozen=True)
class _Measured(Dataset):
    """Lengths of every row, or what is wrong with it; read by DataLoader workers."""

    rows: Any
    measure: Callable[[Any], Lengths] | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Lengths | str:
        try:
            row = self.rows[place]
            if isinstance(row, Sample):
                return row.lengths
            if self.measure is None:
                return f"it is a {type(row).__name__}, not a Sample, and there is no processor to read it"
            return self.measure(row)
        except (ValueError, OSError) as error:
            return str(error)
        except Exception as error:  # one row's surprise must not take the others with it
            return f"{type(error).__name__}: {error}"


def survey(
    rows: Any,
    measure: Callable[[Any], Lengths] | None,
    *,
    name: str,
    max_length: int | None = None,
    max_tokens: int | None = None,
    max_bad_rows: float = 0.0,
    pairing: str = "all",
    workers: int = 0,
    quiet: bool = False,
) -> SurveyedRows:
    """Measure every row, set aside those that cannot be used, and say which.

    Args:
        rows: a map-style data set of rows or of `Sample`s.
        measure: a row's lengths, or a `ValueError` that says what is wrong with it. None: all rows are samples.
        name: of the data set, for messages.
        max_length: tokens of prompt + response; response tails are cut, a longer prompt's row is dropped.
        max_tokens: tokens of a pack. A row that does not fit is an error, for it would change the training.
        max_bad_rows: the share of unreadable rows that is set aside; more is an error.
        pairing: which pairs are compared, and so counted; see `preferences.selected`.
        workers: processes that measure.
        quiet: show no progress bar.

    Raises:
        DatasetError: too many rows are bad, a row is larger than a pack, or nothing is left.
    """
    if isinstance(rows, IterableDataset) or not hasattr(rows, "__len__"):
        raise DatasetError(f"the {name} data set is a stream ({type(rows).__name__}); load it as a map-style data set")
    if len(rows) == 0:
        raise DatasetError(f"the {name} data set is empty")
    loader = DataLoader(_Measured(rows, measure), batch_size=16, collate_fn=list, num_workers=workers)
    bar = tqdm(total=len(rows), desc=f"measuring {name} rows", unit="row", disable=quiet, leave=False)
    measured: list[Lengths | str] = []
    for batch in loader:
        measured += batch
        bar.update(len(batch))
    bar.close()
    measured = [each if isinstance(each, str) else compared(each, pairing) for each in measured]
    return _sort_out(rows, measured, name, max_length, max_tokens, max_bad_rows)


def _sort_out(rows, measured, name, max_length, max_tokens, max_bad_rows) -> SurveyedRows:
    """Keep what can be used; group what cannot by reason."""
    bad = {place: text for place, text in enumerate(measured) if isinstance(text, str)}
    if len(bad) > max_bad_rows * len(rows):
        raise DatasetError(_bad_rows(bad, len(rows), name, max_bad_rows))
    tied, long, kept, lengths = {}, {}, [], []
    for place, each in enumerate(measured):
        if place in bad:
            continue
        if not each.pairs:
            tied[place] = "all its responses are tied"
            continue
        try:
            lengths.append(each.truncated(max_length))
            kept.append(place)
        except SampleError as error:
            long[place] = str(error)
    notes = [
        _note(name, "cannot be read and are left out", bad),
        _note(name, "have no preference pair and are left out", tied),
        _note(name, f"are dropped for length (max_length={max_length})", long),
    ]
    notes = [note for note in notes if note]
    if not kept:
        raise DatasetError("\n".join([f"nothing is left of the {name} data set's {len(rows)} rows", *notes]))
    _refuse_larger_than_a_pack(kept, lengths, name, max_tokens)
    return SurveyedRows(rows, kept, lengths, notes)


def _refuse_larger_than_a_pack(kept: list[int], lengths: list[Lengths], name: str, max_tokens: int | None) -> None:
    large = {
        row: each.packed for row, each in zip(kept, lengths, strict=True) if max_tokens and each.packed > max_tokens
    }
    if large:
        row, tokens = max(large.items(), key=lambda item: item[1])
        prompt = lengths[kept.index(row)].prompt
        raise DatasetError(
            f"{len(large)} of the {name} rows have more tokens (prompt once and all responses) than "
            f"max_tokens={max_tokens}: {_places(large)}. The largest, row {row}, has {tokens}, {prompt} of them in "
            f"its prompt. Set max_tokens={tokens}, or cut responses with max_length."
        )


def _bad_rows(bad: dict[int, str], rows: int, name: str, allowed: float) -> str:
    lines = [f"  row {place}: {text}" for place, text in list(bad.items())[:SHOWN]]
    more = [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    head = (
        f"{len(bad)} of {rows} rows of the {name} data set cannot be read, more than max_bad_rows={allowed:g} allows:"
    )
    tail = f"Mend them, or set max_bad_rows={min(1.0, len(bad) / rows + 0.01):.2f} to leave them out."
    return "\n".join([head, *lines, *more, tail])


def _note(name: str, what: str, places: dict[int, str]) -> str:
    if not places:
        return ""
    first = next(iter(places.values())).split("\n")[0]
    return f"{len(places)} {name} rows {what}: {_places(places)} ({first})"


def _places(places: dict[int, Any]) -> str:
    shown = ", ".join(str(place) for place in list(places)[:SHOWN])
    return f"rows {shown}" + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
