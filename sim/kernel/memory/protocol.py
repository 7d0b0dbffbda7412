"""What a memory manager and a memory policy are: the protocols that ours keep and that anybody's may.

Models: the operations on address spaces and frames (map, unmap, protect, share, access, fault, shootdown), the ones that
take memory back (balloon, compress, swap), the division of a host's memory over its VMs, and a picture: everything that
an outsider may look at, as one frozen value.  `sim.testing` drives an implementation through these protocols and judges
its pictures; the implementation needs no base class and nothing else of this package.

Leaves out: how tables, books and caches are kept.  Pages and frames are numbers of 4 KiB.

Sources: none, a design of ours; the words are Waldspurger's (OSDI 2002) and esxtop's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from attrs import field, frozen, validators

from sim.hw.mmu import Kind, Rights

__all__ = [
    "SHARES_TOTAL_MAX",
    "Claim",
    "FrameView",
    "HostView",
    "Leaf",
    "MemoryManager",
    "MemoryPicture",
    "MemoryPolicy",
    "Page",
    "Place",
    "Reclaimer",
    "SpaceView",
    "Use",
    "VmView",
]

SHARES_TOTAL_MAX = 1 << 30
"""The most memory shares of one VM; the arithmetic of targets rests on it."""

Page = tuple[int, int]
"""A page of a space: (number of the space, page number in it)."""


class Use(StrEnum):
    """What a frame is used for.  A parked frame is unmapped, and waits until no processor can reach it any more."""

    PRIVATE = "private"
    SHARED = "shared"
    TABLE = "table"
    OVERHEAD = "overhead"
    CACHE = "cache"
    KERNEL = "kernel"
    PARKED = "parked"


class Place(StrEnum):
    """Where a page of a VM is when no frame of its own backs it."""

    BALLOONED = "ballooned"
    COMPRESSED = "compressed"
    SWAPPED = "swapped"


@frozen(kw_only=True)
class Leaf:
    """A translation as tables or a TLB hold it; `rights.write` is off while a page is to be copied on a write."""

    frame: int
    rights: Rights
    copy_on_write: bool = False
    accessed: bool = False
    dirty: bool = False


@frozen(kw_only=True)
class FrameView:
    """One frame that is not free: its use, its owners, and the manager's own count of the leaves that map it.

    `by_design` marks a frame that several owners may write, such as one of a device.
    """

    use: Use
    owners: tuple[str, ...] = ()
    references: int = 0
    content: bytes = b""
    by_design: bool = False


@frozen(kw_only=True)
class SpaceView:
    """One address space: its owner, the salt under which it shares, its leaves, and its pages that are elsewhere.

    `kept` is the content of pages elsewhere.  A JIT pair is two pages that may map one frame, one to write, one to execute.
    """

    owner: str
    salt: str = ""
    leaves: Mapping[int, Leaf] = field(factory=dict)
    away: Mapping[int, Place] = field(factory=dict)
    kept: Mapping[int, bytes] = field(factory=dict)
    jit_pairs: tuple[tuple[int, int], ...] = ()


@frozen(kw_only=True)
class VmView:
    """The books of one VM, in pages; the six places of a page add up to `configured`.

    `touched` are the pages the guest has used and did not itself give back (ballooned ones count); `target` is what the policy gives the VM, and
    `cache_frames` are the frames of its compression cache.
    """

    configured: int
    resident: int = 0
    shared: int = 0
    ballooned: int = 0
    compressed: int = 0
    swapped: int = 0
    untouched: int = 0
    reservation: int = 0
    limit: int | None = None
    touched: int = 0
    target: int | None = None
    overhead: int = 0
    cache_frames: int = 0

    @property
    def held(self) -> int:
        """The guest pages that are backed by frames, shared ones counted for each page."""
        return self.resident + self.shared


@frozen(kw_only=True)
class HostView:
    """The books of the host, in frames, with the state of reclamation.

    `changed` names what was done to VMs since the state before: balloon, compress, swap, block, break_large.
    """

    total: int
    free: int
    private: int = 0
    shared: int = 0
    tables: int = 0
    overhead: int = 0
    cache: int = 0
    kernel: int = 0
    min_free: int = 0
    state: str = "high"
    changed: tuple[str, ...] = ()


@frozen(kw_only=True)
class MemoryPicture:
    """Everything an outsider may look at; whatever a manager does not have it leaves out.

    `cached` are the translations that TLBs hold, by (processor, space, page); `pending` the pages whose translation was
    changed and not yet shot down.  `frames` has no entry for a free frame.
    """

    spaces: Mapping[int, SpaceView]
    frames: Mapping[int, FrameView]
    cached: Mapping[tuple[int, int, int], Leaf] = field(factory=dict)
    pending: tuple[Page, ...] = ()
    vms: Mapping[str, VmView] = field(factory=dict)
    host: HostView | None = None

    def content(self, page: Page) -> bytes | None:
        """Return what a page holds, without trailing zeros, wherever it is; None if it is not mapped or was given up."""
        space = self.spaces[page[0]]
        leaf = space.leaves.get(page[1])
        if leaf is not None:
            return self.frames[leaf.frame].content.rstrip(b"\0") if leaf.frame in self.frames else b""
        kept = space.kept.get(page[1])
        return None if kept is None else kept.rstrip(b"\0")


class MemoryManager(Protocol):
    """A manager of address spaces and frames.

    An operation that cannot be done raises a `VmksimError` (`MappingError`, `RightsRefused`, `OutOfMemory`), and then
    nothing has changed.
    """

    def add_space(self, owner: str, salt: str = "") -> int:
        """Make an empty space for `owner` and return its number; spaces share pages under equal salts only."""
        ...

    def map(self, space: int, page: int, rights: Rights) -> None:
        """Give a page a frame that reads as zeros; the page must be unused."""
        ...

    def unmap(self, space: int, page: int) -> None:
        """Take a page away, wherever it is; its frame is free when nothing maps it any more."""
        ...

    def protect(self, space: int, page: int, rights: Rights) -> None:
        """Give a page other rights."""
        ...

    def share(self, one: Page, other: Page) -> bool:
        """Let two pages of equal content and salt use one frame, copied at a write; tell whether they do now."""
        ...

    def access(self, pcpu: int, space: int, page: int, kind: Kind, data: bytes = b"") -> bytes | None:
        """Try an access on a processor, as its TLB and the tables permit; a write puts `data` at the page's beginning.

        Returns the page's bytes afterwards, or None where the processor raises a page fault.
        """
        ...

    def fault(self, space: int, page: int, kind: Kind) -> bool:
        """Handle the page fault of an access: bring the page back, or copy it; tell whether the access may be tried again."""
        ...

    def shootdown(self, space: int, page: int) -> None:
        """Make every processor forget what it has cached for a page."""
        ...

    def picture(self) -> MemoryPicture:
        """Return everything that an outsider may look at."""
        ...


class Reclaimer(Protocol):
    """What a memory manager may offer besides: taking pages from VMs.  Each tells whether it was done."""

    def balloon(self, space: int, page: int) -> bool:
        """Let the guest give a page up: its content is lost, its frame is free."""
        ...

    def deflate(self, space: int, page: int) -> bool:
        """Give a ballooned page back to the guest, to which it reads as zeros."""
        ...

    def compress(self, space: int, page: int) -> bool:
        """Put a page into the compression cache; False where it does not shrink enough."""
        ...

    def swap_out(self, space: int, page: int) -> bool:
        """Write a page to the swap file; False where that is full."""
        ...


@frozen(kw_only=True)
class Claim:
    """What one VM brings to the division of memory, in pages: shares, touched and active memory, and its bounds."""

    shares: int = field(validator=[validators.ge(1), validators.le(SHARES_TOTAL_MAX)])
    touched: int = field(validator=validators.ge(0))
    active: int = field(default=0, validator=validators.ge(0))
    reservation: int = field(default=0, validator=validators.ge(0))
    limit: int | None = field(default=None, validator=validators.optional(validators.ge(0)))

    @property
    def ceiling(self) -> int:
        """The most that the VM can use: what it has touched, up to its limit."""
        return self.touched if self.limit is None else min(self.touched, self.limit)

    @property
    def floor(self) -> int:
        """What is never taken from the VM: its reservation, as far as it has touched it and may have it."""
        return min(self.reservation, self.ceiling)


class MemoryPolicy(Protocol):
    """Who gets how much of a host's memory: a pure function of values."""

    def targets(self, capacity: int, claims: Sequence[Claim]) -> tuple[int, ...]:
        """Divide `capacity` pages; return the target of each claim, from its floor to its ceiling."""
        ...
