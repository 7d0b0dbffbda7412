"""Files that a loader must not map are refused with a FormatError, and nothing else ever escapes."""

import struct
import tracemalloc
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import elf_format as f
from sim.image.elf import ModuleSpec, Pointer, build_module, read_elf
from sim.image.elf_file import MEMORY_BYTES_MAX, PROGRAM_HEADERS_MAX, SECTIONS_MAX
from sim.image.elf_read import DYNAMIC_ENTRIES_MAX, RELOCATIONS_MAX, SYMBOLS_MAX

SPEC = ModuleSpec(
    name="driver",
    version="1.0",
    text=b"\xc3" * 100,
    rodata=b"r" * 20,
    data=bytes(32),
    bss_bytes=64,
    imports=("vmk_Log",),
    pointers=(Pointer(offset=8, area="text"),),
    version_record=b"V\0",
)
MODULE = build_module(SPEC)
SECTIONS_AT = struct.unpack_from("<Q", MODULE, 40)[0]


def patched(offset: int, layout: str, *values: int) -> bytes:
    changed = bytearray(MODULE)
    struct.pack_into("<" + layout, changed, offset, *values)
    assert changed != MODULE
    return bytes(changed)


def refusal(data: bytes) -> FormatError:
    with pytest.raises(FormatError) as error:
        read_elf(data)
    return error.value


def program(index: int, field: int) -> int:
    """Return the file offset of a field of a program header."""
    return 64 + 56 * index + (0, 4, 8, 16, 24, 32, 40, 48)[field]


def dynamic(tag: int) -> int:
    """Return the file offset of the value of a dynamic entry."""
    at = read_elf(MODULE).segments[2].file_offset
    while struct.unpack_from("<Q", MODULE, at)[0] != tag:
        at += 16
    return at + 8


@pytest.mark.parametrize(
    ("where", "data"),
    [
        ("header", patched(0, "I", 0x7F454C46)),
        ("header", patched(4, "B", 1)),
        ("header", patched(5, "B", 2)),
        ("header", patched(6, "B", 9)),
        ("header", patched(16, "H", 1)),
        ("header", patched(16, "H", 4)),
        ("header", patched(18, "H", 183)),
        ("header", patched(54, "H", 32)),
        ("header", patched(58, "H", 40)),
        ("header", patched(24, "Q", read_elf(MODULE).segments[2].virtual_address)),
        ("header", patched(24, "Q", 2**40)),
        ("program headers", patched(32, "Q", len(MODULE))),
        ("section headers", patched(40, "Q", 2**63)),
    ],
)
def test_a_wrong_header_is_refused(where: str, data: bytes) -> None:
    assert refusal(data).where == where


def test_counts_above_the_limits_are_refused() -> None:
    for data in (
        patched(56, "H", 0),
        patched(56, "H", PROGRAM_HEADERS_MAX + 1),
        patched(60, "H", SECTIONS_MAX + 1),
        patched(62, "H", 99),
        patched(program(2, 6), "Q", MEMORY_BYTES_MAX + 1),
        patched(program(2, 6), "Q", 2**64 - 1),
        patched(program(3, 6), "Q", 16 * DYNAMIC_ENTRIES_MAX + 16),
        patched(dynamic(f.DT_RELASZ), "Q", 24 * RELOCATIONS_MAX + 24),
        patched(
            read_elf(MODULE).segments[0].file_offset
            + struct.unpack_from("<Q", MODULE, dynamic(f.DT_HASH))[0]
            + 4,
            "I",
            SYMBOLS_MAX + 1,
        ),
    ):
        assert isinstance(refusal(data), LimitError)


def test_a_segment_both_writable_and_executable_is_refused() -> None:
    for index in (1, 2):
        assert refusal(patched(program(index, 1), "I", 7)).message == "both writable and executable"


def test_segments_that_overlap_or_share_a_page_are_refused() -> None:
    code = read_elf(MODULE).segments[1]
    for data in (
        patched(program(2, 3), "Q", code.virtual_address),
        patched(program(0, 6), "Q", code.virtual_address + 1),
        patched(program(1, 3), "Q", code.virtual_address + (1 << 20)),
    ):
        assert refusal(data).message == "is out of order, or shares a page with the one before"


def test_segments_outside_the_file_are_refused() -> None:
    assert refusal(patched(program(0, 5), "Q", 4096)).message == "more bytes in the file than in memory"
    assert (
        refusal(patched(program(2, 5), "QQ", 2**30, 2**20)).message
        == "the segments take more bytes from the file than it has"
    )
    assert "beyond the file's end" in refusal(patched(program(1, 2), "Q", 2**30)).message
    assert (
        refusal(patched(program(1, 2), "Q", 4097)).message
        == "the file offset and the address do not agree within a page"
    )
    assert (
        refusal(patched(program(1, 7), "Q", 3)).message
        == "the file offset and the address do not agree within a page"
    )


def test_a_file_without_segments_is_refused() -> None:
    data = bytearray(MODULE)
    for index in range(3):
        struct.pack_into("<I", data, program(index, 0), 4)
    assert refusal(bytes(data)).message == "there is no segment to load"


def test_relocations_outside_writable_memory_are_refused() -> None:
    table = struct.unpack_from("<Q", MODULE, dynamic(f.DT_RELA))[0]
    image = read_elf(MODULE)
    for offset in (image.segments[1].virtual_address, image.segments[2].end - 7, 2**64 - 4):
        assert refusal(patched(table, "Q", offset)).message == "lies outside writable memory"
    assert refusal(patched(table + 8, "Q", 99)).message == "type 99 is not applied"
    for kind in ("COPY", "SIZE32", "SIZE64"):
        changed = patched(table + 8, "Q", f.RELOCATION_TYPES[kind])
        assert refusal(changed).message == f"R_X86_64_{kind} names no symbol"
    assert (
        refusal(patched(table + 8, "Q", 50 << 32 | 1)).message
        == "a relocation names a symbol that is not there"
    )


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (f.DT_RELA, 2**40),
        (f.DT_RELASZ, 25),
        (f.DT_RELAENT, 16),
        (f.DT_SYMTAB, 2**40),
        (f.DT_SYMENT, 16),
        (f.DT_STRTAB, 2**40),
        (f.DT_STRSZ, 1),
        (f.DT_HASH, 2**40),
    ],
)
def test_a_dynamic_table_that_points_outside_is_refused(tag: int, value: int) -> None:
    refusal(patched(dynamic(tag), "Q", value))


def test_relocations_in_code_are_refused() -> None:
    assert (
        refusal(patched(dynamic(f.DT_SONAME) - 8, "Q", f.DT_TEXTREL)).message
        == "relocations in code are not applied"
    )
    flags = patched(dynamic(f.DT_SONAME) - 8, "QQ", f.DT_FLAGS, f.DF_TEXTREL)
    assert refusal(flags).message == "relocations in code are not applied"


def test_a_symbol_outside_the_module_is_refused() -> None:
    table = struct.unpack_from("<Q", MODULE, dynamic(f.DT_SYMTAB))[0]
    changed = bytearray(patched(table + 24 + 6, "H", 3))
    struct.pack_into("<Q", changed, table + 24 + 8, 2**40)
    assert "outside the module" in refusal(bytes(changed)).message


def packed(*words: int) -> bytes:
    """Build a module whose relative relocations stand in a DT_RELR table of these words, kept in its data."""
    spec = attrs.evolve(
        SPEC, pointers=(), imports=(), data=bytes(1024) + struct.pack(f"<{len(words)}Q", *words)
    )
    data = bytearray(build_module(spec))
    writable = read_elf(bytes(data)).segments[2]
    at = writable.file_offset + 6 * 16
    struct.pack_into(
        "<QQQQ", data, at, f.DT_RELR, writable.end - 64 - 8 * len(words), f.DT_RELRSZ, 8 * len(words)
    )
    return bytes(data)


def test_packed_relocations_are_unpacked() -> None:
    base = (read_elf(packed(0x2100, 0b1011)).segments[2].virtual_address + 0xFF) & ~0xFF
    image = read_elf(packed(base, 0b1011, 1 << 2 | 1))
    expected = [base, base + 8, base + 24, base + 8 * (1 + 63) + 8]
    assert [one.offset for one in image.relocations] == expected
    assert {one.kind for one in image.relocations} == {"RELATIVE"}
    assert "packed relocations" in refusal(packed(2**40)).where


def test_two_dynamic_tables_or_relocations_without_addend_are_refused() -> None:
    assert refusal(patched(program(4, 0), "I", 2)).message == "more than one dynamic table"
    assert (
        refusal(patched(dynamic(f.DT_SONAME) - 8, "QQ", f.DT_PLTREL, 17)).message
        == "entries without addend are not used on x86-64"
    )


def test_packed_relocations_are_limited_too() -> None:
    words = [0x2100] + [2**64 - 1] * (RELOCATIONS_MAX // 63 + 1)
    assert isinstance(refusal(packed(*words)), LimitError)
    assert not isinstance(refusal(packed(*words[:-2])), LimitError)


def test_a_module_without_sections_still_loads() -> None:
    stripped = read_elf(patched(60, "HH", 0, 0))
    whole = read_elf(MODULE)
    assert (stripped.segments[1:], stripped.symbols) == (whole.segments[1:], whole.symbols)
    assert stripped.relocations == whole.relocations
    assert (stripped.modinfo, stripped.version_record) == ((), b"")


def test_sections_that_lie_are_refused() -> None:
    names = [one for one in range(13) if MODULE[SECTIONS_AT + 64 * one + 4] == f.SHT_PROGBITS]
    modinfo = SECTIONS_AT + 64 * names[0]
    assert refusal(patched(modinfo + 4, "I", f.SHT_NOBITS)).where == "sections"
    assert refusal(patched(modinfo + 24, "Q", 2**62)).where == "sections"
    assert isinstance(refusal(patched(modinfo + 32, "Q", 2**20)), LimitError)
    (offset,) = struct.unpack_from("<Q", MODULE, modinfo + 24)
    assert refusal(patched(offset + 4, "B", 0x20)).where == ".modinfo"
    assert refusal(patched(offset + 5, "B", 0xFF)).where == ".modinfo"


def test_every_truncation_is_refused() -> None:
    for length in range(0, len(MODULE), 17):
        refusal(MODULE[:length])


def test_a_small_file_cannot_make_the_reader_large() -> None:
    header = bytearray(MODULE[:64])
    struct.pack_into("<H", header, 56, 60)
    struct.pack_into("<HH", header, 60, 0, 0)
    rows = b"".join(f.PROGRAM_HEADER.pack(1, 4, 0, n << 21, 0, 1 << 20, 1 << 20, 4096) for n in range(60))
    bomb = (bytes(header) + rows).ljust(1 << 20, b"\0")
    tracemalloc.start()
    message = refusal(bomb).message
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "than it has" in message
    assert peak < 1 << 20


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(MODULE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_mutants_are_read_or_refused_and_never_writable_and_executable(
    changes: list[tuple[int, int]], near: bool
) -> None:
    mutant = bytearray(MODULE)
    for at, value in changes:
        mutant[at % 1024 if near else at] = value
    try:
        image = read_elf(bytes(mutant))
    except FormatError:
        return
    assert not any(segment.writable and segment.executable for segment in image.segments)
    for before, after in pairwise(image.segments):
        assert after.virtual_address // 4096 > (before.end - 1) // 4096
    writable = [segment for segment in image.segments if segment.writable]
    for one in image.relocations:
        assert any(segment.virtual_address <= one.offset < segment.end for segment in writable)


@given(st.binary(max_size=300))
def test_junk_is_refused(data: bytes) -> None:
    refusal(data)
    refusal(f.MAGIC + data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (patched(4, "B", 1), "header: expected an ELF file of 64 bits, little-endian, version 1"),
        (patched(56, "H", 0), "header: 0 program headers, wanted 1 to 64"),
        (patched(56, "H", 65), "header: 65 program headers, wanted 1 to 64"),
        (patched(60, "H", 4097), "header: 4097 sections, at most 4096, names in 13"),
        (patched(54, "H", 32), "header: table entries of another size than ELF64 has"),
        (patched(18, "H", 183), "header: expected ET_EXEC or ET_DYN for x86-64, found type 3, machine 183"),
        (patched(24, "Q", 2**40), "header: the entry point lies in no code"),
        (patched(dynamic(f.DT_RELASZ), "Q", 25), "relocations: 25 bytes are no whole number of entries"),
        (patched(dynamic(f.DT_RELAENT), "Q", 16), "relocations: entries of another size than ELF64 has"),
        (patched(dynamic(f.DT_SYMENT), "Q", 16), "symbols: entries of another size than ELF64 has"),
        (patched(dynamic(f.DT_HASH), "Q", 2**40), f"hash table: {2**40:#x} is not in a segment's file part"),
        (patched(dynamic(f.DT_STRTAB), "Q", 2**40), f"symbol names: 16 bytes at {2**40:#x} are not in a segment's file part"),
        (patched(dynamic(f.DT_SYMTAB), "Q", 2**40), f"symbols: 48 bytes at {2**40:#x} are not in a segment's file part"),
        (patched(dynamic(f.DT_RELASZ), "Q", 24 * RELOCATIONS_MAX + 24), "relocations: more than 262144"),
        (patched(program(3, 6), "Q", 16 * DYNAMIC_ENTRIES_MAX + 16), "dynamic table: more than 1024 entries"),
        (patched(program(2, 6), "Q", MEMORY_BYTES_MAX + 1),
         "program headers: more than 134217728 bytes in memory below 2**47"),
        (MODULE[:60], "file: the file ends inside one of its tables"),
    ],
)  # fmt: skip
def test_a_module_is_refused_by_place_and_reason(data: bytes, words: str) -> None:
    assert str(refusal(data)) == f"ELF: {words}"
