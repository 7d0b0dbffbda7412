"""A state machine that drives any memory manager and judges every step by the invariants.

Models a tester: a few spaces of a few pages, and in them any sequence of map, unmap, protect, share, reads, writes,
fetches, shootdowns and, where the manager offers them, balloon, deflate, compress and swap.  A page fault is handed to
the manager, and the access tried again, as a processor and a kernel do.  The same few contents are written again and
again, so that pages become equal.

Leaves out large pages, and time.  Sources: the invariants of `sim.testing.invariants`; 0 stands for the promises of the
protocol itself.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any, ClassVar

from attrs import frozen
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

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

__all__ = ["SPACES", "Finding", "MemoryMachine", "find_violation", "memory_machine"]

SPACES = (("a", "one"), ("b", "one"), ("c", "two"))
"""Owners and salts of the spaces: two that may share, and one that may not."""

PAGES = 3
CONTENTS = (b"left", b"right", b"")

_RIGHTS = {
    "r": Rights(user=True),
    "rw": Rights(user=True, write=True),
    "rx": Rights(user=True, execute=True),
    "rwx": Rights(user=True, write=True, execute=True),
    "kernel": Rights(write=True),
}

_spaces = st.integers(0, len(SPACES) - 1)
_pages = st.integers(0, PAGES - 1)
_pcpus = st.integers(0, 63)
_rights = st.sampled_from(("rw", "rw", "rw", "r", "rx", "kernel", "rwx"))
_mapped: Bundle[Page] = Bundle("mapped")


class MemoryMachine(RuleBasedStateMachine):
    """The rules; `memory_machine` makes a subclass for one manager."""

    make: ClassVar[Callable[[], MemoryManager]]
    pcpus: ClassVar[int] = 1
    used_bits: ClassVar[bool] = False
    options: ClassVar[MemOptions | None] = None
    mapped: ClassVar[Bundle[Page]] = _mapped

    def __init__(self) -> None:
        super().__init__()
        self.manager = type(self).make()
        self.numbers = [self.manager.add_space(owner, salt) for owner, salt in SPACES]
        self.rights: dict[Page, Rights] = {}
        self.now = self.manager.picture()

    @rule(target=mapped, space=_spaces, page=_pages, rights=_rights)
    def map(self, space: int, page: int, rights: str) -> Any:
        """Map a page."""
        if (
            self._step(lambda: self.manager.map(self.numbers[space], page, _RIGHTS[rights]), space)
            is _REFUSED
        ):
            return multiple()
        self.rights[space, page] = _RIGHTS[rights]
        return space, page

    @rule(where=consumes(mapped))
    def unmap(self, where: Page) -> None:
        """Unmap a page."""
        space, page = where
        self._step(lambda: self.manager.unmap(self.numbers[space], page), space)
        self.rights.pop(where, None)

    @rule(where=mapped, rights=_rights)
    def protect(self, where: Page, rights: str) -> None:
        """Change the rights of a page."""
        space, page = where
        if (
            self._step(lambda: self.manager.protect(self.numbers[space], page, _RIGHTS[rights]), space)
            is not _REFUSED
        ):
            self.rights[where] = _RIGHTS[rights]

    @rule(one=mapped, other=mapped)
    def share(self, one: Page, other: Page) -> None:
        """Let two pages share a frame, if they are equal."""
        if one != other:
            first, second = (self.numbers[one[0]], one[1]), (self.numbers[other[0]], other[1])
            self._step(lambda: self.manager.share(first, second), one[0], other[0])

    @rule(where=mapped, data=st.sampled_from(CONTENTS), pcpu=_pcpus)
    def write(self, where: Page, data: bytes, pcpu: int) -> None:
        """Write the beginning of a page."""
        self._access(pcpu, where, Kind.WRITE, data)

    @rule(where=mapped, kind=st.sampled_from("rx"), pcpu=_pcpus)
    def access(self, where: Page, kind: str, pcpu: int) -> None:
        """Read or execute a page."""
        self._access(pcpu, where, Kind(kind), b"")

    @rule(space=_spaces, page=_pages, kind=st.sampled_from("rwx"), pcpu=_pcpus)
    def stray(self, space: int, page: int, kind: str, pcpu: int) -> None:
        """Access a page that may not be mapped."""
        self._access(pcpu, (space, page), Kind(kind), b"left" if kind == "w" else b"")

    @rule(where=mapped)
    def shootdown(self, where: Page) -> None:
        """Shoot a page down."""
        space, page = where
        self._step(lambda: self.manager.shootdown(self.numbers[space], page), space)

    @precondition(lambda self: hasattr(self.manager, "balloon"))
    @rule(where=mapped, how=st.sampled_from(("balloon", "compress", "deflate", "swap_out")))
    def reclaim(self, where: Page, how: str) -> None:
        """Take a page from its VM, or give a ballooned one back."""
        space, page = where
        self._step(lambda: getattr(self._reclaimer(), how)(self.numbers[space], page), space)

    # ------------------------------------------------------------------- inside

    def _reclaimer(self) -> Reclaimer:
        manager: Any = self.manager
        return manager  # type: ignore[no-any-return]

    def _step(
        self, operation: Callable[[], object], *touched: int, written: Page | None = None, data: bytes = b""
    ) -> object:
        """Carry an operation out and judge it; a refusal has to leave everything as it was."""
        before = self.now
        try:
            result = operation()
        except SimBug:
            raise
        except VmksimError as error:
            self.now = self.manager.picture()
            if self.now != before:
                raise InvariantViolation(0, f"refused ({error}), and something has changed") from None
            return _REFUSED
        self.now = self.manager.picture()
        numbers = [self.numbers[one] for one in touched]
        granted = written if result is not None else None
        check_step(before, self.now, spaces=numbers, written=granted, data=data, options=self.options)
        return result

    def _access(self, pcpu: int, where: Page, kind: Kind, data: bytes) -> None:
        space, page = where
        number, pcpu = self.numbers[space], pcpu % self.pcpus
        before, place = self.now, (self.numbers[space], page)

        def operation() -> bytes | None:
            got = self.manager.access(pcpu, number, page, kind, data)
            if got is None and self.manager.fault(number, page, kind):
                got = self.manager.access(pcpu, number, page, kind, data)
                if got is None:
                    raise InvariantViolation(
                        1, f"the fault of a {kind.name.lower()} at {place} was handled, and comes again"
                    )
            return got

        written = place if kind is Kind.WRITE else None
        got = self._step(operation, space, written=written, data=data)
        if isinstance(got, bytes) or got is None:
            self._judge(place, kind, got, self.rights.get(where), f"pCPU {pcpu}")
        if self.used_bits and got is not _REFUSED:
            was, new = before.spaces[number].leaves.get(page), self.now.spaces[number].leaves.get(page)
            if was is not None and new is not None and was.frame == new.frame:
                check_accessed_dirty(was, new, kind, granted=got is not None)

    def _judge(self, place: Page, kind: Kind, got: bytes | None, rights: Rights | None, who: str) -> None:
        """Compare what an access gave with the rights and the bytes that the page should have."""
        if place in self.now.pending:
            return  # what was cached before may serve until the shootdown
        ballooned = self.now.spaces[place[0]].away.get(place[1]) is Place.BALLOONED
        permitted = rights is not None and not ballooned and _permits(rights, kind)
        expected = self.now.content(place) if permitted else None
        what = f"a {kind.name.lower()} by {who} at page {place[1]:#x} of space {place[0]}"
        check_translation_agrees(None if got is None else got.rstrip(b"\0"), [expected], what)


_REFUSED = object()
_CALL = re.compile(r"(\w+ = )?state\.\w+\(")


def _permits(rights: Rights, kind: Kind) -> bool:
    return rights.user and {Kind.READ: True, Kind.WRITE: rights.write, Kind.FETCH: rights.execute}[kind]


def memory_machine(
    make: Callable[[], MemoryManager],
    *,
    pcpus: int = 1,
    used_bits: bool = False,
    options: MemOptions | None = None,
) -> type[MemoryMachine]:
    """Return the state machine for the managers that `make` makes.

    `used_bits` says that its leaves have accessed and dirty bits; `options` are its bounds.  `Machine.TestCase` is a test
    case for pytest and unittest.
    """
    content = {"make": staticmethod(make), "pcpus": pcpus, "used_bits": used_bits, "options": options}
    return type("state", (MemoryMachine,), content)


@frozen(kw_only=True)
class Finding:
    """A broken invariant, and the shortest sequence of steps that Hypothesis found for it."""

    violation: InvariantViolation
    steps: tuple[str, ...]


def find_violation(
    make: Callable[[], MemoryManager], *, examples: int = 1000, steps: int = 30, **arguments: Any
) -> Finding | None:
    """Search for a sequence of steps that breaks an invariant; the same manager gives the same finding every time.

    Further arguments are those of `memory_machine`.  None is no proof.
    """
    machine = memory_machine(make, **arguments)
    plan = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        with redirect_stdout(io.StringIO()):
            run_state_machine_as_test(machine, settings=plan)
    except InvariantViolation as violation:
        return Finding(violation=violation, steps=_steps(getattr(violation, "__notes__", ())))
    return None


def _steps(notes: Sequence[str]) -> tuple[str, ...]:
    """Return the calls of the falsifying example, without the machine's own beginning and end."""
    lines = [line.strip() for note in notes for line in note.splitlines()]
    calls = [line.replace("state.", "", 1) for line in lines if _CALL.match(line)]
    return tuple(call for call in calls if not call.startswith("teardown"))
