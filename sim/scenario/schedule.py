"""What a trace says about a schedule: waits, demand, and idle pCPUs beside ready worlds, from records alone.

Models: a vCPU's wait lasts from when it wants a pCPU and has none until it runs; time spent max-limited is no part of it.
Stranded time is that of idle pCPUs while as many vCPUs are ready.  Demand is for how long which machines wanted how many
CPUs (vCPUs that run, are ready, limited or co-stopped).

Leaves out: pCPUs that go offline.  Sources: definitions are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Any

import attrs

from sim.core.trace import ColumnarSink
from sim.errors import ScenarioError
from sim.kernel.world import WorldState

__all__ = ["Demand", "Schedule", "VmSchedule", "read_schedule"]

Demand = tuple[tuple[str, int], ...]
"""Which machines want CPU, each with how many of its vCPUs."""

_S = WorldState
_WANTING = frozenset((_S.RUN, _S.READY, _S.MAX_LIMITED, _S.COSTOP))
_WAITING = frozenset((_S.READY, _S.COSTOP))
_TABLES = ("vm.world", "sched.dispatch", "sched.state", "sched.idle")


@attrs.frozen(kw_only=True)
class VmSchedule:
    """One virtual machine: its longest wait, dispatches and changes of pCPU."""

    worst_wait_ns: int = 0
    dispatches: int = 0
    migrations: int = 0


@attrs.frozen(kw_only=True)
class Schedule:
    """What is known of all machines by name, how long pCPUs idled beside ready vCPUs, and the demand with its spans."""

    vms: dict[str, VmSchedule]
    stranded_ns: int
    demand_ns: dict[Demand, int]


def read_schedule(sink: ColumnarSink, end_ns: int, pcpus: int) -> Schedule:
    """Read a trace that has the categories "vm" and "sched"; after a reboot of the host only the last run counts.

    Errors: `ScenarioError` when the trace was too long to be kept.
    """
    if sink.dropped:
        raise ScenarioError("duration", f"the trace is {sink.dropped} records too long to be compared")
    reader = _Reader(pcpus)
    for _, name, row in merge(*(_rows(sink, name) for name in _TABLES), key=lambda each: each[0]):
        reader.take(name, row)
    reader.close(end_ns)
    found = {
        name: VmSchedule(worst_wait_ns=vm.worst_wait_ns, dispatches=vm.dispatches, migrations=vm.migrations)
        for name, vm in reader.vms.items()
    }
    return Schedule(vms=found, stranded_ns=reader.stranded_ns, demand_ns=reader.demand_ns)


class _Vm:
    """One machine while the trace is read."""

    def __init__(self) -> None:
        self.wants = self.dispatches = self.migrations = self.worst_wait_ns = 0


class _Reader:
    """Follows the records in order; `demand_ns`: for how long which machines wanted how many CPUs."""

    def __init__(self, pcpus: int) -> None:
        self.pcpus = pcpus
        self._begin()

    def _begin(self) -> None:
        self.vms: dict[str, _Vm] = {}
        self.demand_ns: dict[Demand, int] = {}
        self.stranded_ns = 0
        self._of: dict[int, _Vm] = {}
        self._state: dict[int, int] = {}
        self._since: dict[int, int] = {}  # since when a world waits
        self._place: dict[int, int] = {}
        self._busy: dict[int, bool] = {}
        self._ready = 0
        self._last_id = 0
        self._last_ns = -1
        self._demand: Demand = ()

    def take(self, name: str, row: dict[str, Any]) -> None:
        """Follow one record."""
        time_ns = row["time_ns"]
        if name == "vm.world":
            if row["world"] <= self._last_id:
                self._begin()  # numbers begin anew: the host has been started again
            self._last_id = row["world"]
            if row["kind"] == "vcpu":
                self._of[row["world"]] = self.vms.setdefault(row["vm"], _Vm())
            return
        self._elapse(time_ns)
        if name == "sched.idle":
            self._busy[row["pcpu"]] = False
        elif row["world"] in self._of:
            self._change(row, time_ns)
        elif "pcpu" in row:
            self._busy[row["pcpu"]] = True

    def close(self, end_ns: int) -> None:
        """End the account: who waits still has waited until now."""
        self._elapse(end_ns)
        for world in list(self._since):
            self._end_wait(world, end_ns)

    def _elapse(self, time_ns: int) -> None:
        span_ns = time_ns - self._last_ns if self._last_ns >= 0 else 0
        self._last_ns = time_ns
        if span_ns <= 0:
            return
        self.demand_ns[self._demand] = self.demand_ns.get(self._demand, 0) + span_ns
        if self._ready:
            self.stranded_ns += span_ns * min(self._ready, self.pcpus - sum(self._busy.values()))

    def _change(self, row: dict[str, Any], time_ns: int) -> None:
        world = row["world"]
        vm = self._of[world]
        old = self._state.get(world, _S.WAIT_VM)
        new = row.get("new", _S.RUN)
        self._state[world] = new
        self._ready += (new == _S.READY) - (old == _S.READY)
        if "pcpu" in row:
            pcpu = row["pcpu"]
            self._busy[pcpu] = True
            vm.dispatches += 1
            vm.migrations += self._place.get(world, pcpu) != pcpu
            self._place[world] = pcpu
        if new in _WAITING:
            self._since.setdefault(world, time_ns)
        elif world in self._since:
            self._end_wait(world, time_ns + row.get("switch_ns", 0))
        if (old in _WANTING) != (new in _WANTING):
            vm.wants += 1 if new in _WANTING else -1
            self._demand = tuple((name, each.wants) for name, each in self.vms.items() if each.wants)

    def _end_wait(self, world: int, time_ns: int) -> None:
        vm = self._of[world]
        vm.worst_wait_ns = max(vm.worst_wait_ns, time_ns - self._since.pop(world))


def _rows(sink: ColumnarSink, name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    table = sink.tables.get(name)
    if table is not None:
        for values in zip(*table.values(), strict=True):
            row = dict(zip(table, values, strict=True))
            yield row["seq"], name, row
