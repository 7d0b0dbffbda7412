"""The tests of randomness have the power to find planted faults, the limits they claim, and no false alarms here."""

from fractions import Fraction
from itertools import pairwise
from math import exp, lgamma, log

import pytest

from sim.core.rng import Rng
from sim.errors import SimBug
from sim.kernel.layout import randomness
from sim.kernel.layout.randomness import correlation, equal_pairs, judge, pairs_limit

LAYOUTS = 4096
PLACES = 1 << 16


def fair(seed, places=PLACES, count=LAYOUTS):
    stream = Rng(seed).stream("fair")
    return [stream.below(places) for _ in range(count)]


def failing(numbers, places=PLACES):
    return [verdict.test for verdict in judge(numbers, places) if not verdict.passed]


@pytest.mark.parametrize("places", [2, 63, 503, 512, 1 << 13, 130_497, 1 << 28, 10**15])
def test_fair_draws_pass_every_test_at_any_size(places):
    for seed in range(3):
        assert failing(fair(seed, places), places) == []


def biased(kind, seed=1):
    stream = Rng(seed).stream(kind)
    for _ in range(LAYOUTS):
        if kind == "half the range":
            yield stream.below(PLACES // 2)
        elif kind == "triangular":
            yield (stream.below(PLACES) + stream.below(PLACES)) // 2
        elif kind == "modulo 60":
            yield stream.below(64) % 60 * (PLACES // 64) + stream.below(PLACES // 64)
        elif kind == "low bit stuck a quarter of the time":
            number = stream.below(PLACES)
            yield number & ~1 if stream.below(4) == 0 else number
        elif kind == "low bit stuck":
            yield stream.below(PLACES) & ~1
        elif kind == "few values":
            yield stream.below(64) * (PLACES // 64)


@pytest.mark.parametrize(
    ("kind", "found_by"),
    [
        ("half the range", ["bit 15", "distance", "chi-square"]),
        ("triangular", ["distance", "chi-square"]),
        ("modulo 60", ["chi-square"]),
        ("low bit stuck a quarter of the time", ["bit 0"]),
        ("low bit stuck", ["bit 0", "equal pairs"]),
        ("few values", ["bit 0", "equal pairs", "frequency", "runs", "serial 1"]),
    ],
)
def test_a_planted_bias_is_found_by_the_tests_that_are_there_for_it(kind, found_by):
    for seed in range(5):
        assert set(found_by) - set(failing(list(biased(kind, seed)))) == set()


def test_a_base_that_goes_up_and_down_is_found_by_correlation_alone():
    numbers = fair(1)
    steps = [(number // 2 + previous // 2) for previous, number in pairwise(numbers)]
    assert "correlation, consecutive" in failing(steps)
    swapped = [each for number in numbers[:2048] for each in (number, PLACES - 1 - number)]
    assert "correlation, consecutive" in failing(swapped)


def test_two_regions_with_one_offset_are_found():
    library = fair(1)
    small = Rng(2).stream("own")
    stack = [number + small.below(PLACES // 16) for number in library]
    assert not correlation("shared", library, stack).passed
    assert not correlation("mirrored", library, [-number for number in library]).passed
    assert correlation("independent", library, fair(2)).passed


def test_patterns_over_the_joined_bits_are_found():
    assert {"frequency", "runs", "serial 1"} & set(failing([0x5555] * LAYOUTS)) == {"runs", "serial 1"}
    alternating = [0x3333 if at % 2 else 0xCCCC for at in range(LAYOUTS)]
    assert {"serial 1", "serial 2"} <= set(failing(alternating))


def test_the_bits_of_sp_800_22s_examples_give_its_statistics():
    bits = [int(bit) for bit in "1011010101"]
    assert randomness.frequency(bits).statistic == Fraction(
        4, 10
    )  # section 2.1.4: s = 0.632455 = 2 / sqrt(10)
    bits = [int(bit) for bit in "1001101011"]
    # section 2.3.4: V = 7, n = 10, p = 0.6; P-value = 0.147232 = erfc(1.0251...)
    assert randomness.runs(bits).statistic == Fraction(22, 10) ** 2 / (8 * 10 * Fraction(24, 100) ** 2)
    bits = [int(bit) for bit in "0011011101"]
    # section 2.11.4, with m = 3: psi = 2.8, 1.2, 0.4
    assert randomness._psi_squared(bits, 3) == Fraction(28, 10)
    assert randomness._psi_squared(bits, 2) == Fraction(12, 10)
    assert randomness._psi_squared(bits, 1) == Fraction(4, 10)


def test_the_distance_is_the_largest_gap_on_either_side_of_a_step():
    eighths = randomness.uniform_below(8)
    assert (
        randomness.distance([0, 1, 2, 3], eighths).statistic == Fraction(1, 4) * 4
    )  # all seen, half expected
    assert (
        randomness.distance([4, 5, 6, 7], eighths).statistic == Fraction(1, 4) * 4
    )  # none seen, half expected
    assert randomness.distance([1, 3, 5, 7], eighths).statistic == Fraction(1, 64) * 4
    assert randomness.distance([3, 3, 3, 3], eighths).statistic == Fraction(1, 4) * 4


def upper_tail(statistic, freedom):
    """P(chi-square > statistic), by the continued series of the lower incomplete gamma function."""
    half, shape = statistic / 2, freedom / 2
    term = exp(-half + shape * log(half) - lgamma(shape + 1))
    below, index = term, 1
    while term > 1e-18:
        term *= half / (shape + index)
        below += term
        index += 1
    return 1 - below


@pytest.mark.parametrize(
    ("limit", "freedom"),
    [(randomness.CHI_SQUARE_63, 63), (randomness.CHI_SQUARE_8, 8), (randomness.CHI_SQUARE_4, 4)],
)
def test_the_limits_are_the_quantiles_of_one_false_alarm_in_1e9(limit, freedom):
    assert upper_tail(limit, freedom) < 1.02e-9
    assert upper_tail(limit - 2, freedom) > 1e-9


def test_equal_pairs_have_the_known_limits():
    assert pairs_limit(Fraction(4000 * 3999, 2 << 22)) == 16
    assert pairs_limit(Fraction(4000 * 3999, 2 << 28)) == 5
    assert pairs_limit(Fraction(1000 * 999, 2 << 16)) == 30
    assert equal_pairs([1, 1, 1, 2], 1 << 28).statistic == 3


def test_what_is_no_sample_is_refused():
    for numbers, places in (([1, 2], 16), ([16] * 100, 16), ([0] * 100, 1), ([-1] * 100, 16)):
        with pytest.raises(SimBug):
            judge(numbers, places)
