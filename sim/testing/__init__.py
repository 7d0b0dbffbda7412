"""Hypothesis strategies, invariants and state machines for the users' own property tests.

One module for each part of the machine; this page names what is public.  The only package of the project that imports
hypothesis.  Models nothing.  Leaves out strategies for TPM commands and images.
"""

from sim.testing.invariants import InvariantViolation
from sim.testing.memory import (
    access_patterns,
    claims,
    layout_requests,
    mappings,
    mem_options,
    memory_specs,
    page_tables,
    placed_regions,
    rights,
    table_entries,
)
from sim.testing.memory_driver import Finding, Step, replay
from sim.testing.memory_machine import find_violation, memory_machine
from sim.testing.plain_manager import PlainManager
from sim.testing.plain_stride import PlainStride
from sim.testing.scenarios import (
    allocations,
    cpu_specs,
    file_faults,
    host_specs,
    launch_specs,
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
    "Finding",
    "InvariantViolation",
    "PlainManager",
    "PlainStride",
    "SchedPlan",
    "SchedulingFinding",
    "SchedulingViolation",
    "Step",
    "TestHost",
    "access_patterns",
    "allocations",
    "claims",
    "cpu_specs",
    "file_faults",
    "find_scheduling_violation",
    "find_violation",
    "host_specs",
    "judge",
    "launch_specs",
    "layout_requests",
    "mappings",
    "mem_options",
    "memory_machine",
    "memory_specs",
    "page_tables",
    "placed_regions",
    "play",
    "replay",
    "rights",
    "scenarios",
    "sched_hosts",
    "sched_loads",
    "sched_plans",
    "sched_pools",
    "sched_vms",
    "scheduler_machine",
    "seeded_plan",
    "table_entries",
    "vm_entries",
    "workloads",
]
