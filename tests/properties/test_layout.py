"""Placement is disjoint whatever is asked, and uniform: tests with fixed seeds, so that a verdict never changes."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.rng import Rng
from sim.core.units import MIB
from sim.kernel.layout import (
    RELEASES,
    Layout,
    LayoutError,
    LayoutProfile,
    Offset,
    ProcessSizes,
    Window,
    place_process,
)
from sim.kernel.layout.gaps import Gaps
from sim.kernel.layout.randomness import Verdict, correlation, distance, judge

LAYOUTS = 4096
KERNEL_KINDS = [window.kind for window in LayoutProfile().windows]
KERNELS = ["esxi-6.x", "esxi-8.x"]
USERS = [name for name in RELEASES if name not in ("esxi-7.x", "esxi-8.x", "none")]
"""Profiles whose processes are placed differently: those of the ESXi releases are equal."""


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


@given(
    st.sampled_from([0x1000, 0x3000, 0x4000]),
    st.integers(0, 0xFFF),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5), st.booleans(), st.integers(0, 10**9))),
)
def test_places_between_regions_are_those_that_a_look_at_every_address_finds(align, odd, requests):
    page, base, end = 0x1000, 0x3_0000, 0x3_0000 + 0x10_0000 + odd
    gaps = Gaps(base, end, align)
    taken = []
    for pages, guard, join, choice in requests:
        size = pages * page
        free = [
            at
            for at in range(base, end - size + 1, align)
            if all(at + size <= low or at >= up for low, up in taken)
        ]
        assert gaps.places(size) == len(free)
        assert [gaps.place(number, size) for number in range(len(free))] == free
        if join and taken:
            index = choice % len(taken)
            del taken[index]
            gaps.join(index)
        elif free:
            at = free[choice % len(free)]
            low, up = at - guard * page, -(-(at + size + guard * page) // align) * align
            index = sum(other < (low, up) for other in taken)
            taken.insert(index, (low, up))
            gaps.split(index, low, up)
        gaps.check_invariants()
        assert gaps.copy().bounds == gaps.bounds


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


def assert_all_passed(verdicts):
    assert [str(verdict) for verdict in verdicts if not verdict.passed] == []


@pytest.mark.parametrize("kind", KERNEL_KINDS)
@pytest.mark.parametrize("release", KERNELS)
def test_every_kind_of_kernel_region_is_uniform_over_its_places(release, kind):
    profile = RELEASES[release].kernel
    window = profile.window(kind)
    numbers = []
    for seed in range(LAYOUTS):
        layout = Layout(Rng(seed).stream("layout/kernel"), profile)
        numbers.append((layout.place(kind, 3 * window.align_bytes) - window.base) // window.align_bytes)
    assert_all_passed(judge(numbers, layout.regions()[0].places))


def test_the_second_region_of_a_window_is_uniform_over_what_the_first_left():
    profile = LayoutProfile(windows=(Window(kind="slot", base=0, span_bytes=200 * 4096),))
    numbers = []
    for seed in range(LAYOUTS):
        layout = Layout(Rng(seed).stream("x"), profile)
        first, second = layout.place("slot", 4096) // 4096, layout.place("slot", 4096) // 4096
        free = [at for at in range(200) if abs(at - first) > 1]
        if len(free) == 197:
            numbers.append(free.index(second))
    assert_all_passed(judge(numbers, 197))


def test_regions_of_one_kernel_do_not_know_of_each_other():
    placed = {kind: [] for kind in KERNEL_KINDS}
    for seed in range(LAYOUTS):
        layout = Layout(Rng(seed).stream("layout/kernel"), LayoutProfile())
        for kind, bases in placed.items():
            bases.append(layout.place(kind, 4096))
    for number, one in enumerate(KERNEL_KINDS):
        for two in KERNEL_KINDS[number + 1 :]:
            assert_all_passed([correlation(f"{one} and {two}", placed[one], placed[two])])


@pytest.fixture(scope="module", params=USERS)
def processes(request):
    """The maps of 4,096 executions under one profile, and that profile."""
    profile = RELEASES[request.param].user
    layout = Layout(Rng(7).stream("exec"), profile)
    maps = []
    for _ in range(LAYOUTS):
        maps.append(place_process(layout, ProcessSizes(mappings=(4096,))))
        layout = layout.renewed()
    return maps, profile


def numbers_of(placed, profile):
    """The slot of each independent draw of a process, recovered from its addresses."""
    grain = profile.window("stack").offsets[0].step_bytes
    stack, library = profile.window("stack"), profile.window("library")
    heap = profile.window("heap")
    start = placed.exe.end + heap.guard_bytes if heap.follows else heap.base
    below = placed.stack.end - 3 * 4096
    arguments = profile.arguments[0].step_bytes if profile.arguments else 1
    stack_draw = stack.end - placed.stack.end if stack.method == "down" else placed.stack.base - stack.base
    return {
        "exe": (placed.exe.base - profile.window("exe").base) // grain,
        "heap": (placed.heap.base - start) // heap.offsets[0].step_bytes,
        "library": (library.end - placed.vdso.end) // grain,
        "stack": stack_draw // grain,
        "stack pointer": (below - 4096 - placed.stack_pointer.address) // 16,
        "arguments": (below - placed.arguments.address) // arguments,
        "heap start": (placed.heap_start.address - placed.heap.base) // 16,
    }


def test_every_draw_of_a_process_is_uniform_over_its_slots_and_independent_of_the_others(processes):
    maps, profile = processes
    series = {name: [] for name in numbers_of(maps[0], profile)}
    for placed in maps:
        for name, number in numbers_of(placed, profile).items():
            series[name].append(number)
    slots = {name: profile.window(name).offsets[0].slots for name in ("exe", "heap", "library", "stack")}
    slots["stack pointer"] = profile.stack_pointer[0].slots
    slots["arguments"] = profile.arguments[0].slots if profile.arguments else 1
    slots["heap start"] = profile.heap_start[0].slots if profile.heap_start else 1
    moving = [name for name in series if slots[name] > 1]
    assert [name for name in series if slots[name] == 1 and any(series[name])] == []
    for number, name in enumerate(moving):
        assert_all_passed(judge(series[name], slots[name]))
        for other in moving[number + 1 :]:
            assert_all_passed([correlation(f"{name} and {other}", series[name], series[other])])


def test_a_heap_behind_the_program_follows_the_sum_of_both_draws(processes):
    maps, profile = processes
    heap, exe = profile.window("heap"), profile.window("exe")
    if not heap.follows:
        programs, heaps = [one.exe.base for one in maps], [one.heap.base for one in maps]
        assert_all_passed([correlation("a heap on its own and the program", programs, heaps)])
        return
    near, far = heap.offsets[0].slots, exe.offsets[0].slots
    start = exe.base + maps[0].exe.size_bytes + heap.guard_bytes
    sums = [(placed.heap.base - start) // 4096 for placed in maps]

    def cumulative(number):
        """P(near draw + far draw <= number), in whole pairs."""
        if number < 0:
            return Fraction(0)
        steps = min(number, near - 1)
        full = max(0, min(near, number - far + 1))
        partial = range(full, steps + 1)
        pairs = full * far
        if partial:
            pairs += len(partial) * (number + 1) - (partial.start + partial.stop - 1) * len(partial) // 2
        return Fraction(pairs, near * far)

    assert cumulative(near + far - 2) == 1
    assert_all_passed([distance(sums, cumulative)])
    maximum = maps[0].heap.spread.slots
    assert max(sums) < maximum


def test_libraries_that_share_a_base_are_seen_to_move_together():
    profile = RELEASES["linux-6.x"].user
    libraries, mappings, programs = [], [], []
    layout = Layout(Rng(11).stream("exec"), profile)
    for _ in range(LAYOUTS):
        placed = place_process(layout, ProcessSizes(mappings=(4096,)))
        libraries.append(placed.libraries[0].base)
        mappings.append(placed.mappings[0].base)
        programs.append(placed.exe.base)
        layout = layout.renewed()
    together: Verdict = correlation("library and mapping", libraries, mappings)
    assert not together.passed
    assert_all_passed([correlation("library and program", libraries, programs)])


@pytest.mark.parametrize("method", ["scatter", "up", "down"])
def test_every_slot_of_a_small_space_is_reached_and_no_other(method):
    offsets = () if method == "scatter" else (Offset(name="base", slots=1024),)
    window = Window(kind="slot", base=1 << 30, span_bytes=1024 * 4096, method=method, offsets=offsets)
    profile = LayoutProfile(windows=(window,))
    stream = Rng(9).stream("layout")
    seen = {Layout(stream, profile).place("slot", 4096) for _ in range(1024 * 28)}
    assert seen == set(range(1 << 30, (1 << 30) + 1024 * 4096, 4096))


@settings(max_examples=60)
@given(st.sampled_from(sorted(RELEASES)), st.integers(0, 2**32), st.data())
def test_a_process_is_disjoint_and_inside_its_windows_whatever_it_maps(name, seed, data):
    layout = Layout(Rng(seed).stream("x"), RELEASES[name].user)
    place_process(layout, ProcessSizes(threads=data.draw(st.integers(0, 3))))
    mapped = []
    for kind, size in data.draw(
        st.lists(
            st.tuples(st.sampled_from(["mmap", "library", "thread-stack"]), st.integers(1, 1 << 22)),
            max_size=8,
        )
    ):
        if mapped and data.draw(st.booleans()):
            layout.release(mapped.pop(data.draw(st.integers(0, len(mapped) - 1))))
        mapped.append(layout.place(kind, size))
        layout.check_invariants()
    assert layout.fork().regions() == layout.regions()
