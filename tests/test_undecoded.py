"""Images of the `datasets` library reach the processor as they are stored."""

from io import BytesIO

import datasets
import pytest
from PIL import Image

from vlmpack.costs.undecoded import undecoded

FILE = BytesIO()
Image.new("RGB", (4, 2), "red").save(FILE, "PNG")
STORED = {"bytes": FILE.getvalue(), "path": None}
FEATURES = {
    "image": datasets.Image(),
    "images": datasets.List(datasets.Image()),
    "turns": datasets.List({"image": datasets.Image(), "text": datasets.Value("string")}),
    "score": datasets.Value("float64"),
}


def row(score: float) -> dict:
    return {"image": STORED, "images": [STORED, STORED], "turns": [{"image": STORED, "text": "a"}], "score": score}


ROWS = [row(0.0), row(1.0), row(2.0)]


@pytest.fixture
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_list(ROWS, features=datasets.Features(FEATURES))


@pytest.fixture
def undecodable(monkeypatch):
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_, **__: pytest.fail("it was decoded"))


def test_images_are_given_as_they_are_stored(rows, undecodable):
    assert undecoded(rows)[1] == row(1.0)
    assert undecoded(rows.select([2, 0]))[0] == row(2.0)
    assert list(undecoded(rows)) == ROWS


def test_the_data_set_that_was_given_stays_what_it_was(rows):
    undecoded(rows)
    assert rows[0]["images"][1].size == (4, 2)
    assert rows.features == datasets.Features(FEATURES)


def test_a_stream_gives_them_too(rows, undecodable):
    assert list(undecoded(rows.to_iterable_dataset())) == ROWS


def test_a_stream_is_cast_where_it_cannot_be_told_not_to_decode(rows, undecodable, monkeypatch):
    monkeypatch.delattr(datasets.IterableDataset, "decode")
    assert list(undecoded(rows.to_iterable_dataset())) == ROWS


def test_whoever_has_a_transform_gets_the_pixels(rows):
    sizes = rows.with_transform(lambda batch: {"size": [image.size for image in batch["image"]]})
    assert undecoded(sizes)[0] == {"size": (4, 2)}


def test_other_rows_pass_as_they_are():
    unknown = datasets.IterableDataset.from_generator(lambda: iter([{"a": 1}]))
    for other in ([1, 2], {"a": 1}, None, unknown):
        assert undecoded(other) is other
