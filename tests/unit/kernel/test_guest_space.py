"""What the kernel does with a guest's memory, and what it refuses to do."""

import pickle

import pytest
from attrs import evolve

from sim.core.units import GIB, MIB
from sim.errors import SimBug
from sim.hw.frame_counts import SHARED_OWNER
from sim.hw.memory import Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu.ept import EptViolation
from sim.hw.mmu.ept_entries import EptControl, EptRights
from sim.hw.mmu.paging import ControlState
from sim.hw.mmu.space import MappingError
from sim.hw.mmu.walk import Access, Kind, PageFault
from sim.kernel.memory.guest_access import GuestAccess
from sim.kernel.memory.guest_space import DemandZero, GuestSpace

READ_ONLY = EptRights(write=False)
SMALL = DemandZero(large_pages=False)


@pytest.fixture
def memory():
    return PhysicalMemory(64 * MIB)


def guest(memory, name="a", pages=2048, **more):
    space = GuestSpace(memory, name, pages, **more)
    return space, GuestAccess(space)


def test_a_guest_that_touches_nothing_has_one_frame_however_large_it_is():
    memory = PhysicalMemory(1 << 40)
    space, _ = guest(memory, pages=1 << 28)
    assert (memory.frames_used, space.resident_pages, memory.frames_with_bytes) == (1, 0, 0)


def test_a_first_touch_gives_a_large_page_where_that_is_possible(memory):
    space, access = guest(memory, pages=1024 + 5)
    assert access.load_physical(3 * MIB, 2) == bytes(2)
    assert [(leaf.ppn, leaf.count) for leaf in space.tables.leaves()] == [(512, 512)]
    access.store_physical((1024 << 12) + 9, b"end")
    assert space.resident_pages == 513, "the last five pages are no whole 2 MiB"
    space.release(600)
    access.load_physical(600 << 12, 1)
    assert space.resident_pages == 513, "a hole in a large page is filled by one page"
    space.check_invariants()


def test_without_a_free_block_a_touch_gets_one_frame_and_without_a_frame_an_error(memory):
    space, access = guest(memory)
    memory.allocate(memory.frames_free - 400, "hog")
    access.load_physical(0, 1)
    assert space.resident_pages == 1
    memory.allocate(memory.frames_free, "hog")
    with pytest.raises(OutOfMemory):
        access.load_physical(1 << 12, 1)
    assert space.resident_pages == 1
    space.check_invariants()


def test_exits_and_scrubbing_cost_simulated_time(memory):
    space, access = guest(memory, pager=SMALL, scrub_bytes_per_s=4096 * 1000)
    access.load_physical(0, 1)
    assert (space.violations, space.frames_scrubbed) == (1, 1)
    assert space.take_cost_ns() == 1_500 + 1_000_000
    assert space.take_cost_ns() == 0
    access.load_physical(8, 1)
    assert space.take_cost_ns() == 0, "a page that is there costs nothing"
    space.populate(10, 20)
    assert space.take_cost_ns() == 20 * 1_000_000


def test_populating_fills_the_gaps_with_large_pages_and_is_all_or_nothing(memory):
    space, access = guest(memory, pages=2000, pager=SMALL)
    access.store_physical(700 << 12, b"kept")
    assert space.populate(3, 1900) == 1899
    assert access.load_physical(700 << 12, 4) == b"kept"
    assert 512 in [leaf.count for leaf in space.tables.leaves()], "the part from 1024 on is whole"
    assert space.populate(3, 1900) == 0
    other, _ = guest(memory, "b", 20_000)
    free = memory.frames_free
    with pytest.raises(OutOfMemory):
        other.populate(0, 20_000)
    assert (memory.frames_free, other.resident_pages) == (free, 0)
    other.check_invariants()


@pytest.mark.parametrize("whose", ["free", "b's", "kernel's", "tables"])
def test_a_frame_that_is_not_the_vms_is_never_mapped(memory, whose):
    space, _access = guest(memory)
    other, _ = guest(memory, "b")
    other.populate(0, 1)
    (kernel,) = memory.allocate(1, "vmkernel")
    mpn = {
        "free": 10_000,
        "b's": other.tables.leaf_at(0).mpn,
        "kernel's": kernel.first_mpn,
        "tables": space.tables.control.root >> 12,
    }[whose]
    with pytest.raises(MappingError, match="belongs to"):
        space.map(0, mpn)
    assert space.tables.leaf_at(0) is None
    space.check_invariants()


def test_one_foreign_frame_among_many_is_found(memory):
    space, _ = guest(memory)
    (frames,) = memory.allocate(512, space.owner, contiguous=True, align_frames=512)
    memory.transfer(Extent(first_mpn=frames.first_mpn + 300, count=1), "vm:b")
    with pytest.raises(MappingError, match="vm:b"):
        space.map(0, frames.first_mpn, 512)


def test_frames_are_moved_between_pages_by_unmap_and_map(memory):
    space, access = guest(memory)
    access.store_physical(0, b"text")
    (frame,) = space.unmap(0)
    assert memory.owner_of(frame.first_mpn) == space.owner
    space.map(700, frame.first_mpn, 1, READ_ONLY)
    assert access.load_physical(700 << 12, 4) == b"text"
    assert isinstance(access.store_physical(700 << 12, b"x"), EptViolation)
    space.protect(700, 1, EptRights())
    assert access.store_physical(700 << 12, b"T") is None
    space.check_invariants()


def test_the_balloon_gives_frames_back_and_the_page_reads_zero_when_touched_again(memory):
    space, access = guest(memory)
    access.store_physical(5 << 12, b"old")
    free = memory.frames_free
    assert space.release(0, 512) == 512
    assert memory.frames_free == free + 512 + 2, "two tables were freed too"
    assert space.release(0, 512) == 0
    assert access.load_physical(5 << 12, 3) == bytes(3)


def test_shared_pages_are_read_only_and_copied_on_the_first_write(memory):
    one, first = guest(memory, "a", pager=SMALL)
    two, second = guest(memory, "b", pager=SMALL)
    first.store_physical(0, b"same")
    mpn = one.share(0)
    two.map_shared(9, mpn)
    assert (memory.owner_of(mpn), memory.references(mpn)) == (SHARED_OWNER, 2)
    assert not one.tables.leaf_at(0).rights.write
    assert second.load_physical(9 << 12, 4) == b"same"
    assert second.store_physical((9 << 12) + 1, b"O") is None
    assert (first.load_physical(0, 4), second.load_physical(9 << 12, 4)) == (b"same", b"sOme")
    assert (memory.references(mpn), one.shared_pages, two.shared_pages) == (1, 1, 0)
    assert memory.references(two.tables.leaf_at(9).mpn) == 1
    assert first.store_physical(0, b"S") is None
    assert memory.owner_of(mpn) == one.owner, "the last holder keeps the frame"
    for space in (one, two):
        space.check_invariants()


def test_a_large_page_is_broken_and_formed_in_tables_and_books(memory):
    space, access = guest(memory)
    access.store_physical(0, b"kept")
    blocks = memory.blocks_broken
    assert space.break_large(5) == 1
    assert space.break_large(5) == 1
    (frame,) = space.unmap(7)
    memory.transfer(frame, "somebody")
    assert memory.blocks_broken == blocks + 1
    assert not space.form_large(5), "there is a hole"
    memory.transfer(frame, space.owner)
    space.map(7, frame.first_mpn)
    space.share(9)
    space.protect(0, 512, READ_ONLY)
    assert not space.form_large(5), "one frame is shared, though all have equal rights"
    assert not space.form_large(9)
    space.check_invariants()
    space.unshare(9)
    space.protect(0, 512, EptRights())
    assert space.form_large(5)
    assert memory.blocks_broken == blocks
    assert space.form_large(5)
    assert access.load_physical(0, 4) == b"kept"
    space.check_invariants()
    memory.check_invariants()


def test_a_shared_frame_is_never_writable_by_any_call(memory):
    one, access = guest(memory)
    access.load_physical(0, 1)
    mpn = one.share(7)
    for refused in (
        lambda: one.protect(7, 1, EptRights()),
        lambda: one.protect(0, 512, EptRights()),
        lambda: one.map(600, mpn),
        lambda: one.share(7),
        lambda: one.unshare(8),
        lambda: one.map_shared(601, one.tables.leaf_at(8).mpn),
        lambda: one.map_shared(8, mpn),
        lambda: one.share(1000),
    ):
        before = memory.references(mpn)
        with pytest.raises(MappingError):
            refused()
        assert memory.references(mpn) == before
    assert one.protect(0, 512, READ_ONLY) == 512
    one.check_invariants()


def test_a_run_with_a_shared_frame_in_it_is_mapped_page_by_page(memory):
    space, access = guest(memory)
    (frames,) = memory.allocate(512, space.owner, contiguous=True, align_frames=512)
    memory.transfer(Extent(first_mpn=frames.first_mpn + 3, count=1), SHARED_OWNER)
    space.map(512, frames.first_mpn, 512, READ_ONLY)
    assert (space.shared_pages, space.tables.leaf_at(515).count) == (1, 1)
    with pytest.raises(MappingError, match="writable"):
        space.protect(512, 512, EptRights())
    assert access.store_physical(515 << 12, b"own") is None
    assert space.shared_pages == 0
    space.check_invariants()


def test_copying_a_shared_page_without_a_free_frame_changes_nothing(memory):
    one, access = guest(memory, pager=SMALL)
    two, other = guest(memory, "b", pager=SMALL)
    access.store_physical(0, b"same")
    two.map_shared(0, one.share(0))
    memory.allocate(memory.frames_free, "hog")
    with pytest.raises(OutOfMemory):
        other.store_physical(0, b"x")
    assert (one.shared_pages, two.shared_pages) == (1, 1)
    for space in (one, two):
        space.check_invariants()


def test_the_end_of_one_vm_leaves_shared_pages_to_the_others(memory):
    one, access = guest(memory, pager=SMALL)
    two, other = guest(memory, "b", pager=SMALL)
    access.store_physical(0, b"same")
    mpn = one.share(0)
    two.map_shared(0, mpn)
    one.destroy()
    assert other.load_physical(0, 4) == b"same"
    assert memory.references(mpn) == 1
    two.destroy()
    assert memory.frames_used == 0


def test_pages_that_are_protected_for_a_purpose_stay_so_unless_the_pager_says_otherwise(memory):
    class Watcher(DemandZero):
        def __init__(self):
            super().__init__()
            self.seen = []

        def unprotect(self, space, ppn):
            self.seen.append(ppn)
            space.protect(ppn, 1, EptRights())
            return True

    space, access = guest(memory, pager=Watcher())
    access.load_physical(0, 1)
    space.protect(3, 1, READ_ONLY)
    assert access.store_physical(3 << 12, b"x") is None
    assert space.pager.seen == [3]
    space.pager = DemandZero()
    space.protect(3, 1, READ_ONLY)
    violation = access.store_physical(3 << 12, b"x")
    assert violation.qualification & 0x3F == 2 | 8 | 32


def test_a_pager_that_does_nothing_is_a_bug_of_ours_not_an_endless_loop(memory):
    class Lazy(DemandZero):
        def fill(self, space, ppn):
            return True

    _, access = guest(memory, pager=Lazy())
    with pytest.raises(SimBug, match="violations for one access"):
        access.load_physical(0, 1)


def test_used_pages_are_collected_by_large_leaf_or_page(memory):
    space, access = guest(memory)
    access.load_physical(0, 1)
    access.store_physical(3 * MIB, b"x")
    assert [(leaf.ppn, leaf.dirty) for leaf in space.collect()] == [(0, False), (512, True)]
    assert space.collect() == ()


# --------------------------------------------------------------------------- linear addresses


def tables(access, *, leaf=0x5000, flags=7):
    """Enter a chain of tables at pages 1 to 4 that maps address 0 to `leaf`; return the control state."""
    for at, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (0x4000, leaf | flags)):
        access.store_physical(at, entry.to_bytes(8, "little"))
    return ControlState(cr3=0x1000, smap=False)


def test_a_guest_reads_and_writes_through_its_own_tables(memory):
    _space, access = guest(memory, pager=SMALL)
    control = tables(access)
    assert access.store(control, 0xFF8, b"8 bytes.") is None
    assert access.load(control, 0xFF8, 8) == b"8 bytes."
    assert access.load_physical(0x5FF8, 8) == b"8 bytes."
    fault = access.load(control, 0xFF8, 16)
    assert isinstance(fault, PageFault)
    assert (fault.cr2, fault.error_code) == (0x1000, 0)
    fault = access.store(control, 0xFF8, b"twelve bytes")
    assert fault.error_code == 2
    assert access.load(control, 0xFF8, 8) == b"twelve b"


def test_tables_that_point_beyond_the_vms_memory_lead_nowhere(memory):
    space, access = guest(memory, pages=2048, pager=SMALL)
    for beyond in (2048 << 12, GIB, 1 << 45):
        control = tables(access, leaf=beyond)
        violation = access.load(control, 0x10, 4)
        assert violation.gpa == beyond | 0x10
        assert violation.qualification == 1 | 0x180
        violation = access.load(evolve(control, cr3=beyond), 0, 4)
        assert (violation.gpa, violation.qualification) == (beyond, 3 | 0x80)
    assert space.resident_pages == 4
    space.check_invariants()


def test_a_root_that_points_to_itself_shows_the_guest_its_own_table_only(memory):
    space, access = guest(memory, pager=SMALL)
    access.store_physical(0x1000, (0x1007).to_bytes(8, "little"))
    control = ControlState(cr3=0x1000, smap=False)
    assert access.load(control, 0, 8) == (0x1067 & ~0x40).to_bytes(8, "little")
    assert access.store(control, 0, (0x2007).to_bytes(8, "little")) is None
    assert access.load_physical(0x1000, 8) == (0x2007).to_bytes(8, "little")
    assert space.resident_pages == 1
    space.check_invariants()


def test_fetches_need_the_execute_right_of_both_dimensions(memory):
    space, access = guest(memory, pager=SMALL)
    control = tables(access)
    fetch = Access(Kind.FETCH, user=True)
    assert access.load(control, 0, 4, fetch) == bytes(4)
    space.protect(5, 1, EptRights(execute=False))
    assert access.load(control, 0, 4, fetch).qualification == 4 | 8 | 16 | 0x180
    assert access.load(control, 0, 4) == bytes(4)


def test_a_space_with_its_guests_pickles(memory):
    _space, access = guest(memory)
    access.store_physical(0, b"kept")
    copy = pickle.loads(pickle.dumps(access))
    assert copy.load_physical(0, 4) == b"kept"
    copy.store_physical(0, b"more")
    assert access.load_physical(0, 4) == b"kept"
    copy.space.check_invariants()


def test_the_checks_find_a_leaf_that_leads_to_a_foreign_frame(memory):
    space, access = guest(memory, pager=SMALL)
    access.load_physical(0, 1)
    (foreign,) = memory.allocate(1, "vm:b")
    space.tables.map(9, foreign.first_mpn)
    with pytest.raises(SimBug, match="not its own"):
        space.check_invariants()


@pytest.mark.parametrize("pages", [0, 1 << 37])
def test_a_vm_has_at_least_a_page_and_no_more_than_ept_translates(memory, pages):
    with pytest.raises(SimBug, match="EPT translates"):
        GuestSpace(memory, "a", pages)
    with pytest.raises(SimBug, match="EPT translates"):
        GuestSpace(memory, "a", (1 << 36) + 1, features=EptControl(root=0))
