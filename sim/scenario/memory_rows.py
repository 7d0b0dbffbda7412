"""The memory part of a run's result: from the memory scheduler's counters to bytes.

Models nothing: it only looks.  Leaves out VMs whose memory is not managed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.core.units import PAGE_BYTES
from sim.kernel.vm import OVERHEAD_BYTES, VmManager
from sim.scenario.result import HostMemoryResult, MemoryRow

if TYPE_CHECKING:
    from sim.kernel.memory.scheduler import Guest, MemoryScheduler

__all__ = ["host_memory", "memory_rows"]


def memory_rows(vms: VmManager) -> Iterator[MemoryRow]:
    """Yield a row for each VM that takes part in memory management, in the order of power-on."""
    if vms.mem is None:
        return
    for name, guest in vms.mem.guests.items():
        yield _row(vms.mem, guest, vms.get(name).overhead_bytes)


def host_memory(vms: VmManager) -> HostMemoryResult | None:
    """Return the host's line; None where no VM ever took part."""
    mem = vms.mem
    if mem is None:
        return None
    shared = sum(int(guest.pages.counts[_SHARED]) for guest in mem.guests.values())
    return HostMemoryResult(
        state=str(mem.state),
        managed_bytes=mem.memory.frames_total * PAGE_BYTES,
        free_bytes=mem.memory.frames_free * PAGE_BYTES,
        min_free_bytes=mem.min_free * PAGE_BYTES,
        shared_bytes=shared * PAGE_BYTES,
        common_bytes=mem.shared.count * PAGE_BYTES,
        balances=mem.balances,
    )


_SHARED = 2  # the place of a shared page in `sim.kernel.memory.guest_pages`, which loads numpy


def _row(mem: MemoryScheduler, guest: Guest, overhead_bytes: int) -> MemoryRow:
    from sim.kernel.memory.counters import guest_counters

    counters, spec = guest_counters(mem, guest), guest.spec
    return MemoryRow(
        name=guest.name,
        memory_bytes=len(guest.pages) * PAGE_BYTES,
        shares=counters.shares,
        reservation_bytes=spec.reservation_bytes,
        limit_bytes=spec.limit_bytes,
        granted_bytes=counters.granted * PAGE_BYTES,
        consumed_bytes=counters.consumed * PAGE_BYTES,
        target_bytes=counters.target * PAGE_BYTES,
        touched_bytes=counters.touched * PAGE_BYTES,
        active_percent_hundredths=counters.active_hundredths,
        balloon_bytes=counters.balloon * PAGE_BYTES,
        balloon_target_bytes=counters.balloon_target * PAGE_BYTES,
        balloon_max_bytes=counters.balloon_max * PAGE_BYTES,
        swapped_bytes=counters.swapped * PAGE_BYTES,
        swap_target_bytes=counters.swap_target * PAGE_BYTES,
        swapped_in_bytes=guest.swapped_in * PAGE_BYTES,
        swapped_out_bytes=guest.swapped_out * PAGE_BYTES,
        zipped_bytes=counters.zipped * PAGE_BYTES,
        zip_cache_bytes=counters.cache * PAGE_BYTES,
        zip_pages=guest.zipped,
        unzip_pages=guest.unzipped,
        shared_bytes=counters.shared * PAGE_BYTES,
        zero_bytes=counters.zero * PAGE_BYTES,
        hint_pages=counters.hints,
        untouched_bytes=counters.untouched * PAGE_BYTES,
        overhead_bytes=overhead_bytes,
        overhead_max_bytes=OVERHEAD_BYTES.value,
        refused_pages=guest.refused,
        stall_ns=guest.stall_ns,
    )
