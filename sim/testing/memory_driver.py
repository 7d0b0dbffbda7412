"""Drives any memory manager step by step, judges each step by the invariants, and shortens what fails.

Models a tester: three spaces of a few pages; a page fault is handed to the manager and the access tried again, as a
processor and a kernel do.  A sequence of steps that breaks an invariant is replayed without this or that step, until
none can be left out.

Leaves out large pages, time, and where sequences come from (`sim.testing.memory_machine`).

Sources: the invariants of `sim.testing.invariants`; 0 stands for the promises of the protocol itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import evolve, frozen

from sim.errors import SimBug, VmksimError
from sim.hw.mmu import Kind, Rights
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.protocol import MemoryManager, Page, Place, Reclaimer
from sim.testing.invariants import (
    InvariantViolation,
    check_accessed_dirty,
    check_step,
    check_translation_agrees,
)

__all__ = ["RIGHTS", "SPACES", "Driver", "Finding", "Step", "replay", "shortened"]

SPACES = (("a", "one"), ("b", "one"), ("c", "two"))
"""Owners and salts of the spaces: two that may share, and one that may not."""

RIGHTS = {
    "rw": Rights(user=True, write=True),
    "r": Rights(user=True),
    "rx": Rights(user=True, execute=True),
    "kernel": Rights(write=True),
    "rwx": Rights(user=True, write=True, execute=True),
}
"""The rights that steps name."""

_KINDS = {"read": Kind.READ, "write": Kind.WRITE, "fetch": Kind.FETCH}
_RECLAIMS = ("balloon", "deflate", "compress", "swap_out")


@frozen(kw_only=True)
class Step:
    """One step: what is done, on which page of which space, and with what; `other` is the second page of a share."""

    what: str
    space: int
    page: int
    rights: str = "rw"
    data: bytes = b""
    pcpu: int = 0
    other: Page | None = None

    def __str__(self) -> str:
        where = f"page {self.page} of {SPACES[self.space][0]}"
        if self.what in ("map", "protect"):
            return f"{self.what} {where} {self.rights}"
        if self.what == "share" and self.other is not None:
            return f"share {where} with page {self.other[1]} of {SPACES[self.other[0]][0]}"
        text = f"{self.what} {where}"
        if self.what == "write":
            text += f" {self.data.decode('ascii', 'replace')!r}"
        return text if not self.pcpu or self.what not in _KINDS else f"{text} on pCPU {self.pcpu}"


@frozen(kw_only=True)
class Finding:
    """A broken invariant, and a sequence of steps for it of which none can be left out."""

    violation: InvariantViolation
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"{number}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join([*lines, str(self.violation)])


class Driver:
    """A manager, the rights that its pages should have, and the last picture of it.

    `used_bits` says that its leaves have accessed and dirty bits; `options` are its bounds.
    """

    def __init__(
        self,
        manager: MemoryManager,
        *,
        pcpus: int = 1,
        used_bits: bool = False,
        options: MemOptions | None = None,
    ) -> None:
        self.manager = manager
        self.done: list[Step] = []
        self._pcpus = pcpus
        self._used_bits = used_bits
        self._options = options
        self._numbers = [manager.add_space(owner, salt) for owner, salt in SPACES]
        self._rights: dict[Page, Rights] = {}
        self._now = manager.picture()

    @property
    def reclaims(self) -> bool:
        """Whether the manager can take pages from VMs."""
        return all(hasattr(self.manager, name) for name in _RECLAIMS)

    def do(self, step: Step) -> bool:
        """Carry a step out and judge it; tell whether the manager did it.  Raises `InvariantViolation`."""
        self.done.append(step)
        if step.what in _KINDS:
            return self._access(step, _KINDS[step.what])
        done = self._change(step, self._operation(step))
        place = (step.space, step.page)
        if done and step.what in ("map", "protect"):
            self._rights[place] = RIGHTS[step.rights]
        elif done and step.what == "unmap":
            self._rights.pop(place, None)
        return done

    def _operation(self, step: Step) -> Callable[[], object]:
        manager, number, page = self.manager, self._numbers[step.space], step.page
        if step.what in ("map", "protect"):
            rights = RIGHTS[step.rights]
            return lambda: getattr(manager, step.what)(number, page, rights)
        if step.what == "share":
            other = step.other if step.other is not None else (step.space, step.page)
            return lambda: manager.share((number, page), (self._numbers[other[0]], other[1]))
        if step.what in _RECLAIMS:
            reclaimer: Reclaimer = manager  # type: ignore[assignment]
            return lambda: getattr(reclaimer, step.what)(number, page)
        return lambda: getattr(manager, step.what)(number, page)

    def _change(self, step: Step, operation: Callable[[], object], written: Page | None = None) -> bool:
        """Do something and judge the difference; a refusal has to leave everything as it was."""
        before = self._now
        try:
            result = operation()
        except SimBug:
            raise
        except VmksimError as error:
            self._now = self.manager.picture()
            if self._now != before:
                text = f"{step} was refused ({error}), and something has changed"
                raise InvariantViolation(0, text) from None
            return False
        self._now = self.manager.picture()
        touched = [self._numbers[step.space]]
        if step.other is not None:
            touched.append(self._numbers[step.other[0]])
        check_step(
            before,
            self._now,
            spaces=touched,
            written=written if result is not None else None,
            data=step.data,
            options=self._options,
        )
        return True

    def _access(self, step: Step, kind: Kind) -> bool:
        place = (self._numbers[step.space], step.page)
        before, got = self._now, list[bytes | None]()

        def operation() -> bytes | None:
            pcpu = step.pcpu % self._pcpus
            found = self.manager.access(pcpu, *place, kind, step.data)
            if found is None and self.manager.fault(*place, kind):
                found = self.manager.access(pcpu, *place, kind, step.data)
                if found is None:
                    raise InvariantViolation(1, f"the fault of {step} was handled, and comes again")
            got.append(found)
            return found

        if not self._change(step, operation, place if kind is Kind.WRITE else None):
            return False
        self._judge(step, place, kind, got[0])
        was, new = (
            before.spaces[place[0]].leaves.get(step.page),
            self._now.spaces[place[0]].leaves.get(step.page),
        )
        if self._used_bits and was is not None and new is not None and was.frame == new.frame:
            check_accessed_dirty(was, new, kind, granted=got[0] is not None)
        return got[0] is not None

    def _judge(self, step: Step, place: Page, kind: Kind, got: bytes | None) -> None:
        """Compare what an access gave with the rights and the bytes that the page should have."""
        if place in self._now.pending:
            return  # what was cached before may serve until the shootdown
        rights = self._rights.get((step.space, step.page))
        ballooned = self._now.spaces[place[0]].away.get(step.page) is Place.BALLOONED
        permitted = rights is not None and not ballooned and _permits(rights, kind)
        expected = self._now.content(place) if permitted else None
        check_translation_agrees(None if got is None else got.rstrip(b"\0"), [expected], str(step))


def replay(make: Callable[[], MemoryManager], steps: Sequence[Step], **arguments: Any) -> Finding | None:
    """Carry steps out on a new manager; return what they break, and the steps up to there.

    Further arguments are those of `Driver`.
    """
    driver = Driver(make(), **arguments)
    try:
        for step in steps:
            driver.do(step)
    except InvariantViolation as violation:
        return Finding(violation=violation, steps=tuple(driver.done))
    return None


def shortened(make: Callable[[], MemoryManager], finding: Finding, **arguments: Any) -> Finding:
    """Return the finding with as few and as plain steps as break the same invariant; arguments as in `replay`."""
    best = finding
    improved = True
    while improved:
        improved = False
        for steps in _shorter(best.steps):
            found = replay(make, steps, **arguments)
            if found is not None and found.violation.number == best.violation.number:
                best, improved = found, True
                break
    return best


def _shorter(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield the sequence without half, a quarter ... one of its steps, and then with one step made plainer."""
    size = len(steps) // 2
    while size:
        for first in range(len(steps) - size, -1, -1):
            yield steps[:first] + steps[first + size :]
        size //= 2
    for index, step in enumerate(steps):
        plainer = (
            evolve(step, pcpu=0),
            evolve(step, rights="rw"),
            evolve(step, data=b"left" if step.data else b""),
            evolve(step, page=0),
        )
        for one in plainer:
            if one != step:
                yield (*steps[:index], one, *steps[index + 1 :])


def _permits(rights: Rights, kind: Kind) -> bool:
    return rights.user and {Kind.READ: True, Kind.WRITE: rights.write, Kind.FETCH: rights.execute}[kind]
