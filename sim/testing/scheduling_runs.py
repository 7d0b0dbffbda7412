"""Invariants that compare runs: more shares, pools, determinism, scaling, idle VMs, split VMs (P7 8 11 12 13 16).

Each function takes a plan of the family that `sim.testing.scheduling_checks` names for it, and a function that makes
the policy, and plays the plan and a changed one.

Leaves out: PYTHONHASHSEED and other processes (a test of the project runs those); the order in which VMs begin, which
breaks ties on purpose; scaling of co-stop thresholds.

Sources: the numbers and tolerances are those of the scheduler's fact sheet; docs/testing-schedulers.md tells them.
"""

from __future__ import annotations

import pickle

from attrs import evolve

from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.testing.scheduling_audit import RUN, Audit
from sim.testing.scheduling_host import MakePolicy, TestHost, play
from sim.testing.scheduling_plan import Load, SchedPlan, VmPlan
from sim.testing.scheduling_shares import fluid_ideal
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = [
    "check_idle_irrelevance",
    "check_monotone",
    "check_pool_isolation",
    "check_scaling",
    "check_schedule_determinism",
    "check_split_and_growth",
]


def _ran(host: TestHost, name: str, found: Audit | None = None) -> int:
    """Return for how long the worlds of a VM have run."""
    found = found if found is not None else host.audit()
    ids = {number for machine in host.machines if machine.plan.name == name for number in machine.ids}
    return sum(found.worlds[number].time_ns(RUN) for number in ids if number in found.worlds)


def check_monotone(plan: SchedPlan, make: MakePolicy = EsxiPolicy) -> None:
    """P7: more shares never mean less: exact for the fluid share, less 2 quanta in the schedule."""
    before = play(plan, make)
    first = plan.vms[0]
    more = evolve(plan, vms=(evolve(first, shares=first.shares * 2 + 1), *plan.vms[1:]))
    if fluid_ideal(more)[0] < fluid_ideal(plan)[0]:
        text = f"{first.name}: the fluid share falls from {fluid_ideal(plan)[0]} to {fluid_ideal(more)[0]}"
        raise SchedulingViolation(7, text)
    old_ns, new_ns = _ran(before, first.name), _ran(play(more, make), first.name)
    if new_ns < old_ns - 2 * plan.quantum_ns:
        text = (
            f"VM {first.name} runs {new_ns} ns in {plan.span_ns} with {2 * first.shares + 1} shares, and {old_ns}"
            f" with {first.shares}; the tolerance is 2 quanta"
        )
        raise SchedulingViolation(7, text)


def check_pool_isolation(plan: SchedPlan, make: MakePolicy = EsxiPolicy, quanta: int = 3) -> None:
    """P8: a change inside one pool leaves the total of another as it was, however long it lasts.

    Tolerance: so many quanta for each vCPU of the other pool, P17's bound.  A quantum for each level of the tree, as
    theory has it, needs a queue for each pool.
    """
    totals = []
    for one in (evolve(plan, actions=()), plan):
        host = play(one, make)
        found = host.audit()
        totals.append(sum(_ran(host, vm.name, found) for vm in one.vms if vm.pool == 1))
    bound_ns = quanta * plan.quantum_ns * sum(vm.pool == 1 for vm in plan.vms)
    if abs(totals[1] - totals[0]) > bound_ns:
        text = (
            f"pool p1 runs {totals[0]} ns in {plan.span_ns}, and {totals[1]} ns with"
            f" '{plan.actions[0]}' inside p0; the tolerance is {bound_ns} ns"
        )
        raise SchedulingViolation(8, text)


def check_schedule_determinism(plan: SchedPlan, make: MakePolicy = EsxiPolicy) -> None:
    """P11: the same plan gives the same trace, whole, in two pieces, and through a checkpoint in the middle; exact.

    And the same schedule when the VMs are made in another order, before they begin in theirs.
    """
    whole = play(plan, make)
    expected = whole.sched.sim.trace.digest()
    if play(plan, make).sched.sim.trace.digest() != expected:
        raise SchedulingViolation(11, "two runs of the same plan differ")
    if play(plan, make, parts=3).sched.sim.trace.digest() != expected:
        raise SchedulingViolation(
            11, f"a run in three pieces of {plan.span_ns // 3} ns differs from one in one"
        )
    host = TestHost(plan, make)
    cut_ns = plan.span_ns * 2 // 5
    host.run(cut_ns)
    host = pickle.loads(pickle.dumps(host))  # noqa: S301 - our own bytes
    host.run(plan.span_ns)
    if host.sched.sim.trace.digest() != expected:
        raise SchedulingViolation(11, f"a run that was saved and restored at {cut_ns} ns goes on differently")
    backwards = TestHost(plan, make, backwards=True)
    backwards.run(plan.span_ns)
    before, after = _pieces_of_vms(whole), _pieces_of_vms(backwards)
    for who, pieces in before.items():
        if after[who] != pieces:
            text = f"vCPU {who[1]} of {who[0]} runs differently when the VMs are made in the opposite order"
            raise SchedulingViolation(11, text)


def check_scaling(plan: SchedPlan, make: MakePolicy = EsxiPolicy, factor: int = 3) -> None:
    """P12: all shares x k, all times x k, or other names for the VMs give the same schedule; exact."""
    normal = play(plan, make)
    expected = normal.sched.sim.trace.digest()
    heavier = evolve(plan, vms=tuple(evolve(vm, shares=vm.shares * factor) for vm in plan.vms))
    if play(heavier, make).sched.sim.trace.digest() != expected:
        raise SchedulingViolation(12, f"with all shares times {factor} the schedule differs")
    count = len(plan.vms)
    renamed = evolve(
        plan, vms=tuple(evolve(vm, name=f"z{count - number}") for number, vm in enumerate(plan.vms))
    )
    if play(renamed, make).sched.sim.trace.digest() != expected:
        raise SchedulingViolation(12, "with other names of the VMs the schedule differs")
    slow, fast = _pieces(play(evolve(plan, scale=factor), make)), _pieces(normal)
    for number, pieces in fast.items():
        scaled = [(pcpu, begin * factor, end * factor) for pcpu, begin, end in pieces]
        if slow.get(number, []) != scaled:
            where = next(
                (old for old, new in zip(scaled, slow.get(number, []), strict=False) if old != new), None
            )
            text = f"with all times times {factor}, {normal.describe(number)} does not run as before; first at {where}"
            raise SchedulingViolation(12, text)


def _pieces(host: TestHost) -> dict[int, list[tuple[int, int, int]]]:
    """Return the pieces of run time of every world: pCPU, begin, end."""
    return {
        number: [(piece.pcpu, piece.begin_ns, piece.end_ns) for piece in world.pieces]
        for number, world in host.audit().worlds.items()
    }


def _pieces_of_vms(host: TestHost) -> dict[tuple[str, int], list[tuple[int, int, int]]]:
    """Return the pieces of run time of every vCPU, by VM and number, in all its lives."""
    pieces = _pieces(host)
    found: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for machine in host.machines:
        lives = list(dict.fromkeys(ids for _, _, ids in machine.history if ids))
        for ids in lives:
            for index, number in enumerate(ids):
                found.setdefault((machine.plan.name, index), []).extend(pieces.get(number, []))
    return found


def check_idle_irrelevance(plan: SchedPlan, make: MakePolicy = EsxiPolicy) -> None:
    """P13: a VM without demand, of whatever shares, changes nobody's schedule; exact."""
    actions = tuple(evolve(action, who=action.who % len(plan.vms)) for action in plan.actions)
    alone = play(evolve(plan, actions=actions), make)
    idle = VmPlan(name="idle", loads=(Load(kind="idle"),), shares=4999)
    crowd = play(evolve(plan, actions=actions, vms=(*plan.vms, idle)), make)
    before, after = _pieces(alone), _pieces(crowd)
    for number, pieces in before.items():
        if after.get(number) != pieces:
            text = f"{alone.describe(number)} runs differently beside an idle VM of 4999 shares"
            raise SchedulingViolation(13, text)


def check_split_and_growth(plan: SchedPlan, make: MakePolicy = EsxiPolicy) -> None:
    """P16: a VM of two vCPUs gets what two VMs of one get, with half of its shares and demand each; tolerance 2 quanta.

    And a pCPU more never gives less in all.
    """
    first, rest = plan.vms[0], plan.vms[1:]
    one = evolve(plan, vms=(evolve(first, loads=(Load(), Load())), *rest))
    two = evolve(plan, vms=(evolve(first, name="half0"), evolve(first, name="half1"), *rest))
    whole_ns = _ran(play(one, make), first.name)
    split_host = play(two, make)
    split_ns = _ran(split_host, "half0") + _ran(split_host, "half1")
    if abs(whole_ns - split_ns) > 2 * plan.quantum_ns:
        text = (
            f"VM {first.name} with two vCPUs of {first.shares} shares runs {whole_ns} ns in {plan.span_ns}; split"
            f" into two VMs it runs {split_ns}; the tolerance is 2 quanta"
        )
        raise SchedulingViolation(16, text)
    small, large = play(plan, make), play(evolve(plan, cores=plan.cores + 1), make)
    totals = [sum(_ran(host, vm.name) for vm in plan.vms) for host in (small, large)]
    if totals[1] < totals[0] - 2 * plan.quantum_ns:
        text = f"{plan.cpus} pCPUs run {totals[0]} ns in {plan.span_ns}, {plan.cpus + 1} run {totals[1]}"
        raise SchedulingViolation(16, text)
