"""What a host of 1 TiB with 256 pCPUs costs: seconds of a boot, and the memory of the process that simulates it.

Each measurement is a process of its own, so that its peak is that of this one host: all that Python, the libraries and
the simulator need is in it.  The boot runs from power-on to the open management interface, with 24 signed modules; its
seconds are CPU time of the process, the best of several, without the imports.  The second host also runs four VMs of
250 GiB and touches every page of them, in large pages as the kernel gives them.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

ROUNDS = 5

PROBE = """
import resource, sys, time
from sim.core.units import GIB, TIB
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.host import HostState
from sim.scenario.build import build
from sim.scenario.spec import Scenario

touch = sys.argv[1] == "touched"
cpu = CpuSpec(packages=4, cores_per_node=32, threads_per_core=2)
assert cpu.pcpus == 256
scenario = Scenario(host=HostSpec(memory_bytes=TIB, cpu=cpu))
start = time.process_time()
machinery = build(scenario, 0)
machinery.host.power_on()
machinery.sim.engine.run()
boot_s = time.process_time() - start
host = machinery.host
assert host.state is HostState.RUNNING, host.failure
pages = 0
if touch:
    for number in range(4):
        host.call("vm.power_on", {"spec": {"name": f"vm{number}", "memory": f"{250 * GIB}B"}})
        space = host.kernel.vms.get(f"vm{number}").space
        pages += space.populate(0, space.pages)
    host.check_invariants()
    assert pages == 1000 * GIB // 4096
    assert host.board.memory.frames_free * 4096 < 24 * GIB
print(boot_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def probe(what: str) -> tuple[float, float]:
    """Return CPU seconds of the boot and the peak of resident memory in MiB, of a fresh process."""
    done = subprocess.run([sys.executable, "-c", PROBE, what], capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def run() -> list[dict[str, Any]]:
    boots = [probe("boot") for _ in range(ROUNDS)]
    touched = probe("touched")
    wording = "boot of a 1 TiB host < 1 s and <= 400 MB resident"
    return [
        {
            "name": "boot of a 1 TiB host with 256 pCPUs",
            "value": min(seconds for seconds, _ in boots),
            "unit": "s",
            "against": "the clock (CPU time, best of several processes)",
            "bar": 1.0,
            "sense": "<=",
            "wording": wording,
        },
        {
            "name": "peak resident memory of that process",
            "value": max(peak for _, peak in boots),
            "unit": "MiB",
            "against": "the whole process, Python and libraries included",
            "bar": 400.0 * 10**6 / 2**20,
            "sense": "<=",
            "wording": wording,
        },
        {
            "name": "the same with 1000 GiB of VMs, every page touched",
            "value": touched[1],
            "unit": "MiB",
            "against": "the whole process, Python and libraries included",
            "bar": 400.0 * 10**6 / 2**20,
            "sense": "<=",
            "wording": wording,
        },
    ]
