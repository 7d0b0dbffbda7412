"""The layout of one process: program, libraries, heap, vDSO, main stack with what lies on it, threads' stacks.

Models: the order in which a kernel's exec places things; the heap's start and the stack pointer, which lie below the
page at 16-byte steps; arguments at the top of the stack; one stack for each thread among the mappings.

Leaves out: environment and auxiliary vector apart from the arguments (one block), and growing of heap and stack (they
are placed at their full size).

Sources: System V ABI AMD64 supplement, figure 3.9 (initial process stack); sizes are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from sim.core.facts import Kind, fact
from sim.core.units import GIB, KIB, MIB, PAGE_BYTES
from sim.kernel.layout.entropy import Draw, Spread, spread_of
from sim.kernel.layout.space import Layout, Region, draws_of
from sim.kernel.layout.windows import LayoutProfile, Offset

__all__ = ["Place", "ProcessMap", "ProcessSizes", "place_process", "process_places", "without_pie"]

_GUESS = "the order of magnitude of small server processes"
VDSO_BYTES = fact(
    "layout.vdso_bytes",
    2 * PAGE_BYTES,
    unit="byte",
    source="Linux x86-64, two pages of code",
    kind="measured",
)
ARGUMENT_BYTES = fact("layout.argument_bytes", 3 * PAGE_BYTES, unit="byte", source=_GUESS, kind="assumed")
LINKED_BASE = fact(
    "layout.linked_base",
    0x40_0000,
    unit="address",
    source="GNU ld, default text segment of x86-64 ET_EXEC",
    kind="vendor",
)


@frozen(kw_only=True)
class ProcessSizes:
    """Bytes of each part of a process; `mappings` are those of anonymous mappings."""

    exe: int = 64 * KIB
    libraries: Mapping[str, int] = field(factory=lambda: {"libc.so.6": 2 * MIB})
    heap: int = MIB
    stack: int = 256 * KIB
    threads: int = 0
    thread_stack: int = 256 * KIB
    arguments: int = ARGUMENT_BYTES.value
    mappings: Sequence[int] = ()


@frozen(kw_only=True)
class Place:
    """An address inside a region that has draws of its own: stack pointer, heap start, arguments."""

    name: str
    address: int
    draws: tuple[Draw, ...] = field(repr=False)
    evidence: Kind = "assumed"

    @property
    def spread(self) -> Spread:
        """The distribution of the address."""
        return spread_of(self.draws)


@frozen(kw_only=True)
class ProcessMap:
    """Where all parts of a process lie."""

    exe: Region
    libraries: tuple[Region, ...]
    heap: Region
    vdso: Region
    stack: Region
    mappings: tuple[Region, ...]
    thread_stacks: tuple[Region, ...]
    heap_start: Place
    stack_pointer: Place
    arguments: Place

    @property
    def places(self) -> tuple[Place, ...]:
        """The addresses that have draws of their own."""
        return (self.heap_start, self.stack_pointer, self.arguments)


def place_process(layout: Layout, sizes: ProcessSizes | None = None) -> ProcessMap:
    """Lay out a process in an empty `layout`.

    Errors: `LayoutError` when a part has no room.
    """
    sizes = sizes if sizes is not None else ProcessSizes()

    def put(kind: str, size_bytes: int, name: str) -> Region:
        return layout.place_region(kind, size_bytes, name)

    exe = put("exe", sizes.exe, "program")
    stack = put("stack", sizes.stack, "main stack")
    vdso = put("vdso", VDSO_BYTES.value, "vdso")
    libraries = tuple(put("library", size, name) for name, size in sizes.libraries.items())
    heap = put("heap", sizes.heap, "heap")
    mappings = tuple(put("mmap", size, f"mapping {number}") for number, size in enumerate(sizes.mappings))
    threads = tuple(
        put("thread-stack", sizes.thread_stack, f"thread {number}") for number in range(1, sizes.threads + 1)
    )
    heap_start, stack_pointer, arguments = process_places(layout, heap, stack, sizes.arguments)
    return ProcessMap(
        exe=exe,
        libraries=libraries,
        heap=heap,
        vdso=vdso,
        stack=stack,
        mappings=mappings,
        thread_stacks=threads,
        heap_start=heap_start,
        stack_pointer=stack_pointer,
        arguments=arguments,
    )


def process_places(
    layout: Layout, heap: Region, stack: Region, argument_bytes: int = ARGUMENT_BYTES.value
) -> tuple[Place, Place, Place]:
    """Draw the heap's start, the stack pointer and the address of the arguments, which lie at offsets below a page."""
    profile = layout.profile
    top = stack.end - argument_bytes
    return (
        _place(layout, "heap start", profile.heap_start, heap, heap.base),
        _place(layout, "stack pointer", profile.stack_pointer, stack, top - PAGE_BYTES, sign=-1),
        _place(layout, "arguments", profile.arguments, stack, top, sign=-1),
    )


def without_pie(profile: LayoutProfile) -> LayoutProfile:
    """Return the profile for a program of type ET_EXEC: it lies where it was linked, and the heap behind it."""
    windows = []
    for window in profile.windows:
        moved = window
        if window.kind == "exe":
            moved = evolve(window, base=LINKED_BASE.value, span_bytes=GIB, method="first", offsets=())
        elif window.follows == "exe":
            span = sum(offset.slots * offset.step_bytes for offset in window.offsets) + 64 * GIB
            moved = evolve(window, base=LINKED_BASE.value, span_bytes=span)
        windows.append(moved)
    return evolve(profile, name=f"{profile.name} (ET_EXEC)", windows=tuple(windows))


def _place(
    layout: Layout, name: str, offsets: tuple[Offset, ...], region: Region, start: int, *, sign: int = 1
) -> Place:
    return Place(
        name=name,
        address=start + sign * layout.displacement(name, offsets),
        draws=(*region.draws, *draws_of(name, offsets)),
        evidence=offsets[0].evidence if offsets else layout.profile.window(region.kind).evidence,
    )
