"""Three virtual machines want all of a two-core host: who pays when one gets more shares?  See the table."""

from sim import Scenario, simulate
from sim.core.units import SECOND
from sim.hw.spec import CpuSpec, HostSpec
from sim.kernel.vm import CpuAllocation
from sim.scenario.spec import ImageSpec, VmEntry


def usage(shares):
    """Return each VM's part of one CPU in percent, over a minute."""
    scenario = Scenario(
        name="shares",
        duration_ns=60 * SECOND,
        host=HostSpec(cpu=CpuSpec(cores_per_node=2)),
        image=ImageSpec(modules=1, module_size_bytes=2048),
        vms=tuple(
            VmEntry(name=name, vcpus=2, cpu=CpuAllocation(shares=amount)) for name, amount in shares.items()
        ),
    )
    return {vm.name: 100 * vm.run_ns / vm.alive_ns for vm in simulate(scenario).vms}


print("shares of c       a        b        c     (percent of one CPU)")
for amount in (250, 500, 1000, 2000, 4000, 8000):
    used = usage({"a": 1000, "b": 1000, "c": amount})
    print(f"{amount:>11}" + "".join(f"{used[name]:>9.0f}" for name in "abc"))
