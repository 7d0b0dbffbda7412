"""Places a program and the libraries that it needs in a user world, and links them.

Models: the libraries that DT_NEEDED names, found by file name among those that the image brings; one place in the layout
for the program (`exe`) and for each library (`library`); a program of type ET_EXEC at its own fixed address, which the
layout does not choose; relocations by `linkmap`.

Leaves out: search paths, DT_RUNPATH, the interpreter (the kernel's loader links by itself), constructors.

Sources: System V ABI, edition 4.1, chapter 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.image.elf import ElfImage, read_elf
from sim.kernel.layout import Layout
from sim.kernel.linkmap import LinkedObject, LinkMap, LinkObject, load_order

__all__ = ["load_program"]


def load_program(
    layout: Layout, name: str, program: bytes, libraries: Mapping[str, bytes]
) -> tuple[LinkedObject, ...]:
    """Place and link `program` with what it needs of `libraries` (path to bytes); the program comes first.

    Errors: `FormatError`, `LinkError`, `RelocationError`, `LayoutError`; the caller drops the layout then.
    """
    files = {path.rpartition("/")[2]: data for path, data in libraries.items()}
    read: dict[str, ElfImage] = {}

    def find(library: str) -> ElfImage | None:
        if library not in files:
            return None
        if library not in read:
            read[library] = read_elf(files[library])
        return read[library]

    order = load_order(name, read_elf(program), find)
    objects = [
        LinkObject(name=each, image=image, base=_base(layout, "library" if index else "exe", each, image))
        for index, (each, image) in enumerate(order)
    ]
    return LinkMap(objects).linked()


def _base(layout: Layout, kind: str, name: str, image: ElfImage) -> int:
    """Return where the file lies: a place of the layout, or the only address at which it runs."""
    return image.first_page if image.type == "ET_EXEC" else layout.place(kind, image.memory_bytes, name)
