"""Links one relocatable object with GNU ld at the addresses that our layout chose, and relocates it ourselves there.

ld gets a script with one output section for each section of the object, so that nothing of its own placement is left;
`--no-relax` keeps it from rewriting loads through the GOT.  The order of GOT slots is free: ours takes the one that ld
chose, and no linkage table is needed, since all calls reach.  What remains to compare is every byte of every section and of the table.
"""

import struct
import subprocess
from pathlib import Path

import attrs

from sim.image import elf_format as f
from sim.image.elf import read_object
from sim.kernel.object_layout import ObjectLayout
from sim.kernel.object_relocation import GOT_SLOT_BYTES, ObjectPlaces, Tables, relocate_object

BASE_ONLY = ("GOTOFF64", "GOTPC32", "GOTPC64")
NOT_OURS = (".eh_frame", ".note.gnu.property")
"""Sections that ld rewrites on its own; the objects are compiled without them."""


@attrs.frozen(kw_only=True)
class Pair:
    """The same sections by name, as ld and as we relocate them, and the object that they come from."""

    theirs: dict[str, bytes]
    ours: dict[str, bytes]
    image: object


def compiled(compiler: str, source: str, options: list[str], folder: Path, suffix: str = ".c") -> Path:
    """Compile or assemble to a relocatable object."""
    path = folder / f"module{suffix}"
    path.write_text(source)
    made = folder / "module.o"
    subprocess.run(
        [compiler, "-O1", "-fno-asynchronous-unwind-tables", *options, "-c", "-o", str(made), str(path)],
        check=True,
    )
    return made


def linked_both_ways(
    ld: str, path: Path, bases: dict[str, int], symbols: dict[str, int], got_at: int
) -> Pair:
    """Relocate the object at `bases` (of text, rodata, data) with `symbols` defined elsewhere, ourselves and by ld."""
    module = read_object(path.read_bytes())
    assert not [section.name for section in module.sections if section.name in NOT_OURS]
    plan = ObjectLayout(module)
    places = plan.places(bases)
    output = path.with_suffix(".ld.out")
    run_ld(ld, path, output, script(module, places, got_at), symbols)
    table = dict(defined(output))
    content = sections_of(output)
    commons = {
        index: table[symbol.name]
        for index, symbol in enumerate(module.symbols)
        if symbol.section == f.SHN_COMMON
    }
    places = ObjectPlaces(
        sections=places.sections,
        commons=commons,
        got=0,
        plt=places.plt,
        got_symbol=table.get("_GLOBAL_OFFSET_TABLE_", 0),
    )
    through = [each for section in module.sections for each in section.relocations if "GOT" in each.kind]
    loaded = tuple(
        one
        for one in plan.tables.slots
        if any(each.symbol == one and each.kind not in BASE_ONLY for each in through)
    )
    slots = slot_order(module, places, symbols, content.get(".got", (0, b"")), loaded)
    places = attrs.evolve(places, got=slots[1])
    tables = Tables(slots=slots[0], entries=())
    made = relocate_object(
        module, places, lambda name: ("ld", symbols[name]) if name in symbols else None, tables=tables
    )
    ours = {f".s{index}": data for index, data in made.sections.items()}
    theirs = {name: data for name, (_, data) in content.items() if name in ours}
    if slots[0]:
        start, data = content[".got"]
        at = slots[1] - start
        theirs[".got"], ours[".got"] = data[at : at + len(made.got)], made.got
    return Pair(theirs=theirs, ours=ours, image=module)


def script(module, places, got_at: int) -> str:
    rows = [
        f".s{section.index} {places.sections[section.index]:#x} : {{ KEEP(*({section.name})) }}"
        for section in sorted(module.sections, key=lambda one: places.sections[one.index])
        if section.size_bytes
    ]
    common = max(places.commons.values(), default=got_at + 0x1000) & ~63
    rows += [f".common {common + 0x10000:#x} : {{ *(COMMON) }}"]
    rows += [f".got {got_at:#x} : {{ *(.got.plt) *(.got) }}"]
    return "SECTIONS {\n" + "\n".join(rows) + "\n/DISCARD/ : { *(.comment) *(.note*) *(.eh_frame) }\n}\n"


def run_ld(ld: str, path: Path, output: Path, text: str, symbols: dict[str, int]) -> None:
    place = path.with_suffix(".lds")
    place.write_text(text)
    command = [ld, "-static", "--no-relax", "-z", "norelro", "-z", "noexecstack", "-T", str(place)]
    command += ["-e", "0", "--no-warn-rwx-segments", "-o", str(output), str(path)]
    command += [f"--defsym={name}={value:#x}" for name, value in symbols.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def section_rows(path: Path):
    data = path.read_bytes()
    header = f.HEADER.unpack_from(data)
    rows = [f.SECTION_HEADER.unpack_from(data, header[6] + 64 * number) for number in range(header[12])]
    names = data[rows[header[13]][4] :]
    for row in rows:
        yield names[row[0] : names.index(b"\0", row[0])].decode(), row, data[row[4] : row[4] + row[5]]


def sections_of(path: Path) -> dict[str, tuple[int, bytes]]:
    """Address and bytes of each section with content."""
    return {name: (row[3], data) for name, row, data in section_rows(path) if row[1] not in (0, f.SHT_NOBITS)}


def defined(path: Path):
    """Name and value of each symbol of the linked file."""
    rows = list(section_rows(path))
    names = next(data for name, _, data in rows if name == ".strtab")
    table = next(data for name, _, data in rows if name == ".symtab")
    for name_at, _, _, section, value, _ in f.SYMBOL.iter_unpack(table):
        if section:
            yield names[name_at : names.index(b"\0", name_at)].decode(), value


def slot_order(module, places, symbols, got, loaded):
    """The symbols (by index) that are loaded through the GOT in the order of ld's slots, and where the first is."""
    if not loaded:
        return (), 0
    start, data = got
    wanted = {address_of(module, places, symbols, index): index for index in loaded}
    words = [word for (word,) in struct.iter_unpack("<Q", data)]
    assert len(wanted) == len(loaded)
    first = next(at for at in range(len(words)) if {*words[at : at + len(wanted)]} == {*wanted})
    order = tuple(wanted[word] for word in words[first : first + len(wanted)])
    return order, start + GOT_SLOT_BYTES * first


def address_of(module, places, symbols, index: int) -> int:
    symbol = module.symbols[index]
    if not symbol.defined:
        return symbols.get(symbol.name, 0)
    if symbol.section == f.SHN_COMMON:
        return places.commons[index]
    return places.sections[symbol.section] + symbol.value
