"""The capped fluid share of each virtual machine: what a perfect scheduler would have given it.

Models: the pCPUs divided by shares, reservations, limits, pools and demand, with at most one CPU for each vCPU, in two
ways.  By declared demand: what the workload would use on a host of its own, on average, gives one division for the whole
run.  From moment to moment (generalized processor sharing): those who want CPU divide it, as the trace shows them, and
the ideal is the sum over time; it gives no credit for sleep, and depends on the schedule, which decides who still wants.

Leaves out: threads and frequency (a pCPU is one CPU); affinity; that machines may be on at different times.  The declared
demand of coupled vCPUs and of generators is taken as all they could use.

Sources: `fluid` and `entitlement`; Parekh and Gallager, "A generalized processor sharing approach to flow control",
IEEE/ACM Transactions on Networking, 1993.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from sim.kernel.sched.entitlement import Party, divide
from sim.kernel.sched.pools import PoolSpec
from sim.kernel.vmspec import VmSpec
from sim.kernel.workload import FULL_DEMAND, WorkloadSpec
from sim.scenario.schedule import Demand

__all__ = ["Ideal", "declared_demand"]

DEMANDS_MAX = 20_000
"""The most different combinations of demand that are solved for the share from moment to moment."""


class Ideal:
    """Divides `pcpus` CPUs of `core_hz` over the machines `vms` in `pools`."""

    def __init__(self, vms: Sequence[VmSpec], pools: Sequence[PoolSpec], pcpus: int, core_hz: int) -> None:
        self._vms = {spec.name: spec for spec in vms}
        self._pools = pools
        self._pcpus = pcpus
        self._core_hz = core_hz

    def declared(self, span_ns: int) -> dict[str, Fraction]:
        """Return each machine's CPU time in a run of `span_ns`, by declared demand."""
        demand = {name: (spec.vcpus, declared_demand(spec, span_ns)) for name, spec in self._vms.items()}
        return {name: share * span_ns for name, share in self.shares(demand).items()}

    def momentary(self, demand_ns: Mapping[Demand, int]) -> dict[str, Fraction] | None:
        """Return each machine's CPU time from moment to moment; None if demand took too many shapes to solve each."""
        if len(demand_ns) > DEMANDS_MAX:
            return None
        total: dict[str, Fraction] = {}
        for demand, span_ns in demand_ns.items():
            wants = {name: (count, Fraction(count)) for name, count in demand}
            for name, share in self.shares(wants).items():
                total[name] = total.get(name, Fraction(0)) + share * span_ns
        return total

    def shares(self, demand: Mapping[str, tuple[int, Fraction]]) -> dict[str, Fraction]:
        """Return the CPUs for each machine, of which so many vCPUs want so many CPUs together."""
        below: dict[str, list[Party]] = {}
        weights: dict[str, int | Fraction] = {}
        for name, (count, wanted) in demand.items():
            spec = self._vms.get(name)
            if spec is not None and wanted:
                party = self._claimant(spec, count, wanted)
                weights[spec.pool] = weights.get(spec.pool, 0) + party.weight
                below.setdefault(spec.pool, []).append(party)
        for pool in reversed(self._pools):  # each stands below one that is declared before it
            if pool.name not in below:
                continue
            weight = pool.shares_with(int(weights[pool.name]))
            weights[pool.parent] = weights.get(pool.parent, 0) + weight
            party = Party(
                name=f"pool {pool.name}",
                weight=weight,
                floor=Fraction(pool.reservation_hz, self._core_hz),
                ceiling=None if pool.limit_hz is None else Fraction(pool.limit_hz, self._core_hz),
                children=tuple(below.pop(pool.name)),
            )
            below.setdefault(pool.parent, []).append(party)
        if not below:
            return {}
        found = divide(Party(name="", weight=1, children=tuple(below[""])), self._pcpus)
        return {name[3:]: share for name, (share, _) in found.items() if name.startswith("vm ")}

    def _claimant(self, spec: VmSpec, count: int, wanted: Fraction) -> Party:
        ceiling = wanted
        if spec.cpu.limit_hz is not None:
            ceiling = min(ceiling, Fraction(spec.cpu.limit_hz, self._core_hz))
        floor = min(ceiling, Fraction(spec.cpu.reservation_hz, self._core_hz))
        weight = spec.cpu.shares_per_vcpu * count
        return Party(name=f"vm {spec.name}", weight=weight, floor=floor, ceiling=ceiling)


def declared_demand(spec: VmSpec, span_ns: int) -> Fraction:
    """Return the CPUs that a machine would use on average over `span_ns` on a host of its own."""
    return sum((_wanted(spec.workload_of(index), span_ns) for index in range(spec.vcpus)), Fraction(0))


def _wanted(workload: WorkloadSpec, span_ns: int) -> Fraction:
    """Return what one vCPU wants on average."""
    each = Fraction(1)
    if workload.kind == "idle":
        each = Fraction(0)
    elif workload.kind in ("onoff", "io"):
        each = Fraction(workload.run_ns, workload.run_ns + workload.wait_ns)
    elif workload.kind == "periodic":
        each = min(each, Fraction(workload.run_ns, workload.period_ns))
    elif workload.kind == "trace":
        hundredths = workload.demand_hundredths or tuple(100 * percent for percent in workload.demand)
        each = Fraction(sum(hundredths), FULL_DEMAND * len(hundredths))
        if not workload.repeat:
            each = min(Fraction(1), each * len(hundredths) * workload.period_ns / max(1, span_ns))
    return each
