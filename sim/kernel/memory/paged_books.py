"""The books of the page-exact memory manager: pages of spaces, references to frames, compression cache, TLBs.

Models: what has to be known of a page wherever it is; the reverse map from a frame to its pages; slots of compressed
pages in frames; what each processor has cached, and frames that are parked until no processor can reach them.

Leaves out: sizes and associativity of a TLB (nothing is evicted), the time of a shootdown.

Sources: Waldspurger, OSDI 2002 (frames with reference counts); Intel SDM volume 3A, section 4.10 (what may be cached).
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from sim.errors import SimBug
from sim.hw.memory import Extent, OutOfMemory, PhysicalMemory
from sim.hw.mmu import AddressSpace, Rights
from sim.kernel.memory.protocol import Leaf, Page, Place
from sim.kernel.memory.reclaim_rules import SLOT_SIZES, cache_frames, slot_of

__all__ = ["PageState", "Space", "Tlbs", "ZipCache"]


@define(kw_only=True)
class PageState:
    """One page of a space: the rights that were asked for, and its frame, or where it is instead and what it held.

    `packed` are the bytes of a compressed page, or those of a swapped one.
    """

    rights: Rights
    frame: int | None = None
    place: Place | None = None
    copy_on_write: bool = False
    packed: bytes = b""

    @property
    def effective(self) -> Rights:
        """The rights that tables may grant now."""
        return Rights(
            write=self.rights.write and not self.copy_on_write,
            user=self.rights.user,
            execute=self.rights.execute,
        )


class ZipCache:
    """The compression cache of one VM: the slots in use, and the frames that hold them."""

    def __init__(self, memory: PhysicalMemory, owner: str) -> None:
        self.owner = owner
        self._memory = memory
        self._slots = dict.fromkeys(SLOT_SIZES, 0)
        self._frames: list[Extent] = []
        self.order: dict[int, None] = {}

    @property
    def frames(self) -> int:
        """The frames that the cache has."""
        return len(self._frames)

    def frames_with(self, packed: bytes) -> int:
        """Return the frames that the cache would have with one more page."""
        slots = dict(self._slots)
        slots[_slot(packed)] += 1
        return cache_frames(*slots.values())

    def add(self, page: int, packed: bytes) -> None:
        """Put a page in, as the newest.  Errors: `OutOfMemory`, and then nothing has changed."""
        for _ in range(self.frames_with(packed) - self.frames):
            self._frames.extend(self._memory.allocate(1, self.owner))
        self._slots[_slot(packed)] += 1
        self.order[page] = None

    def remove(self, page: int, packed: bytes) -> None:
        """Take a page out, and free the frames that are not needed any more."""
        del self.order[page]
        self._slots[_slot(packed)] -= 1
        while self.frames > cache_frames(*self._slots.values()):
            self._memory.free(self._frames.pop())


def _slot(packed: bytes) -> int:
    slot = slot_of(len(packed))
    if slot is None:
        raise SimBug(f"a page of {len(packed)} bytes is in the compression cache")
    return slot


@define(kw_only=True)
class Space:
    """One address space with its promises, in pages."""

    number: int
    owner: str
    salt: str
    group: str
    tables: AddressSpace
    zipped: ZipCache
    configured: int
    reservation: int = 0
    limit: int | None = None
    pages: dict[int, PageState] = field(factory=dict)
    places: dict[Place, int] = field(factory=lambda: dict.fromkeys(Place, 0))

    @property
    def away(self) -> int:
        """The pages that no frame backs."""
        return sum(self.places.values())

    @property
    def held(self) -> int:
        """The pages that frames back."""
        return len(self.pages) - self.away

    def check_room(self) -> None:
        """Raise `OutOfMemory` where one more page with a frame would pass the limit."""
        if self.limit is not None and self.held >= self.limit:
            raise OutOfMemory(f"{self.owner} is at its limit of {self.limit} pages")

    @property
    def may_lose_one(self) -> bool:
        """Whether the reservation permits that one more page is taken."""
        return self.held > min(self.reservation, len(self.pages))


class Tlbs:
    """What each processor has cached, and the frames that wait for shootdowns."""

    def __init__(self, pcpus: int) -> None:
        self._cached: list[dict[Page, Leaf]] = [{} for _ in range(pcpus)]
        self.pending: dict[Page, None] = {}
        self.parked: dict[int, Page] = {}

    def get(self, pcpu: int, page: Page) -> Leaf | None:
        """Return what a processor has cached for a page."""
        return self._cached[pcpu].get(page)

    def put(self, pcpu: int, page: Page, leaf: Leaf) -> None:
        """Let a processor cache a translation."""
        self._cached[pcpu][page] = leaf

    def items(self) -> Iterator[tuple[tuple[int, int, int], Leaf]]:
        """Yield everything that is cached, with (processor, space, page)."""
        for pcpu, cached in enumerate(self._cached):
            for (space, page), leaf in cached.items():
                yield (pcpu, space, page), leaf

    def forget(self, page: Page) -> list[int]:
        """Drop a page from every processor; return the frames that nobody can reach any more."""
        for cached in self._cached:
            cached.pop(page, None)
        self.pending.pop(page, None)
        freed = [frame for frame, waits_for in self.parked.items() if waits_for == page]
        for frame in freed:
            del self.parked[frame]
        return freed
