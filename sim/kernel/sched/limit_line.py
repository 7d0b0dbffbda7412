"""Who is served next where a limit binds: worlds and pools in line, by what they have had for their shares.

Models: a node for each VM with a limit and for each resource pool.  Its children (worlds, or pools below it) have a tag:
the CPU time they were given over their shares.  The lowest tag goes first, from the node of the limit down to a world;
equal tags in order of arrival.  The pass is the tag of whoever was served last.  A newcomer begins at it, and nobody
comes back further behind it than a bound, so that nobody starves and no credit is hoarded.  Prices are
relative to the first shares a node has met, in integers: shares times a constant give the same order.  What a pool with
scalable shares weighs follows from those below it that want CPU.

Leaves out: reservations inside a pool at its limit.

Source: start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM 1996; the bound on credit is ours, as ESXi's
`Cpu.BoundLagQuanta`.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from sim.kernel.sched.pools import Pool
    from sim.kernel.world import World

__all__ = ["WANTED_BITS", "ShareNode", "Step", "steps_below", "steps_of"]

WANTED_BITS = 8
"""Shares are counted in parts of 2**-8 here, so that half of half, as deep as pools go, is exact."""

_FAR = 1 << 256  # more than any tag
_PRICE_BITS = 64
_SLACK = 64

Child = int
"""A world by its number, a pool by its number below 0."""


@frozen
class Step:
    """One level of a world's way up to the outermost limit: a child of a node, and the price of a nanosecond there.

    `free`: whether no other limit stands between the two.
    """

    node: ShareNode
    child: Child
    price: int
    free: bool


class _Waiting:
    """The children of one node below which somebody stands in the line of one bucket."""

    __slots__ = ("heap", "live")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Child, World | ShareNode]] = []
        self.live: dict[Child, tuple[int, World | ShareNode]] = {}  # the number of the entry that counts


class ShareNode:
    """Children that share what flows through here; `lines` are those that wait, by the number of the bucket."""

    __slots__ = (
        "_active",
        "_busy",
        "_lag_max",
        "_pass",
        "_pressed",
        "_pressed_busy",
        "_reference",
        "_seq",
        "_tags",
        "lines",
    )

    def __init__(self) -> None:
        self.lines: dict[int, _Waiting] = {}
        self._tags: dict[Child, int] = {}
        self._pass = 0
        self._reference = 0  # the first shares that were met here
        self._pressed: dict[Child, None] = {}  # those that came back from further behind than the bound
        self._pressed_busy = 0  # those of them that have a turn
        self._busy: dict[Child, int] = {}  # how many turns each child has been given and not yet had
        self._active: list[tuple[int, int, Child]] = []  # those by tag; equal ones as they came
        self._seq = 0
        self._lag_max = 0  # the furthest that anybody here may be behind the pass

    def price(self, shares: int) -> int:
        """Return what a nanosecond costs a child with so many shares."""
        if not self._reference:
            self._reference = shares
        return max(1, (self._reference << _PRICE_BITS) // shares)

    def tag(self, child: Child, price: int, bound_ns: int) -> int:
        """Return the tag at which a child would be served now."""
        found = self._tags.get(child)
        return self._pass if found is None else max(found, self._pass - bound_ns * price)

    def charge(self, step: Step, turn_ns: int, bound_ns: int) -> None:
        """Count a turn that a child is given."""
        child, price = step.child, step.price
        counted = child in self._pressed and child in self._busy
        start = self.tag(child, price, bound_ns)
        if step.free and start > self._tags.get(child, start):
            self._pressed[child] = None
        elif start >= self._pass:
            self._pressed.pop(child, None)
        self._pass = max(self._pass, start)
        self._tags[child] = tag = start + turn_ns * price
        self._busy[child] = self._busy.get(child, 0) + 1
        self._pressed_busy += (child in self._pressed) - counted
        self._lag_max = max(self._lag_max, bound_ns * price)
        self._activate(tag, child)
        if len(self._active) > 4 * len(self._busy) + _SLACK:
            self._compact()

    def refund(self, child: Child, price: int, left_ns: int) -> None:
        """Learn that a turn is over, of which so much was not used."""
        count = self._busy[child] - 1
        if count:
            self._busy[child] = count
        else:
            del self._busy[child]
            self._pressed_busy -= child in self._pressed
        if not left_ns:
            return
        self._tags[child] = tag = self._tags[child] - left_ns * price
        if count:
            self._activate(tag, child)
        for waiting in self.lines.values():
            if child in waiting.live:
                self._push(waiting, child, waiting.live[child][1])

    def leaves_room(self, step: Step, bound_ns: int) -> bool:
        """Whether a child that wants a turn leaves one for another that has one now and will soon want the next.

        That is, if the other is behind; or pressed: it is worth more than it can use, a whole CPU for a world, and could not
        make up for what it misses.
        """
        if step.child in self._pressed:
            return False
        if self._pressed_busy:
            return True
        return self._others_behind(step.child, self.tag(step.child, step.price, bound_ns))

    def _activate(self, tag: int, child: Child) -> None:
        self._seq += 1
        heappush(self._active, (tag, self._seq, child))

    def _others_behind(self, child: Child, tag: int) -> bool:
        own, heap = [], self._active
        while heap:
            first = heap[0]
            if first[2] == child:
                own.append(heappop(heap))
            elif first[2] not in self._busy or self._tags[first[2]] != first[0]:
                heappop(heap)
            else:
                break
        found = bool(heap) and heap[0][0] < tag
        for entry in own:
            heappush(heap, entry)
        return found

    # -- who waits

    def wait(self, bucket: int, step: Step, what: World | ShareNode, bound_ns: int) -> bool:
        """Put a child in line, unless it stands there; tell whether it is the first child that does."""
        waiting = self.lines.get(bucket)
        first = waiting is None
        if waiting is None:
            waiting = self.lines[bucket] = _Waiting()
        if step.child not in waiting.live:
            self._tags[step.child] = self.tag(step.child, step.price, bound_ns)
            self._push(waiting, step.child, what)
        return first

    def stop_waiting(self, bucket: int, child: Child) -> bool:
        """Take a child out of line; tell whether nobody is left."""
        waiting = self.lines[bucket]
        del waiting.live[child]
        if not waiting.live:
            del self.lines[bucket]
        return not waiting.live

    def place(self, child: Child, tag: int) -> int:
        """Return by what those in line are ordered: the tag, after all who are pressed."""
        return tag - _FAR if child in self._pressed else tag

    def first(self, bucket: int) -> tuple[int, Child, World | ShareNode]:
        """Return place, number and object of the child that is served next."""
        waiting = self.lines[bucket]
        heap = waiting.heap
        while True:
            place, seq, child, what = heap[0]
            if waiting.live.get(child) != (seq, what):
                heappop(heap)
            elif (present := self.place(child, self._tags[child])) != place:
                heapreplace(heap, (present, seq, child, what))
            else:
                return place, child, what

    def _push(self, waiting: _Waiting, child: Child, what: World | ShareNode) -> None:
        self._seq += 1
        waiting.live[child] = (self._seq, what)
        heappush(waiting.heap, (self.place(child, self._tags[child]), self._seq, child, what))
        if len(waiting.heap) > 2 * len(waiting.live) + _SLACK:
            live = waiting.live
            waiting.heap[:] = [entry for entry in waiting.heap if live.get(entry[2]) == (entry[1], entry[3])]
            heapify(waiting.heap)

    def _compact(self) -> None:
        """Forget what no longer counts: old entries, and those who have been away for longer than any bound on lag.

        They are newcomers when they come back.
        """
        self._active.clear()
        for child in self._busy:
            self._activate(self._tags[child], child)
        in_line = {child: None for waiting in self.lines.values() for child in waiting.live}
        self._tags = {
            child: tag
            for child, tag in self._tags.items()
            if child in self._busy or child in in_line or tag > self._pass - self._lag_max
        }
        self._pressed = {child: None for child in self._pressed if child in self._tags}


def steps_of(world: World) -> list[Step]:
    """Return a world's way up: to its VM's limit if it has one, then through its pools to the outermost limit."""
    steps: list[Step] = []
    bucket = world.bucket
    assert bucket is not None
    number, shares, free = world.world_id, world.weight << WANTED_BITS, True
    if bucket.pool is None:
        steps.append(Step(bucket.node, number, bucket.node.price(shares), free=True))
        bucket, free = bucket.parent, False
    while bucket is not None and bucket.parent is not None:
        bucket = bucket.parent
    pool: Pool | None = None if bucket is None else world.pool
    while pool is not None and bucket is not None:
        steps.append(Step(pool.node, number, pool.node.price(shares), free=free))
        if pool is bucket.pool:
            break
        free = pool.bucket is None
        number, shares = -pool.number, max(1, pool.wanted_shares)
        pool = pool.parent
    return steps


def steps_below(steps: list[Step], node: ShareNode) -> list[Step]:
    """Return the part of a world's way that lies below a limit's node, from there down to the world."""
    found: list[Step] = []
    for step in reversed(steps):
        if found or step.node is node:
            found.append(step)
            if step.child > 0:
                break
    return found
