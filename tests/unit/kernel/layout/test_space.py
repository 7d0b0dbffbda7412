"""Placement: windows, entropy, determinism."""

import pickle
from itertools import pairwise

import pytest

from sim.core.rng import Rng
from sim.core.structure import FieldError
from sim.core.units import GIB, MIB
from sim.errors import SimBug
from sim.kernel.layout import Layout, LayoutError, LayoutProfile, Window, kernel_profile, user_profile


def layout(seed=1, profile=None):
    return Layout(Rng(seed).stream("layout"), profile if profile is not None else LayoutProfile())


def small(places, *, guard=4096, align=4096):
    """A window of `places` aligned places for one kind."""
    window = Window(
        kind="slot", base=1 << 30, span_bytes=places * align, align_bytes=align, guard_bytes=guard
    )
    return LayoutProfile(name="small", windows=(window,))


def test_the_kernel_lies_within_one_gibibyte_at_a_large_page():
    for seed in range(30):
        base = layout(seed).place("kernel", 20 * MIB, "k")
        assert 0x4180_0000_0000 <= base <= 0x4180_0000_0000 + GIB - 20 * MIB
        assert base % (2 * MIB) == 0


def test_the_kernel_has_at_most_nine_bits_and_fewer_the_larger_it_is():
    assert layout().entropy_bits("kernel", 2 * MIB) == 9.0
    assert layout().places("kernel", 20 * MIB) == 512 - 9
    assert layout(profile=kernel_profile(entropy_bits=4)).places("kernel", 2 * MIB) == 16


def test_the_window_of_newer_releases_is_a_parameter():
    base = layout(profile=kernel_profile(base=0x4200_0000_0000)).place("kernel", MIB)
    assert 0x4200_0000_0000 <= base < 0x4200_0000_0000 + GIB


def test_modules_lie_within_reach_of_32_bit_displacements_from_the_kernel():
    for kind in ("module", "module.text", "module.rodata", "module.data"):
        window = kernel_profile().window(kind)
        assert window.end - kernel_profile().window("kernel").base <= 2 * GIB


def test_a_user_world_has_28_bits_and_22_for_its_stack():
    world = layout(profile=user_profile())
    assert world.entropy_bits("exe") == 28.0
    assert world.entropy_bits("library") == 28.0
    assert world.entropy_bits("stack") == 22.0


def test_same_seed_same_layout_and_another_seed_another():
    def bases(seed):
        made = layout(seed)
        return [
            made.place(kind, 70_000) for kind in ("kernel", "module", "module", "heap", "stack", "percpu")
        ]

    assert bases(5) == bases(5)
    assert bases(5) != bases(6)


def test_a_full_window_refuses_and_keeps_what_it_has():
    made = layout(profile=small(3))
    made.place("slot", 4096)
    while made.places("slot"):
        made.place("slot", 4096)
    before = made.regions()
    with pytest.raises(LayoutError, match="no room"):
        made.place("slot", 4096)
    assert made.regions() == before
    made.check_invariants()


def test_guards_keep_neighbours_apart():
    made = layout(profile=small(64))
    while made.places("slot", 4096):
        made.place("slot", 4096)
    bases = [region.base for region in made.regions()]
    assert min(high - low for low, high in pairwise(bases)) >= 2 * 4096


def test_every_place_of_a_small_window_is_used():
    seen = {layout(seed, small(16)).place("slot", 4096) for seed in range(400)}
    assert len(seen) == 16


def test_each_region_knows_among_how_many_places_it_was_chosen():
    made = layout(profile=small(16))
    made.place("slot", 4096)
    made.place("slot", 4096)
    assert sorted(region.places for region in made.regions())[-1] == 16
    assert 13 <= min(region.places for region in made.regions()) <= 14


def test_a_released_region_can_be_placed_again():
    made = layout(profile=small(1))
    base = made.place("slot", 10)
    assert made.release(base).size_bytes == 4096
    assert made.place("slot", 4096) == base
    with pytest.raises(LayoutError):
        made.release(base + 4096)


def test_the_report_names_window_entropy_and_evidence():
    made = layout()
    made.place("kernel", 10 * MIB)
    lines = {line.kind: line for line in made.report()}
    assert lines["kernel"].evidence == "inferred"
    assert lines["kernel"].places_empty == 512
    assert lines["kernel"].bits_min == pytest.approx(8.988, abs=0.001)
    assert lines["heap"].evidence == "assumed"
    assert lines["heap"].bits_min is None
    assert lines["heap"].bits_empty == 28.0


def test_windows_that_touch_or_are_crooked_are_refused():
    one = Window(kind="a", base=0x10000, span_bytes=0x1000)
    with pytest.raises(FieldError):
        LayoutProfile(windows=(one, Window(kind="b", base=0x11000, span_bytes=0x1000)))
    with pytest.raises(FieldError):
        Window(kind="c", base=0x10001, span_bytes=0x1000)
    with pytest.raises(FieldError):
        kernel_profile(entropy_bits=10)


def test_an_unknown_kind_is_refused_and_an_empty_region_is_a_bug():
    with pytest.raises(LayoutError, match="nowhere"):
        layout().place("nowhere", 1)
    with pytest.raises(SimBug):
        layout().place("heap", 0)


def test_a_layout_pickles_in_the_middle():
    made = layout()
    made.place("heap", 5)
    copy = pickle.loads(pickle.dumps(made))
    assert copy.place("heap", 5) == made.place("heap", 5)
