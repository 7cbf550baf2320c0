"""A look at every row before training: what it costs, and whether it can be used at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm.auto import tqdm

from vlmpack.costs.measured import Measured, kept_at
from vlmpack.costs.undecoded import undecoded
from vlmpack.lengths import Lengths, LengthTable, no_room
from vlmpack.preferences import compared
from vlmpack.sample import Sample

SHOWN = 10  # rows named in a message; the rest are counted


class DatasetError(ValueError):
    """A data set cannot be trained on as asked; names the rows and the remedy."""


class SurveyedRows(Dataset):
    """The rows of a data set that can be used, and what each costs.

    Attributes:
        rows: the data set as given, or with images that are not decoded; see `undecoded`.
        kept: the row numbers in it that are used, ascending.
        lengths: what each kept row costs, after truncation.
        notes: one line for every kind of row left out, with the count and the first of them.
    """

    def __init__(self, rows: Any, kept: list[int], lengths: LengthTable, notes: list[str]) -> None:
        self.rows, self.kept, self.lengths, self.notes = rows, kept, lengths, notes

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, place: int) -> Any:
        return self.rows[self.kept[place]]


@dataclass(frozen=True)
class _Looked(Dataset):
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


def is_stream(rows: Any) -> bool:
    """Whether rows can only be read one after the other."""
    return isinstance(rows, IterableDataset) or not hasattr(rows, "__len__")


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
    cache: bool = True,
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
        cache: keep what is measured of a `datasets.Dataset`, and read it the next time; see `measured.kept_at`.

    Raises:
        DatasetError: too many rows are bad, a row is larger than a pack, or nothing is left.
    """
    if is_stream(rows):
        raise DatasetError(f"the {name} data set is a stream ({type(rows).__name__}); load it as a map-style data set")
    if len(rows) == 0:
        raise DatasetError(f"the {name} data set is empty")
    path = kept_at(rows, measure) if cache else None
    found = None if path is None else Measured.load(path)
    rows = undecoded(rows)
    if found is not None and _mended(rows, measure, found):
        found = None
    measured = _measured(rows, measure, name, workers, quiet) if found is None else found
    if len(measured.bad) > max_bad_rows * len(rows):
        raise DatasetError(_bad_rows(measured.bad, len(rows), name, max_bad_rows))
    said = [] if path is None else [_keep(measured, path, name) if found is None else _known(path, name)]
    kept, lengths, notes = _sorted_out(measured, name, max_length, pairing)
    _refuse_larger_than_a_pack(kept, lengths, name, max_tokens)
    return SurveyedRows(rows, kept.tolist(), lengths, [note for note in (*said, *notes) if note])


def _measured(rows: Any, measure: Callable | None, name: str, workers: int, quiet: bool) -> Measured:
    """Look at every row, under a progress bar; lengths go into the table one by one."""
    bad: dict[int, str] = {}
    loader = DataLoader(_Looked(rows, measure), batch_size=16, collate_fn=list, num_workers=workers)
    bar = tqdm(total=len(rows), desc=f"measuring {name} rows", unit="row", disable=quiet, leave=False)

    def readable() -> Iterator[Lengths]:
        place = 0
        for batch in loader:
            for each in batch:
                if isinstance(each, str):
                    bad[place] = each
                else:
                    yield each
                place += 1
            bar.update(len(batch))

    with bar:
        lengths = LengthTable.of(readable())
    return Measured(lengths, bad)


def _mended(rows: Any, measure: Callable | None, found: Measured) -> bool:
    """Whether a row that could not be read last time can be read now: a file that it names may have been mended."""
    looked = _Looked(rows, measure)
    return any(not isinstance(looked[place], str) for place in found.bad)


def _known(path: Path, name: str) -> str:
    return f"lengths of the {name} rows are known from last time; to measure them again, remove {path}"


def _keep(measured: Measured, path: Path, name: str) -> str:
    """Save what was measured; if that fails, say so, for nothing but time is lost."""
    try:
        measured.save(path)
    except OSError as error:
        return f"lengths of the {name} rows cannot be kept for the next time ({error})"
    return ""


def _sorted_out(
    measured: Measured, name: str, max_length: int | None, pairing: str
) -> tuple[Int[np.ndarray, " n"], LengthTable, list[str]]:
    """The places and lengths of rows that can be used, and notes of what cannot, grouped by reason."""
    lengths, places = compared(measured.lengths, pairing), measured.places
    tied, fits = lengths.pair_counts == 0, lengths.fits(max_length)
    long, good = np.flatnonzero(~tied & ~fits), np.flatnonzero(~tied & fits)
    bad = np.array(list(measured.bad), dtype=np.int64)
    why = no_room(int(lengths.prompt[long[0]]), max_length) if len(long) else ""
    notes = [
        _note(name, "cannot be read and are left out", bad, next(iter(measured.bad.values()), "")),
        _note(name, "have no preference pair and are left out", places[tied], "all its responses are tied"),
        _note(name, f"are dropped for length (max_length={max_length})", places[long], why),
    ]
    if not len(good):
        rows = len(lengths) + len(bad)
        said = [note for note in notes if note]
        raise DatasetError("\n".join([f"nothing is left of the {name} data set's {rows} rows", *said]))
    return places[good], lengths.take(good).truncated(max_length), notes


def _refuse_larger_than_a_pack(
    kept: Int[np.ndarray, " n"], lengths: LengthTable, name: str, max_tokens: int | None
) -> None:
    large = lengths.packed > (max_tokens or np.inf)
    if large.any():
        largest = lengths.packed.argmax()
        tokens = lengths.packed[largest]
        raise DatasetError(
            f"{large.sum()} of the {name} rows have more tokens (prompt once and all responses) than "
            f"max_tokens={max_tokens}: {_places(kept[large])}. The largest, row {kept[largest]}, has {tokens}, "
            f"{lengths.prompt[largest]} of them in its prompt. Set max_tokens={tokens}, or cut responses with "
            f"max_length."
        )


def _bad_rows(bad: dict[int, str], rows: int, name: str, allowed: float) -> str:
    lines = [f"  row {place}: {text}" for place, text in list(bad.items())[:SHOWN]]
    more = [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    head = (
        f"{len(bad)} of {rows} rows of the {name} data set cannot be read, more than max_bad_rows={allowed:g} allows:"
    )
    tail = f"Mend them, or set max_bad_rows={min(1.0, len(bad) / rows + 0.01):.2f} to leave them out."
    return "\n".join([head, *lines, *more, tail])


def _note(name: str, what: str, places: Int[np.ndarray, " n"], first: str) -> str:
    """A line about the rows left out for one reason, said in full for the first; empty if there is none."""
    first = first.split("\n")[0]
    return f"{len(places)} {name} rows {what}: {_places(places)} ({first})" if len(places) else ""


def _places(places: Int[np.ndarray, " n"]) -> str:
    shown = ", ".join(str(place) for place in places[:SHOWN])
    return f"rows {shown}" + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
