"""A run as Chrome's JSON trace, for ui.perfetto.dev and chrome://tracing: a track a pCPU, a track a world.

Models: a process "pCPUs" with one thread each, on which worlds run; a process for each VM, with a thread for each of its
worlds and a slice for each piece of state; arrows for migrations; a counter of ready worlds.  Times are microseconds
with three decimals, exact.  The file is written while the trace is read: memory does not grow with the run.

Leaves out: Perfetto's protobuf format; waits of worlds that never ran.

Source: "Trace Event Format" (Google, public document): phases X, M, s, f and C.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TextIO

from sim.kernel.world import WorldState
from sim.report.timeline import Event, Migration, Piece, ReadyCount

__all__ = ["write_perfetto"]

PCPUS_PID = 1
OTHERS_PID = 2
"""The process of worlds that belong to no VM."""

FIRST_VM_PID = 10


def write_perfetto(
    events: Iterable[Event], out: TextIO, *, begin_ns: int = 0, end_ns: int | None = None, pcpus: int = 0
) -> int:
    """Write the events of a timeline as one JSON object; returns how many trace events were written.

    Pieces are cut at `begin_ns` and `end_ns`.  All of `pcpus` pCPUs have a track, also those that ran nothing, but in a run of
    the fluid engine, which puts no world on a pCPU: then the process says so.
    """
    out.write('{"displayTimeUnit":"ns","traceEvents":[')
    count = 0
    for text in _Writer(begin_ns, end_ns, pcpus).all(events):
        out.write(",\n" if count else "\n")
        out.write(text)
        count += 1
    out.write("\n]}\n")
    return count


def _us(time_ns: int) -> str:
    """Return nanoseconds as microseconds with three decimals."""
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"


class _Writer:
    """Turns events into JSON texts; names processes and threads when they first appear."""

    def __init__(self, begin_ns: int, end_ns: int | None, pcpus: int) -> None:
        self.pcpus = pcpus
        self._fluid = False  # worlds ran on no pCPU
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self._named: dict[tuple[int, int], None] = {}
        self._pids: dict[str, int] = {}
        self._flows = 0

    def all(self, events: Iterable[Event]) -> Iterator[str]:
        for event in events:
            if isinstance(event, Piece):
                yield from self._piece(event)
            elif isinstance(event, Migration):
                yield from self._migration(event)
            elif self._inside(event.time_ns):
                yield self._ready(event)
        if self._fluid:
            yield from self._name(PCPUS_PID, 1, "pCPUs (the fluid engine puts no world on one)", "none")
        else:
            for index in range(self.pcpus):
                yield from self._name(PCPUS_PID, index + 1, "pCPUs", f"pCPU {index}")

    def _inside(self, time_ns: int) -> bool:
        return time_ns >= self.begin_ns and (self.end_ns is None or time_ns < self.end_ns)

    def _piece(self, piece: Piece) -> Iterator[str]:
        begin_ns = max(piece.begin_ns, self.begin_ns)
        end_ns = piece.end_ns if self.end_ns is None else min(piece.end_ns, self.end_ns)
        if end_ns <= begin_ns:
            return
        track = piece.track
        pid = self._pid(track.vm)
        yield from self._name(pid, track.number, track.vm or "other worlds", track.name)
        self._fluid |= piece.pcpu < 0 and piece.state is WorldState.RUN
        args = f',"args":{{"pcpu":{piece.pcpu}}}' if piece.pcpu >= 0 else ""
        yield self._slice(piece.state.name, (pid, track.number), begin_ns, end_ns, args)
        if piece.pcpu >= 0:
            yield from self._name(PCPUS_PID, piece.pcpu + 1, "pCPUs", f"pCPU {piece.pcpu}")
            yield self._slice(track.name, (PCPUS_PID, piece.pcpu + 1), begin_ns, end_ns)

    @staticmethod
    def _slice(name: str, thread: tuple[int, int], begin_ns: int, end_ns: int, args: str = "") -> str:
        return (
            f'{{"ph":"X","name":{json.dumps(name)},"cat":"sched","pid":{thread[0]},"tid":{thread[1]},'
            f'"ts":{_us(begin_ns)},"dur":{_us(end_ns - begin_ns)}{args}}}'
        )

    def _migration(self, move: Migration) -> Iterator[str]:
        """Draw an arrow between the two slices: its ends lie within them."""
        left_ns = move.left_ns - 1
        if not (self._inside(left_ns) and self._inside(move.came_ns)):
            return
        self._flows += 1
        head = f'"name":"migration","cat":"migration","id":{self._flows},"pid":{PCPUS_PID}'
        yield f'{{"ph":"s",{head},"tid":{move.old + 1},"ts":{_us(left_ns)}}}'
        yield f'{{"ph":"f","bp":"e",{head},"tid":{move.new + 1},"ts":{_us(move.came_ns)}}}'

    @staticmethod
    def _ready(event: ReadyCount) -> str:
        return (
            f'{{"ph":"C","name":"ready worlds","cat":"sched","pid":{PCPUS_PID},"tid":0,'
            f'"ts":{_us(event.time_ns)},"args":{{"ready":{event.count}}}}}'
        )

    def _pid(self, vm: str) -> int:
        if not vm:
            return OTHERS_PID
        return self._pids.setdefault(vm, FIRST_VM_PID + len(self._pids))

    def _name(self, pid: int, tid: int, process: str, thread: str) -> Iterator[str]:
        """Name a thread, and its process with the first of its threads."""
        for key, kind, name in (((pid, 0), "process_name", process), ((pid, tid), "thread_name", thread)):
            if key not in self._named:
                self._named[key] = None
                args = json.dumps({"name": name})
                yield f'{{"ph":"M","name":"{kind}","pid":{pid},"tid":{key[1]},"args":{args}}}'
