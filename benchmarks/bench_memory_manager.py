"""Speed of memory management, as ratios measured in one process.

The sharing scan on content numbers is held against a dict that does the same, and a balance over 1,000 VMs of an
overcommitted host against 1,000 empty SimPy events.  Each ratio is the best of several rounds that alternate between both
sides.
"""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np
import simpy

from sim.core.context import Sim
from sim.core.rng import FastStream
from sim.core.units import GIB, MIB, PAGE_BYTES
from sim.hw.memory import PhysicalMemory
from sim.kernel.memory.guest_pages import RESIDENT
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.scheduler import MemoryScheduler
from sim.kernel.memory.sharing import find_duplicates
from sim.kernel.memory.spec import MemorySpec, MemoryWorkload

PAGES = 1_000_000
CONTENTS = 300_000
VMS = 1_000
VM_PAGES = 1_024
ROUNDS = 7


def scan_ratio(contents: np.ndarray[Any, Any]) -> float:
    """Return how many times faster a scan finds the duplicates than a dict."""
    plain = contents.tolist()
    begin = process_time()
    counts: dict[int, int] = {}
    for content in plain:
        counts[content] = counts.get(content, 0) + 1
    middle = process_time()
    runs = find_duplicates(contents)
    end = process_time()
    if len(runs.contents) != len(counts):
        raise AssertionError("the scan and the dict differ")
    return (middle - begin) / (end - middle)


def overcommitted() -> MemoryScheduler:
    """Return a host of 4 GiB whose 1,000 VMs have touched all of it, with different shares and activity."""
    sim = Sim(categories=())
    memory = PhysicalMemory(4 * GIB)
    mem = MemoryScheduler(sim, memory, MemOptions(), sim.rng, core_hz=10**9)
    for number in range(VMS):
        load = MemoryWorkload(zero_percent=0, common_percent=0)
        spec = MemorySpec(shares=("low", "normal", "high")[number % 3], workload=load)
        guest = mem.add(f"vm{number}", VM_PAGES, spec)
        touched = np.arange(VM_PAGES - number % 40, dtype=np.int64)
        guest.frames.take(len(touched))
        guest.pages.move(touched, RESIDENT)
        mem.table.columns["active"][guest.row] = number * 7919 % VM_PAGES
    memory.allocate(max(1, memory.frames_free - mem.min_free // 2), "others")
    mem.balance()
    return mem


def balance_ratio(mem: MemoryScheduler, draws: FastStream) -> float:
    """Return the cost of one balance, in which the activity of every VM has changed, in 1,000 empty SimPy events."""
    env = simpy.Environment()
    begin = process_time()
    for number in range(VMS):
        env.timeout(number)
    env.run()
    middle = process_time()
    events = middle - begin
    active = mem.table.columns["active"]
    active[:] = (active + draws.below(VM_PAGES // 10)) % VM_PAGES
    begin = process_time()
    mem.balance()
    return (process_time() - begin) / events


def run() -> list[dict[str, Any]]:
    """Measure everything."""
    words = FastStream(1).block(PAGES)
    contents = (words % np.uint64(CONTENTS)).astype(np.int64)
    mem, draws = overcommitted(), FastStream(2)
    scans, balances = [], []
    for _ in range(ROUNDS):
        scans.append(scan_ratio(contents))
        balances.append(balance_ratio(mem, draws))
    gib = VMS * VM_PAGES * PAGE_BYTES // MIB
    return [
        {
            "name": "memory.sharing_scan",
            "value": max(scans),
            "unit": "1",
            "against": "a dict that counts the same contents",
            "bar": 5,
            "sense": ">=",
            "wording": f"finding the duplicates among {PAGES:,} content numbers",
        },
        {
            "name": "memory.balance.1000",
            "value": min(balances),
            "unit": "1",
            "against": "1,000 empty SimPy events",
            "bar": 1,
            "sense": "<=",
            "wording": f"one balance over 1,000 VMs with {gib:,} MiB together, on an overcommitted host",
        },
    ]


if __name__ == "__main__":
    for item in run():
        print(f"{item['name']:30} {item['value']:11.3f} {item['unit']} (bar {item['sense']} {item['bar']})")
