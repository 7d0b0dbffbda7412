"""Who ran where and when, from the trace alone: pieces of time on pCPUs, pieces of state of worlds, migrations.

Models: a world's life as pieces of one state each; a dispatch begins a run after its switch, and what ends the run is the
world's next change of state.  Records are taken one by one and pieces given out as they end, so that a run of any
length needs memory for its worlds and pCPUs only.

Leaves out: anything that no record tells: a run that ended before its switch did was no run.

Sources: the records `sched.dispatch`, `sched.state`, `vm.world`, `userworld.started` (docs/trace-records.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from sim.core.tracestream import Row, stream_rows
from sim.kernel.world import WorldState

__all__ = ["RECORDS", "Migration", "Piece", "ReadyCount", "Timeline", "Track", "events_of"]

RECORDS = {
    "sched.dispatch": ("pcpu", "world", "switch_ns"),
    "sched.state": ("world", "old", "new"),
    "vm.world": ("vm", "world", "name"),
    "userworld.started": ("world", "name"),
}
"""The records that a timeline needs, with their fields."""

_WAITING = frozenset((WorldState.READY, WorldState.MAX_LIMITED))


class Track:
    """One world of one boot: `number` counts them in the order of their first records."""

    __slots__ = (
        "last_end_ns",
        "last_pcpu",
        "name",
        "number",
        "pcpu",
        "run_from_ns",
        "since_ns",
        "state",
        "vm",
    )

    def __init__(self, number: int, name: str, vm: str, since_ns: int, state: WorldState) -> None:
        self.number = number
        self.name = name
        self.vm = vm
        self.state = state
        self.since_ns = since_ns
        self.pcpu = -1  # where it has been dispatched to, -1: nowhere
        self.run_from_ns = 0  # when that switch ends
        self.last_pcpu = -1  # where it ran last
        self.last_end_ns = 0


@attrs.frozen
class Piece:
    """A world was in one state for a while, in RUN on a pCPU (-1: not known where)."""

    track: Track
    state: WorldState
    begin_ns: int
    end_ns: int
    pcpu: int = -1


@attrs.frozen
class Migration:
    """A world ran on one pCPU and then on another."""

    track: Track
    old: int
    left_ns: int
    new: int
    came_ns: int


@attrs.frozen
class ReadyCount:
    """From a moment on so many worlds were ready or max-limited."""

    time_ns: int
    count: int


Event = Piece | Migration | ReadyCount


def events_of(path: Path, *, end_ns: int | None = None) -> Iterator[Event]:
    """Yield the events of a trace file; pieces that have not ended end at `end_ns`, or with the last record.

    Errors: `FormatError`.
    """
    timeline = Timeline()
    yield from timeline.take(stream_rows(path, RECORDS))
    yield from timeline.close(end_ns)


class Timeline:
    """Makes pieces from records, which must come in the order of the run."""

    def __init__(self) -> None:
        self._tracks: dict[int, Track] = {}
        self._number = 0
        self._now_ns = 0
        self._ready = self._told = 0

    def take(self, rows: Iterable[Row]) -> Iterator[Event]:
        """Yield what ends with each of these records."""
        for _, kind, time_ns, values in rows:
            if time_ns != self._now_ns:
                yield from self._tell_ready()
                self._now_ns = time_ns
            if kind == "sched.dispatch":
                self._dispatch(*values)
            elif kind == "sched.state":
                yield from self._change(*values)
            elif kind == "vm.world":
                vm, world, name = values
                self._begin(world, WorldState.WAIT_VM, name, vm)
            else:
                world, name = values
                track = self._tracks.get(world) or self._begin(world, WorldState.WAIT_IDLE)
                track.name = name
        yield from self._tell_ready()

    def close(self, end_ns: int | None = None) -> Iterator[Event]:
        """Yield the pieces that have not ended, up to `end_ns`."""
        self._now_ns = self._now_ns if end_ns is None else max(end_ns, self._now_ns)
        for track in self._tracks.values():
            yield from self._end_piece(track, WorldState.RUN if track.pcpu >= 0 else track.state)
        self._tracks.clear()

    def _begin(self, world: int, state: WorldState, name: str = "", vm: str = "") -> Track:
        self._number += 1
        track = Track(self._number, name or f"world {world}", vm, self._now_ns, state)
        self._tracks[world] = track
        return track

    def _dispatch(self, pcpu: int, world: int, switch_ns: int) -> None:
        track = self._tracks.get(world) or self._begin(world, WorldState.READY)
        track.pcpu = pcpu
        track.run_from_ns = self._now_ns + switch_ns
        self._ready -= track.state in _WAITING
        track.state = WorldState.RUN

    def _change(self, world: int, old: int, new: int) -> Iterator[Event]:
        track = self._tracks.get(world) or self._begin(world, WorldState(old))
        yield from self._end_piece(track, WorldState(old))
        self._ready += (new in _WAITING) - (track.state in _WAITING)
        track.state = WorldState(new)
        if track.state is WorldState.ENDED:
            del self._tracks[world]

    def _end_piece(self, track: Track, state: WorldState) -> Iterator[Event]:
        """End the present piece of a world now: of a dispatched one the wait before its run, and the run."""
        now_ns, since_ns = self._now_ns, track.since_ns
        track.since_ns = now_ns
        if track.pcpu < 0:
            if now_ns > since_ns:
                yield Piece(track, state, since_ns, now_ns)
            return
        pcpu, begun_ns = track.pcpu, min(track.run_from_ns, now_ns)
        track.pcpu = -1
        if begun_ns > since_ns:
            yield Piece(track, WorldState.READY, since_ns, begun_ns)
        if now_ns > begun_ns:
            yield Piece(track, WorldState.RUN, begun_ns, now_ns, pcpu)
            if track.last_pcpu not in (-1, pcpu):
                yield Migration(track, track.last_pcpu, track.last_end_ns, pcpu, begun_ns)
            track.last_pcpu, track.last_end_ns = pcpu, now_ns

    def _tell_ready(self) -> Iterator[Event]:
        if self._ready != self._told:
            self._told = self._ready
            yield ReadyCount(self._now_ns, self._ready)
