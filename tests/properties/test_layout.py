"""Placement is disjoint whatever is asked, and uniform: tests with fixed seeds, so that a verdict never changes."""

from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.rng import Rng
from sim.core.units import MIB
from sim.kernel.layout import Layout, LayoutError, LayoutProfile, Window, user_profile

LAYOUTS = 4096
CHI_SQUARE_63_MAX = 156  # the quantile of 63 degrees of freedom at 1 - 1e-9
KINDS = {
    "kernel": LayoutProfile(),
    "module": LayoutProfile(),
    "heap": LayoutProfile(),
    "stack": LayoutProfile(),
    "percpu": LayoutProfile(),
    "exe": user_profile(),
    "library": user_profile(),
}


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(st.sampled_from(["kernel", "module", "heap", "percpu", "tiny"]), st.integers(1, 3 * MIB))
    ),
    st.data(),
)
def test_regions_are_aligned_inside_their_windows_and_apart_after_any_placements(seed, requests, data):
    tiny = Window(kind="tiny", base=0x1000_0000, span_bytes=1 * MIB, align_bytes=0x4000, guard_bytes=0x3000)
    profile = LayoutProfile(windows=(*LayoutProfile().windows, tiny))
    layout = Layout(Rng(seed).stream("x"), profile)
    placed = []
    for kind, size in requests:
        if placed and data.draw(st.booleans()):
            layout.release(placed.pop(data.draw(st.integers(0, len(placed) - 1))))
        possible = layout.places(kind, size)
        try:
            placed.append(layout.place(kind, size))
        except LayoutError:
            assert possible == 0
        else:
            assert possible > 0
        layout.check_invariants()
    regions = layout.regions()
    assert sorted(placed) == [region.base for region in regions]
    for region in regions:
        window = profile.window(region.kind)
        assert window.base <= region.base
        assert region.end <= window.end
        assert region.base % window.align_bytes == 0
        for other in regions:
            apart = (
                other.end + window.guard_bytes <= region.base or region.end + window.guard_bytes <= other.base
            )
            assert other is region or apart or other.kind != region.kind
            assert other is region or other.end <= region.base or region.end <= other.base


@given(st.lists(st.integers(0, 63), max_size=8), st.integers(1, 5))
def test_the_number_of_places_is_what_counting_them_gives(taken, pages):
    window = Window(kind="slot", base=0, span_bytes=64 * 4096)
    layout = Layout(Rng(1).stream("x"), LayoutProfile(windows=(window,)))
    for _ in taken:
        if layout.places("slot"):
            layout.place("slot", 4096)
    bases = [region.base // 4096 for region in layout.regions()]
    free = [
        first
        for first in range(64 - pages + 1)
        if all(base + 1 < first or first + pages < base for base in bases)
    ]
    assert layout.places("slot", pages * 4096) == len(free)


@pytest.fixture(scope="module", params=sorted(KINDS))
def draws(request):
    """Place numbers of 4,096 layouts of one kind, and how many places there are."""
    profile = KINDS[request.param]
    window = profile.window(request.param)
    layouts = [Layout(Rng(seed).stream("layout"), profile) for seed in range(LAYOUTS)]
    places = layouts[0].places(request.param)
    return [(each.place(request.param, 4096) - window.base) // window.align_bytes for each in layouts], places


def test_every_bit_of_a_base_is_one_in_half_of_all_layouts(draws):
    numbers, places = draws
    for bit in range(places.bit_length() - 1):
        span = 1 << (bit + 1)
        within = [number for number in numbers if number < places // span * span]
        share = sum(number >> bit & 1 for number in within) / len(within)
        assert abs(share - 0.5) < 0.052 * sqrt(LAYOUTS / len(within))


def test_bases_spread_evenly_over_the_window(draws):
    numbers, places = draws
    ordered = sorted(numbers)
    distance = max(abs((at + 1) / LAYOUTS - (number + 1) / places) for at, number in enumerate(ordered))
    assert distance < 0.0511 + 1 / places
    bins = [0] * 64
    for number in numbers:
        bins[number * 64 // places] += 1
    chi_square = sum((count - LAYOUTS / 64) ** 2 / (LAYOUTS / 64) for count in bins)
    assert chi_square < CHI_SQUARE_63_MAX


def test_no_layout_predicts_the_next(draws):
    numbers, _ = draws
    mean = sum(numbers) / LAYOUTS
    centred = [number - mean for number in numbers]
    variance = sum(each * each for each in centred)
    covariance = sum(one * two for one, two in pairwise(centred))
    assert abs(covariance / variance) < 6.2 / sqrt(LAYOUTS)


def test_two_regions_of_one_layout_are_independent():
    pairs = []
    for seed in range(LAYOUTS):
        layout = Layout(Rng(seed).stream("layout"), LayoutProfile())
        pairs.append((layout.place("kernel", 4096), layout.place("module", 4096)))
    means = [sum(pair[side] for pair in pairs) / LAYOUTS for side in (0, 1)]
    one, two = ([pair[side] - means[side] for pair in pairs] for side in (0, 1))
    product = sum(a * b for a, b in zip(one, two, strict=True))
    scale = sqrt(sum(a * a for a in one) * sum(b * b for b in two))
    assert abs(product / scale) < 6.2 / sqrt(LAYOUTS)


def test_equal_bases_are_as_rare_as_the_entropy_says():
    layouts = [Layout(Rng(seed).stream("layout"), user_profile()) for seed in range(4000)]
    stacks = [each.place("stack", 4096) for each in layouts]
    programs = [each.place("exe", 4096) for each in layouts]
    assert len(stacks) - len(dict.fromkeys(stacks)) < 16
    assert len(programs) - len(dict.fromkeys(programs)) < 5


def test_every_slot_of_a_small_space_is_reached():
    window = Window(kind="slot", base=0, span_bytes=256 * 4096)
    profile = LayoutProfile(windows=(window,))
    stream = Rng(9).stream("layout")
    seen = {Layout(stream, profile).place("slot", 4096) for _ in range(256 * 27)}
    assert len(seen) == 256
