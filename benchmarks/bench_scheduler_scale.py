"""The CPU scheduler at its sizes: memory, checkpoints, threads, and hosts larger than any.

Memory is the resident set of a process of its own, as the kernel reports it.  A checkpoint is one pickle, and has to go
on exactly as the host that was saved.  Milliseconds are those of this machine; all else is ratios, best of several rounds.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from time import process_time
from typing import Any

from bench_scheduler import LARGE, QUANTUM_NS, SMALL, bare_timeouts, both, decisions, full_host

from sim.core.context import Sim
from sim.core.units import SECOND
from sim.hw.spec import CpuSpec
from sim.hw.topology import Topology
from sim.kernel.sched.options import SchedOptions
from sim.kernel.sched.scheduler import Scheduler
from sim.kernel.workload import OnOff

ROUNDS = 3
HUGE = (256, 4096)
WARM_S, MEASURED_S = 30, 60
EVENTS = 100_000
PAGE_MB = 4096 / 1e6


def threaded_host(pcpus: int, vcpus: int) -> Scheduler:
    """Make a host whose pCPUs are threads of half as many cores, with VMs of 1 to 8 vCPUs at twice its capacity."""
    sim = Sim(categories=())
    topology = Topology.of(CpuSpec(cores_per_node=pcpus // 2, threads_per_core=2))
    sched = Scheduler(sim, topology, SchedOptions(quantum_ns=QUANTUM_NS))
    left, number, worlds = vcpus, 0, []
    while left:
        width = min(left, (1, 2, 4, 8)[number % 4])
        run_ns = QUANTUM_NS * (16 + number % 32) // 64
        wait_ns = run_ns * (vcpus - 2 * pcpus) // (2 * pcpus)
        made = [sched.add(f"vm{number}-{index}", OnOff(run_ns, wait_ns)) for index in range(width)]
        sched.group(made)
        for world in made:
            sched.allocate(world, shares=(500, 1000, 2000)[number % 3])
        worlds += made
        left -= width
        number += 1
    for world in worlds:
        sched.begin(world)
    return sched


def resident_mb() -> float:
    """Return the resident set of this process, MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_MB


def growth_mb() -> float:
    """Return by how much the resident set grows over 60 simulated seconds of the small host with everything; in this process."""
    sched = full_host(*SMALL)
    sched.sim.engine.run(WARM_S * SECOND)
    before = resident_mb()
    sched.sim.engine.run((WARM_S + MEASURED_S) * SECOND)
    return max(0.0, resident_mb() - before)


def growth_in_own_process() -> float:
    """Return `growth_mb` as a process of its own measures it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bench_scheduler_scale as b; print(b.growth_mb())"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).resolve().parent)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def checkpoint() -> tuple[float, float, bool]:
    """Return the ms of saving and restoring the large host, and whether both go on alike."""
    fresh = full_host(*LARGE)
    decisions(fresh, EVENTS // 20)
    begin = process_time()
    image = pickle.dumps(fresh)
    middle = process_time()
    copy = pickle.loads(image)
    end = process_time()
    for each in (fresh, copy):
        each.sim.engine.run(each.sim.now + 50 * QUANTUM_NS)
    states = [
        [(world.times(each.sim.now), world.dispatches, world.state) for world in each.worlds.values()]
        for each in (fresh, copy)
    ]
    alike = states[0] == states[1] and fresh.sim.engine.events_done == copy.sim.engine.events_done
    return (middle - begin) * 1e3, (end - middle) * 1e3, alike


def run() -> list[dict[str, Any]]:
    """Measure everything."""
    saves, loads, threaded, events, huge = [], [], [], [], []
    for _ in range(ROUNDS):
        bare = bare_timeouts(LARGE[1], EVENTS)
        save_ms, load_ms, alike = checkpoint()
        if not alike:
            raise AssertionError("a restored host goes on differently")
        saves.append(save_ms)
        loads.append(load_ms)
        sched = threaded_host(*LARGE)
        decisions(sched, EVENTS // 10)
        rate, event_rate = both(sched, EVENTS // 3)
        threaded.append(rate / bare)
        events.append(event_rate / bare)
    sched = full_host(*HUGE)
    decisions(sched, EVENTS // 5)
    sched.check_invariants()
    huge.append(decisions(sched, EVENTS // 2) / bare)
    bare_text = "bare SimPy timeouts, same process"
    here = "this machine"
    return [
        _figure(
            "scheduler.checkpoint.save_ms",
            min(saves),
            "ms",
            here,
            100,
            "<=",
            "pickling the full host at 64x512",
        ),
        _figure(
            "scheduler.checkpoint.load_ms",
            min(loads),
            "ms",
            here,
            100,
            "<=",
            "unpickling it; it goes on alike",
        ),
        _figure(
            "scheduler.rss",
            growth_in_own_process(),
            "MB",
            "60 simulated seconds before",
            1,
            "<=",
            "growth of the resident set",
        ),
        _figure(
            "scheduler.threads.decisions",
            max(threaded),
            "1",
            bare_text,
            0.06,
            ">=",
            "decisions with threads at 64x512",
        ),
        _figure(
            "scheduler.threads.events", max(events), "1", bare_text, 0.20, ">=", "events on the same host"
        ),
        _figure(
            "scheduler.full.256x4096",
            max(huge),
            "1",
            bare_text,
            0.03,
            ">=",
            "decisions with everything at 256 pCPUs and 4,096 vCPUs",
        ),
    ]


def _figure(name: str, value: float, unit: str, against: str, *limits: Any) -> dict[str, Any]:
    keys = ("name", "value", "unit", "against", "bar", "sense", "wording")
    return dict(zip(keys, (name, value, unit, against, *limits), strict=True))


if __name__ == "__main__":
    for item in run():
        print(f"{item['name']:30} {item['value']:11.3f} {item['unit']} (bar {item['sense']} {item['bar']})")
