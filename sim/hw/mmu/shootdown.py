"""TLB shootdown: making every processor forget a translation, by inter-processor interrupts.

Models: the initiator forgets at once; then it interrupts, one after another, the processors that run the space; each
takes the interrupt, unless it holds interrupts off, invalidates page by page or all, and acknowledges; when all have,
the caller is told and the frames that lay behind the translations are freed, not before.  In lazy mode a processor
that does not run the space is not interrupted: it owes a flush, and pays at its next switch to the space.  Leaving a
shootdown out is possible, and shows: the stale TLB grants what the tables deny.

Leaves out: the interrupt controller's queues, several shootdowns merged into one, and hardware that broadcasts
invalidations.

Sources: Intel Software Developer's Manual volume 3A, section 4.10.5 (propagation to multiple processors); Black et al.,
"Translation lookaside buffer consistency: a software approach", ASPLOS 1989; the costs are assumptions of the order
that Kumar et al., "LATR: lazy translation coherence", ASPLOS 2018, and Amit, "Optimizing the TLB shootdown algorithm
with page access tracking", USENIX ATC 2017, report (recalled).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen, validators

from sim.core.context import Sim
from sim.core.facts import fact
from sim.core.trace import record
from sim.core.units import SECOND
from sim.errors import SimBug
from sim.hw.frames import FRAME_BYTES, Extent
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu.cpu import Invpcid, LogicalCpu

SHOOTDOWN = record("mmu.shootdown", number=int, initiator=int, root=int, pages=int, targets=int, deferred=int)
"""A shootdown begins: how many processors are interrupted, and how many owe a flush instead."""
SHOOTDOWN_TAKEN = record("mmu.shootdown_taken", number=int, cpu=int)
"""A processor has invalidated for a shootdown."""
SHOOTDOWN_DONE = record("mmu.shootdown_done", number=int, latency_ns=int, frames_freed=int)
"""Every processor has acknowledged."""

IN_FLIGHT_MAX = 100_000
"""The most shootdowns that may wait at one time."""

_COST = "order of magnitude in ASPLOS 2018 (LATR) and USENIX ATC 2017 (page access tracking)"
SEND_NS = fact(
    "hw.ipi.send", 100, unit="ns", source="one write to the x2APIC command register", kind="assumed"
)
DELIVERY_NS = fact("hw.ipi.delivery", 1000, unit="ns", source=_COST, kind="assumed")
HANDLER_NS = fact(
    "hw.ipi.handler", 500, unit="ns", source="entry to and exit from the handler", kind="assumed"
)
ACKNOWLEDGE_NS = fact(
    "hw.ipi.acknowledge", 100, unit="ns", source="a cache line moving between cores", kind="assumed"
)
PAGES_ONE_BY_ONE_MAX = fact(
    "hw.tlb.pages_one_by_one_max",
    33,
    unit="page",
    source="Linux, arch/x86/mm/tlb.c, tlb_single_page_flush_ceiling",
    kind="inferred",
)


@frozen(kw_only=True)
class ShootdownSpec:
    """Costs in ns and the policy; more than `pages_max` pages are invalidated by emptying the context."""

    send_ns: int = field(default=SEND_NS.value, validator=validators.ge(0))
    delivery_ns: int = field(default=DELIVERY_NS.value, validator=validators.ge(0))
    handler_ns: int = field(default=HANDLER_NS.value, validator=validators.ge(0))
    acknowledge_ns: int = field(default=ACKNOWLEDGE_NS.value, validator=validators.ge(0))
    pages_max: int = field(default=PAGES_ONE_BY_ONE_MAX.value, validator=validators.ge(0))
    lazy: bool = True


@frozen(kw_only=True)
class Invalidation:
    """What is to be forgotten: pages of `page_bytes` from `va` on, of the space with this root table and context.

    `everywhere` is for global pages, which every space sees: no processor may be left out.
    """

    root: int = field()
    va: int
    pages: int = field(default=1, validator=validators.ge(1))
    page_bytes: int = FRAME_BYTES
    pcid: int = 0
    everywhere: bool = False

    @root.validator
    def _check_root(self, _attribute: object, value: int) -> None:
        if value % FRAME_BYTES:
            raise SimBug(f"a root table at {value:#x}: the context goes into pcid")

    def apply(self, cpu: LogicalCpu, pages_max: int) -> None:
        """Make a processor forget, page by page, or by context when there are more than `pages_max`."""
        if self.pages > pages_max:
            cpu.invpcid(Invpcid.ALL_WITH_GLOBAL if self.everywhere else Invpcid.CONTEXT, self._pcid_on(cpu))
            return
        for number in range(self.pages):
            va = self.va + number * self.page_bytes
            if self.everywhere or cpu.pcid == self._pcid_on(cpu):
                cpu.invlpg(va)
            else:
                cpu.invpcid(Invpcid.ADDRESS, self.pcid, va)

    def work_ns(self, cpu: LogicalCpu, pages_max: int) -> int:
        """Return how long `apply` takes on a processor, rounded up to whole ns."""
        costs = cpu.costs
        cycles = self.pages * costs.page_cycles if self.pages <= pages_max else costs.flush_cycles
        return -(-cycles * SECOND // costs.core_hz)

    def _pcid_on(self, cpu: LogicalCpu) -> int:
        return self.pcid if cpu.pcide else 0


class Shootdown:
    """One shootdown on its way."""

    __slots__ = ("begun_ns", "done", "frees", "invalidation", "number", "waiting_for")

    def __init__(
        self,
        number: int,
        invalidation: Invalidation,
        begun_ns: int,
        frees: tuple[Extent, ...],
        done: Callable[[Shootdown], object] | None,
    ) -> None:
        self.number = number
        self.invalidation = invalidation
        self.begun_ns = begun_ns
        self.frees = frees
        self.done = done
        self.waiting_for: list[int] = []
        """The processors that have not acknowledged."""


class ShootdownUnit:
    """The processors of a host, and the shootdowns between them.

    It also switches processors between spaces, because a flush that is owed is paid there.
    """

    def __init__(
        self, sim: Sim, memory: PhysicalMemory, cpus: Sequence[LogicalCpu], spec: ShootdownSpec | None = None
    ) -> None:
        self.spec = ShootdownSpec() if spec is None else spec
        self.cpus = tuple(cpus)
        if [cpu.index for cpu in self.cpus] != list(range(len(self.cpus))):
            raise SimBug("processors must be numbered from 0 in their order")
        self._sim = sim
        self._memory = memory
        self._numbers = 0
        self._in_flight: dict[int, Shootdown] = {}
        self._masked: dict[int, list[Shootdown]] = {}
        self._owed: dict[int, dict[tuple[int, int], None]] = {cpu.index: {} for cpu in self.cpus}
        metrics = sim.metrics
        self._latency = metrics.histogram(
            "mmu.shootdown.latency", "ns", "from the change to the last acknowledgement"
        )
        self._interrupts = metrics.counter("mmu.shootdown.interrupts", "1", "processors interrupted")
        self._deferred = metrics.counter("mmu.shootdown.deferred", "1", "interrupts saved by lazy mode")
        self._paid = metrics.counter("mmu.shootdown.deferred_paid", "1", "flushes owed and paid at a switch")

    # ------------------------------------------------------------------ spaces

    def switch(self, cpu_index: int, cr3: int, *, keep: bool = False) -> None:
        """Let a processor run another space; entries of its context stay if `keep` and no flush is owed."""
        cpu = self.cpus[cpu_index]
        pcid = cr3 & 0xFFF if cpu.pcide else 0
        owed = self._owed[cpu_index]
        mine = [each for each in owed if each[1] == pcid]
        for each in mine:
            del owed[each]
        if mine and keep:
            self._paid.add()
        cpu.load_cr3(cr3, keep=keep and not mine)

    # ------------------------------------------------------------------ interrupts held off

    def hold_interrupts(self, cpu_index: int) -> None:
        """Let a processor take no interrupts until `allow_interrupts`: shootdowns wait for it."""
        self._masked.setdefault(cpu_index, [])

    def allow_interrupts(self, cpu_index: int) -> None:
        """Let a processor take interrupts again, first those that came meanwhile."""
        for shootdown in self._masked.pop(cpu_index, []):
            self._take(shootdown, cpu_index)

    # ------------------------------------------------------------------ shootdowns

    @property
    def in_flight(self) -> int:
        """The number of shootdowns that are not complete."""
        return len(self._in_flight)

    def holds(self, mpn: int) -> bool:
        """Tell whether a frame waits for a shootdown before it may be handed to anyone."""
        return any(
            extent.first_mpn <= mpn < extent.end_mpn
            for shootdown in self._in_flight.values()
            for extent in shootdown.frees
        )

    def request(
        self,
        initiator: int,
        invalidation: Invalidation,
        *,
        frees: tuple[Extent, ...] = (),
        done: Callable[[Shootdown], object] | None = None,
    ) -> Shootdown:
        """Begin a shootdown after the tables were changed; `initiator` forgets before this returns.

        `frees` are frames that the change took out of use: they keep their owner until all processors have forgotten,
        and are freed then, so that nobody else gets them earlier.  `done` is called last, with the shootdown.
        """
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            raise SimBug(f"over {IN_FLIGHT_MAX} shootdowns are waiting")
        engine = self._sim.engine
        shootdown = Shootdown(self._numbers, invalidation, engine.now, frees, done)
        self._numbers += 1
        self._in_flight[shootdown.number] = shootdown
        first = self.cpus[initiator]
        self._apply(invalidation, first)
        local_ns = invalidation.work_ns(first, self.spec.pages_max)
        targets = [cpu.index for cpu in self.cpus if cpu.index != initiator]
        deferred = [index for index in targets if self._may_wait(self.cpus[index], invalidation)]
        for index in deferred:
            self._owed[index][invalidation.root, invalidation.pcid] = None
        targets = [index for index in targets if index not in deferred]
        shootdown.waiting_for = list(targets)
        self._interrupts.add(len(targets))
        self._deferred.add(len(deferred))
        self._sim.trace.emit(
            SHOOTDOWN,
            shootdown.number,
            initiator,
            invalidation.root,
            invalidation.pages,
            len(targets),
            len(deferred),
        )
        for place, index in enumerate(targets, 1):
            engine.after(
                local_ns + place * self.spec.send_ns + self.spec.delivery_ns, self._deliver, shootdown, index
            )
        if not targets:
            engine.after(local_ns, self._complete, shootdown)
        return shootdown

    def _may_wait(self, cpu: LogicalCpu, invalidation: Invalidation) -> bool:
        return self.spec.lazy and not invalidation.everywhere and cpu.root != invalidation.root

    def _apply(self, invalidation: Invalidation, cpu: LogicalCpu) -> None:
        """Invalidate without charging the processor: the time is in the events of the shootdown."""
        before = cpu.cycles
        invalidation.apply(cpu, self.spec.pages_max)
        cpu.cycles = before

    def _deliver(self, shootdown: Shootdown, index: int) -> None:
        if shootdown.number not in self._in_flight:
            return
        if index in self._masked:
            self._masked[index].append(shootdown)
        else:
            self._take(shootdown, index)

    def _take(self, shootdown: Shootdown, index: int) -> None:
        """Begin the handler: the entries go when it has done its work."""
        work_ns = shootdown.invalidation.work_ns(self.cpus[index], self.spec.pages_max)
        self._sim.engine.after(self.spec.handler_ns + work_ns, self._forget, shootdown, index)

    def _forget(self, shootdown: Shootdown, index: int) -> None:
        if shootdown.number not in self._in_flight:
            return
        self._apply(shootdown.invalidation, self.cpus[index])
        self._sim.trace.emit(SHOOTDOWN_TAKEN, shootdown.number, index)
        self._sim.engine.after(self.spec.acknowledge_ns, self._acknowledge, shootdown, index)

    def _acknowledge(self, shootdown: Shootdown, index: int) -> None:
        if shootdown.number not in self._in_flight:
            return
        shootdown.waiting_for.remove(index)
        if not shootdown.waiting_for:
            self._complete(shootdown)

    def _complete(self, shootdown: Shootdown) -> None:
        if self._in_flight.pop(shootdown.number, None) is None:
            return
        freed = 0
        for extent in shootdown.frees:
            self._memory.free(extent)
            freed += extent.count
        latency_ns = self._sim.engine.now - shootdown.begun_ns
        self._latency.observe(latency_ns)
        self._sim.trace.emit(SHOOTDOWN_DONE, shootdown.number, latency_ns, freed)
        if shootdown.done is not None:
            shootdown.done(shootdown)

    def abandon(self) -> None:
        """Forget all shootdowns that are on their way, as a reset of the platform does: their frames stay as they are."""
        self._in_flight.clear()
        self._masked.clear()

    def check_invariants(self) -> None:
        """Raise `SimBug` unless waiting frames have owners and every waiting shootdown waits for somebody or time."""
        for shootdown in self._in_flight.values():
            for extent in shootdown.frees:
                if any(self._memory.owner_of(mpn) is None for mpn in extent.mpns()):
                    raise SimBug(f"frames of shootdown {shootdown.number} were freed before it was complete")
        for cpu in self.cpus:
            cpu.check_invariants()
