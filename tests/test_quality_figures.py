"""Each figure of a model's quality on a few responses, worked out by hand, and what must hold on any."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmpack.quality import Judged, QualityError, quality
from vlmpack.quality.blind import blind, by_kind, why_not_blind
from vlmpack.quality.by_margin import by_margin
from vlmpack.quality.calibration import calibration
from vlmpack.quality.length_bias import length_bias

NAN = float("nan")


def judged(rewards, pairs=(), *, rows=None, lengths=None, images=False, **others) -> Judged:
    """Rows of two responses, of one token each, unless something else is said."""
    count = len(rewards)
    return Judged(
        rewards=np.array(rewards, dtype=float),
        lengths=np.ones(count, dtype=int) if lengths is None else np.array(lengths),
        row_of=np.arange(count) // 2 if rows is None else np.array(rows),
        pairs=np.array(pairs, dtype=int).reshape(-1, 2),
        shows_image=np.full(count, images) if isinstance(images, bool) else np.array(images),
        **{name: np.array(value, dtype=float) for name, value in others.items()},
    )


def pairs_of(gaps, **others) -> Judged:
    """A row of two responses for each gap between preferred and rejected."""
    rewards = [reward for gap in gaps for reward in (gap, 0.0)]
    return judged(rewards, [(2 * row, 2 * row + 1) for row in range(len(gaps))], **others)


# A tie; confidence 3/4 right and wrong; 17/20 right; 19/20 right
FIVE = pairs_of([0.0, math.log(3), -math.log(3), math.log(17 / 3), math.log(19)])


def test_calibration_by_hand():
    found = calibration(FIVE, bins=5)
    assert (found.pairs, found.ties, found.right.count, found.right.value) == (5, 1, 3, 0.6)
    assert found.confidence == pytest.approx((0.5 + 0.75 + 0.75 + 0.85 + 0.95) / 5)
    # 1/5 |0 - 0.5| + 2/5 |0.5 - 0.75| + 1/5 |1 - 0.85| + 1/5 |1 - 0.95|
    assert found.expected_error == pytest.approx(0.1 + 0.1 + 0.03 + 0.01)
    # log 2 - log 0.75 - log 0.25 - log 0.85 - log 0.95 = 0.693147 + 0.287682 + 1.386294 + 0.162519 + 0.051293
    assert found.log_loss == pytest.approx(2.580935 / 5, abs=1e-6)
    # sqrt(2 / pi) (sqrt 0.25 + sqrt 0.375 + sqrt 0.1275 + sqrt 0.0475) / 5 = 0.797885 * 1.687389 / 5
    assert found.noise == pytest.approx(0.269268, abs=1e-6)


def test_bins_are_equally_wide_and_a_tie_stands_in_the_first():
    found = calibration(FIVE, bins=5).bins
    assert [each.pairs for each in found] == [1, 0, 2, 1, 1]
    assert [each.low for each in found] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert [each.high for each in found] == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0])
    assert [each.right and each.right.count for each in found] == [0, None, 1, 1, 1]
    assert [each.confidence for each in found] == [0.5, None, *map(pytest.approx, (0.75, 0.85, 0.95))]


def test_a_gap_so_large_that_confidence_is_1_stands_in_the_last_bin():
    found = calibration(pairs_of([2000.0, -2000.0]))
    assert [each.pairs for each in found.bins] == [0] * 9 + [2]
    assert (found.confidence, found.expected_error, found.log_loss) == (1.0, 0.5, 1000.0)


def test_ten_bins_unless_others_are_asked_for_and_at_least_one():
    assert len(calibration(FIVE).bins) == 10
    with pytest.raises(QualityError, match="bins=0 leaves no bin to count pairs in; give 1 or more"):
        calibration(FIVE, bins=0)


def test_without_pairs_there_is_no_calibration():
    assert calibration(judged([1.0, 2.0])) is None


def generated(pairs: int, seed: int, sharpness: float = 1.0) -> Judged:
    """Pairs whose labels are drawn with the log-odds that the rewards say, or with others."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(scale=2.0, size=pairs)
    first_wins = random.random(pairs) < 1 / (1 + np.exp(-log_odds))
    return pairs_of(np.where(first_wins, log_odds, -log_odds) * sharpness)


def test_a_model_whose_rewards_are_the_log_odds_is_calibrated_and_a_sharper_one_is_not():
    found = calibration(generated(20_000, seed=1))
    assert found.expected_error < 0.01
    assert found.confidence == pytest.approx(found.right.value, abs=0.01)
    sharper = calibration(generated(20_000, seed=1, sharpness=3.0))
    assert sharper.right == found.right
    assert sharper.expected_error > 0.1
    assert sharper.confidence > found.confidence + 0.1
    assert sharper.log_loss > found.log_loss


def test_the_noise_foretold_is_the_error_that_a_calibrated_model_shows():
    found = [calibration(generated(500, seed)) for seed in range(200)]
    mean = np.mean([each.expected_error for each in found])
    assert np.mean([each.noise for each in found]) == pytest.approx(mean, rel=0.05)


# Two prompts of three responses and one of one. Within prompts: lengths -2 0 2 and -1 0 1, rewards -1 -1 2 and 1 0 -1
SEVEN = judged(
    [0.0, 0.0, 3.0, 6.0, 5.0, 4.0, 9.0],
    [(2, 0), (2, 1), (0, 1), (3, 4), (5, 3)],
    rows=[0, 0, 0, 1, 1, 1, 2],
    lengths=[1, 3, 5, 3, 4, 5, 40],
)


def test_length_correlations_by_hand():
    found = length_bias(SEVEN)
    assert (found.overall.points, found.within.points) == (7, 6)
    assert found.centred_lengths.tolist() == [-2, 0, 2, -1, 0, 1]
    assert found.centred_rewards.tolist() == [-1, -1, 2, 1, 0, -1]
    # products 2 + 0 + 4 - 1 + 0 - 1 = 4, squares 10 and 8
    assert found.within.pearson == pytest.approx(4 / math.sqrt(80))
    # ranks 1 3.5 6 2 3.5 5 and 2 2 6 5 4 2, less 3.5: products 3.75 + 0 + 6.25 - 2.25 + 0 - 2.25, squares 17 and 15.5
    assert found.within.spearman == pytest.approx(5.5 / math.sqrt(17 * 15.5))
    # 7 sum xy - sum x sum y = 7 * 433 - 61 * 27 = 1384; 7 * 1685 - 61^2 = 8074 and 7 * 167 - 27^2 = 440
    assert found.overall.pearson == pytest.approx(1384 / math.sqrt(8074 * 440))


def test_who_prefers_the_longer_response_by_hand():
    """Pairs (preferred, rejected) by length: 5 > 1, 5 > 3, a tie in reward, 3 > 4, 5 > 3. Of the four that are left the
    data prefers the longer in the 1st, 2nd and 5th, and the model, wrong about the 5th, in the 1st and 2nd."""
    found = length_bias(SEVEN)
    assert (found.data_longer.count, found.data_longer.of) == (3, 4)
    assert (found.model_longer.count, found.model_longer.of) == (2, 4)
    assert (found.equal_lengths, found.ties) == (0, 1)
    assert (found.difference.difference, found.difference.rows, found.difference.p) == (-0.25, 2, pytest.approx(1.0))


def test_pairs_of_equal_length_are_left_out_and_counted():
    found = length_bias(pairs_of([1.0, -1.0, 0.0, 2.0], lengths=[5, 5, 6, 6, 7, 7, 3, 9]))
    assert (found.equal_lengths, found.ties) == (3, 0)
    assert (found.model_longer.count, found.model_longer.of, found.data_longer.count) == (0, 1, 0)


@pytest.mark.parametrize(
    "item",
    [
        judged([1.0, 2.0, 3.0], rows=[0, 1, 2], lengths=[1, 2, 3]),
        judged([0.1, 0.1, 0.1, 0.7, 0.7, 0.7], rows=[0, 0, 0, 1, 1, 1], lengths=[1, 2, 4, 1, 2, 5]),
        judged([0.3, 0.1, 0.2, 0.5, 0.7, 0.9], rows=[0, 0, 0, 1, 1, 1], lengths=[7, 7, 7, 9, 9, 9]),
    ],
    ids=["one response a prompt", "one reward a prompt", "one length a prompt"],
)
def test_within_prompts_nothing_is_defined_where_nothing_differs_there(item):
    found = length_bias(item)
    assert (found.within.pearson, found.within.spearman) == (None, None)
    assert found.overall.pearson is not None
    assert (found.model_longer, found.data_longer, found.difference) == (None, None, None)


def test_equal_places_within_prompts_are_one_rank_whatever_rounding_does():
    """1/3 above the mean in both prompts, by two different floats: 2 - 5/3 and 11 - 32/3."""
    lengths = [1, 2, 2, 10, 11, 11]
    assert 2 - 5 / 3 != 11 - 32 / 3
    found = length_bias(judged([0, 1, 1, 0, 1, 1], rows=[0, 0, 0, 1, 1, 1], lengths=lengths))
    assert len(set(found.centred_lengths.tolist())) == 2
    assert found.within.spearman == pytest.approx(1.0)


def test_a_model_that_equals_length_has_correlation_1_and_one_that_dislikes_it_minus_1():
    lengths = np.random.default_rng(0).integers(1, 200, 60)
    for sign in (1.0, -1.0):
        found = length_bias(judged(sign * lengths, rows=np.arange(60) // 4, lengths=lengths))
        for each in (found.overall, found.within):
            assert (each.pearson, each.spearman) == (pytest.approx(sign), pytest.approx(sign))


def test_a_few_margins_are_a_group_each():
    found = by_margin(pairs_of([1.0, -1.0, 1.0, 0.0, 2.0], margins=[3, 1, 1, 2, 3]))
    assert [(each.low, each.high, each.right.count, each.right.of) for each in found.groups] == [
        (1, 1, 1, 2),
        (2, 2, 0, 1),
        (3, 3, 2, 2),
    ]
    assert found.unknown == 0
    # of 2 with 1 right: (0.5 + z^2/4 -+ z sqrt(1/8 + z^2/16)) / (1 + z^2/2), z^2 = 3.841459
    assert (found.groups[0].right.low, found.groups[0].right.high) == pytest.approx((0.094531, 0.905469), abs=1e-6)


def test_five_margins_are_a_group_each_however_rare_they_are_and_six_are_not():
    found = by_margin(pairs_of([1.0] * 20, margins=[1, 2, 3, 4, *[5] * 16]))
    assert [(each.low, each.high, each.right.of) for each in found.groups] == [
        (1, 1, 1),
        (2, 2, 1),
        (3, 3, 1),
        (4, 4, 1),
        (5, 5, 16),
    ]
    found = by_margin(pairs_of([1.0] * 21, margins=[1, 2, 3, 4, *[5] * 16, 6]))
    assert [(each.low, each.high) for each in found.groups] == [(1, 4), (5, 5), (6, 6)]


def test_margins_that_differ_by_rounding_are_one_group():
    found = by_margin(pairs_of([1.0, 1.0, 1.0], margins=[0.3 - 0.2, 0.2 - 0.1, 0.5]))
    assert [each.right.of for each in found.groups] == [2, 1]


def test_many_margins_are_cut_into_fifths_of_the_pairs():
    gaps = [1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]
    found = by_margin(pairs_of(gaps, margins=np.arange(10) + 0.5))
    assert [(each.low, each.high, each.right.count) for each in found.groups] == [
        (0.5, 1.5, 2),
        (2.5, 3.5, 1),
        (4.5, 5.5, 0),
        (6.5, 7.5, 2),
        (8.5, 9.5, 2),
    ]


def test_equal_margins_are_never_parted():
    """Ranks of 14 pairs, from 0: margin 0 at 0.5, eight of 1 with their middle at 5, then 9.5, 10.5, ... 13.5. Fifths
    end at 2.8, 5.6, 8.4 and 11.2."""
    found = by_margin(pairs_of([1.0] * 14, margins=[1, 1, 1, 4, 0, 1, 1, 3, 1, 1, 2, 1, 6, 5]))
    assert [(each.low, each.high, each.right.of) for each in found.groups] == [
        (0, 0, 1),
        (1, 1, 8),
        (2, 3, 2),
        (4, 6, 3),
    ]


def test_unknown_margins_are_left_out_and_counted_and_none_if_no_other_is_there():
    found = by_margin(pairs_of([1.0, -1.0, 1.0], margins=[NAN, 1, NAN]))
    assert (found.unknown, len(found.groups), found.groups[0].right.count) == (2, 1, 0)
    assert by_margin(pairs_of([1.0], margins=[NAN])) is None
    assert by_margin(pairs_of([1.0])) is None


# Four rows with an image and one without. With images right: yes yes no yes; without: yes no (a tie) no yes
BLIND = pairs_of(
    [1.0, 1.0, -1.0, 2.0, 1.0],
    images=[True] * 8 + [False] * 2,
    blind_rewards=[1, 0, 2, 2, 0, 1, 3, 1, NAN, NAN],
)


def test_the_same_pairs_with_images_and_without_by_hand():
    found = blind(BLIND)
    assert (found.with_images.count, found.without_images.count) == (3, 2)
    assert found.with_images.of == found.without_images.of == found.difference.pairs == 4
    assert (found.difference.first_only, found.difference.second_only, found.difference.difference) == (1, 0, 0.25)
    assert found.difference.p == pytest.approx(1.0)
    assert (found.unscored, why_not_blind(BLIND)) == (0, "")


def test_rows_with_and_without_images_are_told_apart():
    found = by_kind(BLIND)
    assert (found.with_images.count, found.with_images.of, found.text_only.count, found.text_only.of) == (3, 4, 1, 1)
    assert by_kind(FIVE) is None
    assert by_kind(replace(BLIND, pairs=BLIND.pairs[:4])) is None


def test_pairs_that_were_not_scored_without_images_are_left_out_and_counted():
    rewards = BLIND.blind_rewards.copy()
    rewards[[0, 7]] = NAN
    found = blind(replace(BLIND, blind_rewards=rewards))
    assert (found.unscored, found.with_images.of, found.with_images.count, found.without_images.count) == (2, 2, 1, 0)


def test_text_only_rows_scored_again_add_nothing():
    rewards = np.where(np.isnan(BLIND.blind_rewards), 7.0, BLIND.blind_rewards)
    assert blind(replace(BLIND, blind_rewards=rewards)) == blind(BLIND)


NOTHING = {
    "no image": (FIVE, "no row has an image"),
    "no pair": (replace(BLIND, pairs=BLIND.pairs[4:]), "no row with an image has a pair"),
    "not scored": (replace(BLIND, blind_rewards=None), "the rows were not scored without their images"),
    "none scored": (
        replace(BLIND, blind_rewards=np.full(10, NAN)),
        "no pair of a row with an image was scored without it",
    ),
}


@pytest.mark.parametrize("item, reason", NOTHING.values(), ids=NOTHING)
def test_where_nothing_can_be_compared_it_is_said_why(item, reason):
    assert blind(item) is None
    assert why_not_blind(item) == reason


@st.composite
def any_judged(draw) -> Judged:
    """Rows of one to four responses with a few possible rewards and lengths, so that ties are frequent."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    rows = np.repeat(np.arange(len(counts)), counts)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    both = [(a, b) for a in range(len(rows)) for b in range(len(rows)) if a != b and rows[a] == rows[b]]
    pairs = [pair for pair in both if random.random() < 0.4]
    some = random.random(3) < 0.7
    unknown = random.random(len(pairs)) < 0.2
    images = np.repeat(random.random(len(counts)) < 0.5, counts)
    return judged(
        random.integers(-2, 3, len(rows)) / 10,
        pairs,
        rows=rows * 7 - 3,
        lengths=random.integers(0, 4, len(rows)),
        images=images,
        **({"margins": np.where(unknown, NAN, random.integers(0, 9, len(pairs)) / 10)} if some[0] else {}),
        **({"blind_rewards": np.where(images, random.integers(-2, 3, len(rows)) / 10, NAN)} if some[1] else {}),
    )


def numbers(value) -> list:
    """Everything in a dictionary, flattened."""
    if isinstance(value, dict):
        return [number for name in value for number in numbers(value[name])]
    return [number for each in value for number in numbers(each)] if isinstance(value, list) else [value]


@settings(deadline=None, max_examples=100)
@given(any_judged(), st.randoms(use_true_random=False))
def test_the_order_of_responses_pairs_and_rows_changes_nothing(item, random):
    responses, pairs = list(range(len(item.rewards))), list(range(len(item.pairs)))
    random.shuffle(responses)
    random.shuffle(pairs)
    moved = Judged(
        rewards=item.rewards[responses],
        lengths=item.lengths[responses],
        row_of=item.row_of[responses] * -5,
        pairs=np.argsort(responses)[item.pairs[pairs]],
        shows_image=item.shows_image[responses],
        margins=None if item.margins is None else item.margins[pairs],
        blind_rewards=None if item.blind_rewards is None else item.blind_rewards[responses],
    )
    before, after = (numbers(quality(each).to_dict()) for each in (item, moved))
    assert [type(each) for each in after] == [type(each) for each in before]
    for old, new in zip(before, after, strict=True):
        assert new == (pytest.approx(old, abs=1e-9) if isinstance(old, float) else old)


@settings(deadline=None, max_examples=100)
@given(any_judged())
def test_whatever_is_judged_can_be_stored_and_read(item):
    found = quality(item)
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert stored["counts"]["responses"] == len(item.rewards)
    assert stored["length"].keys() >= {"overall", "within"}
    assert not {"centred_lengths", "centred_rewards"} & stored["length"].keys()
    assert len(found.lines()) == 6
    assert "\n\n\n" not in found.markdown("Title")
    for text in (found.markdown("Title"), *found.lines()):
        assert "nan" not in text.lower()
        assert "None" not in text
