"""A service to be guessed at: its libraries where the layout puts them, and jumps that end in a function or in a crash.

Models: an address space with the libraries' code; exec, which lays it out anew; fork, which keeps it (nothing is done);
a jump through the MMU, which succeeds when the function's own bytes stand there.

Leaves out: everything else of a process (`sim.labs.process`).
"""

from __future__ import annotations

from sim.core.rng import RandomSource
from sim.core.units import MIB, PAGE_BYTES
from sim.errors import SimBug
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import Access, AddressSpace, Kind, Rights, Translation
from sim.kernel.layout import Layout, LayoutProfile

__all__ = ["FUNCTION", "FUNCTION_OFFSET", "GADGET_OFFSETS", "LIBRARY_BYTES", "RETURN_OFFSET", "Victim"]

MEMORY_BYTES = 2 * MIB
LIBRARY_BYTES = 2 * PAGE_BYTES
FUNCTION_OFFSET = 0x1A30
"""Where system() is in its library: in the second page, so that its low 12 bits are known."""

RETURN_OFFSET = 0x1B42
"""The instruction behind a call in the library: the return address that is on the stack meanwhile."""

FUNCTION = b"\xf3\x0f\x1e\xfasystem()"
"""The bytes of the function: an attack has succeeded when the processor fetches these."""

GADGET = b"\x5f\xc3"
GADGET_OFFSETS = (0x123, 0x871, 0xC04)
"""Where `pop rdi; ret` stands in the library's code, at no aligned address."""


class Victim:
    """A running service with one library of each of `kinds`; `exec` starts it again."""

    def __init__(
        self, stream: RandomSource, profile: LayoutProfile, kinds: tuple[str, ...] = ("library",)
    ) -> None:
        self.layout = Layout(stream, profile)
        self.bases: list[int] = []
        self._machine = PhysicalMemory(MEMORY_BYTES)
        self._kinds = kinds
        self._space = AddressSpace(self._machine, "victim")
        pages = LIBRARY_BYTES // PAGE_BYTES
        self._extents = [self._machine.allocate(pages, "victim", contiguous=True)[0] for _ in kinds]
        for number, extent in enumerate(self._extents):
            base_pa = extent.first_mpn * PAGE_BYTES
            self._machine.write(base_pa + FUNCTION_OFFSET, _function(number))
            for offset in GADGET_OFFSETS:
                self._machine.write(base_pa + offset, GADGET)
        self.exec()

    def exec(self) -> None:
        """Start the program again: every base is drawn anew."""
        for base in self.bases:
            for page in range(LIBRARY_BYTES // PAGE_BYTES):
                self._space.unmap(base + page * PAGE_BYTES)
        self.layout = self.layout.renewed()
        self.bases = []
        for kind, extent in zip(self._kinds, self._extents, strict=True):
            base = self.layout.place(kind, LIBRARY_BYTES)
            self._space.map_run(base, extent.first_mpn, extent.count, Rights(user=True, execute=True))
            self.bases.append(base)

    def call_through_stack(self) -> int:
        """Let the program call its first library, which leaves a return address on the stack; return where it lies."""
        (extent,) = self._machine.allocate(1, "victim")
        saved = self.layout.place("stack", PAGE_BYTES)
        self._space.map(saved, extent.first_mpn, Rights(user=True, write=True))
        pointer = self.bases[0] + RETURN_OFFSET
        if self._space.store(saved, pointer.to_bytes(8, "little"), user=True) is not None:
            raise SimBug("the stack cannot be written")
        return saved

    def read_pointer(self, va: int) -> int | None:
        """Read eight bytes at CPL 3, as a bug that leaks memory does; None is a fault."""
        found = self._space.load(va, 8, Access(Kind.READ, user=True))
        return int.from_bytes(found, "little") if isinstance(found, bytes) else None

    def jump(self, va: int, code: bytes = FUNCTION) -> bool:
        """Jump to `va`; tell whether `code` runs there rather than a fault or other bytes."""
        outcome = self._space.translate(va, Access(Kind.FETCH, user=True))
        if not isinstance(outcome, Translation):
            return False
        return self._machine.read(outcome.pa, len(code)) == code

    def calls_function(self, va: int, library: int = 0) -> bool:
        """Jump to `va`; tell whether that is the function of this library."""
        return self.jump(va, _function(library))

    def follows_chain(self, base: int, library: int = 0) -> bool:
        """Run three gadgets and then the function, all counted from the library base that the attacker believes in."""
        if not all(self.jump(base + offset, GADGET) for offset in GADGET_OFFSETS):
            return False
        return self.calls_function(base + FUNCTION_OFFSET, library)


def _function(library: int) -> bytes:
    return FUNCTION + bytes([library])
