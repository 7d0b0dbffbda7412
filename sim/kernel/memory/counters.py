"""What esxtop's memory panel shows, of one host at one moment: numbers in pages, and metrics of the host.

Models: the columns MEMSZ, GRANT, CNSM, SZTGT, TCHD, ACTV, MCTLSZ, MCTLTGT, MCTLMAX, SWCUR, SWTGT, ZIPPED, CACHESZ, SHRD,
ZERO, COWH, and the host line with PSHARE.  Leaves out rates (differences of two looks), NUMA, OVHDUW.

Sources: "Interpreting esxtop Statistics", memory panel.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sim.core.metrics import Metrics
from sim.core.units import PAGE_BYTES
from sim.kernel.memory.activity import ONE
from sim.kernel.memory.guest_pages import (
    BALLOONED,
    COMPRESSED,
    PLACES,
    RESIDENT,
    SHARED,
    SWAPPED,
    UNTOUCHED,
)
from sim.kernel.memory.reclaim_rules import balloon_max
from sim.kernel.memory.scheduler import Guest, MemoryScheduler

__all__ = ["GuestCounters", "guest_counters", "publish_memory"]


@frozen(kw_only=True)
class GuestCounters:
    """The columns of one VM, in pages; `active_hundredths` in hundredths of a percent, `consumed` rounded up."""

    granted: int
    consumed: int
    target: int
    touched: int
    active_hundredths: int
    balloon: int
    balloon_target: int
    balloon_max: int
    swapped: int
    swap_target: int
    zipped: int
    cache: int
    shared: int
    zero: int
    hints: int
    untouched: int
    shares: int


def guest_counters(host: MemoryScheduler, guest: Guest) -> GuestCounters:
    """Return the columns of one VM; only looks."""
    counts, own = guest.pages.counts, guest.pages
    columns = {name: int(column[guest.row]) for name, column in host.table.columns.items()}
    held = (own.place == RESIDENT) | (own.place == SHARED)
    contents = own.content[own.place == SHARED]
    # a page that N users share costs each of them 1 / N: summed exactly for each number of users
    users, pages = np.unique(guest.group.references[contents], return_counts=True)
    shared_cost = sum(
        -(-int(count) // int(each)) for each, count in zip(users.tolist(), pages.tolist(), strict=True)
    )
    hinted = guest.group.hint_page[guest.group.hint_vm == guest.row]
    return GuestCounters(
        granted=guest.held,
        consumed=int(counts[RESIDENT]) + shared_cost,
        target=columns["target"],
        touched=guest.activity.fast * len(own) // ONE,
        active_hundredths=guest.activity.estimate() * 10_000 // ONE,
        balloon=int(counts[BALLOONED]),
        balloon_target=columns["balloon"],
        balloon_max=balloon_max(len(own), host.options),
        swapped=int(counts[SWAPPED]),
        swap_target=int(counts[SWAPPED]) + columns["swap"],
        zipped=int(counts[COMPRESSED]),
        cache=guest.cache.count,
        shared=int(counts[SHARED]),
        zero=int(np.count_nonzero(held & (own.content == 0))),
        hints=int(np.count_nonzero(own.place[hinted] == RESIDENT)),
        untouched=int(counts[UNTOUCHED]),
        shares=columns["shares"],
    )


def publish_memory(host: MemoryScheduler, metrics: Metrics) -> None:
    """Write the host's totals into the metrics."""
    totals = host.table.counts.sum(axis=0).tolist()
    for name, pages in zip(PLACES, totals, strict=True):
        text = f"memory of managed VMs that is {name}, at the end"
        metrics.gauge(f"mem.{name}", "byte", text).set(pages * PAGE_BYTES)
    for name, frames, text in (
        ("free", host.memory.frames_free, "free memory of the host, at the end"),
        ("min_free", host.min_free, "memory that should be free"),
        ("common", host.shared.count, "frames that several pages share, at the end"),
    ):
        metrics.gauge(f"mem.{name}", "byte", text).set(frames * PAGE_BYTES)
