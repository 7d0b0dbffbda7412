"""Page sharing: who may share with whom, and what two writes tell apart.

Models: the salt of a VM under Mem.ShareForceSalting 0, 1 and 2; a hash as a hint and a full comparison before a merge;
the latency of a write to a private page, and to a shared one that has to be copied first, by which a guest can find out
that another has the same page.

Leaves out: the hash function of ESX; noise of a guest's own clock.

Sources: Broadcom KB 323624 (salting); Waldspurger, OSDI 2002, section 4 (hash, hints, copy on write); Suzaki et al.,
EuroSec 2011, and Barresi et al., USENIX WOOT 2015 (that the write's latency tells); the latencies are our choice.
"""

from __future__ import annotations

import zlib

from sim.core.facts import fact
from sim.core.units import US

__all__ = ["HASH_BITS", "content_hash", "group_of", "write_latency_ns"]

HASH_BITS = fact(
    "mem.share_hash_bits",
    64,
    unit="bit",
    source="Waldspurger, OSDI 2002, section 4.2: 64-bit hash in a frame of 16 bytes",
    kind="vendor",
)
WRITE_NS = fact(
    "mem.write_ns",
    100,
    unit="ns",
    source="order of magnitude of a write that misses the caches",
    kind="assumed",
)
COPY_NS = fact(
    "mem.copy_on_write_ns",
    4 * US,
    unit="ns",
    source="order of magnitude of an exit, the copy of a page and an invalidation",
    kind="assumed",
)


def group_of(vm: str, salt: str, force_salting: int) -> str:
    """Return a name that two VMs have in common exactly when they may share pages.

    With 0 all may; with 1 those of equal salts, and no salt is one salt; with 2, the default, a VM without a salt shares
    with itself only.
    """
    if force_salting == 0:
        return "all"
    if salt:
        return f"salt:{salt}"
    return "salt:" if force_salting == 1 else f"vm:{vm}"


def content_hash(page: bytes, bits: int = HASH_BITS.value) -> int:
    """Return the hint for a page, from 0 to 2**bits - 1: two checksums side by side, which equal pages share.

    Unequal pages may share it too, the more often the fewer bits; so it never decides a merge.
    """
    both = zlib.crc32(page) << 32 | zlib.adler32(page)
    return both >> (HASH_BITS.value - bits)


def write_latency_ns(*, copied: bool) -> int:
    """Return the time of a guest's write: to a page of its own, or to one that had to be copied first."""
    return WRITE_NS.value + (COPY_NS.value if copied else 0)
