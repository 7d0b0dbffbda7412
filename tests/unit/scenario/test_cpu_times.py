"""CPU times in a run's result: USED as esxtop defines it, resource pools, home nodes."""

import csv
import io
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from sim.core.tracefile import write_trace
from sim.core.units import GIB, PAGE_BYTES
from sim.report.esxtop import write_esxtop
from sim.report.run_report import cpu_section, pool_section
from sim.scenario.load import parse_scenario
from sim.scenario.run import Simulation

HEAD = """
duration = "4s"
[trace]
categories = ["sample"]
sample_every = "1s"
[image]
modules = 2
"""
THREADS = (
    HEAD
    + """
[host.cpu]
cores_per_node = 1
threads_per_core = 2
[[vms]]
name = "a"
[[vms]]
name = "b"
[vms.workload]
kind = "trace"
demand = [100, 0]
period = "2s"
repeat = false
"""
)
FLUID = (
    HEAD
    + """
[sched]
engine = "fluid"
[host.cpu]
cores_per_node = 2
threads_per_core = 2
[[pools]]
name = "top"
limit = "1GHz"
[[pools]]
name = "below"
parent = "top"
[[vms]]
name = "a"
vcpus = 2
[[vms]]
name = "b"
vcpus = 2
pool = "below"
[[vms]]
name = "io"
pool = "top"
[vms.workload]
kind = "io"
run = "100us"
wait = "100us"
interrupt = "50us"
"""
)


def ran(text):
    simulation = Simulation(parse_scenario(text))
    return simulation, simulation.finish()


def used_by_esxtop(simulation, group, folder):
    """Return the USED of a group in esxtop's CSV, in ns, over the whole run."""
    write_trace(simulation.sim.trace, folder / "trace.npz")
    out = io.StringIO()
    write_esxtop(folder / "trace.npz", "h", datetime(2026, 1, 1, tzinfo=UTC), out)
    heads, *lines = csv.reader(io.StringIO(out.getvalue()))
    (column,) = [at for at, head in enumerate(heads) if "Group Cpu(" in head and f":{group})\\% Used" in head]
    return sum(Fraction(line[column]) for line in lines) * 10**9 / 100, len(lines)


@pytest.mark.parametrize(("text", "groups"), [(THREADS, "ab"), (FLUID, ("a", "b", "io", "top", "below"))])
def test_used_is_the_same_in_the_result_as_in_esxtops_samples(text, groups, tmp_path):
    simulation, result = ran(text)
    rows = {row.name: row for row in (*result.vms, *result.pools)}
    assert set(rows) == set(groups)
    for group in groups:
        of_esxtop, samples = used_by_esxtop(simulation, group, tmp_path)
        assert samples == 4
        assert abs(of_esxtop - rows[group].used_ns) < 1_000_000, (
            group
        )  # two decimals of a percent, four times


def test_used_counts_a_busy_sibling_thread_and_system_time_and_run_does_not():
    _, result = ran(THREADS)
    a = result.vms[0]
    assert 1.9 * 10**9 < a.shared_ns < 2.1 * 10**9
    assert abs(a.used_ns - (a.run_ns - 375 * a.shared_ns // 1000)) <= 1
    section = cpu_section(result)
    row = dict(zip([column.name for column in section.table.columns], section.table.rows[0], strict=True))
    assert (row["%RUN"], row["%USED"][:3]) == ("100.00", "81.")
    _, result = ran(FLUID)
    service = result.vms[2]
    assert service.used_ns == service.run_ns + service.system_ns - service.overlap_ns > service.run_ns


def test_a_pool_has_the_sum_of_the_vms_in_and_below_it():
    simulation, result = ran(FLUID)
    top, below = result.pools
    _, b, service = result.vms
    assert (top.vms, below.vms) == (("b", "io"), ("b",))
    assert top.run_ns == b.run_ns + service.run_ns > 0
    assert abs(top.used_ns - b.used_ns - service.used_ns) <= 1
    assert (below.run_ns, below.wait_ns, below.worlds) == (b.run_ns, b.wait_ns, b.worlds)
    assert pool_section(result).table.rows[1][:2] == ("below", "top")
    pools = simulation.host.call("host.counters")["pools"]
    assert pools["top"]["run_ns"] == top.run_ns
    assert (pools["below"]["parent"], pools["top"]["vms"]) == ("top", ["b", "io"])


def test_home_nodes_and_local_memory_are_counted_and_asking_changes_nothing():
    text = (
        HEAD
        + """
[host.cpu]
packages = 2
cores_per_node = 2
[[vms]]
name = "a"
vcpus = 3
[[vms]]
name = "pinned"
[vms.cpu]
affinity = [0]
"""
    )
    simulation, result = ran(text)
    a, pinned = result.vms
    assert a.home_nodes == (0, 1)
    assert a.local_bytes == a.numa_bytes
    assert GIB - 3 * PAGE_BYTES < a.numa_bytes <= GIB
    assert (pinned.home_nodes, pinned.numa_bytes) == ((), 0)
    asked = Simulation(parse_scenario(text))
    while not asked.finished:
        asked.advance(300)
        if asked.first_ready_ns is not None:
            asked.host.call("host.counters")
    quiet = asked.finish()
    assert quiet.vms == result.vms
    numa = simulation.host.call("host.counters")["numa"]
    assert numa["a"] == {
        "home_nodes": [0, 1],
        "migrations": 0,
        "local_bytes": a.local_bytes,
        "bytes": a.numa_bytes,
    }
