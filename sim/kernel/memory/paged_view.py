"""The page-exact memory manager as an outsider sees it: its books turned into the values of the protocol.

Models nothing: it only looks.  Leaves out frames, which `sim.kernel.memory.paged` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, Kind, Rights, walk
from sim.hw.mmu.paging import ACCESSED, DIRTY, NO_EXECUTE, PAGE_SHIFT, USER, WRITABLE
from sim.kernel.memory.paged_books import PageState, Space
from sim.kernel.memory.protocol import FrameView, HostView, Leaf, Place, SpaceView, Use, VmView

__all__ = ["host_view", "leaf_entry", "space_view", "vm_view"]


def leaf_entry(memory: PhysicalMemory, tables: AddressSpace, va: int) -> Leaf:
    """Return the leaf of a mapped page as it lies in memory, with its accessed and dirty bits, which stay as they are."""
    seen = [0]

    def read(pa: int) -> int:
        seen.append(memory.read_u64(pa))
        return seen[-1]

    walk(read, _write_nothing, tables.control, va, Access(Kind.READ))
    entry = seen[-1]
    rights = Rights(write=bool(entry & WRITABLE), user=bool(entry & USER), execute=not entry & NO_EXECUTE)
    frame = (entry & tables.control.masks.address) >> PAGE_SHIFT
    return Leaf(frame=frame, rights=rights, accessed=bool(entry & ACCESSED), dirty=bool(entry & DIRTY))


def _write_nothing(_pa: int, _value: int) -> None:
    return None


def space_view(one: Space, leaves: Mapping[int, Leaf], content_of: Callable[[PageState], bytes]) -> SpaceView:
    """Return a space with the leaves that were read from its tables."""
    away = {page: state.place for page, state in one.pages.items() if state.place is not None}
    kept = {page: one.pages[page] for page, place in away.items() if place is not Place.BALLOONED}
    return SpaceView(
        owner=one.owner,
        salt=one.group,
        leaves=leaves,
        away=away,
        kept={page: content_of(state) for page, state in kept.items()},
    )


def vm_view(one: Space) -> VmView:
    """Return the books of a space as those of a VM."""
    shared = sum(state.copy_on_write for state in one.pages.values())
    return VmView(
        configured=one.configured,
        resident=one.held - shared,
        shared=shared,
        ballooned=one.places[Place.BALLOONED],
        compressed=one.places[Place.COMPRESSED],
        swapped=one.places[Place.SWAPPED],
        untouched=one.configured - len(one.pages),
        reservation=one.reservation,
        limit=one.limit,
        touched=len(one.pages),
        cache_frames=one.zipped.frames,
    )


def host_view(memory: PhysicalMemory, spaces: Sequence[Space], frames: Mapping[int, FrameView]) -> HostView:
    """Return the host's books: what the manager uses by its own count, and what others have by the owners' names."""
    names = dict.fromkeys(name for one in spaces for name in (one.owner, one.tables.owner, one.zipped.owner))
    others = sum(count for name, count in memory.owners().items() if name not in names)
    parked = sum(frame.use is Use.PARKED for frame in frames.values())
    return HostView(
        total=memory.frames_total,
        free=memory.frames_free,
        private=sum(frame.use is Use.PRIVATE for frame in frames.values()),
        shared=sum(frame.use is Use.SHARED for frame in frames.values()),
        tables=sum(one.tables.table_frames for one in spaces),
        cache=sum(one.zipped.frames for one in spaces),
        kernel=others + parked,
    )
