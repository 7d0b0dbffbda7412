"""The state machine of the kit for scheduler testers, on the ESXi model and on round robin."""

from hypothesis import settings

from sim.kernel.sched.policies.esxi import EsxiPolicy
from sim.kernel.sched.policies.round_robin import RoundRobin
from sim.testing.scheduling_machine import scheduler_machine

TestEsxi = scheduler_machine(EsxiPolicy).TestCase
TestEsxi.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)

TestRoundRobin = scheduler_machine(RoundRobin, promises=frozenset((1, 2, 5, 11, 15, 18))).TestCase
TestRoundRobin.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
