"""A memory manager that is exact to the page and the byte: real tables, real frames, real copies.

Models: address spaces whose tables lie in simulated frames; sharing by hash and full comparison, copy on write; pages
ballooned, compressed with their bytes and swapped; reservation and limit; a translation cache for each processor and
shootdowns, at once or (`eager=False`) when the caller asks, with freed frames parked until then; the latency of a write.

Leaves out: which pages to take (the caller says), large pages, nested tables; hosts of gigabytes, for which
`sim.kernel.memory.scheduler` keeps content numbers instead of bytes.

Sources: Waldspurger, OSDI 2002, sections 3 and 4; the rules are in `salting` and `reclaim_rules`.
"""

from __future__ import annotations

from attrs import evolve

from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import SimBug
from sim.hw.memory import FRAME_BYTES, Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, Kind, MappingError, Rights, Translation
from sim.kernel.memory.kernel_memory import RightsRefused
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.paged_books import PageState, Space, Tlbs, ZipCache
from sim.kernel.memory.paged_view import host_view, leaf_entry, space_view, vm_view
from sim.kernel.memory.protocol import FrameView, Leaf, MemoryPicture, Page, Place, Use
from sim.kernel.memory.reclaim_rules import (
    balloon_max,
    cache_frames_max,
    compress_page,
    decompress_page,
    swap_file_pages,
)
from sim.kernel.memory.salting import HASH_BITS, content_hash, group_of, write_latency_ns

__all__ = ["PagedMemory"]

PAGE_MERGED = record("mem.merged", space=int, page=int, frame=int, references=int)
PAGE_COPIED = record("mem.copied", space=int, page=int, frame=int)
PAGE_MOVED = record("mem.moved", space=int, page=int, place=str)

CONFIGURED_PAGES = 1024
"""The size of a space where nobody says another."""


class PagedMemory:
    """Address spaces over physical memory; keeps `MemoryManager` and `Reclaimer` of `sim.kernel.memory.protocol`.

    `hash_bits` makes the sharing hint as poor as one likes; `options` gives salting, balloon and cache bounds.
    """

    def __init__(
        self,
        sim: Sim,
        memory: PhysicalMemory,
        *,
        pcpus: int = 2,
        options: MemOptions | None = None,
        hash_bits: int = HASH_BITS.value,
        eager: bool = True,
    ) -> None:
        self.options = options if options is not None else MemOptions()
        self.false_hints = 0
        self._sim = sim
        self._memory = memory
        self._hash_bits = hash_bits
        self._eager = eager
        self._spaces: list[Space] = []
        self._users: dict[int, dict[Page, None]] = {}
        self._hints: dict[tuple[str, int], Page] = {}
        self._tlbs = Tlbs(pcpus)

    # --------------------------------------------------------------- the protocol

    def add_space(
        self,
        owner: str,
        salt: str = "",
        *,
        configured: int = CONFIGURED_PAGES,
        reservation: int = 0,
        limit: int | None = None,
    ) -> int:
        """Make an empty space of at most `configured` pages; errors: `OutOfMemory`."""
        number = len(self._spaces)
        self._spaces.append(
            Space(
                number=number,
                owner=owner,
                salt=salt,
                group=group_of(owner, salt, self.options.force_salting),
                tables=AddressSpace(self._memory, f"{owner}/{number}"),
                zipped=ZipCache(self._memory, f"{owner}/{number}/zip"),
                configured=configured,
                reservation=reservation,
                limit=limit,
            )
        )
        return number

    def map(self, space: int, page: int, rights: Rights) -> None:
        """Give a page a zeroed frame; errors: `RightsRefused`, `MappingError`, `OutOfMemory`."""
        one = self._spaces[space]
        _check_rights(rights)
        if page in one.pages:
            raise MappingError(f"page {page:#x} of space {space} is in use")
        if len(one.pages) >= one.configured:
            raise MappingError(f"space {space} has {one.configured} pages, all in use")
        one.check_room()
        if (space, page) in self._tlbs.pending:
            self.shootdown(space, page)
        state = PageState(rights=rights)
        self._back(one, page, state, b"")
        one.pages[page] = state

    def unmap(self, space: int, page: int) -> None:
        """Take a page away, wherever it is; errors: `MappingError`."""
        one, state = self._state(space, page)
        if state.frame is not None:
            self._detach(one, page, state, at_once=self._eager)
        else:
            self._leave(one, page, state)
        del one.pages[page]

    def protect(self, space: int, page: int, rights: Rights) -> None:
        """Give a page other rights; errors: `RightsRefused`, `MappingError`."""
        one, state = self._state(space, page)
        _check_rights(rights)
        state.rights = rights
        if state.frame is not None:
            one.tables.protect(page * FRAME_BYTES, state.effective)
            self._changed((space, page), at_once=self._eager)

    def share(self, one: Page, other: Page) -> bool:
        """Let two pages use one frame if hash, salt and all bytes are equal; tell whether they do now."""
        first, second = self._spaces[one[0]], self._spaces[other[0]]
        here, there = self._state(*one)[1], self._state(*other)[1]
        if here.frame is None or there.frame is None or first.group != second.group:
            return False
        if here.frame == there.frame:
            return True
        mine, yours = self._bytes(here.frame), self._bytes(there.frame)
        if content_hash(mine, self._hash_bits) != content_hash(yours, self._hash_bits):
            return False
        if mine != yours:
            self.false_hints += 1
            return False
        if len(self._users[here.frame]) < len(self._users[there.frame]):
            self._merge(there.frame, one)
        else:
            self._merge(here.frame, other)
        return True

    def scan(self, space: int, page: int) -> bool:
        """Look at a page as the sharing scan does: merge it with the page that left the same hint, or leave one."""
        one, state = self._state(space, page)
        if state.frame is None:
            return False
        key = (one.group, content_hash(self._bytes(state.frame), self._hash_bits))
        hint = self._hints.get(key)
        if hint is not None and hint != (space, page) and hint[1] in self._spaces[hint[0]].pages:
            return self.share(hint, (space, page))
        self._hints[key] = (space, page)
        return False

    def access(self, pcpu: int, space: int, page: int, kind: Kind, data: bytes = b"") -> bytes | None:
        """Try a user-mode access by what the processor has cached, or else by a walk; None is a page fault."""
        leaf = self._tlbs.get(pcpu, (space, page))
        if leaf is None or not _grants(leaf, kind):
            tables = self._spaces[space].tables
            outcome = tables.translate(page * FRAME_BYTES, Access(kind, user=True))
            if not isinstance(outcome, Translation):
                return None
            leaf = Leaf(
                frame=outcome.pa // FRAME_BYTES,
                rights=outcome.rights,
                accessed=True,
                dirty=kind is Kind.WRITE or (leaf is not None and leaf.dirty),
            )
            self._tlbs.put(pcpu, (space, page), leaf)
        if kind is Kind.WRITE:
            self._memory.write(leaf.frame * FRAME_BYTES, data[:FRAME_BYTES])
        return self._bytes(leaf.frame)

    def fault(self, space: int, page: int, kind: Kind) -> bool:
        """Handle a page fault: bring the page back, copy a shared one; errors: `OutOfMemory`."""
        one = self._spaces[space]
        state = one.pages.get(page)
        if state is None or state.place is Place.BALLOONED or not _permits(state.rights, kind):
            return False
        if state.place is not None:
            self._bring_back(one, page, state)
        if kind is Kind.WRITE and state.copy_on_write:
            self._copy(one, page, state)
        return True

    def shootdown(self, space: int, page: int) -> None:
        """Make every processor forget a page, and free the frames that were parked for it."""
        for frame in self._tlbs.forget((space, page)):
            self._memory.free(Extent(first_mpn=frame, count=1))

    def timed_write(self, pcpu: int, space: int, page: int, data: bytes) -> int | None:
        """Write as a guest does, faults handled; return the latency in ns that the guest sees, None if it may not write."""
        state = self._spaces[space].pages.get(page)
        copied = state is not None and state.copy_on_write
        if self.access(pcpu, space, page, Kind.WRITE, data) is None and (
            not self.fault(space, page, Kind.WRITE)
            or self.access(pcpu, space, page, Kind.WRITE, data) is None
        ):
            return None
        return write_latency_ns(copied=copied)

    # ------------------------------------------------------- taking memory back

    def balloon(self, space: int, page: int) -> bool:
        """Let the guest give a page up, within the bound of its balloon."""
        one, state = self._state(space, page)
        inflated = one.places[Place.BALLOONED] + 1
        if (
            state.frame is None
            or inflated > balloon_max(one.configured, self.options)
            or not one.may_lose_one
        ):
            return False
        self._detach(one, page, state, at_once=True)
        self._send(one, page, state, Place.BALLOONED, b"")
        return True

    def deflate(self, space: int, page: int) -> bool:
        """Give a ballooned page back, zeroed; errors: `OutOfMemory`."""
        one, state = self._state(space, page)
        if state.place is not Place.BALLOONED:
            return False
        self._bring_back(one, page, state)
        return True

    def compress(self, space: int, page: int) -> bool:
        """Put a private page into the cache; of a full cache the oldest page is swapped."""
        one, state = self._state(space, page)
        if not self._may_take(one, state) or state.frame is None:
            return False
        packed = compress_page(self._bytes(state.frame))
        if packed is None:
            return False
        room = cache_frames_max(one.configured, self.options)
        while one.zipped.frames_with(packed) > room:
            oldest = next(iter(one.zipped.order), None)
            if oldest is None or not self._swap_compressed(one, oldest):
                return False
        self._detach(one, page, state, at_once=True)
        one.zipped.add(page, packed)
        self._send(one, page, state, Place.COMPRESSED, packed)
        return True

    def swap_out(self, space: int, page: int) -> bool:
        """Write a private page to the swap file of its VM."""
        one, state = self._state(space, page)
        if not self._may_take(one, state) or not self._swap_room(one) or state.frame is None:
            return False
        content = self._bytes(state.frame)
        self._detach(one, page, state, at_once=True)
        self._send(one, page, state, Place.SWAPPED, content)
        return True

    # ------------------------------------------------------------------ looking

    def picture(self) -> MemoryPicture:
        """Return everything that an outsider may look at."""
        spaces = {}
        for one in self._spaces:
            states = {page: state for page, state in one.pages.items() if state.frame is not None}
            leaves = {page: self._leaf(one, page, state) for page, state in states.items()}
            spaces[one.number] = space_view(one, leaves, _content)
        frames = {
            frame: FrameView(
                use=Use.SHARED if self._is_shared(frame) else Use.PRIVATE,
                owners=tuple(dict.fromkeys(self._spaces[space].owner for space, _ in users)),
                references=len(users),
                content=self._bytes(frame),
            )
            for frame, users in self._users.items()
        }
        frames |= {frame: FrameView(use=Use.PARKED) for frame in self._tlbs.parked}
        return MemoryPicture(
            spaces=spaces,
            frames=frames,
            cached=dict(self._tlbs.items()),
            pending=tuple(self._tlbs.pending),
            vms={f"{one.owner}/{one.number}": vm_view(one) for one in self._spaces},
            host=host_view(self._memory, self._spaces, frames),
        )

    def check_invariants(self) -> None:
        """Raise `SimBug` unless tables, pages and reverse map agree."""
        mapped = 0
        for one in self._spaces:
            for page, state in one.pages.items():
                if state.frame is not None:
                    self._check_page(one, page, state)
                    mapped += 1
        if mapped != sum(len(users) for users in self._users.values()):
            raise SimBug("the reverse map and the pages differ in number")
        for one in self._spaces:
            one.tables.check_invariants()

    # ----------------------------------------------------------------- inside

    def _check_page(self, one: Space, page: int, state: PageState) -> None:
        found = one.tables.mapping_at(page * FRAME_BYTES)
        if found is None or found.mpn != state.frame or found.rights != state.effective:
            raise SimBug(f"page {page:#x} of space {one.number}: tables say {found}, the books {state}")
        if (one.number, page) not in self._users.get(found.mpn, {}):
            raise SimBug(f"page {page:#x} of space {one.number} is missing in the reverse map")

    def _state(self, space: int, page: int) -> tuple[Space, PageState]:
        one = self._spaces[space]
        state = one.pages.get(page)
        if state is None:
            raise MappingError(f"page {page:#x} of space {space} is not mapped")
        return one, state

    def _bytes(self, frame: int) -> bytes:
        return self._memory.read(frame * FRAME_BYTES, FRAME_BYTES)

    def _is_shared(self, frame: int) -> bool:
        space, page = next(iter(self._users[frame]))
        return self._spaces[space].pages[page].copy_on_write

    def _changed(self, page: Page, *, at_once: bool) -> None:
        """Shoot a page down whose translation lost something: now, or when somebody asks."""
        self._tlbs.pending[page] = None
        if at_once:
            self.shootdown(*page)

    def _back(self, one: Space, page: int, state: PageState, content: bytes) -> None:
        """Give a page a frame of its own with some content; errors: `OutOfMemory`, and then nothing has changed."""
        (extent,) = self._memory.allocate(1, one.owner)
        try:
            one.tables.map(page * FRAME_BYTES, extent.first_mpn, state.effective)
        except (OutOfMemory, MappingError):
            self._memory.free(extent)
            raise
        self._memory.write(extent.first_mpn * FRAME_BYTES, content)
        state.frame = extent.first_mpn
        self._users[extent.first_mpn] = {(one.number, page): None}

    def _detach(self, one: Space, page: int, state: PageState, *, at_once: bool) -> None:
        """Unmap a page from its frame, and free the frame if that was its last user."""
        if state.frame is None:
            raise SimBug(f"page {page:#x} of space {one.number} has no frame")
        one.tables.unmap(page * FRAME_BYTES)
        users = self._users[state.frame]
        del users[one.number, page]
        if not users:
            del self._users[state.frame]
            self._tlbs.parked[state.frame] = (one.number, page)
        self._changed((one.number, page), at_once=at_once)
        state.frame, state.copy_on_write = None, False

    def _merge(self, kept: int, moved: Page) -> None:
        """Let a page use another frame; all users of that lose the right to write.  No other page is moved."""
        space, page = moved
        one, state = self._state(space, page)
        self._detach(one, page, state, at_once=True)
        self._join(one, page, state, kept)
        for user_space, user_page in self._users[kept]:
            user, found = self._state(user_space, user_page)
            if not found.copy_on_write:
                found.copy_on_write = True
                user.tables.protect(user_page * FRAME_BYTES, found.effective)
                self._changed((user_space, user_page), at_once=True)
        self._sim.trace.emit(PAGE_MERGED, space, page, kept, len(self._users[kept]))

    def _join(self, one: Space, page: int, state: PageState, frame: int) -> None:
        state.frame, state.copy_on_write = frame, True
        one.tables.map(page * FRAME_BYTES, frame, state.effective)
        self._users[frame][one.number, page] = None

    def _copy(self, one: Space, page: int, state: PageState) -> None:
        """Give a writer its own copy of a shared frame; the last user just gets the right to write."""
        if state.frame is None:
            raise SimBug("a page without a frame cannot be copied")
        if len(self._users[state.frame]) > 1:
            content = self._bytes(state.frame)
            (extent,) = self._memory.allocate(1, one.owner)
            self._detach(one, page, state, at_once=True)
            one.tables.map(page * FRAME_BYTES, extent.first_mpn, state.effective)
            self._memory.write(extent.first_mpn * FRAME_BYTES, content)
            state.frame = extent.first_mpn
            self._users[extent.first_mpn] = {(one.number, page): None}
        else:
            state.copy_on_write = False
            one.tables.protect(page * FRAME_BYTES, state.effective)
        self._sim.trace.emit(PAGE_COPIED, one.number, page, state.frame)

    def _send(self, one: Space, page: int, state: PageState, place: Place, packed: bytes) -> None:
        state.place, state.packed = place, packed
        one.places[place] += 1
        self._sim.trace.emit(PAGE_MOVED, one.number, page, str(place))

    def _leave(self, one: Space, page: int, state: PageState) -> None:
        """Take a page out of the place where it is."""
        if state.place is None:
            raise SimBug("a page is nowhere")
        if state.place is Place.COMPRESSED:
            one.zipped.remove(page, state.packed)
        one.places[state.place] -= 1
        state.place, state.packed = None, b""

    def _bring_back(self, one: Space, page: int, state: PageState) -> None:
        one.check_room()
        self._back(one, page, state, _content(state))
        self._leave(one, page, state)
        self._sim.trace.emit(PAGE_MOVED, one.number, page, "resident")

    def _may_take(self, one: Space, state: PageState) -> bool:
        return state.frame is not None and not state.copy_on_write and one.may_lose_one

    def _swap_room(self, one: Space) -> bool:
        return one.places[Place.SWAPPED] < swap_file_pages(one.configured, one.reservation)

    def _swap_compressed(self, one: Space, page: int) -> bool:
        """Decompress a page of the cache and write it to the swap file; False where that is full."""
        if not self._swap_room(one):
            return False
        state = one.pages[page]
        content = _content(state)
        self._leave(one, page, state)
        self._send(one, page, state, Place.SWAPPED, content)
        return True

    def _leaf(self, one: Space, page: int, state: PageState) -> Leaf:
        entry = leaf_entry(self._memory, one.tables, page * FRAME_BYTES)
        return evolve(entry, copy_on_write=state.copy_on_write)


def _check_rights(rights: Rights) -> None:
    if rights.write and rights.execute:
        raise RightsRefused(f"{rights}: writable and executable in one mapping")


def _permits(rights: Rights, kind: Kind) -> bool:
    """Tell whether rights permit a user-mode access."""
    if not rights.user:
        return False
    return {Kind.READ: True, Kind.WRITE: rights.write, Kind.FETCH: rights.execute}[kind]


def _grants(leaf: Leaf, kind: Kind) -> bool:
    """Tell whether a cached translation serves an access without a walk: a write needs the dirty bit set before."""
    return _permits(leaf.rights, kind) and (kind is not Kind.WRITE or leaf.dirty)


def _content(state: PageState) -> bytes:
    """Return what a page holds that is elsewhere."""
    return decompress_page(state.packed) if state.place is Place.COMPRESSED else state.packed
