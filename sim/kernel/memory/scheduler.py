"""The memory scheduler of a host: divides memory over VMs, and takes it from those that have too much.

Models: guests that touch pages, which get frames; every 15 s the state of the host and the target of each VM; once a
second balloon, compression, swap, and the sharing scan; every 60 s the sample of each VM's activity.  All in batches: one
timer for all VMs, arrays for their pages (6 bytes a page), a table for their books.  Nothing runs where no VM takes part.

Leaves out: which frame backs which page, NUMA, the waits of virtual CPUs (the time that guests would stall is counted),
host cache.  A VM at its limit swaps its own pages at once.

Sources: Waldspurger, OSDI 2002; the states, periods and bounds are in `states` and `options`; pages to swap are drawn at
random, as ESX does; the latencies are our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import define, field

from sim.core.context import Sim
from sim.core.rng import FastStream, Rng
from sim.core.trace import record
from sim.core.units import PAGE_BYTES, SECOND
from sim.errors import SimBug
from sim.hw.frame_counts import SHARED_OWNER
from sim.hw.memory import PhysicalMemory
from sim.kernel.memory.activity import Activity
from sim.kernel.memory.guest_pages import (
    BALLOONED,
    COMPRESSED,
    PLACES,
    RESIDENT,
    SHARED,
    SWAPPED,
    UNTOUCHED,
    FramePool,
    GuestPages,
)
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.protocol import HostView, MemoryPicture, VmView
from sim.kernel.memory.reclaiming import Reclaiming
from sim.kernel.memory.salting import group_of
from sim.kernel.memory.sharing import ShareGroup
from sim.kernel.memory.spec import MemorySpec
from sim.kernel.memory.states import MemState, actions_of, breaks_large, min_free, next_state
from sim.kernel.memory.targets import targets_of
from sim.kernel.memory.touching import Touching

__all__ = ["Guest", "MemoryScheduler"]

MEM_STATE = record("mem.state", old=str, new=str, free=int, min_free=int)
"""The reclamation state changed; free memory and minFree in pages."""

MEM_ORDER = record("mem.order", vm=str, target=int, balloon=int, swap=int, blocked=int)
"""The balance gave a VM other orders: target, size of the balloon, pages to swap."""

MEM_LIMIT_NONE = 1 << 50
_SCAN_GHZ = 10**9


@define(kw_only=True, eq=False)
class Guest:
    """One VM that takes part: its pages, its frames, and what the scheduler knows of it; `row` is its place in the table."""

    name: str
    row: int
    spec: MemorySpec
    pages: GuestPages
    frames: FramePool
    cache: FramePool
    group: ShareGroup
    stream: FastStream
    sample: npt.NDArray[np.int64]
    activity: Activity = field(factory=Activity)
    filled: int = 0
    scanned: int = 0
    touches_left: int = 0
    stall_ns: int = 0
    swap_wait_ns: int = 0
    refused: int = 0
    swapped_in: int = 0
    swapped_out: int = 0
    zipped: int = 0
    unzipped: int = 0

    @property
    def held(self) -> int:
        """The pages that frames back, shared ones included."""
        return int(self.pages.counts[RESIDENT] + self.pages.counts[SHARED])


class Table:
    """The books of all VMs, a row each: what the balance works on."""

    def __init__(self) -> None:
        self.rows = 0
        self.counts = np.zeros((0, len(PLACES)), dtype=np.int64)
        self.columns = {name: np.zeros(0, dtype=np.int64) for name in _COLUMNS}

    def add(self) -> int:
        """Make one more row and return its number; `counts` becomes another array."""
        self.rows += 1
        self.counts = np.vstack([self.counts, np.zeros((1, len(PLACES)), dtype=np.int64)])
        for name, column in self.columns.items():
            self.columns[name] = np.append(column, np.int64(0))
        return self.rows - 1

    def remove(self, row: int) -> None:
        """Take a row out; later rows move up by one."""
        self.rows -= 1
        self.counts = np.delete(self.counts, row, axis=0)
        for name, column in self.columns.items():
            self.columns[name] = np.delete(column, row)


_COLUMNS = ("shares", "reservation", "limit", "configured", "active", "target", "balloon", "swap", "blocked")


class MemoryScheduler:
    """The VMs of one host that take part in the division of its memory.

    `core_hz` is the speed of all cores together, which bounds the sharing scan; `kept` tells how many free frames
    are kept for others (a bound method).
    """

    def __init__(
        self,
        sim: Sim,
        memory: PhysicalMemory,
        options: MemOptions,
        rng: Rng,
        *,
        core_hz: int,
        kept: Callable[[], int] | None = None,
    ) -> None:
        self.sim = sim
        self.options = options
        self.memory = memory
        self.state = MemState.HIGH
        self.min_free = min_free(memory.frames_total * PAGE_BYTES) // PAGE_BYTES
        self.guests: dict[str, Guest] = {}
        self.table = Table()
        self.shared = FramePool(memory, SHARED_OWNER)
        self.balances = 0
        self._rng = rng
        self._kept = kept
        self._groups: dict[str, ShareGroup] = {}
        self._images: dict[str, int] = {}
        self._contents = 1
        self._level = 0
        self._scan_all = False
        self.touching = Touching(self)
        self.reclaiming = Reclaiming(self)
        self._scan_pages = options.share_scan_mb_ghz * 10**6 * core_hz // _SCAN_GHZ // PAGE_BYTES
        self.after_poll: Callable[[], object] | None = None  # a bound method
        self._poll_timer = sim.engine.timer(self._poll)
        self._balance_timer = sim.engine.timer(self._balance_again)
        self._sample_timer = sim.engine.timer(self._sample_again)

    # ------------------------------------------------------------------ VMs

    def add(self, name: str, pages: int, spec: MemorySpec) -> Guest:
        """Let a VM of so many pages take part; it has been admitted."""
        row = self.table.add()
        group = self._groups.setdefault(group_of(name, spec.salt, self.options.force_salting), ShareGroup())
        base = self._base_of(spec.workload.image, pages)
        group.reserve(self._contents)
        stream = self._rng.fast(f"vm/{name}/memory")
        guest = self.guests[name] = Guest(
            name=name,
            row=row,
            spec=spec,
            pages=GuestPages(pages, self.table.counts[row], spec.workload, base),
            frames=FramePool(self.memory, f"vm:{name}"),
            cache=FramePool(self.memory, f"vm:{name}/zip"),
            group=group,
            stream=stream,
            sample=np.zeros(0, dtype=np.int64),
        )
        self._rebind()
        limit = MEM_LIMIT_NONE if spec.limit_bytes is None else spec.limit_bytes // PAGE_BYTES
        values = (spec.shares_of(pages * PAGE_BYTES), spec.reservation_bytes // PAGE_BYTES, limit, pages)
        for column, value in zip(_COLUMNS, values, strict=False):
            self.table.columns[column][row] = value
        self._draw_sample(guest)
        if len(self.guests) == 1:
            self._start_timers()
        return guest

    def remove(self, name: str) -> None:
        """Take a VM out that is powered off, and free everything it has."""
        guest = self.guests.pop(name)
        self.release_shared(guest, np.flatnonzero(guest.pages.place == SHARED))
        for pool in (guest.frames, guest.cache):
            pool.give_back(pool.count)
        self.table.remove(guest.row)
        for other in self.guests.values():
            other.row -= other.row > guest.row
        self._rebind()
        for group in self._groups.values():
            group.hint_vm[:] = -1  # a hint names a row
        if not self.guests:
            for timer in (self._poll_timer, self._balance_timer, self._sample_timer):
                timer.cancel()

    @property
    def promised(self) -> int:
        """The frames that are promised to VMs here and not yet held by them, less what they hold beyond (below 0: more)."""
        held = self.shared.count + sum(one.frames.count + one.cache.count for one in self.guests.values())
        return int(self.table.columns["reservation"].sum()) - held

    def make_room(self, frames: int) -> None:
        """Take pages from VMs at once, by shares, so that `frames` are free; what is reserved stays.

        Private pages go first, those in the compression cache and shared ones after them.
        """
        short = frames + self.reserve - self.free
        if short <= 0:
            return
        held = self.table.counts[:, RESIDENT] + self.table.counts[:, SHARED]
        targets = self._targets(int(held.sum()) - short)
        for guest, above in zip(self.guests.values(), (held - targets).tolist(), strict=True):
            self.reclaiming.swap(guest, above, zip_too=False)
        self.reclaiming.take_the_rest(frames + self.reserve)

    # -------------------------------------------------------------- the balance

    def balance(self) -> None:
        """Look how much is free, decide on the state, and give every VM its target and orders."""
        self.balances += 1
        free = self.free
        self._enter(next_state(self.state, free, self.min_free, self.options), free)
        held = self.table.counts[:, RESIDENT] + self.table.counts[:, SHARED]
        self._order(held, self._targets(int(held.sum()) + free - self.goal))

    def _targets(self, capacity: int) -> npt.NDArray[np.int64]:
        """Divide so many pages over the VMs."""
        columns = self.table.columns
        ceiling = np.minimum(columns["configured"] - self.table.counts[:, UNTOUCHED], columns["limit"])
        targets, self._level = targets_of(
            max(0, capacity),
            columns["shares"],
            columns["active"],
            np.minimum(columns["reservation"], ceiling),
            ceiling,
            tax_percent=self.options.idle_tax_percent,
            hint=self._level,
        )
        return targets

    @property
    def free(self) -> int:
        """The frames that are free and kept for nobody."""
        return max(0, self.memory.frames_free - (0 if self._kept is None else self._kept()))

    @property
    def reserve(self) -> int:
        """The frames that no guest gets, so that the VMkernel itself can work: a sixteenth of minFree."""
        return self.min_free // 16

    @property
    def goal(self) -> int:
        """The frames that should be free after a balance: enough to leave the lower states."""
        return self.min_free * (101 + self.options.hysteresis_percent) // 100

    def _order(self, held: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> None:
        """Divide what is owed as `reclaim_rules.owed` does, for all VMs at once; trace what is new."""
        actions, columns = actions_of(self.state), self.table.columns
        balloon = self.table.counts[:, BALLOONED]
        over = held - targets
        above = np.maximum(over, 0)
        wanted = np.maximum(balloon + np.minimum(over, 0), 0)
        if actions.balloon:
            most = columns["configured"] * self.options.ctl_max_percent // 100
            grown = np.maximum(balloon, np.minimum(most, balloon + above))
            wanted = np.where(over > 0, grown, wanted)
        swap = above if actions.swap else np.zeros_like(above)
        blocked = (above > 0).astype(np.int64) if actions.block else np.zeros_like(above)
        changed = (wanted != columns["balloon"]) | (swap != columns["swap"]) | (blocked != columns["blocked"])
        columns.update(target=targets, balloon=wanted, swap=swap, blocked=blocked)
        if changed.any():
            names = list(self.guests)
            for row in np.flatnonzero(changed).tolist():
                orders = (int(column[row]) for column in (targets, wanted, swap, blocked))
                self.sim.trace.emit(MEM_ORDER, names[row], *orders)

    def _enter(self, state: MemState, free: int) -> None:
        if state is not self.state:
            self.sim.trace.emit(MEM_STATE, str(self.state), str(state), free, self.min_free)
            percent = free * 100 // self.min_free
            self.sim.log("vmkernel", f"MemSched: {self.state} -> {state}, {percent} % of minFree is free")
            self.state = state
        self._scan_all = actions_of(state).share_now

    # ---------------------------------------------------------------- the timers

    def _start_timers(self) -> None:
        now_ns = self.sim.now
        self._poll_timer.arm(now_ns + self.options.poll_ns)
        self._balance_timer.arm(now_ns + self.options.balance_ns)
        self._sample_timer.arm(now_ns + self.options.sample_ns)

    def _poll(self) -> None:
        """Do what is done once a second: guests run, balloons move, memory is taken and looked through."""
        self._poll_timer.arm(self.sim.now + self.options.poll_ns)
        for guest in self.guests.values():
            self.touching.run(guest)
        columns, counts = self.table.columns, self.table.counts
        moving = (columns["balloon"] != counts[:, BALLOONED]) | (columns["swap"] > 0)
        if moving.any():
            guests = list(self.guests.values())
            for row in np.flatnonzero(moving).tolist():
                self.reclaiming.run(guests[row])
        if self.options.share_scan_ns:
            self._scan()
        if self.after_poll is not None:
            self.after_poll()

    def _scan(self) -> None:
        if breaks_large(self.free, self.min_free, self.options.release):
            for guest in self.guests.values():
                guest.pages.break_large()
        budget = max(1, self._scan_pages * self.options.poll_ns // SECOND // len(self.guests))
        for guest in self.guests.values():
            pace = -(-len(guest.pages) * self.options.poll_ns // self.options.share_scan_ns)
            self.reclaiming.scan(guest, len(guest.pages) if self._scan_all else min(pace, budget))
        self._scan_all = False

    def _balance_again(self) -> None:
        self._balance_timer.arm(self.sim.now + self.options.balance_ns)
        self.balance()

    def _sample_again(self) -> None:
        """Count which sampled pages were touched, and draw the next sample."""
        self._sample_timer.arm(self.sim.now + self.options.sample_ns)
        for guest in self.guests.values():
            touched = int(np.count_nonzero(guest.pages.touched[guest.sample]))
            guest.activity = guest.activity.after(touched, len(guest.sample))
            guest.pages.touched[:] = False
            self.table.columns["active"][guest.row] = guest.activity.pages(len(guest.pages))
            self._draw_sample(guest)

    def _draw_sample(self, guest: Guest) -> None:
        draws = guest.stream.block(self.options.sample_pages) >> np.uint64(32)
        guest.sample = (draws * np.uint64(len(guest.pages)) >> np.uint64(32)).astype(np.int64)

    # ------------------------------------------------------------ what both parts use

    def release_shared(self, guest: Guest, pages: npt.NDArray[np.int64]) -> None:
        """Take pages off the frames that they share; frames that nobody uses any more are free."""
        contents = guest.pages.content[pages]
        self.shared.give_back(guest.group.leave(contents))

    def _base_of(self, image: str, pages: int) -> int:
        """Return the first content number of an image; a larger VM of the same image gets new numbers for all."""
        key = f"{image}/{pages}"
        if key not in self._images:
            self._images[key] = self._contents
            self._contents += pages
        return self._images[key]

    def _rebind(self) -> None:
        """Let the pages of each VM count in the row that is theirs now."""
        for guest in self.guests.values():
            guest.pages.counts = self.table.counts[guest.row]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rebind()  # a pickled row is a copy of the table's, not a part of it

    def picture(self) -> MemoryPicture:
        """Return the books of all VMs and of the host, as the invariants take them; pages and frames are not shown."""
        counts, columns = self.table.counts.tolist(), self.table.columns
        vms = {}
        for guest in self.guests.values():
            untouched, resident, shared, ballooned, compressed, swapped = counts[guest.row]
            limit = int(columns["limit"][guest.row])
            vms[guest.name] = VmView(
                configured=len(guest.pages),
                resident=resident,
                shared=shared,
                ballooned=ballooned,
                compressed=compressed,
                swapped=swapped,
                untouched=untouched,
                reservation=int(columns["reservation"][guest.row]),
                limit=None if limit == MEM_LIMIT_NONE else limit,
                touched=len(guest.pages) - untouched,
                cache_frames=guest.cache.count,
            )
        guests = self.guests.values()
        own = sum(guest.frames.count + guest.cache.count for guest in guests) + self.shared.count
        host = HostView(
            total=self.memory.frames_total,
            free=self.free,
            private=sum(guest.frames.count for guest in guests),
            shared=self.shared.count,
            cache=sum(guest.cache.count for guest in guests),
            kernel=self.memory.frames_total - self.free - own,
            min_free=self.min_free,
            state=str(self.state),
        )
        return MemoryPicture(spaces={}, frames={}, vms=vms, host=host)

    def check_invariants(self) -> None:
        """Raise `SimBug` unless pages, frames and shared contents add up."""
        shared = 0
        for guest in self.guests.values():
            guest.pages.check_invariants()
            counts = guest.pages.counts
            if guest.frames.count != counts[RESIDENT] or guest.cache.count != guest.pages.cache_frames:
                raise SimBug(f"{guest.name} has {guest.frames.count} frames for {counts[RESIDENT]} pages")
            shared += int(counts[SHARED])
            self._check_bounds(guest)
        pages = sum(group.pages for group in self._groups.values())
        frames = sum(group.frames for group in self._groups.values())
        if (pages, frames) != (shared, self.shared.count):
            raise SimBug(f"{shared} pages share {self.shared.count} frames, by contents {pages} and {frames}")
        for group in self._groups.values():
            if group.frames != np.count_nonzero(group.references) or group.references.min() < 0:
                raise SimBug("the counts of shared contents are wrong")

    def _check_bounds(self, guest: Guest) -> None:
        counts, options = guest.pages.counts, self.options
        held, configured = int(counts[RESIDENT] + counts[SHARED]), len(guest.pages)
        columns = self.table.columns
        if held > columns["limit"][guest.row]:
            raise SimBug(f"{guest.name} holds {held} pages, over its limit")
        taken = int(counts[BALLOONED] + counts[COMPRESSED] + counts[SWAPPED])
        if taken and held < min(int(columns["reservation"][guest.row]), held + taken):
            raise SimBug(f"{guest.name} was taken below its reservation, to {held} pages")
        if counts[BALLOONED] * 100 > configured * options.ctl_max_percent:
            raise SimBug(f"the balloon of {guest.name} has {counts[BALLOONED]} of {configured} pages")
        if guest.cache.count * 100 > configured * options.zip_max_percent:
            raise SimBug(f"the cache of {guest.name} has {guest.cache.count} frames")
