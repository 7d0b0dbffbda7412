"""Bits of the memory go wrong: who dies of it, and does it matter who finds them first?  See the table."""

from sim import Scenario, Simulation
from sim.core.units import GIB, MIB, SECOND
from sim.hw.spec import HostSpec
from sim.scenario.faults import FaultSpec
from sim.scenario.spec import ImageSpec, VmEntry


def outcome(target, bits, found_by):
    """Return what the kernel did, and who runs on afterwards."""
    simulation = Simulation(
        Scenario(
            host=HostSpec(memory_bytes=GIB, patrol_scrub_ns=5 * SECOND),
            image=ImageSpec(modules=1, module_size_bytes=2048),
            vms=(VmEntry(name="web", memory_bytes=64 * MIB), VmEntry(name="db", memory_bytes=64 * MIB)),
            faults=(
                FaultSpec(
                    kind="memory_error", target=target, bits=bits, found_by=found_by, byte=4096, at_ns=SECOND
                ),
            ),
        )
    )
    simulation.finish()
    actions = [row["action"] for row in simulation.sim.trace.select("memory.error")]
    kernel = simulation.host.kernel
    alive = [vm.name for vm in kernel.vms.vms.values() if vm.space is not None] if kernel is not None else []
    return ", ".join(actions), " ".join(alive) or "nobody"


print("wrong bits  in      found by  the kernel's answer  runs on")
for target, bits, found_by in (
    ("vm/web", 1, "access"),
    ("vm/web", 2, "access"),
    ("vm/web", 2, "scrub"),
    ("kernel", 1, "access"),
    ("kernel", 2, "access"),
    ("kernel", 2, "scrub"),
):
    answer, alive = outcome(target, bits, found_by)
    print(f"{bits:>10}  {target:<7} {found_by:<9} {answer:<20} {alive}")
