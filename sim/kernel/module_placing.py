"""Places a kernel module at random and relocates it: what is to be mapped, and where.

Models: a shared object at one random base, since its segments keep their distances; a relocatable object in up to three
regions of their own (code, constants, data), each at a random base in its own window; entry and exit functions by
name; giving the regions back when anything fails.

Leaves out: mapping, which is the loader's.  A program (ET_EXEC) has no place in the kernel and is refused.

Sources: the names of the entry and exit functions are those of VMkernel and Linux modules.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from sim.errors import FormatError, VmksimError
from sim.image.elf import ElfImage, ElfObject, read_module
from sim.kernel.layout import Layout
from sim.kernel.object_layout import ObjectLayout
from sim.kernel.object_relocation import relocate_object
from sim.kernel.relocation import FindSymbol, relocate
from sim.kernel.segment_buffers import RelocatedSegment, RelocationError

__all__ = ["ENTRY_NAME", "EXIT_NAME", "ModuleImage", "PlacedModule", "place_module", "read_kernel_module"]

ENTRY_NAME, EXIT_NAME = "init_module", "cleanup_module"

ModuleImage = ElfImage | ElfObject


@frozen(kw_only=True)
class PlacedModule:
    """A module ready to be mapped; `regions` are the bases that the layout gave, `base` the first of them.

    `entry` and `exit_entry` are addresses, 0 for none.
    """

    base: int
    size_bytes: int
    regions: tuple[int, ...]
    entry: int
    exit_entry: int
    segments: tuple[RelocatedSegment, ...]
    exports: Mapping[str, int] = field(repr=False)
    providers: tuple[str, ...]
    unresolved: tuple[str, ...]


def read_kernel_module(data: bytes) -> ModuleImage:
    """Read a module's file; raises FormatError, also for a program and for thread-local storage (`RelocationError`)."""
    image = read_module(data)
    if image.type == "ET_EXEC":
        raise FormatError("ELF", "header", "a program with fixed addresses is no kernel module")
    if image.has_thread_storage:
        raise RelocationError("module.tls", "thread-local storage has no meaning in the kernel")
    return image


def place_module(
    layout: Layout,
    name: str,
    image: ModuleImage,
    find: FindSymbol,
    *,
    kind: str = "module",
    strict: bool = True,
) -> PlacedModule:
    """Place and relocate a module in windows of `kind`; raises `VmksimError`, and then holds no region."""
    regions: list[int] = []
    try:
        if isinstance(image, ElfObject):
            return _place_object(layout, name, image, find, regions, kind=kind, strict=strict)
        regions.append(layout.place(kind, image.memory_bytes, name))
        made = relocate(image, regions[0], find, strict=strict)
    except VmksimError:
        for base in regions:
            layout.release(base)
        raise
    return PlacedModule(
        base=regions[0],
        size_bytes=image.memory_bytes,
        regions=tuple(regions),
        entry=made.entry,
        exit_entry=made.exports.get(EXIT_NAME, 0),
        segments=made.segments,
        exports=made.exports,
        providers=made.providers,
        unresolved=made.unresolved,
    )


def _place_object(
    layout: Layout,
    name: str,
    module: ElfObject,
    find: FindSymbol,
    regions: list[int],
    *,
    kind: str,
    strict: bool,
) -> PlacedModule:
    plan = ObjectLayout(module)
    bases = {}
    for area in plan.areas:
        bases[area.name] = layout.place(f"{kind}.{area.name}", area.size_bytes, name)
        regions.append(bases[area.name])
    made = relocate_object(module, plan.places(bases), find, tables=plan.tables, strict=strict)
    return PlacedModule(
        base=regions[0],
        size_bytes=plan.memory_bytes,
        regions=tuple(regions),
        entry=made.exports.get(ENTRY_NAME, 0),
        exit_entry=made.exports.get(EXIT_NAME, 0),
        segments=plan.segments(bases, made),
        exports=made.exports,
        providers=made.providers,
        unresolved=made.unresolved,
    )
