"""A process for labs: placed by a release's profile, mapped in simulated memory, reached only through the MMU.

Models: program and library with text, data and zeroed data apart, heap, main stack, vDSO, an anonymous mapping and
threads' stacks; loads, stores and fetches at CPL 3 with their faults; mprotect under the rule of the profile: a kernel
with W^X refuses, through `KernelMemory`, what the others grant.  Code is told from data by its bytes: `run` fetches
through the MMU and then looks at what stands there.

Leaves out: instructions (a function is its first eight bytes), signals, the ELF loader (`sim.kernel.userworld`).

Sources: System V ABI AMD64 supplement, section 3.3 (process image).
"""

from __future__ import annotations

from attrs import evolve, frozen

from sim.core.context import Sim
from sim.core.rng import RandomSource
from sim.core.units import KIB, MIB, PAGE_BYTES
from sim.hw.memory import PhysicalMemory
from sim.hw.mmu import (
    Access,
    AddressSpace,
    ControlState,
    GeneralProtection,
    Kind,
    PageFault,
    Rights,
    Translation,
)
from sim.kernel.layout import Layout, ProcessSizes, ReleaseProfile, place_process, without_pie
from sim.kernel.memory import KernelMemory, RightsRefused

__all__ = ["DATA", "EVERYTHING", "RET", "TEXT", "Fault", "LabProcess", "PlainMemory", "Program"]

Fault = PageFault | GeneralProtection

TEXT = Rights(user=True, execute=True)
DATA = Rights(user=True, write=True)
READ_ONLY = Rights(user=True)
EVERYTHING = Rights(user=True, write=True, execute=True)

RET = b"\xc3"
"""The return instruction: the shortest code that one can inject and come back from."""

MEMORY_BYTES = 16 * MIB


@frozen(kw_only=True)
class Program:
    """An ELF file's three kinds of segment, in bytes of whole pages; `code` begins the text."""

    text: int = 4 * PAGE_BYTES
    data: int = PAGE_BYTES
    bss: int = PAGE_BYTES
    code: bytes = RET

    @property
    def size_bytes(self) -> int:
        """From the first to the last segment."""
        return self.text + self.data + self.bss


class PlainMemory:
    """What a kernel without W^X offers: any rights at any time; without NX, everything that is mapped executes."""

    def __init__(self, memory: PhysicalMemory, name: str, control: ControlState) -> None:
        self.space = AddressSpace(memory, name, control=control)
        self._name = name
        self._memory = memory
        self._pages: dict[int, int] = {}

    def map_segment(self, base: int, data: bytes, rights: Rights, *, owner: str, size_bytes: int) -> None:
        """Map `size_bytes` of fresh frames at `base`, beginning with `data`."""
        pages = size_bytes // PAGE_BYTES
        (extent,) = self._memory.allocate(pages, owner, contiguous=True)
        self._memory.write(extent.first_mpn * PAGE_BYTES, data)
        self.space.map_run(base, extent.first_mpn, pages, self._possible(rights))
        self._pages[base] = pages

    def protect(self, base: int, rights: Rights) -> None:
        """Give the segment at `base` whatever rights are asked for."""
        for page in range(self._pages[base]):
            self.space.protect(base + page * PAGE_BYTES, self._possible(rights))

    def _possible(self, rights: Rights) -> Rights:
        return rights if self.space.control.nxe else evolve(rights, execute=True)


class LabProcess:
    """A process of `release`, placed by `stream`.

    `segments` are the bases of what is mapped, by name: text, data, bss, heap, stack, mapping, vdso, and the library's
    as library.text and so on.
    """

    def __init__(
        self,
        release: ReleaseProfile,
        stream: RandomSource,
        *,
        pie: bool = True,
        threads: int = 0,
        program: Program | None = None,
        library: Program | None = None,
        control: ControlState | None = None,
    ) -> None:
        self.release = release
        self.program = program if program is not None else Program()
        self.library = library if library is not None else Program()
        self.layout = Layout(stream, release.user if pie else without_pie(release.user))
        sizes = ProcessSizes(
            exe=self.program.size_bytes,
            libraries={"library": self.library.size_bytes},
            heap=64 * KIB,
            stack=64 * KIB,
            threads=threads,
            thread_stack=64 * KIB,
            mappings=(PAGE_BYTES,),
        )
        self.map = place_process(self.layout, sizes)
        self.machine = PhysicalMemory(MEMORY_BYTES)
        template = control if control is not None else ControlState(cr3=0)
        self._memory = self._kernel_memory(evolve(template, nxe=release.protection.nx))
        self.segments: dict[str, int] = {}
        self._map_all()

    @property
    def space(self) -> AddressSpace:
        """The page tables."""
        return self._memory.space

    def load(self, va: int, size: int) -> bytes | Fault:
        """Read at CPL 3."""
        return self.space.load(va, size, Access(Kind.READ, user=True))

    def store(self, va: int, data: bytes) -> Fault | None:
        """Write at CPL 3; returns the fault, if any."""
        return self.space.store(va, data, user=True)

    def fetch(self, va: int, size: int = 1) -> bytes | Fault:
        """Return the code at `va` as the processor fetches it at CPL 3, or the fault."""
        outcome = self.space.translate(va, Access(Kind.FETCH, user=True))
        if not isinstance(outcome, Translation):
            return outcome
        return self.machine.read(outcome.pa, min(size, PAGE_BYTES - va % PAGE_BYTES))

    def runs(self, va: int, code: bytes = RET) -> bool:
        """Tell whether a jump to `va` ends in `code` rather than in a fault or in other bytes."""
        return self.fetch(va, len(code)) == code

    def mprotect(self, base: int, rights: Rights) -> bool:
        """Ask the kernel for other rights on the segment at `base`; returns whether it agreed."""
        try:
            self._memory.protect(base, rights)
        except RightsRefused:
            return False
        return True

    def _kernel_memory(self, control: ControlState) -> KernelMemory | PlainMemory:
        if self.release.protection.wx_refused:
            return KernelMemory(Sim(categories=()), self.machine, name="process", control=control)
        return PlainMemory(self.machine, "process", control)

    def _map_all(self) -> None:
        placed = self.map
        self._map_program("", placed.exe.base, self.program)
        self._map_program("library.", placed.libraries[0].base, self.library)
        self._map("vdso", placed.vdso.base, placed.vdso.size_bytes, TEXT, RET)
        for name, region in (
            ("heap", placed.heap),
            ("stack", placed.stack),
            ("mapping", placed.mappings[0]),
            *((each.name, each) for each in placed.thread_stacks),
        ):
            self._map(name, region.base, region.size_bytes, DATA)

    def _map_program(self, prefix: str, base: int, program: Program) -> None:
        self._map(f"{prefix}text", base, program.text, TEXT, program.code)
        self._map(f"{prefix}data", base + program.text, program.data, DATA)
        self._map(f"{prefix}bss", base + program.text + program.data, program.bss, DATA)

    def _map(self, name: str, base: int, size_bytes: int, rights: Rights, data: bytes = b"") -> None:
        self._memory.map_segment(base, data, rights, owner="process", size_bytes=size_bytes)
        self.segments[name] = base
