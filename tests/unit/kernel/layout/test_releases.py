"""Profiles of releases: their numbers, what marks them, and that a process of each lies where it should."""

import pickle

import pytest

from sim.core.facts import all_facts
from sim.core.rng import Rng
from sim.core.structure import FieldError
from sim.core.units import GIB, MIB
from sim.errors import ScenarioError
from sim.kernel.layout import (
    RELEASES,
    Layout,
    LayoutError,
    LayoutProfile,
    Offset,
    ProcessSizes,
    ReleaseProfile,
    UserBits,
    Window,
    place_process,
    release_named,
    user_profile,
    without_pie,
)
from sim.kernel.layout.spec import LayoutSpec

BITS = {
    "esxi-6.x": (28, 28, 28, 22, 30, 22),
    "esxi-7.x": (28, 28, 28, 22, 30, 22),
    "esxi-8.x": (28, 28, 28, 22, 30, 22),
    "linux-6.x": (28, 28, 28, 22, 30, 22),
    "linux-hardened": (32, 40, 32, 32, 40, 44),
    "pax": (33, 40, 33, 32, 40, 44),
    "windows-high-entropy": (17, 24, 19, 24, 33, 24),
    "none": (0, 0, 0, 0, 0, 0),
}
SIZES = ProcessSizes(threads=3, mappings=(8192, 4096))


def process(name, seed=1, profile=None):
    layout = Layout(Rng(seed).stream("exec"), profile if profile is not None else RELEASES[name].user)
    return layout, place_process(layout, SIZES)


@pytest.mark.parametrize("name", RELEASES)
def test_each_profile_has_the_bits_of_its_source(name):
    _, placed = process(name)
    found = (
        placed.exe.spread,
        placed.heap_start.spread,
        placed.libraries[0].spread,
        placed.stack.spread,
        placed.stack_pointer.spread,
        placed.arguments.spread,
    )
    assert tuple(spread.min_entropy_bits for spread in found) == BITS[name]


@pytest.mark.parametrize("name", RELEASES)
def test_a_process_lies_in_its_windows_in_the_lower_half_with_unmapped_guards(name):
    for seed in range(100):
        layout, placed = process(name, seed)
        layout.check_invariants()
        regions = layout.regions()
        assert len(regions) == 10
        assert all(0 < region.base < region.end <= 1 << 47 for region in regions)
        assert placed.stack.base < placed.stack_pointer.address < placed.arguments.address < placed.stack.end
        assert placed.stack_pointer.address % 16 == 0
        assert placed.heap.base <= placed.heap_start.address < placed.heap.base + 4096
        assert all(
            region.end <= window.base or window.end <= region.base
            for region in regions
            for window in RELEASES[name].kernel.windows
        )


@pytest.mark.parametrize("name", RELEASES)
def test_same_seed_same_process_and_another_seed_another_unless_nothing_is_random(name):
    assert process(name, 5)[1] == process(name, 5)[1]
    assert (process(name, 5)[1].exe.base == process(name, 6)[1].exe.base) == (name == "none")


def test_libraries_mappings_and_threads_share_one_base_and_program_and_stack_have_their_own():
    gaps = set()
    for seed in range(20):
        _, placed = process("linux-6.x", seed)
        library, mapping, thread = placed.libraries[0], placed.mappings[0], placed.thread_stacks[0]
        gaps.add((library.base - mapping.base, library.base - thread.base, placed.vdso.base - library.base))
        assert [draw.name for draw in library.draws] == [draw.name for draw in thread.draws]
        assert placed.heap.base >= placed.exe.end + 4096
    assert len(gaps) == 1
    _, placed = process("linux-6.x")
    names = [draw.name for region in (placed.exe, placed.stack, placed.vdso) for draw in region.draws]
    assert len(names) == len(set(names)) == 3


def test_the_whole_map_counts_a_shared_base_once():
    layout, _ = process("linux-6.x")
    assert layout.joint_bits() == 28 + 13 + 28 + 22


def test_a_fork_keeps_every_address_and_exec_none():
    layout, placed = process("linux-6.x")
    child = layout.fork()
    assert child.regions() == layout.regions()
    assert child.displacement("stack pointer", ()) == layout.displacement("stack pointer", ())
    new = child.place("mmap", 4096)
    assert new not in [region.base for region in layout.regions()]
    child.check_invariants()
    again = place_process(layout.renewed(), SIZES)
    assert again.exe.base != placed.exe.base
    assert again.stack.base != placed.stack.base
    assert again.libraries[0].base != placed.libraries[0].base


def test_a_released_mapping_leaves_a_hole_that_the_next_one_fills():
    layout, placed = process("linux-6.x")
    hole = placed.mappings[0]
    layout.release(hole.base)
    assert layout.place("mmap", hole.size_bytes) == hole.base
    layout.check_invariants()


@pytest.mark.parametrize("method", ["up", "down"])
def test_a_mapping_goes_into_a_hole_only_if_its_guards_fit_too(method):
    window = Window(
        kind="row",
        base=1 << 30,
        span_bytes=GIB,
        method=method,
        offsets=(Offset(name="base", slots=16),),
    )
    layout = Layout(Rng(1).stream("x"), LayoutProfile(windows=(window,)))
    bases = [layout.place("row", 3 * 4096) for _ in range(3)]
    layout.release(bases[1])
    assert layout.place("row", 4 * 4096) not in range(min(bases), max(bases))
    assert layout.place("row", 3 * 4096) == bases[1]
    layout.check_invariants()


def test_a_program_linked_to_fixed_addresses_keeps_them_and_its_heap_has_the_rest():
    profile = without_pie(RELEASES["linux-hardened"].user)
    _, placed = process("", profile=profile)
    assert placed.exe.base == 0x400000
    assert placed.exe.places == 1
    assert placed.heap_start.spread.shannon_bits == 26.0


def test_nothing_but_inferred_and_assumed_numbers_stand_for_esxi():
    for name in ("esxi-6.x", "esxi-7.x", "esxi-8.x"):
        release = RELEASES[name]
        assert release.kernel.window("kernel").evidence == "inferred"
        assert {window.evidence for window in release.user.windows} == {"assumed"}
        assert release.protection.evidence == "assumed"
    assert RELEASES["esxi-6.x"].kernel.window("kernel").base == 0x4180_0000_0000
    assert RELEASES["esxi-8.x"].kernel.window("kernel").base == 0x4200_0000_0000
    kinds = {fact.name: fact.kind for fact in all_facts() if fact.name.startswith("layout.")}
    assert kinds["layout.kernel_entropy_bits"] == "inferred"
    assert kinds["layout.user_entropy_bits"] == "assumed"
    assert kinds["layout.linux.mmap_bits"] == "measured"


def test_an_unknown_profile_is_answered_with_the_nearest():
    assert release_named("pax").name == "pax"
    with pytest.raises(ScenarioError, match=r"did you mean 'linux-6\.x'"):
        release_named("linux-6")
    with pytest.raises(ScenarioError, match="one of esxi"):
        release_named("0")


def test_a_kernel_window_that_meets_a_process_window_is_refused():
    clash = user_profile(UserBits(exe_base=0x4180_0000_0000))
    with pytest.raises(FieldError, match="apart"):
        ReleaseProfile(name="x", title="x", kernel=RELEASES["esxi-6.x"].kernel, user=clash)


def test_a_second_program_keeps_off_the_heap_and_a_heap_off_it():
    for seed in range(50):
        layout = Layout(Rng(seed).stream("x"), LayoutSpec(exe_bits=0, heap_bits=0).release().user)
        order = ["heap", "exe", "heap", "exe", "exe"] if seed % 2 else ["exe", "heap", "exe", "heap", "heap"]
        for kind in order:
            layout.place(kind, 8192)
            layout.check_invariants()
        assert len(layout.regions()) == 5


def test_crooked_windows_are_refused():
    offset = (Offset(name="a", slots=4),)
    for wrong in (
        {"method": "down"},
        {"method": "after", "offsets": offset},
        {"follows": "exe"},
        {"align_bytes": 65536, "offsets": offset},
        {"span_bytes": 1 << 47},
        {"method": "sideways"},
    ):
        with pytest.raises(FieldError):
            Window(**{"kind": "a", "base": 0x10000, "span_bytes": MIB, **wrong})
    with pytest.raises(FieldError, match="followed"):
        LayoutProfile(
            windows=(Window(kind="a", base=0, span_bytes=MIB, method="after", follows="b", offsets=offset),)
        )
    with pytest.raises(FieldError, match="one window for each kind"):
        LayoutProfile(
            windows=(
                Window(kind="a", base=0, span_bytes=MIB),
                Window(kind="b", base=GIB, span_bytes=MIB, also=("a",)),
            )
        )


def test_a_heap_without_a_program_has_its_own_draw_alone_and_a_full_row_refuses():
    layout = Layout(Rng(1).stream("x"), RELEASES["linux-6.x"].user)
    heap = layout.place_region("heap", 4096)
    window = layout.profile.window("heap")
    assert window.base <= heap.base < window.base + (4096 << 13)
    assert heap.spread.shannon_bits == 13.0
    with pytest.raises(LayoutError, match="no room"):
        layout.place("stack", 1 << 40)


def test_a_scenario_takes_bits_from_a_profile_and_never_adds_any():
    release = LayoutSpec(profile="linux-6.x", mmap_bits=8, exe_bits=0, kernel_bits=4).release()
    _, placed = process("", profile=release.user)
    assert placed.libraries[0].places == 256
    assert placed.exe.places == 1
    assert placed.stack.places == 1 << 22
    assert Layout(Rng(1).stream("x"), release.kernel).places("kernel", 2 * MIB) == 16
    with pytest.raises(FieldError, match="at most the 28 bits"):
        LayoutSpec(profile="linux-6.x", mmap_bits=29)
    with pytest.raises(FieldError, match="at most the 9 bits"):
        LayoutSpec(kernel_bits=10)
    with pytest.raises(FieldError, match="at most the 0 bits"):
        LayoutSpec(profile="none", kernel_bits=1)


def test_a_layout_with_rows_pickles_in_the_middle():
    layout, _ = process("linux-6.x")
    copy = pickle.loads(pickle.dumps(layout))
    assert copy.place("mmap", 4096) == layout.place("mmap", 4096)
    assert copy.regions() == layout.regions()
