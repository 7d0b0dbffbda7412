"""Speed of the CPU scheduler, as ratios measured in one process.

The unit is one bare SimPy event, `yield env.timeout(...)` in a generator process, with as many processes as there are
vCPUs.  Each ratio is the best of several rounds that alternate between both sides.
"""

from __future__ import annotations

import pickle
import tracemalloc
from time import process_time
from typing import Any

import simpy

from sim.core.context import Sim
from sim.core.units import SECOND
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import Busy, OnOff, Workload
from sim.kernel.world import World

QUANTUM_NS = 10_000_000
LARGE = (64, 512)
SMALL = (4, 16)
EVENTS = 150_000
ROUNDS = 3


def bare_timeouts(processes: int, events: int) -> float:
    """Return bare SimPy timeouts per CPU second."""
    env = simpy.Environment()

    def tick() -> Any:
        while True:
            yield env.timeout(QUANTUM_NS)

    for _ in range(processes):
        env.process(tick())
    begin = process_time()
    env.run(until=QUANTUM_NS * (events // processes) + 1)
    return events / (process_time() - begin)


def host(pcpus: int, vcpus: int, *, busy: bool = True) -> Scheduler:
    """Make a host on which all vCPUs are busy (or on and off, at twice the host's capacity)."""
    sim = Sim(categories=())
    topology = Topology.of(CpuSpec(cores_per_node=pcpus))
    sched = Scheduler(sim, topology, SchedOptions(quantum_ns=QUANTUM_NS))
    for index in range(vcpus):
        workload: Workload = Busy()
        if not busy:
            run_ns = QUANTUM_NS * (16 + index % 32) // 64
            workload = OnOff(run_ns, run_ns * (vcpus - 2 * pcpus) // (2 * pcpus))
        world = sched.add(f"world{index}", workload)
        sched.allocate(world, shares=(500, 1000, 2000)[index % 3])
        sched.begin(world)
    return sched


def full_host(pcpus: int, vcpus: int, *, traced: bool = False) -> Scheduler:
    """Make a host with everything: VMs of 1 to 8 vCPUs in pools, some limited, on and off at twice the capacity."""
    sim = Sim(categories=("sched",) if traced else ())
    sched = Scheduler(sim, Topology.of(CpuSpec(cores_per_node=pcpus)), SchedOptions(quantum_ns=QUANTUM_NS))
    pools = [sched.pools.add(PoolSpec(name=f"p{index}", shares=1000 + 500 * index)) for index in range(4)]
    left, number = vcpus, 0
    worlds: list[World] = []
    while left:
        width = min(left, (1, 2, 4, 8)[number % 4])
        pool = pools[number % len(pools)]
        bucket = sched.bucket(width * sched.topology.core_hz // 3, pool) if number % 8 == 1 else None
        made = []
        for index in range(width):
            run_ns = QUANTUM_NS * (16 + (number + index) % 32) // 64
            wait_ns = run_ns * (vcpus - 2 * pcpus) // (2 * pcpus)
            made.append(sched.add(f"vm{number}-{index}", OnOff(run_ns, wait_ns)))
        sched.group(made)
        for world in made:
            sched.allocate(world, shares=(500, 1000, 2000)[number % 3], bucket=bucket, pool=pool)
        worlds += made
        left -= width
        number += 1
    for world in worlds:
        sched.begin(world)
    return sched


def both(sched: Scheduler, events: int) -> tuple[float, float]:
    """Return dispatches and events of the engine per CPU second over about `events` quanta."""
    before = sched.sim.engine.events_done
    begin = process_time()
    rate = decisions(sched, events)
    return rate, (sched.sim.engine.events_done - before) / (process_time() - begin)


def memory_growth_bytes() -> int:
    """Return how much more memory a running host holds after 60 more simulated seconds."""
    sched = full_host(*SMALL)
    tracemalloc.start()
    sched.sim.engine.run(20 * SECOND)
    before = tracemalloc.get_traced_memory()[0]
    sched.sim.engine.run(80 * SECOND)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return max(0, after - before)


def decisions(sched: Scheduler, events: int) -> float:
    """Return dispatches per CPU second over about `events` quanta."""
    before = sum(world.dispatches for world in sched.worlds.values())
    begin = process_time()
    sched.sim.engine.run(sched.sim.now + QUANTUM_NS * events // len(sched.pcpus))
    spent = process_time() - begin
    return (sum(world.dispatches for world in sched.worlds.values()) - before) / spent


def run() -> list[dict[str, Any]]:
    """Measure everything."""
    ratios: dict[str, list[float]] = {
        "large": [],
        "small": [],
        "onoff": [],
        "growth": [],
        "full": [],
        "events": [],
        "full growth": [],
        "traced": [],
        "untraced": [],
        "save": [],
        "load": [],
    }
    for _ in range(ROUNDS):
        bare = bare_timeouts(LARGE[1], EVENTS)
        large = decisions(host(*LARGE), EVENTS)
        small = decisions(host(*SMALL), EVENTS)
        ratios["large"].append(large / bare)
        ratios["small"].append(small / bare_timeouts(SMALL[1], EVENTS))
        ratios["growth"].append(small / large)
        onoff = host(*LARGE, busy=False)
        decisions(onoff, EVENTS // 10)
        ratios["onoff"].append(decisions(onoff, EVENTS // 2) / bare)
        full = full_host(*LARGE)
        decisions(full, EVENTS // 10)
        rate, events = both(full, EVENTS // 3)
        ratios["full"].append(rate / bare)
        ratios["events"].append(events / bare)
        traced = full_host(*LARGE, traced=True)
        decisions(traced, EVENTS // 10)
        ratios["traced"].append(decisions(traced, EVENTS // 3))
        ratios["untraced"].append(rate)
        little = full_host(*SMALL)
        decisions(little, EVENTS // 50)
        ratios["full growth"].append(decisions(little, EVENTS // 10) / rate)
        begin = process_time()
        image = pickle.dumps(full)
        middle = process_time()
        pickle.loads(image)
        ratios["save"].append((middle - begin) * bare)
        ratios["load"].append((process_time() - middle) * bare)
    bare_text = "bare SimPy timeouts, same process and count"
    return [
        _item(
            "scheduler.decisions.64x512",
            max(ratios["large"]),
            "1",
            bare_text,
            0.35,
            ">=",
            "decisions per CPU second at 64 pCPUs and 512 busy vCPUs, 10 ms quantum (aim 0.5)",
        ),
        _item(
            "scheduler.decisions.4x16",
            max(ratios["small"]),
            "1",
            bare_text,
            0.35,
            ">=",
            "decisions per CPU second at 4 pCPUs and 16 busy vCPUs",
        ),
        _item(
            "scheduler.decisions.onoff",
            max(ratios["onoff"]),
            "1",
            bare_text,
            0.06,
            ">=",
            "decisions per CPU second at 64 pCPUs and 512 vCPUs that run and sleep, at twice the capacity",
        ),
        _item(
            "scheduler.full.decisions",
            max(ratios["full"]),
            "1",
            bare_text,
            0.06,
            ">=",
            "decisions per CPU second at 64 pCPUs and 512 vCPUs in co-scheduled VMs, pools and limits, at twice the capacity",
        ),
        _item(
            "scheduler.full.events",
            max(ratios["events"]),
            "1",
            bare_text,
            0.20,
            ">=",
            "events of the engine per CPU second on the same host",
        ),
        _item(
            "scheduler.full.traced",
            max(ratios["untraced"]) / max(ratios["traced"]),
            "1",
            "the same host without a trace",
            1.20,
            "<=",
            "cost per decision with every record of the scheduler taken and digested",
        ),
        _item(
            "scheduler.memory",
            memory_growth_bytes() / 1e6,
            "MB",
            "60 simulated seconds before",
            1,
            "<=",
            "growth of what Python has allocated over 60 simulated seconds of the small host with everything",
        ),
        _item(
            "scheduler.growth",
            min(ratios["growth"]),
            "1",
            "the same at 4 pCPUs and 16 vCPUs",
            1.35,
            "<=",
            "cost per decision at 64 pCPUs and 512 busy vCPUs",
        ),
        _item(
            "scheduler.full.growth",
            min(ratios["full growth"]),
            "1",
            "the same at 4 pCPUs and 16 vCPUs",
            1.35,
            "<=",
            "cost per decision with everything switched on",
        ),
        _item(
            "scheduler.checkpoint.save",
            min(ratios["save"]),
            "timeouts",
            bare_text,
            120_000,
            "<=",
            "cost of pickling the large host, in bare timeouts",
        ),
        _item(
            "scheduler.checkpoint.load",
            min(ratios["load"]),
            "timeouts",
            bare_text,
            120_000,
            "<=",
            "cost of unpickling it, in bare timeouts",
        ),
    ]


def _item(name: str, value: float, unit: str, against: str, *limits: Any) -> dict[str, Any]:
    keys = ("name", "value", "unit", "against", "bar", "sense", "wording")
    return dict(zip(keys, (name, value, unit, against, *limits), strict=True))


if __name__ == "__main__":
    for item in run():
        print(f"{item['name']:30} {item['value']:11.3f} {item['unit']} (bar {item['sense']} {item['bar']})")
