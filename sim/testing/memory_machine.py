"""A state machine that finds sequences of operations in which a memory manager breaks an invariant.

Models a tester who does anything: map, unmap, protect, share, reads, writes, fetches, shootdowns and, where the manager
offers them, balloon, deflate, compress and swap, on the few pages of `sim.testing.memory_driver`.  The same few contents
are written again and again, so that pages become equal.

Leaves out large pages, and time.  Sources: Hypothesis, "Stateful tests".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

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

from sim.kernel.memory.protocol import MemoryManager, Page
from sim.testing.invariants import InvariantViolation
from sim.testing.memory_driver import RIGHTS, SPACES, Driver, Finding, Step, replay, shortened

__all__ = ["MemoryMachine", "find_violation", "memory_machine"]

PAGES = 3
CONTENTS = (b"left", b"right", b"")

_spaces = st.integers(0, len(SPACES) - 1)
_pages = st.integers(0, PAGES - 1)
_pcpus = st.integers(0, 3)
_rights = st.sampled_from(("rw", "rw", *RIGHTS))
_mapped: Bundle[Page] = Bundle("mapped")


class MemoryMachine(RuleBasedStateMachine):
    """The rules; `memory_machine` makes a subclass for one manager."""

    make: ClassVar[Callable[[], MemoryManager]]
    arguments: ClassVar[dict[str, Any]] = {}
    mapped: ClassVar[Bundle[Page]] = _mapped

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(type(self).make(), **self.arguments)

    @rule(target=_mapped, space=_spaces, page=_pages, rights=_rights)
    def map(self, space: int, page: int, rights: str) -> Any:
        """Map a page."""
        done = self.driver.do(Step(what="map", space=space, page=page, rights=rights))
        return (space, page) if done else multiple()

    @rule(where=consumes(_mapped))
    def unmap(self, where: Page) -> None:
        """Unmap a page."""
        self.driver.do(Step(what="unmap", space=where[0], page=where[1]))

    @rule(where=_mapped, rights=_rights)
    def protect(self, where: Page, rights: str) -> None:
        """Change the rights of a page."""
        self.driver.do(Step(what="protect", space=where[0], page=where[1], rights=rights))

    @rule(one=_mapped, other=_mapped)
    def share(self, one: Page, other: Page) -> None:
        """Let two pages share a frame, if they are equal."""
        if one != other:
            self.driver.do(Step(what="share", space=one[0], page=one[1], other=other))

    @rule(one=_mapped, other=_mapped, data=st.sampled_from(CONTENTS), pcpu=_pcpus)
    def become_equal(self, one: Page, other: Page, data: bytes, pcpu: int) -> None:
        """Write the same to two pages, share them, and read both on some processor."""
        if one != other:
            for where in (one, other):
                self.driver.do(Step(what="write", space=where[0], page=where[1], data=data))
            self.driver.do(Step(what="share", space=one[0], page=one[1], other=other))
            for where in (one, other):
                self.driver.do(Step(what="read", space=where[0], page=where[1], pcpu=pcpu))

    @rule(where=_mapped, data=st.sampled_from(CONTENTS), pcpu=_pcpus)
    def write(self, where: Page, data: bytes, pcpu: int) -> None:
        """Write the beginning of a page."""
        self.driver.do(Step(what="write", space=where[0], page=where[1], data=data, pcpu=pcpu))

    @rule(where=_mapped, what=st.sampled_from(("read", "fetch")), pcpu=_pcpus)
    def access(self, where: Page, what: str, pcpu: int) -> None:
        """Read or execute a page."""
        self.driver.do(Step(what=what, space=where[0], page=where[1], pcpu=pcpu))

    @rule(space=_spaces, page=_pages, what=st.sampled_from(("read", "write", "fetch")), pcpu=_pcpus)
    def stray(self, space: int, page: int, what: str, pcpu: int) -> None:
        """Access a page that may not be mapped."""
        data = b"left" if what == "write" else b""
        self.driver.do(Step(what=what, space=space, page=page, data=data, pcpu=pcpu))

    @rule(where=_mapped)
    def shootdown(self, where: Page) -> None:
        """Shoot a page down."""
        self.driver.do(Step(what="shootdown", space=where[0], page=where[1]))

    @precondition(lambda self: self.driver.reclaims)
    @rule(where=_mapped, what=st.sampled_from(("balloon", "compress", "deflate", "swap_out")))
    def reclaim(self, where: Page, what: str) -> None:
        """Take a page from its VM, or give a ballooned one back."""
        self.driver.do(Step(what=what, space=where[0], page=where[1]))


def memory_machine(make: Callable[[], MemoryManager], **arguments: Any) -> type[MemoryMachine]:
    """Return the state machine for the managers that `make` makes; further arguments are those of `Driver`.

    Its attribute `TestCase` is a test case for pytest and unittest.
    """
    return type("MemoryMachine", (MemoryMachine,), {"make": staticmethod(make), "arguments": arguments})


def find_violation(
    make: Callable[[], MemoryManager], *, examples: int = 500, steps: int = 30, **arguments: Any
) -> Finding | None:
    """Search for steps that break an invariant, and shorten them; the same manager gives the same finding every time.

    Further arguments are those of `Driver`.  None is no proof.
    """
    machine = memory_machine(make, **arguments)
    made: list[Driver] = []

    def remember(self: MemoryMachine) -> None:
        MemoryMachine.__init__(self)
        made[:] = [self.driver]

    machine.__init__ = remember  # type: ignore[method-assign]
    plan = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=plan)
    except InvariantViolation:
        found = replay(make, made[0].done, **arguments)
        return None if found is None else shortened(make, found, **arguments)
    return None
