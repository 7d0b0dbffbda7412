"""The last byte and the last number that readers of ELF files take, and the words with which they refuse the next."""

import struct

import pytest

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image import elf_object, elf_read
from sim.image.elf import ModuleSpec, build_module, build_object, read_elf, read_module, read_object
from sim.image.elf_file import MEMORY_BYTES_MAX, THREAD_BYTES_MAX

SPEC = ModuleSpec(
    name="driver",
    version="1.0",
    rodata=b"constant\0",
    data=bytes(40),
    bss_bytes=100,
    imports=("vmk_Log",),
    needed=("one", "two"),
)
MODULE, OBJECT = build_module(SPEC), build_object(SPEC)
TEXT, RODATA, DATA, BSS, TABLE, MODINFO, RELA_DATA, RELA_TABLE, SYMTAB, STRTAB = range(1, 11)
NAME, KIND, FLAGS, OFFSET, SIZE, LINK, INFO, ENTRY = 0, 4, 8, 24, 32, 40, 44, 56


def patched(data, *changes):
    changed = bytearray(data)
    for at, layout, *values in changes:
        struct.pack_into("<" + layout, changed, at, *values)
    return bytes(changed)


def said(read, data, kind=FormatError):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert type(caught.value) is kind
    return str(caught.value)


def row(section, field):
    return struct.unpack_from("<Q", OBJECT, 40)[0] + 64 * section + field


def symbol(number):
    return struct.unpack_from("<Q", OBJECT, row(SYMTAB, OFFSET))[0] + 24 * number


def program(index, kind, **fields):
    """Changes that make a program header one of another kind."""
    places = {"flags": 4, "offset": 8, "address": 16, "file": 32, "memory": 40, "alignment": 48}
    at = 64 + 56 * index
    yield at, "I", kind
    for name, value in fields.items():
        yield at + places[name], "I" if name == "flags" else "Q", value


def test_a_file_is_read_by_its_type_and_refused_in_its_readers_words():
    assert read_module(MODULE).type == "ET_DYN"
    assert read_module(OBJECT).type == "ET_REL"
    assert said(read_module, patched(OBJECT, (18, "H", 3))) == (
        "ELF: header: expected ET_REL for x86-64, found type 1, machine 3"
    )
    assert said(read_module, patched(MODULE, (18, "H", 3))) == (
        "ELF: header: expected ET_EXEC or ET_DYN for x86-64, found type 3, machine 3"
    )


@pytest.mark.parametrize(
    ("module", "read", "data"), [(elf_read, read_elf, MODULE), (elf_object, read_object, OBJECT)]
)
def test_a_file_of_one_byte_too_many_is_refused(module, read, data, monkeypatch):
    monkeypatch.setattr(module, "FILE_BYTES_MAX", len(data))
    assert read(data)
    text = said(read, data + b"\0", kind=LimitError)
    assert text == f"ELF: file: {len(data) + 1} bytes, at most {len(data)} are read"


def test_a_library_too_many_is_refused(monkeypatch):
    monkeypatch.setattr(elf_read, "LIBRARIES_MAX", 2)
    assert read_elf(MODULE).linking.needed == ("one", "two")
    monkeypatch.setattr(elf_read, "LIBRARIES_MAX", 1)
    assert said(read_elf, MODULE, kind=LimitError) == "ELF: dynamic table: more than 1 libraries needed"


def test_a_relocation_too_many_of_an_object_is_refused(monkeypatch):
    monkeypatch.setattr(elf_object, "RELOCATIONS_MAX", 1)
    assert read_object(OBJECT).imports == ("vmk_Log",)
    monkeypatch.setattr(elf_object, "RELOCATIONS_MAX", 0)
    assert said(read_object, OBJECT, kind=LimitError) == "ELF: relocations: more than 0"


def test_a_section_too_large_or_without_a_name_is_refused():
    large = MEMORY_BYTES_MAX + 1
    text = said(read_object, patched(OBJECT, (row(BSS, SIZE), "Q", large)), kind=LimitError)
    assert text == f"ELF: section {BSS}: {large} bytes, at most {MEMORY_BYTES_MAX}"
    text = said(read_object, patched(OBJECT, (row(TEXT, NAME), "I", 0xFFFF)))
    assert text == "ELF: section names: no name of at most 1024 bytes at 0xffff"


@pytest.mark.parametrize("alignment", [0, 3, 8192])
def test_a_common_symbol_has_a_power_of_two_up_to_a_page_as_its_alignment(alignment):
    data = patched(OBJECT, (symbol(5), "IBBHQQ", 0, 16, 0, f.SHN_COMMON, alignment, 8))
    assert said(read_object, data) == f"ELF: symbols: a common symbol of alignment {alignment}"


def test_a_symbol_without_a_section_may_have_any_value_and_any_size():
    for section in (f.SHN_UNDEF, f.SHN_ABS):
        data = patched(OBJECT, (symbol(5), "IBBHQQ", 0, 16, 0, section, 1 << 40, 1 << 40))
        assert (read_object(data).symbols[5].value, read_object(data).symbols[5].size_bytes) == (1 << 40,) * 2
    data = patched(OBJECT, (symbol(5), "IBBHQQ", 0, 16, 0, f.SHN_COMMON, 4096, MEMORY_BYTES_MAX))
    assert read_object(data).symbols[5].value == 4096


def test_names_of_symbols_lie_in_a_string_table_that_is_there():
    for link in (12, 0xFFFF, TEXT):
        data = patched(OBJECT, (row(SYMTAB, LINK), "I", link))
        assert said(read_object, data) == "ELF: symbols: their names are in no string table"


@pytest.mark.parametrize("target", [0, 12, 0xFFFF])
def test_relocations_of_no_section_are_refused(target):
    data = patched(OBJECT, (row(RELA_TABLE, INFO), "I", target))
    text = f"ELF: section {RELA_TABLE}: relocations of a section that is not there"
    assert said(read_object, data) == text


def test_relocations_of_another_entry_size_are_refused():
    data = patched(OBJECT, (row(RELA_TABLE, ENTRY), "Q", 16))
    text = f"ELF: section {RELA_TABLE}: relocations without addend or of another symbol table"
    assert said(read_object, data) == text


def test_relocations_of_a_section_that_is_not_loaded_are_passed_over():
    data = patched(OBJECT, (row(RELA_TABLE, INFO), "I", STRTAB), (row(RELA_TABLE, ENTRY), "Q", 16))
    assert not any(section.relocations for section in read_object(data).sections)


STACK = 4
DATA_SEGMENT = read_elf(MODULE).segments[2]


def test_one_path_of_an_interpreter_is_read_and_no_other_text():
    at = MODULE.index(b"constant\0")
    one = tuple(program(STACK, f.PT_INTERP, offset=at, file=9))
    assert read_elf(patched(MODULE, *one)).linking.interpreter == "constant"
    for text in (b"const\xffnt\0", b"const\0nt\0", b"constants"):
        changed = patched(MODULE, *one, (at, "9s", text))
        assert said(read_elf, changed) == "ELF: interpreter: expected ASCII text with one NUL at its end"
    two = patched(MODULE, *one, *program(3, f.PT_INTERP, offset=at, file=9))
    assert said(read_elf, two) == "ELF: interpreter: expected one path of 1 to 4095 characters"


def test_one_range_in_a_writable_segment_becomes_read_only():
    start = DATA_SEGMENT.virtual_address
    one = tuple(program(STACK, f.PT_GNU_RELRO, address=start, memory=16))
    assert read_elf(patched(MODULE, *one)).linking.relro == (start, start + 16)
    assert read_elf(patched(MODULE, *program(STACK, f.PT_GNU_RELRO, memory=0))).linking.relro is None
    for changes in (
        (*one, *program(3, f.PT_GNU_RELRO, address=start, memory=16)),
        tuple(program(STACK, f.PT_GNU_RELRO, address=1 << 40, memory=16)),
        tuple(program(STACK, f.PT_GNU_RELRO, address=0, memory=16)),
    ):
        text = said(read_elf, patched(MODULE, *changes))
        assert text == "ELF: relro: expected one range in a writable segment"


def test_one_block_of_thread_storage_is_read():
    one = tuple(program(STACK, f.PT_TLS, file=0, memory=16, alignment=8))
    assert read_elf(patched(MODULE, *one)).linking.thread_storage.memory_bytes == 16
    two = patched(MODULE, *one, *program(3, f.PT_TLS, file=0, memory=16, alignment=8))
    text = f"ELF: thread storage: expected one block of at most {THREAD_BYTES_MAX} bytes"
    assert said(read_elf, two) == text


def test_a_segment_at_the_end_of_the_addresses_is_refused():
    high = (1 << 47) - 4096
    changes = [
        (
            64 + 56 * index + 16,
            "Q",
            high - 8192 * (2 - index) + struct.unpack_from("<Q", MODULE, 72 + 56 * index)[0] % 4096,
        )
        for index in range(3)
    ]
    data = patched(MODULE, *changes, (64 + 56 * 2 + 40, "Q", 8192))
    text = f"ELF: program headers: more than {MEMORY_BYTES_MAX} bytes in memory below 2**47"
    assert said(read_elf, data, kind=LimitError) == text
