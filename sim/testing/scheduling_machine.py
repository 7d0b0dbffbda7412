"""A state machine that finds sequences of operations under which a CPU scheduling policy breaks an invariant.

Models an administrator who does anything: adds, removes and resizes VMs, on or off, changes demand, shares, reservation,
limit and pool, suspends and resumes, takes pCPUs offline and adds them, changes frequencies and the quantum, lets time pass, and goes on
from a checkpoint instead of the host itself.  After every step the invariants that hold at any moment are checked.

Leaves out the invariants that need a plan of their own (`sim.testing.scheduling_checks` has all eighteen).
Sources: Hypothesis, "Stateful tests"; the choice of invariants is the fact sheet's, and the audit.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sim.core.units import MS, US
from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.testing.scheduling import sched_hosts, sched_pools, sched_vms
from sim.testing.scheduling_books import (
    check_audit,
    check_limit,
    check_skew,
    check_time_conservation,
    check_transitions,
)
from sim.testing.scheduling_host import MakePolicy, TestHost
from sim.testing.scheduling_plan import Action, PoolPlan, SchedPlan, VmPlan
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = ["MOMENTARY", "SchedulerMachine", "scheduler_machine"]

MOMENTARY: dict[int, Callable[[TestHost], None]] = {
    1: check_time_conservation,
    5: check_limit,
    9: check_skew,
    15: check_transitions,
    18: check_audit,
}
"""The invariants that are looked at after every step, beside P2 and P11."""

_numbers = st.integers(0, 9)
_values = st.integers(0, 1000)


class SchedulerMachine(RuleBasedStateMachine):
    """The rules; `scheduler_machine` makes a subclass for one policy."""

    make: ClassVar[MakePolicy] = EsxiPolicy
    promises: ClassVar[frozenset[int]] = frozenset((*MOMENTARY, 2, 11))

    def __init__(self) -> None:
        super().__init__()
        self.host: TestHost | None = None
        self.branched = 0

    @initialize(host=sched_hosts(), pools=sched_pools(2), vms=sched_vms(3, vcpus_max=3))
    def begin(self, host: SchedPlan, pools: tuple[PoolPlan, ...], vms: tuple[VmPlan, ...]) -> None:
        """Make a host with some VMs."""
        plan = SchedPlan(
            cores=host.cores,
            nodes=host.nodes,
            threads=host.threads,
            quantum_ms=host.quantum_ms,
            switch_ns=host.switch_ns,
            queues=host.queues,
            polling=host.polling,
            pools=pools,
            vms=vms,
        )
        self.host = TestHost(plan, type(self).make)

    @rule(who=_numbers, value=_values)
    def add_vm(self, who: int, value: int) -> None:
        """Let a VM come, into a pool if there are any."""
        self._act("add", who, value)

    @rule(who=_numbers)
    def remove_vm(self, who: int) -> None:
        """Let a VM go for good."""
        self._act("remove", who, 0)

    @rule(what=st.sampled_from(("plug", "resize")), who=_numbers, value=_values)
    def resize_vm(self, what: str, who: int, value: int) -> None:
        """Give a VM another number of vCPUs: while it is on, or by powering it off and on."""
        self._act(what, who, value)

    @rule(who=_numbers, value=_values)
    def change_demand(self, who: int, value: int) -> None:
        """Let a VM want something else: to compute, to sleep, to do I/O, to work in step."""
        self._act("demand", who, value)

    @rule(who=_numbers, value=_values)
    def change_shares(self, who: int, value: int) -> None:
        """Give a VM other shares."""
        self._act("shares", who, value)

    @rule(who=_numbers, value=_values)
    def change_reservation(self, who: int, value: int) -> None:
        """Give a VM another reservation, of what is left."""
        self._act("reservation", who, value)

    @rule(who=_numbers, value=_values)
    def change_limit(self, who: int, value: int) -> None:
        """Give a VM another limit, or none."""
        self._act("limit", who, value)

    @rule(who=_numbers, value=_values)
    def move_between_pools(self, who: int, value: int) -> None:
        """Put a VM into another pool, or none."""
        self._act("move", who, value)

    @rule(who=_numbers)
    def suspend_vm(self, who: int) -> None:
        """Let a VM stand still."""
        self._act("suspend", who, 0)

    @rule(who=_numbers)
    def resume_vm(self, who: int) -> None:
        """Let a suspended VM go on."""
        self._act("resume", who, 0)

    @rule(who=_numbers)
    def take_pcpu_offline(self, who: int) -> None:
        """Take a pCPU out of use."""
        self._act("offline", who, 0)

    @rule(who=_numbers)
    def hot_add_pcpu(self, who: int) -> None:
        """Put a pCPU into use."""
        self._act("online", who, 0)

    @rule(what=st.sampled_from(("frequency", "quantum")), who=_numbers, value=_values)
    def change_machine(self, what: str, who: int, value: int) -> None:
        """Change the frequency of a core, or the quantum."""
        self._act(what, who, value)

    @rule(length_us=st.integers(1, 40_000))
    def advance(self, length_us: int) -> None:
        """Let time pass."""
        host = self._the_host()
        host.run(host.now_ns + length_us * US)

    @rule(length_us=st.integers(1, 20_000))
    def go_on_from_checkpoint(self, length_us: int) -> None:
        """Save the host, restore it, let both go on, compare them (P11), and go on with the copy."""
        host = self._the_host()
        copy: TestHost = pickle.loads(pickle.dumps(host))  # noqa: S301 - our own bytes
        until_ns = host.now_ns + length_us * US
        for each in (host, copy):
            each.run(until_ns)
        if 11 in type(self).promises and host.sched.sim.trace.digest() != copy.sched.sim.trace.digest():
            text = f"saved at {until_ns - length_us * US} ns, a host and its copy differ at {until_ns} ns"
            raise SchedulingViolation(11, text)
        self.host = copy
        self.branched += 1

    @invariant()
    def invariants_hold(self) -> None:
        """Check what holds at any moment."""
        if self.host is None:
            return
        if 2 in type(self).promises:
            self.host.check_invariants()
        for number, check in MOMENTARY.items():
            if number in type(self).promises:
                check(self.host)

    def _act(self, what: str, who: int, value: int) -> None:
        self._the_host().act(Action(time_us=self._the_host().now_ns // US, what=what, who=who, value=value))

    def _the_host(self) -> TestHost:
        assert self.host is not None
        return self.host

    def teardown(self) -> None:
        """Let a tenth of a second pass, and look once more."""
        if self.host is not None:
            self.host.run(self.host.now_ns + 100 * MS)
            self.invariants_hold()


def scheduler_machine(
    make: MakePolicy, *, promises: frozenset[int] = SchedulerMachine.promises
) -> type[SchedulerMachine]:
    """Return the state machine for a policy that promises some of P1, P2, P5, P9, P11, P15 and P18.

    Its attribute `TestCase` is a test case for pytest and unittest.
    """
    return type("SchedulerMachine", (SchedulerMachine,), {"make": staticmethod(make), "promises": promises})
