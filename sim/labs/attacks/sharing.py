"""The side channel of page sharing: a guest learns what another holds by how long its own write takes.

Models: two VMs on one host; the attacker holds a page with the content that he suspects, lets the sharing scan pass,
writes to it, and compares the time with that of a write to a page which nobody else can have.

Leaves out: noise.  Sources: Suzaki et al., EuroSec 2011; Broadcom KB 323624 (salting, Mem.ShareForceSalting 2).
"""

from __future__ import annotations

from fractions import Fraction

from sim.core.context import Sim
from sim.core.rng import Rng
from sim.core.units import MIB, PAGE_BYTES
from sim.errors import SimBug
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Rights
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.paged import PagedMemory
from sim.labs.attacks.attack import Attack, Setting, Trial

__all__ = ["SHARING_ATTACKS"]

SECRET_PAGE, SUSPECTED_PAGE, OWN_PAGE = 1, 2, 3
_DATA = Rights(user=True, write=True)


def page_sharing(setting: Setting, rng: Rng) -> Trial:
    """Find out which of two pages another VM holds."""
    memory = PagedMemory(
        Sim(categories=()),
        PhysicalMemory(2 * MIB),
        options=MemOptions(force_salting=2 if setting.defended else 0),
    )
    stream = rng.stream("contents")
    candidates = [stream.bytes(PAGE_BYTES), stream.bytes(PAGE_BYTES)]
    secret = stream.below(2)
    victim, attacker = memory.add_space("victim"), memory.add_space("attacker")
    _hold(memory, victim, SECRET_PAGE, candidates[secret])
    _hold(memory, attacker, SUSPECTED_PAGE, candidates[1])
    _hold(memory, attacker, OWN_PAGE, stream.bytes(PAGE_BYTES))
    for space, page in ((victim, SECRET_PAGE), (attacker, SUSPECTED_PAGE), (attacker, OWN_PAGE)):
        memory.scan(space, page)
    shared = any(len(frame.owners) > 1 for frame in memory.picture().frames.values())
    suspected_ns, own_ns = (
        memory.timed_write(0, attacker, page, b"!") for page in (SUSPECTED_PAGE, OWN_PAGE)
    )
    answer = 1 if suspected_ns != own_ns else 0
    seen = f"{'shared frame' if shared else 'no shared frame'}, {suspected_ns} and {own_ns} ns"
    return Trial(success=answer == secret, seen=seen)


def _hold(memory: PagedMemory, space: int, page: int, content: bytes) -> None:
    memory.map(space, page, _DATA)
    if memory.timed_write(0, space, page, content) is None:
        raise SimBug(f"page {page} of space {space} cannot be written")


def _expected(setting: Setting) -> Fraction:
    """Without a difference in time the answer is no better than a coin's."""
    return Fraction(1, 2) if setting.defended else Fraction(1)


SHARING_ATTACKS = (
    Attack(
        name="page-sharing",
        needs="sharing between virtual machines",
        stopped_by="salt of its own for each VM",
        attempt=page_sharing,
        expected=_expected,
        off="reduced",
    ),
)
