"""Entropy: counted by formula and by listing every place, and never different."""

from fractions import Fraction
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.rng import Rng
from sim.errors import SimBug
from sim.kernel.layout import (
    Draw,
    EntropyError,
    Layout,
    LayoutProfile,
    Offset,
    Spread,
    Window,
    joint_bits,
    leak_leaves_bits,
    spread_of,
    trapezoid,
    uniform,
)
from sim.kernel.layout.entropy import Weights, from_weights, trapezoid_within


def draw(name, slots, step=4096):
    return Draw(name=name, spread=uniform(slots), step_bytes=step)


def listed(draws):
    """The weights of all places, by adding every combination up."""
    sums = {0: 1}
    for each in draws:
        larger = {}
        for at, weight in sums.items():
            for slot in range(each.spread.slots):
                place = at + slot * each.step_bytes
                larger[place] = larger.get(place, 0) + weight
        sums = larger
    return sums


def guesses(weights):
    ordered = sorted(weights, reverse=True)
    return Fraction(sum(rank * weight for rank, weight in enumerate(ordered, 1)), sum(ordered))


def assert_same(spread, weights):
    total = sum(weights)
    assert spread.slots == len(weights)
    assert spread.total == total
    assert spread.likeliest == Fraction(max(weights), total)
    assert spread.collision == Fraction(sum(weight * weight for weight in weights), total * total)
    assert spread.guesses_expected == guesses(weights)
    shannon = sum(-weight / total * log2(weight / total) for weight in weights)
    assert spread.shannon_bits == pytest.approx(shannon, abs=1e-9)


def test_a_uniform_base_has_log2_of_its_slots_in_every_measure():
    spread = uniform(65_536)
    assert spread.slot_bits == spread.shannon_bits == spread.min_entropy_bits == 16.0
    assert spread.guesses_expected == Fraction(65_537, 2)
    assert spread.collision == Fraction(1, 65_536)


def test_the_sum_of_two_offsets_of_4096_slots_has_the_known_entropies():
    spread = trapezoid(4096, 4096)
    assert spread.slots == 8191
    assert round(spread.slot_bits, 2) == 13.00
    assert round(spread.shannon_bits, 2) == 12.72
    assert round(-log2(spread.collision), 2) == 12.58
    assert spread.min_entropy_bits == 12.0
    assert round(spread.guesses_expected) == 2731


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from([1, 2, 3, 4, 8, 12])), min_size=1, max_size=3))
def test_a_sum_of_draws_is_what_listing_every_combination_gives(parts):
    draws = [draw(str(number), slots, step) for number, (slots, step) in enumerate(parts)]
    assert_same(spread_of(draws), list(listed(draws).values()))


@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.booleans(), min_size=45, max_size=45))
def test_a_sum_with_occupied_places_is_what_listing_the_free_ones_gives(one, two, free):
    sums = listed([draw("a", one, 1), draw("b", two, 1)])
    kept = [weight for at, weight in sums.items() if free[at]]
    ranges = [range(at, at + 1) for at in range(45) if free[at]]
    if kept:
        assert_same(trapezoid_within(one, two, ranges), kept)
    else:
        with pytest.raises(EntropyError):
            trapezoid_within(one, two, ranges)
    whole = trapezoid_within(one, two, [range(45)])
    assert (whole.slots, whole.guesses_expected) == (
        trapezoid(one, two).slots,
        trapezoid(one, two).guesses_expected,
    )


def test_large_sums_agree_with_adding_up_at_the_border_between_the_two_ways():
    listed_sum = from_weights(trapezoid_weights(5000, 9000))
    assert trapezoid(5000, 9000).shannon_bits == pytest.approx(listed_sum.shannon_bits, abs=1e-10)


def trapezoid_weights(one, two):
    return [min(at + 1, one, two, one + two - 1 - at) for at in range(one + two - 1)]


def test_a_window_of_28_bits_plus_13_bits_has_little_more_than_28():
    spread = spread_of([draw("exe", 1 << 28), draw("brk", 1 << 13)])
    assert spread.min_entropy_bits == 28.0
    assert 28.0 < spread.shannon_bits < spread.slot_bits < 28.0001


def test_steps_below_the_page_add_their_bits_and_an_overlap_does_not():
    nested = spread_of([draw("page", 1 << 22), draw("step", 256, 16)])
    assert nested.shannon_bits == nested.min_entropy_bits == 30.0
    overlapping = spread_of([draw("page", 1 << 22), draw("step", 512, 16)])
    assert overlapping.slots == (1 << 30) + 256
    assert overlapping.min_entropy_bits == 30.0
    assert joint_bits([draw("page", 1 << 22), draw("step", 512, 16)]) == 31.0


def test_draws_that_several_regions_share_count_once():
    mmap, exe = draw("mmap", 1 << 28), draw("exe", 1 << 28)
    assert joint_bits([mmap, mmap, mmap]) == 28.0
    assert joint_bits([mmap, exe, mmap]) == 56.0


def test_a_leak_leaves_nothing_of_a_shared_base_and_everything_of_another():
    mmap, exe, brk = draw("mmap", 1 << 28), draw("exe", 1 << 28), draw("brk", 1 << 13)
    assert leak_leaves_bits([mmap], [mmap]) == 0.0
    assert leak_leaves_bits([mmap], [exe]) == 28.0
    assert leak_leaves_bits([exe, brk], [exe]) == 13.0
    assert leak_leaves_bits([exe], [exe, brk]) == pytest.approx(13.0, abs=1e-3)
    with pytest.raises(EntropyError):
        leak_leaves_bits([exe, mmap], [exe, brk])


@given(st.integers(1, 12), st.integers(1, 12))
def test_what_a_leaked_sum_leaves_of_its_part_is_the_conditional_entropy(one, two):
    part, other = draw("part", one), draw("other", two)
    pairs = [(x, x + y) for x in range(one) for y in range(two)]
    left = 0.0
    for total in dict.fromkeys(each for _, each in pairs):
        alike = [x for x, each in pairs if each == total]
        left += len(alike) / len(pairs) * log2(len(alike))
    assert leak_leaves_bits([part], [part, other]) == pytest.approx(left, abs=1e-9)


def test_sums_that_cannot_be_counted_are_refused():
    with pytest.raises(EntropyError, match="too many places"):
        spread_of([draw("a", 1 << 12, 3), draw("b", 1 << 12, 5)])
    with pytest.raises(SimBug):
        Spread(parts=())
    with pytest.raises(SimBug):
        Spread(parts=(Weights(low=0, high=1, copies=1),))


def test_a_window_with_a_sum_of_offsets_draws_its_triangle_and_says_so():
    window = Window(
        kind="slot",
        base=1 << 30,
        span_bytes=64 * 4096,
        offsets=(Offset(name="a", slots=16), Offset(name="b", slots=16)),
    )
    profile = LayoutProfile(name="triangle", windows=(window,))
    stream = Rng(3).stream("triangle")
    counts = [0] * 31
    for _ in range(256 * 40):
        made = Layout(stream, profile)
        counts[(made.place("slot", 4096) - window.base) // 4096] += 1
    spread = made.regions()[0].spread
    assert (spread.slots, spread.min_entropy_bits) == (31, 4.0)
    assert spread.shannon_bits < spread.slot_bits
    expected = [weight * 40 for weight in trapezoid_weights(16, 16)]
    assert sum((seen - want) ** 2 / want for seen, want in zip(counts, expected, strict=True)) < 106  # 30 dof


def test_a_sum_of_offsets_keeps_off_occupied_places_and_knows_what_is_left():
    window = Window(
        kind="slot",
        base=1 << 30,
        span_bytes=10 * 4096,
        offsets=(Offset(name="a", slots=4), Offset(name="b", slots=4)),
    )
    for seed in range(60):
        made = Layout(Rng(seed).stream("x"), LayoutProfile(name="tiny", windows=(window,)))
        taken = (made.place("slot", 4096) - window.base) // 4096
        made.place("slot", 4096)
        made.check_invariants()
        second = max(made.regions(), key=lambda region: region.draws[0].name)
        free = [weight for at, weight in enumerate(trapezoid_weights(4, 4)) if abs(at - taken) > 1]
        assert_same(second.spread, free)
