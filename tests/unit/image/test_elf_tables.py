"""Groups, versions, symbols and sections in tables of ELF files: which are taken, and the words that refuse the others."""

import struct

import attrs
import pytest

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image import elf_versions
from sim.image.elf import ModuleSpec, build_module, build_object, read_elf, read_object
from sim.image.elf_file import ElfFile
from sim.image.elf_versions import VersionReader

SPEC = ModuleSpec(name="driver", version="1.0", data=bytes(40), bss_bytes=100, imports=("vmk_Log",))
MODULE = build_module(SPEC)
TEXT, RODATA, DATA, BSS, TABLE, MODINFO, RELA_DATA, RELA_TABLE, SYMTAB, STRTAB = range(1, 11)
NAME, KIND, FLAGS, OFFSET, SIZE, LINK, INFO, ENTRY = 0, 4, 8, 24, 32, 40, 44, 56
GROUPS = "ELF: section 7: "


def patched(data, *changes):
    changed = bytearray(data)
    for at, layout, *values in changes:
        struct.pack_into("<" + layout, changed, at, *values)
    return bytes(changed)


def said(read, *arguments, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(*arguments)
    assert type(caught.value) is kind
    return str(caught.value)


def grouped(member, size=8):
    """An object with two groups of one signature, the second with one member; relocations of imports are odd."""
    data = build_object(attrs.evolve(SPEC, rodata=struct.pack("<III", 1, 1, member)))
    rows = struct.unpack_from("<Q", data, 40)[0]
    words = struct.unpack_from("<Q", data, rows + 64 * RODATA + OFFSET)[0]
    changes = [(rows + 64 * RELA_TABLE + ENTRY, "Q", 16)]
    for section, offset, length in ((MODINFO, words, 4), (RELA_DATA, words + 4, size)):
        row = rows + 64 * section
        changes.append((row, "IIQQQQIIQQ", 0, f.SHT_GROUP, 0, 0, offset, length, SYMTAB, 5, 4, 4))
    return patched(data, *changes)


@pytest.mark.parametrize("member", [TABLE, RELA_TABLE])
def test_relocations_that_a_group_drops_are_not_looked_at(member):
    module = read_object(grouped(member))
    assert (TABLE in [one.index for one in module.sections]) is (member != TABLE)
    assert said(read_object, grouped(BSS)) == (
        "ELF: section 8: relocations without addend or of another symbol table"
    )


def test_a_group_without_flags_or_with_a_section_that_is_not_there_is_refused():
    for size in (0, 6):
        text = said(read_object, grouped(TABLE, size=size))
        assert text == f"{GROUPS}is no list of a group's sections"
    for member in (0, 12):
        assert said(read_object, grouped(member)) == f"{GROUPS}a group names a section that is not there"


def reader(table):
    return VersionReader(lambda address, size: table[address : address + size], str)


def test_a_definition_of_another_version_or_without_a_name_is_refused():
    name = struct.pack("<II", 5, 0)
    good = reader(struct.pack("<HHHHIII", 1, 0, 2, 1, 0, 20, 0) + name)
    good.definitions(0, 1)
    assert good.defined == ["5"]
    for version, names in ((2, 1), (0, 1), (1, 0)):
        bad = reader(struct.pack("<HHHHIII", version, 0, 2, names, 0, 20, 0) + name)
        text = said(bad.definitions, 0, 1)
        assert text == "ELF: symbol versions: a definition of another kind than version 1"


def test_needs_of_too_many_versions_in_all_are_refused(monkeypatch):
    monkeypatch.setattr(elf_versions, "VERSIONS_MAX", 2)
    entries = struct.pack("<IHHII", 0, 0, 2, 1, 16) + struct.pack("<IHHII", 0, 0, 3, 2, 0)
    need = struct.pack("<HHIII", 1, 2, 9, 16, 48) + entries
    one, two = reader(need), reader(need + need)
    one.needed(0, 1)
    assert [each.version for each in one.needs] == ["1", "2"]
    text = said(two.needed, 0, 2, kind=LimitError)
    assert text == "ELF: symbol versions: more than 2 versions needed"


def test_a_second_section_of_a_name_is_refused():
    data = build_object(SPEC)
    rows = struct.unpack_from("<Q", data, 40)[0]
    name = struct.unpack_from("<I", data, rows + 64 * MODINFO)[0]
    text = said(read_object, patched(data, (rows + 64 * STRTAB, "I", name)))
    assert text == "ELF: sections: expected one section .modinfo with content"


def dynamic(tag):
    at = read_elf(MODULE).segments[2].file_offset
    while struct.unpack_from("<Q", MODULE, at)[0] != tag:
        at += 16
    return at


def value(tag):
    return struct.unpack_from("<Q", MODULE, dynamic(tag) + 8)[0]


def test_bytes_and_tables_in_the_zero_part_of_a_segment_are_refused():
    data = read_elf(MODULE).segments[2]
    end = data.virtual_address + len(data.data)
    assert ElfFile(MODULE).memory(end - 8, 8, "a place") == bytes(8)
    text = said(ElfFile(MODULE).memory, end - 7, 8, "a place")
    assert text == f"ELF: a place: 8 bytes at {end - 7:#x} are not in a segment's file part"
    text = said(read_elf, patched(MODULE, (dynamic(f.DT_HASH) + 8, "Q", end)))
    assert text == f"ELF: hash table: {end:#x} is not in a segment's file part"


def test_a_relocation_of_a_symbol_beyond_the_limit_is_refused():
    relocation = patched(
        MODULE,
        (60, "H", 0),
        (dynamic(f.DT_HASH), "Q", 0x6000000D),
        (value(f.DT_RELA) + 8, "Q", 65536 << 32 | 6),
    )
    assert said(read_elf, relocation, kind=LimitError) == "ELF: symbols: 65537, at most 65536"


@pytest.mark.parametrize(("info", "section"), [(16, f.SHN_ABS), (16, 0), (22, 1)])
def test_the_value_of_a_symbol_without_a_place_may_lie_anywhere(info, section):
    at = value(f.DT_SYMTAB) + 24
    data = patched(MODULE, (at, "IBBHQQ", 0, info, 0, section, 1 << 40, 0))
    assert read_elf(data).symbols[1].value == 1 << 40
    text = said(read_elf, patched(MODULE, (at, "IBBHQQ", 0, 16, 0, 1, 1 << 40, 0)))
    assert text == "ELF: symbols: the value 0x10000000000 lies outside the module"
