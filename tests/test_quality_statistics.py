"""Shares, differences and correlations against numbers that were worked out another way."""

import math
import time

import numpy as np
import pytest

from vlmpack.quality.correlation import correlation, levelled, pearson, ranks
from vlmpack.quality.paired import paired, sign_flip
from vlmpack.quality.shares import share

WILSON = {  # the two roots p of |k / n - p| = 1.96 sqrt(p (1 - p) / n), found by bisection with 40 digits
    (8, 10): (0.4901624715366417, 0.9433178485456247),
    (2, 3): (0.2076596008020478, 0.9385080552796038),
    (0, 5): (0.0, 0.4344824647831748),
    (5, 5): (0.5655175352168252, 1.0),
    (1, 1): (0.2065493143772374, 1.0),
}


@pytest.mark.parametrize("counts, bounds", WILSON.items(), ids=str)
def test_a_share_has_the_interval_of_wilson(counts, bounds):
    count, of = counts
    found = share(np.arange(of) < count)
    assert (found.count, found.of, found.value) == (count, of, count / of)
    assert (found.low, found.high) == pytest.approx(bounds, abs=1e-14)


def test_a_share_of_nothing_is_none():
    assert share(np.zeros(0, dtype=bool)) is None


MCNEMAR = {  # 2 sum C(b + c, k) / 2^(b + c) over k <= min(b, c), at most 1, by math.comb
    (5, 1): 0.21875,
    (6, 2): 0.2890625,
    (10, 10): 1.0,
    (1, 9): 0.021484375,
    (30, 12): 0.007915897334896727,
    (0, 0): 1.0,
}


@pytest.mark.parametrize("counts, p", MCNEMAR.items(), ids=str)
def test_with_one_pair_a_row_the_p_is_that_of_mcnemar(counts, p):
    assert sign_flip(np.repeat([1, -1, 0], [*counts, 3])) == pytest.approx(p, abs=1e-14)


FLIPPED = {  # shares of all 2^n sign patterns, written out one by one
    (3, 1, -1, 2): 6 / 16,
    (2, 2, -1, 0, 1): 12 / 32,
    (3, 3, 1): 2 / 8,
    (10,): 1.0,
}


@pytest.mark.parametrize("nets, p", FLIPPED.items(), ids=str)
def test_with_several_pairs_a_row_every_pattern_of_signs_counts(nets, p):
    assert sign_flip(np.array(nets)) == pytest.approx(p, abs=1e-14)


def test_the_p_of_a_million_rows_takes_no_time_and_is_that_of_a_normal_variable():
    random = np.random.default_rng(0)
    nets = random.integers(-3, 4, 1_000_000)
    nets[:1500] = 3
    start = time.perf_counter()
    found = sign_flip(nets)
    assert time.perf_counter() - start < 5
    deviation = math.sqrt(float((nets.astype(float) ** 2).sum()))
    assert found == pytest.approx(math.erfc(abs(int(nets.sum())) / deviation / math.sqrt(2)), rel=0.01)


def test_a_difference_has_the_interval_of_agresti_and_min():
    """-0.21601726 to -0.03089632 is what the documentation of PropCIs::diffpropci.mp gives for 40, 20 and 160."""
    kinds = [(False, True)] * 40 + [(True, False)] * 20 + [(True, True)] * 70 + [(False, False)] * 30
    first, second = np.array(kinds).T
    found = paired(first, second, np.arange(160))
    assert (found.pairs, found.rows, found.first_only, found.second_only) == (160, 160, 20, 40)
    assert found.difference == -0.125
    assert found.changed == 0.375
    assert (found.low, found.high) == pytest.approx((-0.21601726, -0.03089632), abs=1e-8)


def test_pairs_of_a_row_count_as_one_and_the_interval_is_that_of_a_ratio():
    """Nets 2, 1, -1 and 0 of rows with 3, 1, 2 and 2 pairs. Two rows of 2 pairs are added, half a row with net 2, half
    a row with net -2 and one with net 0: 12 pairs, mean 2 / 12, squares 163 / 18 (by fractions)."""
    first = np.array([True, True, False, True, False, True, True, False])
    second = np.array([False, False, False, False, True, True, False, True])
    rows = np.array([7, 7, 7, 2, 5, 5, 9, 9])
    found = paired(first, second, rows)
    assert (found.pairs, found.rows, found.first_only, found.second_only) == (8, 4, 4, 2)
    assert found.difference == 0.25
    assert (found.low, found.high) == pytest.approx((-0.3248343207092389, 0.6581676540425723), abs=1e-14)
    assert found.p == pytest.approx(6 / 8, abs=1e-14)  # of the 8 sums +-2 +-1 +-1 two are 0


def test_a_row_with_many_pairs_proves_nothing():
    rows, all_right = np.zeros(45, dtype=int), np.ones(45, dtype=bool)
    found = paired(all_right, ~all_right, rows)
    assert found.p == pytest.approx(1.0)
    same = paired(all_right, all_right, rows)
    assert same.high > 0.5


def test_no_pairs_do_not_differ():
    none = np.zeros(0, dtype=bool)
    assert paired(none, none, np.zeros(0, dtype=int)) is None


def test_pearsons_coefficient_by_hand():
    """30 / sqrt(2940), by sums of fractions: n sum xy - sum x sum y over the roots of n sum x^2 - (sum x)^2."""
    found = pearson(np.array([1.0, 2.0, 4.0, 7.0]), np.array([3.0, 1.0, 5.0, 4.0]))
    assert found == pytest.approx(0.5532833351724882, abs=1e-14)


def test_spearmans_coefficient_by_hand():
    """Ranks 1 2 3 4 5 and 2 1 3 5 4: 1 - 6 * 4 / (5 * 24)."""
    found = correlation(np.array([10.0, 20.0, 30.0, 40.0, 50.0]), np.array([3.0, 1.0, 4.0, 900.0, 5.0]))
    assert found.spearman == pytest.approx(0.8, abs=1e-14)
    assert found.points == 5


def test_equal_values_share_their_mean_rank():
    """Ranks 1.5 1.5 3 4 and 1 2 3.5 3.5: 16 / sqrt(324)."""
    assert ranks(np.array([7.0, 7.0, 8.0, 9.0])).tolist() == [1.5, 1.5, 3.0, 4.0]
    found = correlation(np.array([7.0, 7.0, 8.0, 9.0]), np.array([0.0, 1.0, 5.0, 5.0]))
    assert found.spearman == pytest.approx(16 / 18, abs=1e-14)


@pytest.mark.parametrize("first", [[1.0, 1.0, 1.0], [1.0], []], ids=["constant", "one", "none"])
def test_a_correlation_that_is_not_defined_is_none(first):
    second = np.arange(len(first), dtype=float)
    for columns in ((np.array(first), second), (second, np.array(first))):
        found = correlation(*columns)
        assert (found.pearson, found.spearman) == (None, None)


def test_values_that_differ_by_rounding_are_made_equal_and_others_are_not():
    values = np.array([0.3 - 0.2, 0.2 - 0.1, 0.1, 0.1 + 1e-9])
    assert len(set(values.tolist())) == 3
    assert len(set(levelled(values, largest=0.3).tolist())) == 2
    assert levelled(values, largest=0.3) == pytest.approx(values, abs=1e-11)
    assert levelled(np.zeros(2), largest=0.0).tolist() == [0.0, 0.0]
