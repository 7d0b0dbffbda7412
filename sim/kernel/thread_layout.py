"""Where thread-local blocks lie below the thread pointer: the static layout of variant II.

Models: module numbers in load order and each block's distance below the thread pointer, with the gap that a stricter
alignment leaves and later blocks may use.

Leaves out: the blocks themselves, the vector of dynamic blocks, and room kept for libraries that are opened later.

Sources: ELF Handling For Thread-Local Storage, 3.4.6 (variant II); the use of gaps as glibc 2.36 (dl-tls.c) has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from sim.image.elf import ThreadStorage

__all__ = ["ThreadPlace", "thread_layout"]


@frozen(kw_only=True)
class ThreadPlace:
    """The number of an object with thread storage, and how many bytes below the thread pointer its block begins."""

    module: int
    offset: int


def thread_layout(blocks: Sequence[ThreadStorage | None]) -> tuple[ThreadPlace | None, ...]:
    """Return the place of each block, in load order."""
    places: list[ThreadPlace | None] = []
    module = end = gap_low = gap_high = 0
    for block in blocks:
        if block is None:
            places.append(None)
            continue
        module += 1
        first = -(block.virtual_address % block.alignment) % block.alignment
        inside = _up(gap_low + block.memory_bytes - first, block.alignment) + first
        if gap_high - gap_low >= block.memory_bytes and inside <= gap_high:
            gap_low = inside
            places.append(ThreadPlace(module=module, offset=inside))
            continue
        offset = _up(end + block.memory_bytes - first, block.alignment) + first
        if offset > end + block.memory_bytes + (gap_high - gap_low):
            gap_low, gap_high = end, offset - block.memory_bytes
        end = offset
        places.append(ThreadPlace(module=module, offset=offset))
    return tuple(places)


def _up(number: int, grain: int) -> int:
    return -(-number // grain) * grain
