"""What is said of a model's quality: the right words for each case, every number with its unit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vlmpack.quality import Judged, quality
from vlmpack.quality.paired import paired
from vlmpack.quality.verdicts import of_accuracy, of_confidence, of_images, of_length, of_margins, of_text

NAN = float("nan")


def judged(right, blind_right=None, *, sure=1.0, lengths=(3, 3), margins=None, rows=None, images=True) -> Judged:
    """A row of two responses for each pair, the preferred one with the given gap above the other, or below it."""
    right = np.array(right, dtype=bool)
    pairs, sides = len(right), np.array([1.0, 0.0])
    blind = None if blind_right is None else np.where(np.array(blind_right, dtype=bool), 1.0, -1.0)
    return Judged(
        rewards=(np.where(right, sure, -sure)[:, None] * sides).ravel(),
        lengths=np.broadcast_to(np.array(lengths), (pairs, 2)).ravel(),
        row_of=np.repeat(np.arange(pairs) if rows is None else np.array(rows), 2),
        pairs=np.arange(2 * pairs).reshape(-1, 2),
        shows_image=np.full(2 * pairs, images),
        margins=None if margins is None else np.array(margins, dtype=float),
        blind_rewards=None if blind is None else (blind[:, None] * sides).ravel(),
    )


def seen(both: int, only_with: int, only_without: int, neither: int) -> Judged:
    """Pairs by whether they are right with the images and without."""
    kinds = [(True, True)] * both + [(True, False)] * only_with + [(False, True)] * only_without
    right, blind_right = np.array(kinds + [(False, False)] * neither).T
    return judged(right, blind_right)


IMAGES = {
    "used": (seen(600, 180, 0, 220), "the model uses the images"),
    "hardly used": (seen(700, 60, 20, 220), "the model hardly uses the images"),
    "misleading": (seen(700, 20, 60, 220), "the images mislead the model"),
    "not used": (seen(786, 24, 20, 170), "the model does not use the images"),
    "changing": (seen(2000, 700, 680, 6620), "the images change what the model prefers but do not help it"),
    "unclear": (seen(3, 1, 0, 1), "too few pairs to tell whether the model uses the images"),
    "few and equal": (seen(40, 0, 0, 10), "the model does not use the images"),
    "very few and equal": (seen(5, 0, 0, 0), "too few pairs to tell whether the model uses the images"),
}


@pytest.mark.parametrize("item, words", IMAGES.values(), ids=IMAGES)
def test_whether_images_are_used_is_said(item, words):
    assert of_images(quality(item).blind) == words


def test_a_model_that_ignores_its_images_is_told_with_the_numbers_that_show_it():
    """24 pairs are right only with the images and 20 only without: p = 0.65 by math.comb."""
    report = quality(seen(786, 24, 20, 170)).markdown("Reward model")
    assert (
        "- Images: the model does not use the images: 81.0 % of 1,000 pairs are right with them and 80.6 % without "
        "(p = 0.65). The difference is +0.4 points (95 % interval -0.9 to +1.7 points)." in report
    )
    assert (
        "- Text: the data can be guessed from the text: 80.6 % of the pairs with an image are right without it"
        in report
    )
    assert "Of 1,000 pairs in 1,000 rows, 24 are right only with the images and 20 only without." in report
    assert "| with its images | 1,000 | 81.0 % | 78.5 to 83.3 % |" in report
    assert "| with minus without | 1,000 | +0.4 points | -0.9 to +1.7 points, p = 0.65 |" in report


def test_that_the_text_gives_the_answer_is_said_only_if_it_surely_does():
    assert of_text(quality(seen(600, 100, 100, 200)).blind) == "the data can be guessed from the text"
    assert of_text(quality(seen(500, 100, 110, 290)).blind) == ""
    assert of_text(quality(seen(5, 1, 0, 0)).blind) == ""


ACCURACY = {
    "good": (judged([True] * 80 + [False] * 20), "better than guessing"),
    "guessing": (judged([True] * 52 + [False] * 48), "not to be told from guessing"),
    "guessing, with bad luck": (judged([True] * 46 + [False] * 54), "not to be told from guessing"),
    "swapped": (judged([True] * 20 + [False] * 80), "worse than guessing"),
    "constant": (judged([True] * 9, sure=0.0), "the rewards of a pair never differ"),
    "tied": (
        replace(judged([True] * 30 + [False] * 70), rewards=np.repeat([1.0, 0, 0, 0], [60, 0, 0, 140])),
        "70 ties among them, which count as wrong",
    ),
}
ACCURACY["tied"][0].rewards[1:60:2] = 0.0  # the rejected ones


@pytest.mark.parametrize("item, words", ACCURACY.values(), ids=ACCURACY)
def test_whether_the_model_knows_anything_is_said(item, words):
    found = quality(item)
    assert of_accuracy(found.calibration) == words
    assert words in found.lines()[1]
    assert words in found.markdown("")
    assert ("swapped?" in found.markdown("")) == (words == "worse than guessing")


CONFIDENCE = {  # sigmoid(1) = 0.731, sigmoid(3) = 0.953
    "right": (judged([True] * 73 + [False] * 27), "about as sure as it is right"),
    "over": (judged([True] * 80 + [False] * 20, sure=3.0), "over-confident"),
    "under": (judged([True] * 90 + [False] * 10), "under-confident"),
    "slightly": (judged([True] * 7000 + [False] * 3000), "slightly over-confident"),
    "a few": (judged([True] * 4), "about as sure as it is right"),
}


@pytest.mark.parametrize("item, words", CONFIDENCE.values(), ids=CONFIDENCE)
def test_whether_the_model_is_too_sure_is_said(item, words):
    assert of_confidence(quality(item).calibration) == words


def lengthy(long_right: int, long_wrong: int, short_right: int, short_wrong: int) -> Judged:
    """Pairs by whether the data prefers the longer response, and whether the model is right."""
    counts = (long_right, long_wrong, short_right, short_wrong)
    lengths = np.repeat([(9, 2), (9, 2), (2, 9), (2, 9)], counts, axis=0)
    return judged(np.repeat([True, False, True, False], counts), lengths=lengths)


LENGTH = {
    "as the data": (lengthy(4000, 500, 4000, 510), "no length bias beyond the data's"),
    "unclear": (lengthy(30, 5, 30, 6), "no sign of a length bias beyond the data's"),
    "longer": (lengthy(50, 2, 20, 28), "length bias towards longer responses"),
    "slightly longer": (lengthy(5000, 300, 4000, 600), "slight length bias towards longer responses"),
    "shorter": (lengthy(20, 28, 50, 2), "length bias towards shorter responses"),
    "less": (lengthy(60, 30, 8, 2), "prefers longer responses less often than the data does"),
    "less for shorter": (lengthy(8, 2, 60, 30), "prefers shorter responses less often than the data does"),
    "equal": (judged([True, False]), "no pair has two lengths and two rewards"),
}


@pytest.mark.parametrize("item, words", LENGTH.values(), ids=LENGTH)
def test_whether_length_is_liked_more_than_by_the_data_is_said(item, words):
    found = quality(item)
    assert of_length(found.length) == words
    assert f"length: {words}" in found.lines()[3]
    assert f"- Length: {words}." in found.markdown("")


MARGINS = {
    "rising": ([False] * 20 + [True] * 20, [1] * 20 + [2] * 20, "more often right where the data is surer"),
    "falling": ([True] * 20 + [False] * 20, [1] * 20 + [2] * 20, "less often right where the data is surer, which is"),
    "flat": ([True, False] * 20, [1, 1, 2, 2] * 10, "no clear change with the margin"),
    "one": ([True, False] * 20, [1] * 40, "all pairs have the same margin"),
}


@pytest.mark.parametrize("right, margins, words", MARGINS.values(), ids=MARGINS)
def test_whether_accuracy_follows_the_margin_is_said(right, margins, words):
    assert of_margins(quality(judged(right, margins=margins)).by_margin).startswith(words)


def test_the_line_on_margins_shows_the_first_and_the_last_group():
    right = [*[True, False] * 10, *[True] * 9]
    assert (
        quality(judged(right, margins=[*[0.5] * 20, *[1.5, 1.5, 3, 4, 5, 6, 7, 8, 9]])).lines()[4]
        == (
            "margins: no clear change with the margin (50.0 % right at 0.5, 100.0 % right at 4 to 9)"  # the last fifth begins at 23.2 of 29, and 4 lies at 23.5
        )
    )
    assert quality(judged([True, False], margins=[2, 2])).lines()[4] == (
        "margins: all pairs have the same margin (50.0 % right at 2)"
    )


def test_a_report_has_every_number_with_its_unit():
    item = judged(
        [True, True, False, True], margins=[1, 1, 2.5, NAN], lengths=[(5, 3), (3, 5), (4, 4), (2, 6)], images=False
    )
    report = quality(replace(item, skipped=5, reasons=("row 7: no `image`", "row 9: it is a str"))).markdown("Held out")
    lines = report.splitlines()
    assert lines[0] == "# Held out"
    for line in (
        "- Accuracy: 75.0 % of 4 pairs are right (95 % interval 30.1 to 95.4 %): not to be told from guessing.",
        "- Only 4 pairs: everything here is rough; read the intervals.",
        "- Whether the model uses the images was not measured: no row has an image.",
        "| rows that could not be scored | 5 |",
        "| pairs | 4, of 4 rows |",
        "| reward, mean | +0.250 logits |",  # 3 and -1, of 8 responses
        "| reward, standard deviation | 0.661 logits |",  # sqrt(4 / 8 - 1 / 16)
        "| mean confidence | 73.1 % |",
        "| expected calibration error | 1.9 points |",  # 75 - 73.1
        "| log loss (guessing: 0.693) | 0.563 nats a pair |",  # log(1 + e) - 3 / 4
        "5 rows could not be scored:",
        "- `row 7: no 'image'`",
        "- and 3 more",
        "| 70 to 75 % | 4 | 73.1 % | 75.0 % | 30.1 to 95.4 % |",
        "| by the model | 3 | 33.3 % | 6.1 to 79.2 % |",
        "Left out of the comparison: 1 pair of equal length.",
        "| 1 | 2 | 100.0 % | 34.2 to 100.0 % |",
        "| 2.5 | 1 | 0.0 % | 0.0 to 79.3 % |",
        "Left out: 1 pair of unknown margin.",
        "Not measured: no row has an image.",
    ):
        assert line in lines, line


def test_several_pairs_of_a_row_are_warned_of():
    rows = np.arange(120) // 3
    warning = "- The 120 pairs come from 40 rows, and pairs of a row share responses."
    assert warning in quality(judged([True] * 120, rows=rows)).markdown("")
    assert "share responses" not in quality(judged([True] * 120)).markdown("")


def test_rows_without_pairs_are_reported_too():
    found = quality(replace(judged([True] * 3), pairs=np.zeros((0, 2), dtype=int)))
    assert found.lines() == [
        "judged: 3 rows, 6 responses, 0 pairs",
        "accuracy: not known, for no row says which of two responses is better",
        "confidence: not known, for no row says which of two responses is better",
        "length: no pair has two lengths and two rewards; Pearson not defined within prompts",
        "margins: not known, for no row says how much better the preferred response is",
        "images: not measured, for no row with an image has a pair",
    ]
    report = found.markdown("Nothing to compare")
    assert "- No row says which of two responses is better, so accuracy and confidence are not known." in report
    assert "## Confidence" not in report
    assert found.to_dict()["calibration"] is None


def test_a_terminal_gets_six_lines():
    item = replace(seen(60, 20, 2, 18), skipped=2, reasons=("row 7: no such image", "row 8: no such image"))
    assert quality(item).lines() == [
        "judged: 100 rows, 200 responses, 100 pairs; 2 more could not be scored (row 7: no such image)",
        "accuracy: 80.0 % of pairs (95 % interval 71.1 to 86.7 %), better than guessing; log loss 0.513 nats",
        "confidence: about as sure as it is right (73.1 %, -6.9 points against accuracy); calibration error 6.9 points, "
        "by chance 3.5",
        "length: no pair has two lengths and two rewards; Pearson not defined within prompts",
        "margins: not known, for no row says how much better the preferred response is",
        "images: the model uses the images (80.0 % right with, 62.0 % without, p < 0.001)",
    ]


def test_accuracy_of_text_only_rows_stands_beside_that_of_rows_with_images():
    both = np.repeat([True, False], [6, 2])
    item = replace(judged([True, True, False, False]), shows_image=both)
    report = quality(item).markdown("")
    assert "| rows with images, all | 3 | 66.7 % | 20.8 to 93.9 % |" in report
    assert "| text-only rows | 1 | 0.0 % | 0.0 to 79.3 % |" in report
    assert "Not measured: the rows were not scored without their images." in report


def test_what_is_stored_is_what_was_measured():
    stored = json.loads(json.dumps(quality(seen(3, 2, 1, 2)).to_dict(), allow_nan=False))
    assert stored["counts"]["pairs"] == 8
    assert stored["calibration"]["right"]["count"] == 5
    assert len(stored["calibration"]["bins"]) == 10
    assert stored["blind"]["with_images"]["value"] == 0.625
    assert stored["blind"]["difference"]["first_only"] == 2
    assert (stored["by_margin"], stored["kinds"], stored["why_not_blind"]) == (None, None, "")


def test_points_to_draw_are_not_stored():
    found = quality(seen(300, 0, 0, 0))
    assert len(found.length.centred_lengths) == 600
    assert len(json.dumps(found.to_dict())) < 5000


def test_a_difference_of_nothing_is_not_called_one():
    same = np.ones(400, dtype=bool)
    assert paired(same, same, np.arange(400)).p == 1.0
