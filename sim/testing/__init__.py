"""Hypothesis strategies, invariants and state machines for the users' own property tests.

One module for each part of the machine; this page names what is public.  The only package of the project that imports
hypothesis.
"""

from sim.testing.invariants import InvariantViolation
from sim.testing.memory import (
    access_patterns,
    claims,
    layout_requests,
    mappings,
    mem_options,
    page_tables,
    placed_regions,
    rights,
    table_entries,
)
from sim.testing.memory_driver import Finding, Step, replay
from sim.testing.memory_machine import find_violation, memory_machine
from sim.testing.scenarios import (
    allocations,
    cpu_specs,
    file_faults,
    host_specs,
    scenarios,
    vm_entries,
    workloads,
)

__all__ = [
    "Finding",
    "InvariantViolation",
    "Step",
    "access_patterns",
    "allocations",
    "claims",
    "cpu_specs",
    "file_faults",
    "find_violation",
    "host_specs",
    "layout_requests",
    "mappings",
    "mem_options",
    "memory_machine",
    "page_tables",
    "placed_regions",
    "replay",
    "rights",
    "scenarios",
    "table_entries",
    "vm_entries",
    "workloads",
]
