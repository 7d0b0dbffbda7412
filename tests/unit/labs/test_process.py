"""A lab's process: what is mapped where, guards that fault, W^X for each frame."""

import pytest

from sim.core.context import Sim
from sim.core.rng import Rng
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, GeneralProtection, Kind, PageFault, Rights, Translation
from sim.kernel.layout import RELEASES, Layout, LayoutProfile
from sim.kernel.memory import KernelMemory, RightsRefused
from sim.labs.process import DATA, EVERYTHING, RET, TEXT, LabProcess

DATA_PARTS = ("data", "bss", "heap", "stack", "mapping", "library.data", "library.bss")


def process(name, **options):
    return LabProcess(RELEASES[name], Rng(3).stream("lab"), **options)


@pytest.mark.parametrize("name", RELEASES)
def test_the_pages_around_every_region_fault_and_those_inside_do_not(name):
    made = process(name, threads=2)
    for region in made.layout.regions():
        for inside in (region.base, region.end - 1):
            assert isinstance(made.load(inside, 1), bytes)
        for outside in (region.base - 1, region.base - region.guard_bytes, region.end, region.end + 4095):
            fault = made.load(outside, 1)
            assert isinstance(fault, PageFault)
            assert (fault.error_code, fault.cr2) == (4, outside)
            assert made.store(outside, b"x").error_code == 6
            assert made.space.translate(outside, Access(Kind.FETCH, user=True)).error_code & 7 == 4


@pytest.mark.parametrize("name", [name for name in RELEASES if name != "none"])
def test_nothing_is_both_written_and_executed_at_the_start(name):
    made = process(name)
    for part in DATA_PARTS:
        assert made.store(made.segments[part], RET) is None
        assert made.fetch(made.segments[part]).error_code == 21
    for part in ("text", "library.text", "vdso"):
        assert made.runs(made.segments[part])
        assert made.store(made.segments[part], RET).error_code == 7


def test_without_nx_everything_that_is_mapped_executes():
    made = process("none")
    for part in DATA_PARTS:
        assert made.store(made.segments[part], RET) is None
        assert made.runs(made.segments[part])


def test_mprotect_is_refused_by_a_kernel_with_w_xor_x_and_granted_by_others():
    hardened = process("esxi-8.x")
    for part in ("data", "heap", "stack", "text", "library.text"):
        before = hardened.space.mapping_at(hardened.segments[part])
        assert not hardened.mprotect(hardened.segments[part], EVERYTHING)
        assert hardened.space.mapping_at(hardened.segments[part]) == before
    assert not hardened.mprotect(hardened.segments["data"], TEXT)
    assert hardened.mprotect(hardened.segments["data"], Rights(user=True))
    stock = process("linux-6.x")
    assert stock.mprotect(stock.segments["heap"], EVERYTHING)
    assert stock.store(stock.segments["heap"], RET) is None
    assert stock.runs(stock.segments["heap"])


def test_other_bytes_are_not_the_code_that_was_meant_and_odd_addresses_are_faults():
    made = process("linux-6.x")
    assert not made.runs(made.segments["text"] + 1)
    assert isinstance(made.fetch(1 << 60), GeneralProtection)
    assert made.space.control.smep


def test_w_xor_x_holds_for_a_frame_that_is_mapped_twice():
    machine = PhysicalMemory(1 << 24)
    memory = KernelMemory(Sim(), machine, name="kernel")
    layout = Layout(Rng(1).stream("kernel"), LayoutProfile())
    text, alias = layout.place("module.text", 4096), layout.place("heap", 4096)
    segment = memory.map_segment(text, RET, Rights(execute=True), owner="module")
    with pytest.raises(RightsRefused, match="through another"):
        memory.map_frames(alias, segment.extents, Rights(write=True), owner="module")
    memory.map_frames(alias, segment.extents, Rights(), owner="module")
    with pytest.raises(RightsRefused):
        memory.protect(alias, Rights(write=True))
    assert isinstance(memory.space.translate(text, Access(Kind.FETCH)), Translation)
    assert memory.write(alias, RET).error_code == 3
    memory.unmap_segment(text)
    memory.protect(alias, Rights(write=True))
    with pytest.raises(RightsRefused):
        memory.map_frames(text, segment.extents, Rights(execute=True), owner="module")
    memory.check_invariants()


def test_rights_have_names():
    assert (str(TEXT), str(DATA), str(EVERYTHING)) == ("r-xu", "rw-u", "rwxu")
