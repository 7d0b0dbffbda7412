"""The rules by which memory is taken from a VM: balloon, compression, swap file, admission.  Pure functions.

Models: the size of a balloon and its step at each poll; what a compressed page costs; the bound of the compression
cache; the size of the swap file; the division of what is owed between balloon, compression and swap in each state;
admission by reservation and overhead.

Leaves out: what the guest does inside when its balloon grows (`sim.kernel.memory.guest` lets it give idle pages first);
the disk on which the swap file lies.

Sources: vSphere Resource Management (Mem.CtlMaxPercent, Mem.MemZipMaxPct, swap file = configured size - reservation); Waldspurger,
OSDI 2002, section 3 (balloon); VMware, "Understanding Memory Resource Management in vSphere 5" (compression slots).
"""

from __future__ import annotations

import zlib

from attrs import frozen

from sim.core.facts import fact
from sim.core.units import KIB, PAGE_BYTES
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.states import Actions

__all__ = [
    "SLOT_SIZES",
    "Owed",
    "balloon_max",
    "balloon_step",
    "cache_frames",
    "cache_frames_max",
    "compress_page",
    "decompress_page",
    "owed",
    "slot_of",
    "swap_file_pages",
]

_ZIP = "VMware, Understanding Memory Resource Management in vSphere 5: 50 % or 75 % must be saved"
SLOT_LARGE = fact("mem.zip_slot_bytes", 2 * KIB, unit="byte", source=_ZIP, kind="vendor")
SLOT_SMALL = fact("mem.zip_small_slot_bytes", KIB, unit="byte", source=_ZIP, kind="vendor")

SLOT_SIZES = (SLOT_SMALL.value, SLOT_LARGE.value)
"""What a compressed page takes, in bytes."""

_ZLIB_LEVEL = 1


def balloon_max(configured: int, options: MemOptions) -> int:
    """Return the most pages that a balloon may take from a VM."""
    return configured * options.ctl_max_percent // 100


def balloon_step(size: int, target: int, options: MemOptions) -> int:
    """Return by how many pages a balloon changes at one poll: toward its target, by at most the rate of the driver."""
    return max(-options.balloon_pages, min(options.balloon_pages, target - size))


def slot_of(compressed_bytes: int) -> int | None:
    """Return the slot that a compressed page takes, or None where it does not shrink to half a page."""
    return next((slot for slot in SLOT_SIZES if compressed_bytes <= slot), None)


def compress_page(page: bytes) -> bytes | None:
    """Return a page compressed, or None where it fits no slot and has to be swapped.

    ESX's algorithm is not public; DEFLATE stands for it.
    """
    packed = zlib.compress(page, _ZLIB_LEVEL)
    return packed if slot_of(len(packed)) is not None else None


def decompress_page(packed: bytes) -> bytes:
    """Return the page that `compress_page` was given."""
    return zlib.decompress(packed)


def cache_frames_max(configured: int, options: MemOptions) -> int:
    """Return the most frames of a VM's compression cache."""
    return configured * options.zip_max_percent // 100


def cache_frames(slots_small: int, slots_large: int) -> int:
    """Return the frames that so many slots take."""
    return -(-(slots_small * SLOT_SMALL.value + slots_large * SLOT_LARGE.value) // PAGE_BYTES)


def swap_file_pages(configured: int, reservation: int) -> int:
    """Return the size of a VM's swap file: its memory without what is reserved, so that everything else fits."""
    return max(0, configured - reservation)


@frozen(kw_only=True)
class Owed:
    """What is to be taken from a VM now, in pages; `blocked` VMs get no new page until they are at their target."""

    balloon: int = 0
    swap: int = 0
    compress: bool = False
    blocked: bool = False


def owed(held: int, target: int, balloon: int, balloon_limit: int, actions: Actions) -> Owed:
    """Divide what a VM holds above its target over the means that a state permits.

    `balloon` is what the balloon has taken.  It grows, up to its limit, only in a state that balloons, and shrinks in any
    state as far as the VM is below its target.
    """
    above = max(0, held - target)
    if actions.balloon and above:
        return Owed(balloon=max(balloon, min(balloon_limit, balloon + above)))
    return Owed(
        balloon=max(0, balloon - max(0, target - held)),
        swap=above if actions.swap else 0,
        compress=actions.compress,
        blocked=actions.block and above > 0,
    )
