"""Hypothesis strategies, invariants and state machines for the users' own property tests.

One module for each part of the machine; this page names what is public.  The only package of the project that imports
hypothesis.
"""

from sim.testing.scenarios import (
    allocations,
    cpu_specs,
    file_faults,
    host_specs,
    scenarios,
    vm_entries,
    workloads,
)

__all__ = ["allocations", "cpu_specs", "file_faults", "host_specs", "scenarios", "vm_entries", "workloads"]
