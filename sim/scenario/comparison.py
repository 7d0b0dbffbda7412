"""One scenario under several scheduling policies: the same machine, workloads and seed, another policy each time.

Models nothing: it runs each simulation to its end and reads counters and trace.  Boot, attestation and faults happen in
every run alike.

Leaves out: repetition over seeds, and judgement: which policy is better depends on what one wants.  Sources: counters as
in `sim.kernel.counters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

from attrs import evolve, frozen

from sim.errors import ScenarioError
from sim.kernel.counters import CpuRow
from sim.kernel.host import HostState
from sim.kernel.sched.policy import POLICIES
from sim.kernel.world import WorldTimes
from sim.scenario.ideal import Ideal
from sim.scenario.inputs import InputFile
from sim.scenario.run import Simulation
from sim.scenario.schedule import Schedule, VmSchedule, read_schedule
from sim.scenario.spec import Scenario, TraceSpec

__all__ = ["Candidate", "PolicyRun", "VmRun", "candidates", "compare_policies", "run_policy"]

POLICIES_MAX = 32
"""The most policies in one comparison."""


@frozen(kw_only=True)
class Candidate:
    """A policy to try: what it is called in the table, what `sched.policy` is to be, and its source if it is one's own."""

    label: str
    policy: str
    source: InputFile | None = None


@frozen(kw_only=True)
class VmRun:
    """One virtual machine under one policy.  Times in ns, summed over its vCPUs; `alive_ns` is the time it was on.

    `ready_ns` includes max-limited time, as %RDY does; `used_ns` is what run time was worth, with system time.
    `ideal_ns` is its capped fluid share by the demand it declares, so that `run_ns - ideal_ns` is the error of fairness;
    `gps_ns` is that from moment to moment (`ideal`), None if that was not to be solved.
    """

    name: str
    alive_ns: int
    used_ns: int
    run_ns: int
    ready_ns: int
    costop_ns: int
    ideal_ns: int
    gps_ns: int | None
    worst_wait_ns: int
    dispatches: int
    migrations: int


@frozen(kw_only=True)
class PolicyRun:
    """One policy: its machines, and the host: pCPU time since its scheduler began, by use.

    `stranded_ns` is the part of `idle_ns` in which as many vCPUs were ready.  `digest` is the trace's.
    """

    policy: str
    vms: tuple[VmRun, ...]
    busy_ns: int
    switch_ns: int
    idle_ns: int
    stranded_ns: int
    digest: str


def candidates(names: Sequence[str]) -> list[Candidate]:
    """Return the policies of these names, which ship or are importable as "module:Class".

    Errors: `ScenarioError` at `--policies` for none, too many, one named twice, or one that there is not.
    """
    for name in names:
        if name not in POLICIES and ":" not in name:
            raise ScenarioError("--policies", "unknown policy", got=name, wanted=", ".join(sorted(POLICIES)))
    if not 1 <= len(names) <= POLICIES_MAX or len(dict.fromkeys(names)) < len(names):
        wanted = f"1 to {POLICIES_MAX} policies, each once"
        raise ScenarioError("--policies", "wrong value", got=",".join(names), wanted=wanted)
    return [Candidate(label=name, policy=name) for name in names]


def compare_policies(
    scenario: Scenario, policies: Sequence[Candidate], seed: int | None = None
) -> Iterator[PolicyRun]:
    """Run the scenario under each policy in turn, and yield what came of it.

    Errors: `ScenarioError` when the host does not come up, or has no virtual machines.
    """
    if not scenario.vms:
        raise ScenarioError("vms", "there is nothing to schedule")
    for candidate in policies:
        yield run_policy(scenario, candidate, seed)


def run_policy(scenario: Scenario, candidate: Candidate, seed: int | None = None) -> PolicyRun:
    """Run the scenario under one policy."""
    if scenario.sched.engine != "quantum":
        raise ScenarioError("sched.engine", "knows no policies", got=scenario.sched.engine, wanted="quantum")
    own = candidate.source if candidate.source is not None else scenario.policy_file
    scenario = evolve(
        scenario,
        sched=evolve(scenario.sched, policy=candidate.policy),
        policy_file=own,
        trace=TraceSpec(categories=("sched", "vm")),
    )
    simulation = Simulation(scenario, seed=seed)
    simulation.run()
    return _outcome(simulation, candidate.label)


def _outcome(simulation: Simulation, label: str) -> PolicyRun:
    kernel = simulation.host.kernel
    if kernel is None or simulation.host.state is not HostState.RUNNING:
        raise ScenarioError(
            "", f"the host is {simulation.host.state} at the end: there is nothing to compare"
        )
    now_ns, scheduler = simulation.sim.now, kernel.scheduler
    schedule = read_schedule(simulation.sim.trace.sink(), now_ns, len(scheduler.pcpus))
    times = [pcpu.times(now_ns) for pcpu in scheduler.pcpus]
    return PolicyRun(
        policy=label,
        vms=tuple(_vm_runs(simulation, schedule)),
        busy_ns=sum(each.busy_ns for each in times),
        switch_ns=sum(each.switch_ns for each in times),
        idle_ns=sum(each.idle_ns for each in times),
        stranded_ns=schedule.stranded_ns,
        digest=simulation.sim.trace.digest(),
    )


def _vm_runs(simulation: Simulation, schedule: Schedule) -> Iterator[VmRun]:
    kernel = simulation.host.kernel
    assert kernel is not None
    now_ns, topology = simulation.sim.now, kernel.scheduler.topology
    vms = kernel.vms.vms
    specs = [vm.spec for vm in vms.values()]
    ideal = Ideal(specs, simulation.scenario.pools, len(topology.pcpus), topology.core_hz)
    span_ns = max((now_ns - vm.powered_on_ns for vm in vms.values()), default=0)
    declared, momentary = ideal.declared(span_ns), ideal.momentary(schedule.demand_ns)
    for vm in vms.values():
        each = [world.times(now_ns) for world in vm.vcpus]
        times = reduce(add, each, WorldTimes())
        alive_ns = max((one.total_ns for one in each), default=0)
        row = CpuRow(
            name=vm.name, nworld=len(each), span_ns=100 * alive_ns, times=times, core_hz=topology.core_hz
        )
        seen = schedule.vms.get(vm.name, VmSchedule())
        yield VmRun(
            name=vm.name,
            alive_ns=alive_ns,
            used_ns=int(row.percent("%USED") * alive_ns),
            run_ns=times.run_ns,
            ready_ns=times.ready_ns + times.max_limited_ns,
            costop_ns=times.costop_ns,
            ideal_ns=int(declared.get(vm.name, 0)),
            gps_ns=None if momentary is None else int(momentary.get(vm.name, 0)),
            worst_wait_ns=seen.worst_wait_ns,
            dispatches=seen.dispatches,
            migrations=seen.migrations,
        )
