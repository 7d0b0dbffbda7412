"""Attacks on a kernel by way of its processor: user code and data under supervisor rights, WP off, a stale TLB.

Models: a kernel's space that also maps a user page; the supervisor's accesses under SMEP, SMAP and WP; a kernel that
pins its control bits; two processors, one of which still holds a translation that the tables no longer grant.

Leaves out: how the kernel was made to jump or to follow a pointer.  Sources: Intel SDM volume 3A, 4.6, 4.7, 4.10.
"""

from __future__ import annotations

from fractions import Fraction
from hashlib import sha256

from sim.core.context import Sim
from sim.core.rng import Rng
from sim.core.units import MIB, PAGE_BYTES
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, ControlState, Kind, Rights
from sim.hw.mmu.cpu import LogicalCpu
from sim.hw.mmu.shootdown import Invalidation, ShootdownUnit
from sim.hw.mmu.space import AddressSpace
from sim.kernel.layout import Layout
from sim.labs.attacks.attack import Attack, Setting, Trial, in_words
from sim.labs.process import RET

__all__ = ["KERNEL_ATTACKS"]

PINNED = ("wp", "smep", "smap", "nxe")
"""The control bits that a kernel which pins them never lets go."""


class _Target:
    """A kernel with one page of text, a process with a page of code and one of data, and two processors on them."""

    def __init__(self, setting: Setting, rng: Rng, *, smep: bool = True, smap: bool = True) -> None:
        self.memory = PhysicalMemory(2 * MIB)
        self.space = AddressSpace(self.memory, "kernel", control=ControlState(cr3=0, smep=smep, smap=smap))
        kernel = Layout(rng.stream("kernel"), setting.release.kernel)
        user = Layout(rng.stream("user"), setting.release.user)
        self.text = self._map(kernel.place("kernel", PAGE_BYTES), Rights(execute=True))
        self.user_code = self._map(user.place("exe", PAGE_BYTES), Rights(user=True, execute=True))
        self.user_data = self._map(user.place("mmap", PAGE_BYTES), Rights(user=True, write=True))
        self.cpus = [LogicalCpu(index, self.memory, self.space.control) for index in range(2)]

    def digest(self, va: int) -> bytes:
        """Measure a page of code, as an integrity check does."""
        mapping = self.space.mapping_at(va)
        frame = mapping.mpn if mapping is not None else 0
        return sha256(self.memory.read(frame * PAGE_BYTES, PAGE_BYTES)).digest()

    def store(self, cpu: LogicalCpu, va: int, data: bytes, *, user: bool = False) -> str:
        """Write through a processor's TLB; return how it ended."""
        outcome = cpu.translate(va, Access(Kind.WRITE, user=user))
        if in_words(outcome) == "granted":
            self.memory.write(outcome.pa, data)  # type: ignore[union-attr]
        return in_words(outcome)

    def _map(self, va: int, rights: Rights) -> int:
        (extent,) = self.memory.allocate(1, "kernel")
        self.memory.write(extent.first_mpn * PAGE_BYTES, RET)
        self.space.map(va, extent.first_mpn, rights)
        return va


def return_to_user(setting: Setting, rng: Rng) -> Trial:
    """Send the kernel to code in a user page, where it would run with the supervisor's rights."""
    target = _Target(setting, rng, smep=setting.defended)
    seen = in_words(target.cpus[0].translate(target.user_code, Access(Kind.FETCH)))
    return Trial(success=seen == "granted", seen=seen)


def read_user_pointer(setting: Setting, rng: Rng) -> Trial:
    """Let the kernel read through a pointer that is the attacker's."""
    target = _Target(setting, rng, smap=setting.defended)
    seen = in_words(target.cpus[0].translate(target.user_data, Access(Kind.READ)))
    return Trial(success=seen == "granted", seen=seen)


def write_user_pointer(setting: Setting, rng: Rng) -> Trial:
    """Let the kernel write through a pointer that is the attacker's."""
    target = _Target(setting, rng, smap=setting.defended)
    seen = target.store(target.cpus[0], target.user_data, b"x")
    return Trial(success=seen == "granted", seen=seen)


def write_protect_off(setting: Setting, rng: Rng) -> Trial:
    """Clear CR0.WP in ring 0 and write over the kernel's text; the changed measurement flags a write that went through."""
    target = _Target(setting, rng)
    before = target.digest(target.text)
    cpu = target.cpus[0]
    _set_control_bits(cpu, pinned=setting.defended, wp=False)
    seen = target.store(cpu, target.text, b"\x90")
    flagged = target.digest(target.text) != before
    return Trial(success=flagged, seen=f"{seen}, flagged" if flagged else seen)


def stale_translation(setting: Setting, rng: Rng) -> Trial:
    """Write through what a processor remembers, after the kernel has taken the right away on another one."""
    target = _Target(setting, rng)
    unit = ShootdownUnit(sim := Sim(categories=()), target.memory, target.cpus)
    attacker = target.cpus[1]
    before = target.store(attacker, target.user_data, b"a", user=True)
    target.space.protect(target.user_data, Rights(user=True))
    if setting.defended:
        unit.request(0, Invalidation(root=target.space.control.cr3, va=target.user_data))
        sim.engine.run()
    after = target.store(attacker, target.user_data, b"b", user=True)
    return Trial(success=after == "granted", seen=f"{before} before, {after} after")


def _set_control_bits(cpu: LogicalCpu, *, pinned: bool, **bits: bool) -> None:
    """Write control bits as ring 0 may; a kernel that pins them takes back what was cleared."""
    cpu.set_flags(**bits)
    if pinned:
        cpu.set_flags(**{name: True for name in bits if name in PINNED})


def _if_off(setting: Setting) -> Fraction:
    return Fraction(0 if setting.defended else 1)


KERNEL_ATTACKS = (
    Attack(
        name="ret2usr",
        needs="a kernel that jumps to user code",
        stopped_by="SMEP",
        attempt=return_to_user,
        expected=_if_off,
        off="reduced",
    ),
    Attack(
        name="user-pointer-read",
        needs="a kernel that follows a user pointer",
        stopped_by="SMAP with AC=0",
        attempt=read_user_pointer,
        expected=_if_off,
        off="reduced",
    ),
    Attack(
        name="user-pointer-write",
        needs="a kernel that follows a user pointer",
        stopped_by="SMAP with AC=0",
        attempt=write_user_pointer,
        expected=_if_off,
        off="reduced",
    ),
    Attack(
        name="wp-off",
        needs="CR0.WP=0 in ring 0",
        stopped_by="pinned control bits",
        attempt=write_protect_off,
        expected=_if_off,
        off="reduced",
    ),
    Attack(
        name="stale-tlb",
        needs="a right taken away without a shootdown",
        stopped_by="shootdown",
        attempt=stale_translation,
        expected=_if_off,
        off="reduced",
    ),
)
