"""Hypothesis strategies, invariants and state machines for the users' own property tests.

One module for each part of the machine; this page names what is public.  The only package of the project that imports
hypothesis.
"""

from sim.testing.plain_stride import PlainStride
from sim.testing.scenarios import (
    allocations,
    cpu_specs,
    file_faults,
    host_specs,
    scenarios,
    vm_entries,
    workloads,
)
from sim.testing.scheduling import (
    sched_hosts,
    sched_loads,
    sched_plans,
    sched_pools,
    sched_vms,
    seeded_plan,
)
from sim.testing.scheduling_checks import CHECKS, SchedulingFinding, find_scheduling_violation, judge
from sim.testing.scheduling_host import TestHost, play
from sim.testing.scheduling_machine import scheduler_machine
from sim.testing.scheduling_plan import SchedPlan
from sim.testing.scheduling_violation import SchedulingViolation

__all__ = [
    "CHECKS",
    "PlainStride",
    "SchedPlan",
    "SchedulingFinding",
    "SchedulingViolation",
    "TestHost",
    "allocations",
    "cpu_specs",
    "file_faults",
    "find_scheduling_violation",
    "host_specs",
    "judge",
    "play",
    "scenarios",
    "sched_hosts",
    "sched_loads",
    "sched_plans",
    "sched_pools",
    "sched_vms",
    "scheduler_machine",
    "seeded_plan",
    "vm_entries",
    "workloads",
]
