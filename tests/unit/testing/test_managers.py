"""The memory managers that testers start from, and what two writes tell a guest about another."""

import pytest

from sim.core.context import Sim
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Kind, MappingError, Rights
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.paged import PagedMemory
from sim.kernel.memory.protocol import permits
from sim.testing import PlainManager, find_violation
from sim.testing.invariants import InvariantViolation, check_step

RW = Rights(user=True, write=True)
MEMORY_BYTES = 8 << 20


def test_the_plain_manager_keeps_the_protocol():
    assert find_violation(PlainManager, examples=60) is None


def test_the_plain_manager_does_the_plain_things():
    plain = PlainManager()
    assert [plain.add_space(name) for name in "ab"] == [0, 1]
    plain.map(0, 3, RW)
    assert plain.access(0, 0, 3, Kind.WRITE, b"left") == b"left"
    assert plain.access(0, 0, 3, Kind.READ) == b"left"
    assert plain.access(0, 0, 3, Kind.FETCH) is None
    assert plain.access(0, 1, 3, Kind.READ) is None
    assert not plain.share((0, 3), (1, 3))
    with pytest.raises(MappingError):
        plain.map(0, 3, RW)
    with pytest.raises(MappingError, match="for good"):
        plain.protect(0, 3, RW)
    plain.unmap(0, 3)
    with pytest.raises(MappingError):
        plain.unmap(0, 3)


class Leaks(PlainManager):
    """A refused map leaves something behind."""

    def map(self, space, page, rights):
        if (space, page) in self.leaves:
            del self.leaves[space, page]
            raise MappingError("in use")
        super().map(space, page, rights)


class Loops(PlainManager):
    """Says that it has handled a fault, and has not."""

    def fault(self, space, page, kind):
        return True


def test_a_refusal_that_changes_something_breaks_the_protocol():
    found = find_violation(Leaks, examples=200)
    assert found.violation.number == 0
    assert [str(step) for step in found.steps] == ["map page 0 of a rw", "map page 0 of a rw"]


def test_a_fault_that_comes_again_is_found():
    found = find_violation(Loops, examples=100)
    assert found.violation.number == 1
    assert len(found.steps) == 1


def test_a_user_mode_access_needs_a_user_page():
    assert [permits(Rights(write=True, execute=True), kind) for kind in Kind] == [False] * 3
    assert [permits(RW, kind) for kind in (Kind.READ, Kind.WRITE, Kind.FETCH)] == [True, True, False]


def victim_and_attacker(force_salting, salts=("", "")):
    mem = PagedMemory(
        Sim(categories=()), PhysicalMemory(MEMORY_BYTES), options=MemOptions(force_salting=force_salting)
    )
    for number, name in enumerate(("victim", "attacker")):
        mem.add_space(name, salts[number])
    return mem


def guess(mem, secret, tried):
    """Let the attacker write what it guesses, wait for the scan, and time a write to it and one to a page of noise."""
    mem.map(0, 0, RW)
    mem.timed_write(0, 0, 0, secret)
    for page, content in ((0, tried), (1, b"noise that nobody else has")):
        mem.map(1, page, RW)
        mem.timed_write(0, 1, page, content)
    for space, page in ((0, 0), (1, 0), (1, 1)):
        mem.scan(space, page)
    return mem.timed_write(0, 1, 0, tried), mem.timed_write(0, 1, 1, b"noise")


@pytest.mark.parametrize("salting", [0, 1])
def test_where_vms_share_the_latency_of_a_write_tells_what_another_holds(salting):
    hit, noise = guess(victim_and_attacker(salting), b"secret", b"secret")
    assert hit > 10 * noise
    miss, noise = guess(victim_and_attacker(salting), b"secret", b"guess")
    assert miss == noise


def test_with_the_default_salting_the_latency_tells_nothing():
    hit, noise = guess(victim_and_attacker(2), b"secret", b"secret")
    assert hit == noise
    told, noise = guess(victim_and_attacker(2, ("same", "same")), b"secret", b"secret")
    assert told > 10 * noise


def test_a_write_that_is_not_permitted_has_no_latency():
    mem = victim_and_attacker(2)
    mem.map(0, 0, Rights(user=True))
    assert mem.timed_write(0, 0, 0, b"x") is None
    assert mem.timed_write(0, 0, 1, b"x") is None


def test_frames_wait_for_the_shootdown_where_nobody_does_it_at_once():
    mem = PagedMemory(Sim(categories=()), PhysicalMemory(MEMORY_BYTES), eager=False)
    mem.add_space("a")
    mem.map(0, 0, RW)
    mem.map(0, 1, RW)
    mem.access(1, 0, 0, Kind.READ)
    free = mem.picture().host.free
    before = mem.picture()
    mem.unmap(0, 0)
    after = mem.picture()
    check_step(before, after, spaces=[0])
    assert after.host.free == free
    assert after.pending == ((0, 0),)
    assert mem.access(1, 0, 0, Kind.READ) is not None
    mem.shootdown(0, 0)
    assert mem.access(1, 0, 0, Kind.READ) is None
    assert mem.picture().host.free == free + 1


def test_a_violation_says_its_number_and_its_text():
    violation = InvariantViolation(7, "a frame is lost")
    assert str(violation) == "invariant 7: a frame is lost"
    assert (violation.number, violation.text) == (7, "a frame is lost")
