"""Every row is looked at before training; what cannot be used is named and counted, the others stay."""

import datasets
import pytest
import torch
from tiny import sample

from vlmpack import Lengths
from vlmpack.costs.measured import FORMAT, Measured
from vlmpack.costs.survey import DatasetError, is_stream, survey

GOOD = Lengths(10, (3, 4), images=(b"one",), pairs=((0, 1),))


def look(rows, **settings):
    def measure(row):
        if isinstance(row, str):
            raise ValueError(row)
        return row

    return survey(rows, measure, name="training", quiet=True, **settings)


def test_usable_rows_are_kept_in_order():
    rows = [GOOD, Lengths(5, (2, 2), pairs=()), GOOD, "broken", Lengths(50, (2, 2), pairs=((0, 1),))]
    surveyed = look(rows, max_length=20, max_bad_rows=0.5)
    assert surveyed.kept == [0, 2]
    assert [surveyed[0], surveyed[1]] == [GOOD, GOOD]
    assert surveyed.notes[0] == "1 training rows cannot be read and are left out: rows 3 (broken)"
    assert "1 training rows have no preference pair and are left out: rows 1" in surveyed.notes[1]
    assert "1 training rows are dropped for length (max_length=20): rows 4 (the prompt has 50" in surveyed.notes[2]


def test_lengths_are_those_after_truncation():
    assert list(look([GOOD], max_length=12).lengths) == [Lengths(10, (2, 2), images=(b"one",), pairs=((0, 1),))]


def test_more_bad_rows_than_allowed_are_an_error_that_names_them_and_the_remedy():
    rows = [GOOD] * 86 + [f"image {k}.png does not exist" for k in range(14)]
    with pytest.raises(DatasetError) as error:
        look(rows, max_bad_rows=0.01)
    text = str(error.value)
    assert "14 of 100 rows of the training data set cannot be read, more than max_bad_rows=0.01" in text
    assert "row 86: image 0.png does not exist" in text
    assert "and 4 more" in text
    assert "set max_bad_rows=0.15 to leave them out" in text


def test_a_row_larger_than_a_pack_is_an_error_that_names_it_and_the_remedy():
    with pytest.raises(
        DatasetError,
        match=r"1 of the training rows .* max_tokens=40: rows 1\. .*row 1, has 44, 40 of them in its prompt\. Set max_tokens=44",
    ):
        look([GOOD, Lengths(40, (2, 2), pairs=((0, 1),))], max_tokens=40)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the training data set is empty"),
        (iter([GOOD]), r"is a stream \(list_iterator\); load it as a map-style data set"),
        (
            [Lengths(5, (2, 2))] * 2,
            "(?s)nothing is left of the training data set's 2 rows.*2 training rows have no preference pair",
        ),
    ],
)
def test_when_nothing_is_left_it_is_an_error(rows, message):
    with pytest.raises(DatasetError, match=message):
        look(rows)


def test_samples_need_no_processor():
    made = sample([1], [[2], [3]], [(0, 1)], images=1)
    surveyed = survey([made], None, name="training", quiet=True)
    assert list(surveyed.lengths) == [Lengths(5, (1, 1), (made.images[0].content,), ((0, 1),), True, (0,), 4)]
    assert torch.equal(surveyed[0].prompt_ids[-1:], torch.tensor([1]))


def test_workers_measure_the_same():
    rows = [GOOD] * 40 + ["broken"]
    assert look(rows, workers=2, max_bad_rows=0.1).kept == look(rows, max_bad_rows=0.1).kept


def test_only_the_first_ten_rows_of_a_kind_are_named():
    surveyed = look([GOOD] + [Lengths(5, (2, 2))] * 12)
    assert surveyed.notes == [
        "12 training rows have no preference pair and are left out: rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more "
        "(all its responses are tied)"
    ]


def test_only_compared_pairs_are_counted():
    three = Lengths(5, (1, 1, 1), pairs=((0, 1), (0, 2), (1, 2)))
    assert look([GOOD, three], pairing="adjacent").lengths[1].pairs == ((0, 1), (1, 2))


def test_what_has_no_length_is_a_stream():
    assert is_stream(iter([1]))
    assert is_stream(datasets.Dataset.from_list([{"a": 1}]).to_iterable_dataset())
    assert not is_stream([1])


class Counting:
    """A processor that counts what it is asked."""

    def __init__(self, fingerprint: str = "one") -> None:
        self.fingerprint, self.asked = fingerprint, 0

    def measure(self, row):
        self.asked += 1
        if row["prompt"] == 0:
            raise ValueError("no prompt")
        return Lengths(row["prompt"], (2, 3), (b"one",), ((0, 1),), True, (1,), 1, b"root", bytes(range(16)))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path / "vlmpack"


def stored(prompts=(4, 0, 6)) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts])


def cached(rows, processor=None, **settings):
    """A survey, and how many rows were measured for it."""
    processor = processor or Counting()
    settings = {"max_bad_rows": 0.5, **settings}
    return survey(rows, processor.measure, name="training", quiet=True, **settings), processor.asked


def test_what_was_measured_once_is_known_the_next_time(cache):
    first, asked = cached(stored())
    (path,) = cache.iterdir()
    again, nobody = cached(stored())
    assert (asked, nobody) == (3, 1)  # what could not be read is looked at again
    assert list(again.lengths) == list(first.lengths)
    assert [(each.root, each.content) for each in again.lengths] == [(b"root", bytes(range(16)))] * 2
    assert again.kept == first.kept == [0, 2]
    assert again.notes == [
        f"lengths of the training rows are known from last time; to measure them again, remove {path}",
        *first.notes,
    ]
    assert first.notes == ["1 training rows cannot be read and are left out: rows 1 (no prompt)"]


def test_settings_of_the_survey_are_no_part_of_what_is_kept(cache):
    cached(stored())
    again, asked = cached(stored(), max_length=6, pairing="best")
    assert asked == 1  # the row that cannot be read
    assert [each.responses for each in again.lengths] == [(2, 2)]
    assert again.notes[-1].startswith("1 training rows are dropped for length (max_length=6): rows 2 (the prompt has 6")


def test_a_row_that_was_mended_is_no_longer_left_out(cache):
    assert cached(stored())[0].kept == [0, 2]

    class Mended(Counting):
        def measure(self, row):
            return super().measure({"prompt": row["prompt"] or 5})

    processor = Mended()
    assert cached(stored(), processor)[0].kept == [0, 1, 2]
    assert processor.asked == 4  # the bad one, and then all anew
    assert cached(stored(), Mended())[1] == 0


def test_other_rows_and_other_processors_are_measured_anew(cache):
    cached(stored())
    assert cached(stored().select([0]))[1] == 1
    assert cached(stored((4, 5)))[1] == 2
    assert cached(stored(), Counting("another"))[1] == 3
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", lambda data: b"no such file"])
def test_a_damaged_file_is_written_anew(cache, damage):
    first, _ = cached(stored())
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again, asked = cached(stored())
    assert asked == 3
    assert list(again.lengths) == list(first.lengths)
    assert Measured.load(path).bad == {1: "no prompt"}


def test_what_nobody_can_name_is_never_kept(cache, monkeypatch):
    rows = [{"prompt": 4}]
    assert [cached(rows)[1] for _ in range(2)] == [1, 1]
    assert [cached(stored((4,)), cache=False)[1] for _ in range(2)] == [1, 1]
    turned = stored((4,)).with_transform(lambda batch: {"prompt": [each + 1 for each in batch["prompt"]]})
    assert [cached(turned)[1] for _ in range(2)] == [1, 1]
    assert survey(stored((4,)), Counting().measure.__func__.__get__(NoName()), name="training", quiet=True).kept == [0]
    monkeypatch.setattr(datasets, "is_caching_enabled", lambda: False)
    assert [cached(stored((4,)))[1] for _ in range(2)] == [1, 1]
    assert not cache.exists()


class NoName:
    """A processor that does not say what decides about its lengths."""

    asked = 0


def test_rows_that_must_be_mended_are_measured_again(cache):
    for _ in range(2):
        processor = Counting()
        with pytest.raises(DatasetError, match="1 of 3 rows"):
            cached(stored(), processor, max_bad_rows=0.0)
        assert processor.asked == 3


def test_a_cache_that_cannot_be_written_is_said_and_costs_nothing_else(cache):
    cache.write_text("a file where the folder should be")
    surveyed, asked = cached(stored())
    assert (len(surveyed), asked) == (2, 3)
    assert surveyed.notes[0].startswith("lengths of the training rows cannot be kept for the next time (")


def test_another_format_is_not_read(cache, monkeypatch):
    cached(stored())
    monkeypatch.setattr("vlmpack.costs.measured.FORMAT", FORMAT + 1)
    assert cached(stored())[1] == 3
